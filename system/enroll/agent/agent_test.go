package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/enroll"
	"github.com/racklet/racklet/system/enroll/api"
	"github.com/racklet/racklet/system/enroll/enrolltest"
)

const patience = 30 * time.Second

// rig is a real verifier behind TLS, before BMCs of a fake, and units with agents.
type rig struct {
	*testing.T
	rack  *enrolltest.Rack
	v     *enroll.Verifier
	state *enroll.State
	url   string
	pins  []string
}

var release = enrolltest.Release("1.0", 1)

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, rack: enrolltest.NewRack(2)}
	redfish := httptest.NewServer(r.rack.Handler())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := enroll.Options{Dir: t.TempDir(), Redfish: redfish.Client(), RedfishAt: redfish.URL, Network: enroll.DefaultNetwork, Log: slog.New(slog.DiscardHandler), Interval: 50 * time.Millisecond}
	r.state = &enroll.State{Sequence: 3, Commit: strings.Repeat("a", 40), Floor: enrolltest.Digest("floor"), Units: map[string]string{}, Releases: map[string]rack.ReleaseSpec{"r": release}}
	for name, b := range r.rack.BMCs {
		o.Units = append(o.Units, enroll.Unit{Name: name, Slot: b.Slot, Address: netip.MustParseAddr("127.0.0.1"), DeviceKey: b.Device.Public().(ed25519.PublicKey)})
		r.state.Units[name] = "r"
	}
	if r.v, err = enroll.New(o); err != nil {
		t.Fatal(err)
	}
	if err := r.v.Accept(r.state); err != nil {
		t.Fatal(err)
	}
	if r.pins, err = enroll.ServingPins(o.Dir); err != nil {
		t.Fatal(err)
	}
	r.url = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { r.v.Run(ctx) })
	all.Go(func() { r.v.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); redfish.CloseClientConnections(); all.Wait(); redfish.Close() })
	return r
}

func (r *rig) boot(unit string) {
	r.rack.BMCs[unit].Boot(r.state.Floor, r.state.Sequence, 0, release)
}

// pid1 sets the key register as PID 1 of the unit does.
func (r *rig) pid1(unit string) *http.Client {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body struct{ Digest rack.Digest }
		err := json.NewDecoder(req.Body).Decode(&body)
		sum, derr := body.Digest.Sum()
		if req.Method != http.MethodPut || req.URL.Path != "/v1/key-register" || err != nil || derr != nil {
			w.WriteHeader(400)
			return
		}
		b := r.rack.BMCs[unit]
		b.Change(func() { b.Register(trust.RegisterUnitKey).Set(sum) })
	}))
	r.Cleanup(s.Close)
	c := s.Client()
	c.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}}
	return c
}

// agent runs the agent of a unit, with its files in dir.
func (r *rig) agent(unit, dir string, pins []string) (stop func()) {
	r.Helper()
	h := &handover{Unit: unit}
	doc, err := json.Marshal(map[string]any{"unit": unit, "enrolment": rack.Enrolment{URL: r.url, TLSPins: pins}, "slot": 1})
	if err != nil {
		r.Fatal(err)
	}
	file := filepath.Join(r.TempDir(), "handover.json")
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		r.Fatal(err)
	}
	if h, err = readHandover(file); err != nil {
		r.Fatal(err)
	}
	a, err := newAgent(h, dir, r.pid1(unit), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		r.Fatal(err)
	}
	a.first = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	r.Cleanup(stop)
	return stop
}

func (r *rig) until(what string, f func() bool) {
	r.Helper()
	for start := time.Now(); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			all, _ := r.v.Units(context.Background(), 0)
			r.Fatalf("%s does not come: %+v", what, all)
		}
	}
}

func (r *rig) trusted(unit string) bool {
	all, _ := r.v.Units(context.Background(), 0)
	for _, s := range all {
		if s.Unit == unit {
			return s.Trusted
		}
	}
	return false
}

func peers(dir string) (n int, version uint64) {
	var p api.Peers
	b, err := os.ReadFile(filepath.Join(dir, api.PeersFile))
	if err != nil || json.Unmarshal(b, &p) != nil {
		return -1, 0
	}
	return len(p.Peers), p.Version
}

