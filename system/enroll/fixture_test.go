package enroll

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/enroll/api"
	"github.com/racklet/racklet/system/enroll/enrolltest"
)

// patience is how long a test waits for what has to come: machines are busy.
const patience = 30 * time.Second

// state is a signed state in which every unit runs one release.
func state(sequence uint64, security uint32, r rack.ReleaseSpec, units ...string) *State {
	s := &State{Sequence: sequence, Commit: fmt.Sprintf("%040x", sequence), Floor: enrolltest.Digest(fmt.Sprint("floor ", sequence)), Security: security,
		Units: map[string]string{}, Releases: map[string]rack.ReleaseSpec{r.Version: r}}
	for _, u := range units {
		s.Units[u] = r.Version
	}
	return s
}

// bench is a verifier before fake BMCs, and units that ask.
type bench struct {
	*testing.T
	v    *Verifier
	rack *enrolltest.Rack
	dir  string

	mu    sync.Mutex
	clock time.Duration // ahead of the real one
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.clock)
}

func (b *bench) later(d time.Duration) {
	b.mu.Lock()
	b.clock += d
	b.mu.Unlock()
}

var (
	r1 = enrolltest.Release("1.0", 5)
	r2 = enrolltest.Release("2.0", 5)
)

// newBench has two units, both booted into r1 of state 7, and a running verifier.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, rack: enrolltest.NewRack(2), dir: t.TempDir()}
	b.start(20 * time.Millisecond)
	s := state(7, 5, r1, "unit-1", "unit-2")
	if err := b.v.Accept(s); err != nil {
		t.Fatal(err)
	}
	for _, m := range b.rack.BMCs {
		m.Boot(s.Floor, s.Sequence, s.Security, r1)
	}
	return b
}

// start starts the verifier, examining every interval.
func (b *bench) start(interval time.Duration) (stop func()) {
	b.Helper()
	server := httptest.NewServer(b.rack.Handler())
	o := Options{Dir: b.dir, Redfish: server.Client(), RedfishAt: server.URL, Network: DefaultNetwork, Log: slog.New(slog.DiscardHandler),
		Now: b.now, Interval: interval, Management: &api.Peer{Unit: api.Management, PublicKey: "host", Endpoint: netip.MustParseAddrPort("10.77.0.1:51820"), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.78.0.254/32")}}}
	for name, m := range b.rack.BMCs {
		o.Units = append(o.Units, Unit{Name: name, Slot: m.Slot, Address: netip.AddrFrom4([4]byte{10, 77, 0, 10 + m.Slot}), DeviceKey: m.Device.Public().(ed25519.PublicKey)})
	}
	v, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.v = v
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); v.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); server.CloseClientConnections(); <-done; server.Close() })
	b.Cleanup(stop)
	return stop
}

// ask sets the key register and asks.
func (b *bench) ask(a *enrolltest.Applicant) (*api.Identity, error) {
	m := b.rack.BMCs[a.Request.Unit]
	m.Change(func() { m.Register(trust.RegisterUnitKey).Set(a.Register) })
	return b.v.Identify(b.Context(), &a.Request, netip.AddrFrom4([4]byte{10, 77, 0, 10 + m.Slot}))
}

// admit enrols a unit, and fails the test if it is refused.
func (b *bench) admit(unit string) (*enrolltest.Applicant, *api.Identity) {
	b.Helper()
	a := enrolltest.NewApplicant(b, unit)
	id, err := b.ask(a)
	if err != nil {
		b.Fatalf("%s: %v", unit, err)
	}
	return a, id
}

// status of one unit.
func (b *bench) status(unit string) Status {
	all, _ := b.v.Units(context.Background(), 0)
	for _, s := range all {
		if s.Unit == unit {
			return s
		}
	}
	b.Fatalf("no unit %s", unit)
	return Status{}
}

// until waits for a status.
func (b *bench) until(unit, what string, f func(Status) bool) Status {
	b.Helper()
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		s := b.status(unit)
		if f(s) {
			return s
		}
		if time.Since(start) > patience {
			b.Fatalf("%s: %s does not come: %+v", unit, what, s)
		}
	}
}

// of spreads a state and a release for BMC.Boot, so that its package needs to
// know nothing of this one.
func of(s *State, r rack.ReleaseSpec) (rack.Digest, uint64, uint32, rack.ReleaseSpec) {
	return s.Floor, s.Sequence, s.Security, r
}

// rest lets the verifier examine nobody for the mere passing of time.
func (b *bench) rest() {
	b.v.mu.Lock()
	defer b.v.mu.Unlock()
	b.v.o.Interval = time.Hour
}
