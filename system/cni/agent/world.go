//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/racklet/racklet/system/cni/policy"
	"github.com/racklet/racklet/system/enroll/api"
)

// world is what the API server says of pods, namespaces and policies. It is kept
// in a file as well, so that an agent that starts while the API server is
// away knows what the last one knew.
type world struct {
	file string

	mu      sync.Mutex
	Objects map[string]map[string]json.RawMessage `json:"objects"` // by kind, then namespace/name
	synced  map[string]bool
	recent  chan struct{} // something changed
}

// Kinds that are followed, by their path.
var kinds = map[string]string{"pods": "/api/v1/pods", "namespaces": "/api/v1/namespaces", "networkpolicies": "/apis/networking.k8s.io/v1/networkpolicies"}

func openWorld(file string) *world {
	w := &world{file: file, Objects: map[string]map[string]json.RawMessage{}, synced: map[string]bool{}, recent: make(chan struct{}, 1)}
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, w) == nil {
		for kind := range kinds {
			w.synced[kind] = w.Objects[kind] != nil
		}
	}
	for kind := range kinds {
		if w.Objects[kind] == nil {
			w.Objects[kind] = map[string]json.RawMessage{}
		}
	}
	return w
}

func (w *world) tell() {
	select {
	case w.recent <- struct{}{}:
	default:
	}
}

// complete reports whether each kind was listed once.
func (w *world) complete() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind := range kinds {
		if !w.synced[kind] {
			return false
		}
	}
	return true
}

func (w *world) save() {
	w.mu.Lock()
	b, err := json.Marshal(w)
	w.mu.Unlock()
	if err == nil && os.WriteFile(w.file+".new", b, 0o600) == nil {
		_ = os.Rename(w.file+".new", w.file) // the next change tries again
	}
}

// meta is what every object has.
type meta struct {
	Metadata struct {
		Namespace       string            `json:"namespace"`
		Name            string            `json:"name"`
		Labels          map[string]string `json:"labels"`
		ResourceVersion string            `json:"resourceVersion"`
	} `json:"metadata"`
}

func (m *meta) key() string { return m.Metadata.Namespace + "/" + m.Metadata.Name }