// TestAgents: two units enrol, learn of each other, and of the end of one; the
// one that was reset is out until it is power-cycled, and then comes back by itself.
func TestAgents(t *testing.T) {
	r := newRig(t)
	one, two := t.TempDir(), t.TempDir()
	r.agent("unit-1", one, r.pins) // long before it is admitted
	r.boot("unit-1")
	r.until("unit-1", func() bool { return r.trusted("unit-1") })
	r.until("its files", func() bool { n, _ := peers(one); return n == 0 })
	for _, name := range []string{api.CAFile, api.ClientCertFile, api.ClientKeyFile, api.ServingFile, api.ServingKeyFile, api.ClusterFile, api.PeersFile, api.WireGuardFile} {
		info, err := os.Stat(filepath.Join(one, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(one, api.ClientCertFile), filepath.Join(one, api.ClientKeyFile)); err != nil {
		t.Error(err)
	}
	r.boot("unit-2")
	r.agent("unit-2", two, r.pins)
	r.until("unit-2 at unit-1", func() bool { n, _ := peers(one); return n == 1 })
	r.until("unit-1 at unit-2", func() bool { n, _ := peers(two); return n == 1 })

	b := r.rack.BMCs["unit-2"]
	b.Change(func() { b.Evidence.Flags |= trust.EvidenceVoid })
	r.rack.Event("unit-2", "reset", 0, 0)
	r.until("unit-2 gone at unit-1", func() bool { n, _ := peers(one); return n == 0 })
	if r.trusted("unit-2") {
		t.Error("still trusted")
	}
	r.boot("unit-2")
	r.until("unit-2 back at unit-1", func() bool { n, _ := peers(one); return n == 1 })
}

// TestRestart: an agent that is started again in the same boot keeps its keys.
func TestRestart(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	r.boot("unit-1")
	stop := r.agent("unit-1", dir, r.pins)
	r.until("unit-1", func() bool { n, _ := peers(dir); return n == 0 })
	stop()
	key, err := os.ReadFile(filepath.Join(dir, api.ClientKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	before := r.rack.BMCs["unit-1"].Register(trust.RegisterUnitKey).Value
	os.Remove(filepath.Join(dir, api.PeersFile))
	r.agent("unit-1", dir, r.pins)
	r.until("peers again", func() bool { n, _ := peers(dir); return n == 0 })
	again, err := os.ReadFile(filepath.Join(dir, api.ClientKeyFile))
	if err != nil || string(again) != string(key) {
		t.Errorf("another key: %v", err)
	}
	b := r.rack.BMCs["unit-1"]
	b.Change(func() {
		if got := b.Register(trust.RegisterUnitKey).Value; got != before {
			t.Errorf("register %s after %s", hex.EncodeToString(got[:]), hex.EncodeToString(before[:]))
		}
	})
}

// TestPin: another verifier is told nothing.
func TestPin(t *testing.T) {
	r := newRig(t)
	r.boot("unit-1")
	asked := make(chan struct{}, 1)
	impostor := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer impostor.Close()
	h := &handover{Unit: "unit-1"}
	if err := json.Unmarshal([]byte(`{"unit":"unit-1","enrolment":{"url":"`+impostor.URL+`","tlsPins":["`+r.pins[0]+`"]}}`), h); err != nil {
		t.Fatal(err)
	}
	a, err := newAgent(h, t.TempDir(), r.pid1("unit-1"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.enrol(t.Context()); err == nil || !strings.Contains(err.Error(), "none of the pinned") {
		t.Errorf("%v", err)
	}
	select {
	case <-asked:
		t.Error("the request was sent")
	default:
	}
}

func TestHandover(t *testing.T) {
	for _, doc := range []string{``, `{}`, `{"unit":"unit-1"}`, `{"unit":"unit-1","enrolment":{"url":"https://x"}}`, `{"enrolment":{"url":"https://x","tlsPins":["p"]}}`} {
		file := filepath.Join(t.TempDir(), "h")
		if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readHandover(file); err == nil {
			t.Errorf("%q accepted", doc)
		}
	}
	h := &handover{Unit: "u"}
	if err := json.Unmarshal([]byte(`{"enrolment":{"url":"https://x","tlsPins":["sha256//AAAA"]}}`), h); err != nil {
		t.Fatal(err)
	}
	if _, err := newAgent(h, t.TempDir(), nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a short pin was accepted")
	}
}
