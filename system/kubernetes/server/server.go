// Package server runs the rack's control plane: a store, API server, controller manager, scheduler
// and the rack's own controller, each a process of the same program that is started again when it
// ends. It writes their configuration, keeps their certificates fresh, and says how they are.
//
//	                    ┌── kine (SQLite) ◄── API server ◄─┬─ controller manager
//	racklet-kube server ┤                        ▲         ├─ scheduler
//	 (supervision, keys)└────────────────────────┘         └─ controller ──► Redfish
//
// It listens on loopback with TLS 1.3 and client certificates, and on a Unix socket for its status.
// How nodes reach it, and it them, is not its affair: the egress socket and the address that is
// advertised belong to the network (system/cni).
package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/racklet/racklet/system/kubernetes/pki"
)

func now() time.Time { return time.Now() }

// Status is what GET /status on the socket answers.
type Status struct {
	Version    string            `json:"version"` // of Kubernetes
	Ready      bool              `json:"ready"`   // all components are
	Address    string            `json:"address"` // of the API server on this host
	Components []ComponentStatus `json:"components"`
}

// A Server is a control plane.
type Server struct {
	Config
	Version string
	Log     io.Writer

	local      netip.AddrPort
	all        []*component
	apiserver  *component
	authorizer string
}

// Run runs the control plane until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Validate(); err != nil {
		return err
	}
	for _, dir := range []string{s.Dir, s.path("log"), s.path("audit"), s.path("config"), s.Sockets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var err error
	if s.local, err = s.chooseAddress(); err != nil {
		return err
	}
	if err := s.renew(); err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	side, stopSide := context.WithCancel(context.WithoutCancel(ctx)) // what components lean on ends after them
	defer stopSide()
	if s.Authorize != "" {
		l, err := s.listenAuthorizer()
		if err != nil {
			return err
		}
		s.authorizer = l.Addr().String()
		all.Go(func() { s.serveAuthorizer(side, l) })
	}
	if err := s.writeFiles(s.local.String(), s.authorizer); err != nil {
		return err
	}
	s.plan()
	listener, err := s.listenStatus()
	if err != nil {
		return err
	}
	all.Go(func() { serve(side, listener, nil, http.HandlerFunc(s.serveStatus)) })

	sup := &supervisor{program: s.Program, logs: s.path("log"), log: s.Log}
	for _, c := range s.all {
		c, own := c, context.Context(nil)
		own, c.stop = context.WithCancel(side)
		all.Go(func() { sup.run(own, c) })
	}
	all.Go(func() { s.furnish(side) })
	s.keepFresh(ctx)
	for i := len(s.all) - 1; i >= 0; i-- { // those who lean on others first
		s.all[i].stop()
		<-s.all[i].done
	}
	return nil
}

// plan lists the components, the store first.
func (s *Server) plan() {
	s.apiserver = newComponent("apiserver")
	if len(s.Etcd.Servers) == 0 {
		kine := newComponent("kine")
		kine.args = func() ([]string, error) {
			err := os.Remove(s.kineSocket())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			return []string{s.path("cluster.db"), s.kineSocket()}, nil
		}
		kine.probe = func(ctx context.Context) error {
			c, err := new(net.Dialer).DialContext(ctx, "unix", s.kineSocket())
			if err == nil {
				c.Close()
			}
			return err
		}
		s.apiserver.after = []*component{kine}
		s.all = append(s.all, kine)
	}
	s.apiserver.args = func() ([]string, error) { return s.apiserverArgs(s.local), nil }
	s.apiserver.probe = func(ctx context.Context) error { return s.get(ctx, s.local.String(), "/readyz") }
	s.all = append(s.all, s.apiserver, s.behind("controller-manager", s.controllerManagerArgs), s.behind("scheduler", func(port uint16) []string { return s.withKubeconfig("scheduler", port) }))
	if s.Redfish != "" {
		c := newComponent("controller", s.apiserver)
		c.args = func() ([]string, error) {
			return []string{"--kubeconfig=" + s.path("config", "controller.kubeconfig"), "--redfish=" + s.Redfish, "--objects=" + s.Objects, "--pods=" + join(s.PodRanges)}, nil
		}
		s.all = append(s.all, c)
	}
}