// pod is what matters of one.
type pod struct {
	meta
	Spec struct {
		HostNetwork bool        `json:"hostNetwork"`
		Containers  []container `json:"containers"`
		// Sidecars are init containers that stay.
		InitContainers []container `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		PodIPs []struct {
			IP netip.Addr `json:"ip"`
		} `json:"podIPs"`
	} `json:"status"`
}

type container struct {
	Ports []struct {
		Name          string `json:"name"`
		Protocol      string `json:"protocol"`
		ContainerPort uint16 `json:"containerPort"`
	} `json:"ports"`
}

// slim is an object without what does not matter here.
func slim(kind string, raw json.RawMessage) (key string, out json.RawMessage, err error) {
	var v interface{ key() string }
	switch kind {
	case "pods":
		v = new(pod)
	case "namespaces":
		v = new(meta)
	default: // policies are kept as they are
		m := new(meta)
		if err := json.Unmarshal(raw, m); err != nil {
			return "", nil, err
		}
		return m.key(), raw, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return "", nil, err
	}
	out, err = json.Marshal(v)
	return v.key(), out, err
}

// view is the world as policies see it. A policy that cannot be read shuts what it
// selects as far as it can be read, or else is left out with an error.
func (w *world) view() (*policy.World, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &policy.World{Namespaces: map[string]map[string]string{}}
	var errs []error
	for _, raw := range w.Objects["namespaces"] {
		var m meta
		if err := json.Unmarshal(raw, &m); err != nil {
			errs = append(errs, err)
			continue
		}
		out.Namespaces[m.Metadata.Name] = m.Metadata.Labels
	}
	for _, raw := range w.Objects["pods"] {
		var p pod
		if err := json.Unmarshal(raw, &p); err != nil {
			errs = append(errs, err)
			continue
		}
		if p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
			continue
		}
		one := policy.Pod{Namespace: p.Metadata.Namespace, Name: p.Metadata.Name, Labels: p.Metadata.Labels}
		if !p.Spec.HostNetwork {
			for _, a := range p.Status.PodIPs {
				one.Addresses = append(one.Addresses, a.IP)
			}
		}
		for _, c := range append(slices.Clone(p.Spec.Containers), p.Spec.InitContainers...) {
			for _, n := range c.Ports {
				if n.Name != "" {
					one.Ports = append(one.Ports, policy.NamedPort{Name: n.Name, Protocol: n.Protocol, Number: n.ContainerPort})
				}
			}
		}
		out.Pods = append(out.Pods, one)
	}
	for key, raw := range w.Objects["networkpolicies"] {
		var p policy.Policy
		if err := json.Unmarshal(raw, &p); err != nil {
			errs = append(errs, fmt.Errorf("policy %s: %w", key, err))
			p = shutting(raw)
		}
		out.Policies = append(out.Policies, p)
	}
	slices.SortFunc(out.Pods, func(a, b policy.Pod) int {
		return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
	})
	slices.SortFunc(out.Policies, func(a, b policy.Policy) int {
		return slices.Compare([]string{a.Metadata.Namespace, a.Metadata.Name}, []string{b.Metadata.Namespace, b.Metadata.Name})
	})
	return out, errors.Join(errs...)
}

// shutting is what stands for a policy whose rules cannot be read: it selects
// what that selects and allows nothing.
func shutting(raw json.RawMessage) (p policy.Policy) {
	var q struct {
		Metadata struct{ Namespace, Name string }
		Spec     struct {
			PodSelector policy.Selector `json:"podSelector"`
		}
	}
	_ = json.Unmarshal(raw, &q) // as far as it goes; an empty selector selects all
	p.Metadata.Namespace, p.Metadata.Name = q.Metadata.Namespace, q.Metadata.Name
	p.Spec.PodSelector, p.Spec.PolicyTypes = q.Spec.PodSelector, []string{"Ingress", "Egress"}
	return p
}

// follow keeps the world current until ctx ends, and polices when it changes.
func (a *agent) follow(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for kind, path := range kinds {
		all.Go(func() {
			for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
				start := time.Now()
				err := a.watch(ctx, kind, path)
				if ctx.Err() != nil {
					return
				}
				if time.Since(start) > time.Minute {
					pause = time.Second
				}
				a.log.Debug("watch", "kind", kind, "error", err)
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.world.recent:
		}
		a.police()
		a.world.save()
		select { // a burst is one change
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// watch lists one kind and follows it (Kubernetes API concepts, "Efficient
// detection of changes").
func (a *agent) watch(ctx context.Context, kind, path string) error {
	var cluster api.Cluster
	if err := a.read(api.ClusterFile, &cluster); err != nil {
		return err
	}
	c, err := a.apiServer()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	body, err := get(ctx, c, cluster.Server+path)
	if err != nil {
		return err
	}
	err = json.NewDecoder(io.LimitReader(body, 256<<20)).Decode(&list)
	body.Close()
	if err != nil {
		return fmt.Errorf("list %s: %w", kind, err)
	}
	objects := map[string]json.RawMessage{}
	for _, raw := range list.Items {
		key, small, err := slim(kind, raw)
		if err != nil {
			return fmt.Errorf("list %s: %w", kind, err)
		}
		objects[key] = small
	}
	a.world.mu.Lock()
	a.world.Objects[kind], a.world.synced[kind] = objects, true
	a.world.mu.Unlock()
	a.world.tell()
	q := url.Values{"watch": {"1"}, "resourceVersion": {list.Metadata.ResourceVersion}, "allowWatchBookmarks": {"true"}, "timeoutSeconds": {"300"}}
	if body, err = get(ctx, c, cluster.Server+path+"?"+q.Encode()); err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("watch %s: %w", kind, err)
		}
		if e.Type == "BOOKMARK" {
			continue
		}
		if e.Type != "ADDED" && e.Type != "MODIFIED" && e.Type != "DELETED" {
			return fmt.Errorf("watch %s: %s %.200s", kind, e.Type, e.Object)
		}
		key, small, err := slim(kind, e.Object)
		if err != nil {
			return fmt.Errorf("watch %s: %w", kind, err)
		}
		a.world.mu.Lock()
		if e.Type == "DELETED" {
			delete(a.world.Objects[kind], key)
		} else {
			a.world.Objects[kind][key] = small
		}
		a.world.mu.Unlock()
		a.world.tell()
	}
	return errors.Join(errors.New("the watch ended"), lines.Err())
}

// apiServer is a client with the unit's identity of this moment.
func (a *agent) apiServer() (*http.Client, error) {
	file := func(name string) string { return filepath.Join(a.paths.identity, name) }
	ca, err := os.ReadFile(file(api.CAFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", api.CAFile)
	}
	cert, err := tls.LoadX509KeyPair(file(api.ClientCertFile), file(api.ClientKeyFile))
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{cert}},
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second}}, nil
}

func get(ctx context.Context, c *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp.Body, nil
}
