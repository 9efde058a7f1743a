//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/system/cni/endpoint"
	"github.com/racklet/racklet/system/cni/filter"
	"github.com/racklet/racklet/system/cni/policy"
)

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pluginHandler is what the plugin asks.
func (a *agent) pluginHandler() http.Handler {
	mux := http.NewServeMux()
	with := func(f func(endpoint.Record) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var e endpoint.Record
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&e); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			if err := f(e); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		}
	}
	mux.HandleFunc("PUT /v1/endpoint", with(func(endpoint.Record) error { // it stands in the store
		if err := a.state(); err != nil {
			return err
		}
		return a.police()
	}))
	mux.HandleFunc("DELETE /v1/endpoint", with(func(endpoint.Record) error {
		return a.police()
	}))
	mux.HandleFunc("POST /v1/endpoint/check", with(func(e endpoint.Record) error {
		_, err := a.store.Get(e.ContainerID, e.IfName)
		return err
	}))
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		if err := a.state(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /metrics", a.metrics)
	mux.HandleFunc("GET /v1/trace", a.trace)
	return mux
}

func (a *agent) state() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready
}

// shut is the rule of a pod of which nothing is known yet: it allows nothing.
var shut = policy.Verdicts{Ingress: &policy.Chain{}, Egress: &policy.Chain{}}

// verdicts are the rules of this unit's pods.
func (a *agent) verdicts() ([]endpoint.Record, []policy.Verdicts, error) {
	records, err := a.store.List()
	if err != nil {
		return nil, nil, err
	}
	w, err := a.world.view()
	if err != nil {
		a.log.Warn("what the API server says is not all readable", "error", err)
	}
	// A pod of this unit has its address before the API server knows.
	mine := make([]*policy.Pod, len(records))
	for i, r := range records {
		at := slices.IndexFunc(w.Pods, func(p policy.Pod) bool { return p.Namespace == r.Namespace && p.Name == r.Pod })
		if at < 0 {
			continue
		}
		w.Pods[at].Addresses = own(r)
		mine[i] = &w.Pods[at]
	}
	all := make([]policy.Verdicts, len(records))
	for i := range records {
		all[i] = shut
		if mine[i] != nil && a.world.complete() {
			all[i] = w.Compile(mine[i])
		}
	}
	return records, all, nil
}

func own(r endpoint.Record) []netip.Addr {
	list := []netip.Addr{r.Address}
	if r.Address6.IsValid() {
		list = append(list, r.Address6)
	}
	return list
}

// police writes the rules of this unit's pods into the kernel.
func (a *agent) police() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.uplink == "" {
		return errors.New("the unit has no way out yet")
	}
	records, verdicts, err := a.verdicts()
	if err == nil {
		var pods []filter.Pod
		for i, r := range records {
			pods = append(pods, filter.Pod{Addresses: own(r), Verdicts: verdicts[i]})
		}
		a.keepDropsOf(policyReasons)
		err = a.filter.Police(a.uplink, pods)
	}
	if err != nil {
		a.log.Error("rules of pods", "error", err)
	}
	return err
}