// behind is a component that needs the API server and tells its health on a port of its own, a new
// one at each start.
func (s *Server) behind(name string, args func(port uint16) []string) *component {
	c := newComponent(name, s.apiserver)
	var mu sync.Mutex
	var port uint16
	c.args = func() ([]string, error) {
		free, err := freePort()
		mu.Lock()
		port = free
		mu.Unlock()
		return args(free), err
	}
	c.probe = func(ctx context.Context) error {
		mu.Lock()
		address := fmt.Sprintf("127.0.0.1:%d", port)
		mu.Unlock()
		return s.get(ctx, address, "/healthz")
	}
	return c
}

// freePort is one that nobody listens on now.
func freePort() (uint16, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// chooseAddress returns the address of last time if it is still free, so that kubeconfig files that
// people keep stay right.
func (s *Server) chooseAddress() (netip.AddrPort, error) {
	b, err := os.ReadFile(s.path("address"))
	if err == nil {
		if a, err := netip.ParseAddrPort(strings.TrimSpace(string(b))); err == nil && a.Addr().IsLoopback() {
			if l, err := net.Listen("tcp", a.String()); err == nil {
				l.Close()
				return a, nil
			}
		}
	}
	port, err := freePort()
	if err != nil {
		return netip.AddrPort{}, err
	}
	a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	return a, pki.Write(s.path("address"), []byte(a.String()+"\n"))
}

// renew renews what is due and puts the bundles together that several authorities share.
func (s *Server) renew() error {
	written, err := s.keys().Ensure(s.leaves()...)
	if err != nil {
		return err
	}
	if len(written) > 0 {
		fmt.Fprintf(s.Log, "racklet-kube: renewed %s\n", strings.Join(written, " "))
	}
	if err := s.keys().SigningKey(); err != nil {
		return err
	}
	own, err := os.ReadFile(s.keys().Path("ca.crt"))
	if err != nil {
		return err
	}
	nodes := own
	if s.NodeCA != "" {
		if nodes, err = os.ReadFile(s.NodeCA); err != nil {
			return fmt.Errorf("authorities of nodes: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(nodes) {
			return fmt.Errorf("authorities of nodes: %s holds no certificate", s.NodeCA)
		}
		own = append(append(own, '\n'), nodes...)
	}
	if _, err := pki.Replace(s.path("config", "clients.crt"), own); err != nil {
		return err
	}
	_, err = pki.Replace(s.path("config", "kubelets.crt"), nodes)
	return err
}

// keepFresh renews certificates until ctx ends.
func (s *Server) keepFresh(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.renew(); err != nil {
				fmt.Fprintf(s.Log, "racklet-kube: renew certificates: %v\n", err)
			}
		}
	}
}

// furnish applies what every rack's cluster holds, once the API server is ready.
func (s *Server) furnish(ctx context.Context) {
	for ctx.Err() == nil {
		if s.apiserver.awaitReady(ctx) != nil {
			return
		}
		client, err := s.client()
		if err == nil {
			err = apply(ctx, client, "https://"+s.local.String(), s.furniture())
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		fmt.Fprintf(s.Log, "racklet-kube: %v\n", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// client speaks for the server itself.
func (s *Server) client() (*http.Client, error) {
	b, err := os.ReadFile(s.keys().Path("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	pair, err := tls.LoadX509KeyPair(s.keys().Path("bootstrap"), s.keys().Path("bootstrap"))
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true, // certificates change
	}}, nil
}

// get asks a component how it is.
func (s *Server) get(ctx context.Context, address, path string) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, bytes.TrimSpace(b))
	}
	return nil
}

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/status" || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	st := Status{Version: s.Version, Address: s.local.String(), Ready: true}
	for _, c := range s.all {
		one := c.snapshot()
		st.Components = append(st.Components, one)
		st.Ready = st.Ready && one.State == "ready"
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(st)
}

func (s *Server) listenStatus() (net.Listener, error) {
	name := filepath.Join(s.Sockets, "kubernetes.sock")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(name, 0o600)
}

// serve serves h until ctx ends.
func serve(ctx context.Context, l net.Listener, t *tls.Config, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, TLSConfig: t}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if t != nil {
		srv.ServeTLS(l, "", "")
		return
	}
	srv.Serve(l)
}
