// Package fleet makes many racks without machines, each with its management API, in one process: to see what the
// management API costs and how that grows. The controllers are the fakes of firmware/wire/wiretest, which answer at once; their
// readings move, and now and then one of them logs something, as in a rack that is in use.
//
// A rack has at most ten slots (firmware/wire, MaxSlots), so 1,000 units are 100 racks. They are told apart by the host that a
// request names, as virtual hosts are.
package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/redfish"
)

// UnitsPerRack is how many units a rack of a fleet has.
const UnitsPerRack = wire.MaxSlots

// Options of a fleet.
type Options struct {
	Units int // in all, 1 or more
	Seed  uint64
	Log   *slog.Logger // nil: none
}

// A Fleet is a number of racks with a service each.
type Fleet struct {
	racks    []*wiretest.Rack
	services []*redfish.Service
	handlers map[string]http.Handler // by host
	rng      *rand.Rand
}

// New makes the racks. Their units are off.
func New(o Options) (*Fleet, error) {
	if o.Units < 1 {
		return nil, fmt.Errorf("fleet: %d units, want 1 or more", o.Units)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{handlers: map[string]http.Handler{}, rng: rand.New(rand.NewPCG(o.Seed, 11))}
	for left := o.Units; left > 0; left -= UnitsPerRack {
		n := min(left, UnitsPerRack)
		name := Host(len(f.racks))
		r := &rack.Rack{Metadata: rack.Metadata{Name: name}}
		r.Spec.ID, r.Spec.Slots = fmt.Sprintf("7e9a2f9c-6d0f-4a3e-9a51-%012d", len(f.racks)), uint8(n)
		r.Spec.Power = rack.RackPower{Supply: 200, Reserve: 20}
		fake := wiretest.NewRack(n)
		ro := redfish.Options{Rack: r, Line: fake.Line(), Log: o.Log}
		for slot := 1; slot <= n; slot++ {
			u := &rack.ComputeUnit{Metadata: rack.Metadata{Name: fmt.Sprintf("unit-%d", slot)}}
			u.Spec = rack.ComputeUnitSpec{Slot: rack.SlotID(slot), Platform: "virt"}
			ro.Units = append(ro.Units, u)
		}
		s, err := redfish.New(ro)
		if err != nil {
			return nil, fmt.Errorf("fleet: rack %s: %w", name, err)
		}
		f.racks, f.services = append(f.racks, fake), append(f.services, s)
		f.handlers[name] = s.Local("owner")
	}
	return f, nil
}

// Host names a rack, from 0.
func Host(rack int) string { return fmt.Sprintf("rack-%03d", rack) }

// Racks is how many there are.
func (f *Fleet) Racks() int { return len(f.racks) }

// Silence makes the BMC of a slot of a rack silent, or answer again.
func (f *Fleet) Silence(rack int, slot uint8, silent bool) {
	f.racks[rack].BMCs[slot].SetFaults(wiretest.Faults{Silent: silent})
}

// ServeHTTP passes a request to the rack that its host names.
func (f *Fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ":")
	if h := f.handlers[host]; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	http.Error(w, "no such rack", http.StatusMisdirectedRequest)
}

// Run lets the racks live until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, s := range f.services {
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	f.live(ctx)
	wg.Wait()
	for _, r := range f.racks {
		r.Close()
	}
	return first
}

// live moves the readings of every unit once a second, rack by rack, and has one unit in a hundred log something.
func (f *Fleet) live(ctx context.Context) {
	t := time.NewTicker(time.Second / time.Duration(len(f.racks)))
	defer t.Stop()
	for n := 0; ; n++ {
		f.move(n%len(f.racks), n/len(f.racks))
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (f *Fleet) move(rack, second int) {
	total := uint64(0)
	for slot, b := range f.racks[rack].BMCs {
		heat := 45 + 10*math.Sin(float64(second+7*rack+13*int(slot))/60)
		b.Update(func(st *wire.UnitState) {
			st.MilliCelsius = int32(heat * 1000)
			st.Millijoules += 3200
			st.RailMillis += 1000
			total += st.Millijoules
		})
		b.SetReport(wire.Report{Release: wire.MakeText32("0.1.0"), UptimeSeconds: uint32(second), CPUPermille: uint16(f.rng.IntN(1000)), MemoryUsedKiB: 200 << 10, MemoryTotalKiB: 1 << 20})
		if f.rng.IntN(100) == 0 {
			b.Record(wire.EventThermal, 0, "load changed", wire.Failure{})
		}
	}
	f.racks[rack].Update(func(st *wire.RackState) { st.Millijoules = total })
}

// Ready waits until every controller has answered, or ctx ends, and switches all units on.
func (f *Fleet) Ready(ctx context.Context) error {
	for i := range f.racks {
		for {
			_, body, err := f.ask(ctx, i, http.MethodGet, "/redfish/v1/Systems?$filter=Status/State%20eq%20'UnavailableOffline'", "")
			if err != nil {
				return err
			}
			if strings.Contains(body, `"Members@odata.count":0`) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("rack %d: %w", i, ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
		for slot := range f.racks[i].BMCs {
			code, body, err := f.ask(ctx, i, http.MethodPost, fmt.Sprintf("/redfish/v1/Systems/unit-%d/Actions/ComputerSystem.Reset", slot), `{"ResetType":"On"}`)
			if err != nil || code >= 300 {
				return fmt.Errorf("rack %d: switch unit %d on: %d %s %w", i, slot, code, body, err)
			}
		}
	}
	return nil
}

// ask is a request of the owner of a rack.
func (f *Fleet) ask(ctx context.Context, rack int, method, path, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+Host(rack)+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	w := &answer{header: http.Header{}, code: http.StatusOK}
	f.ServeHTTP(w, r)
	return w.code, w.body.String(), nil
}

// answer keeps what was answered.
type answer struct {
	header http.Header
	code   int
	body   strings.Builder
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *answer) WriteHeader(code int)        { a.code = code }