// serveStatus serves metrics and traces inside the tunnel, where the filter
// lets the host's side in and nobody else.
func (a *agent) serveStatus(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		c := a.cluster
		a.mu.Unlock()
		if c != nil {
			if l, err := net.Listen("tcp", netip.AddrPortFrom(c.TunnelAddress, statusPort).String()); err == nil {
				mux := http.NewServeMux()
				mux.HandleFunc("GET /metrics", a.metrics)
				mux.HandleFunc("GET /v1/trace", a.trace)
				if err := serve(ctx, l, mux); err != nil {
					a.log.Warn("serve metrics", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// metrics writes OpenMetrics.
func (a *agent) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
	peers, err := a.statistics()
	if err != nil {
		a.log.Debug("statistics", "error", err)
	}
	family := func(name, kind, help string) { fmt.Fprintf(w, "# TYPE %s %s\n# HELP %s %s\n", name, kind, name, help) }
	family("racklet_wireguard_received_bytes", "counter", "Bytes received from a peer.")
	for _, p := range peers {
		fmt.Fprintf(w, "racklet_wireguard_received_bytes_total{peer=%q} %d\n", p.unit, p.received)
	}
	family("racklet_wireguard_sent_bytes", "counter", "Bytes sent to a peer.")
	for _, p := range peers {
		fmt.Fprintf(w, "racklet_wireguard_sent_bytes_total{peer=%q} %d\n", p.unit, p.sent)
	}
	family("racklet_wireguard_handshake_timestamp_seconds", "gauge", "Time of the last handshake with a peer.")
	for _, p := range peers {
		if !p.handshake.IsZero() {
			fmt.Fprintf(w, "racklet_wireguard_handshake_timestamp_seconds{peer=%q} %d\n", p.unit, p.handshake.Unix())
		}
	}
	family("racklet_net_dropped_packets", "counter", "Packets dropped by the unit's filter.")
	drops := a.drops()
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		fmt.Fprintf(w, "racklet_net_dropped_packets_total{reason=%q} %d\n", reason, drops[reason])
	}
	for _, g := range []struct{ name, file, help string }{
		{"racklet_conntrack_entries", "nf_conntrack_count", "Connections that are tracked."},
		{"racklet_conntrack_limit", "nf_conntrack_max", "Connections that can be tracked."},
	} {
		if b, err := os.ReadFile("/proc/sys/net/netfilter/" + g.file); err == nil {
			family(g.name, "gauge", g.help)
			fmt.Fprintf(w, "%s %s\n", g.name, strings.TrimSpace(string(b)))
		}
	}
	io.WriteString(w, "# EOF\n")
}

// The counters of the two tables, which begin anew when a table is replaced.
var (
	baseReasons   = []string{"invalid", "spoofed", "input", "output", "forward"}
	policyReasons = []string{"unknown", "outside", "egress", "ingress"}
)

// keepDropsOf adds up what a table counted that is about to be replaced.
func (a *agent) keepDropsOf(reasons []string) {
	drops, err := a.filter.Drops()
	if err != nil {
		return
	}
	for _, r := range reasons {
		a.dropped[r] += drops[r]
	}
}

func (a *agent) drops() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := maps.Clone(a.dropped)
	now, err := a.filter.Drops()
	if err != nil {
		return all
	}
	for r, n := range now {
		all[r] += n
	}
	return all
}

// step is one hop or rule on the way of a flow.
type step struct {
	Hop  string `json:"hop"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// trace says what of a flow this unit has to do with, and whether it lets it
// pass: ?from=POD&to=POD&protocol=TCP&port=N.
func (a *agent) trace(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, err := a.resolve(q.Get("from"))
	to, terr := a.resolve(q.Get("to"))
	port, perr := strconv.ParseUint(q.Get("port"), 10, 16)
	protocol := map[string]uint8{"TCP": 6, "UDP": 17, "SCTP": 132}[q.Get("protocol")]
	if err := errors.Join(err, terr, perr); err != nil || protocol == 0 {
		http.Error(w, fmt.Sprintf("want from and to (pods or addresses), protocol (TCP, UDP or SCTP) and port: %v", err), http.StatusBadRequest)
		return
	}
	records, verdicts, err := a.verdicts()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	steps := []step{}
	found := map[netip.Addr]bool{}
	for i, e := range records {
		for _, address := range own(e) {
			for _, side := range []struct {
				at, peer netip.Addr
				name     string
				chain    *policy.Chain
			}{{from, to, "egress", verdicts[i].Egress}, {to, from, "ingress", verdicts[i].Ingress}} {
				if address != side.at {
					continue
				}
				found[address] = true
				s := step{Hop: "device of " + e.Namespace + "/" + e.Pod, OK: true, Text: e.Device + " has " + address.String()}
				if err := endpoint.Check(e); err != nil {
					s.OK, s.Text = false, err.Error()
				}
				rule := step{Hop: side.name + " rules of " + e.Namespace + "/" + e.Pod, OK: side.chain.Allows(side.peer, protocol, uint16(port))}
				switch {
				case side.chain == nil:
					rule.Text = "no policy selects the pod"
				case rule.OK:
					rule.Text = "a policy allows it"
				case len(side.chain.Allow) == 0:
					rule.Text = "policies select the pod and allow nothing"
				default:
					rule.Text = fmt.Sprintf("policies select the pod, and none of their %d rules allows it", len(side.chain.Allow))
				}
				steps = append(steps, s, rule)
			}
		}
	}
	if found[from] != found[to] {
		other := to
		if found[to] {
			other = from
		}
		steps = append(steps, a.towards(other))
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(steps)
}

// resolve finds the address of NAMESPACE/NAME, or reads an address.
func (a *agent) resolve(text string) (netip.Addr, error) {
	if at, err := netip.ParseAddr(text); err == nil {
		return at, nil
	}
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		return netip.Addr{}, fmt.Errorf("%q is neither an address nor NAMESPACE/NAME", text)
	}
	records, err := a.store.List()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range records {
		if r.Namespace == namespace && r.Pod == name {
			return r.Address, nil
		}
	}
	w, err := a.world.view()
	if err != nil {
		a.log.Debug("not all is readable", "error", err)
	}
	for _, p := range w.Pods {
		if p.Namespace == namespace && p.Name == name && len(p.Addresses) > 0 {
			return p.Addresses[0], nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no pod %s with an address of its own", text)
}

// towards is the tunnel to the unit of an address.
func (a *agent) towards(to netip.Addr) step {
	stats, err := a.statistics()
	if err != nil {
		return step{"tunnel", false, err.Error()}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.peers {
		if !slices.ContainsFunc(p.AllowedIPs, func(n netip.Prefix) bool { return n.Contains(to) }) {
			continue
		}
		s := step{Hop: "tunnel to " + p.Unit, Text: "no handshake yet"}
		for _, have := range stats {
			if have.unit == p.Unit && !have.handshake.IsZero() {
				s.OK, s.Text = true, fmt.Sprintf("last handshake %v ago", time.Since(have.handshake).Round(time.Second))
			}
		}
		return s
	}
	return step{"tunnel", false, to.String() + " belongs to no admitted unit: racklet trust"}
}
