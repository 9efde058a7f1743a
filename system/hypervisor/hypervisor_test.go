package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// fakeBMC is the other end of the in-band line.
type fakeBMC struct {
	mu      sync.Mutex
	stages  []wire.Stage
	reports []wire.Report
	keys    [][32]byte

	inventories []wire.Inventory
	wanted      wire.HostRequest
	down        bool
}

var errSilent = errors.New("no answer")

func (b *fakeBMC) ReportStage(_ context.Context, s wire.Stage, _ wire.Failure) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return errSilent
	}
	b.stages = append(b.stages, s)
	return nil
}

func (b *fakeBMC) Heartbeat(_ context.Context, r wire.Report) (wire.HostRequest, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return wire.HostNone, errSilent
	}
	b.reports = append(b.reports, r)
	return b.wanted, nil
}

func (b *fakeBMC) SetInventory(_ context.Context, v wire.Inventory) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inventories = append(b.inventories, v)
	return nil
}

func (b *fakeBMC) SetKeyRegister(_ context.Context, digest [32]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return errSilent
	}
	b.keys = append(b.keys, digest)
	return nil
}

func (b *fakeBMC) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// fakeMachine has an address after a while.
type fakeMachine struct {
	delay  time.Duration
	start  time.Time
	ticks  uint64
	synced bool
}

func (m *fakeMachine) Uptime() time.Duration { return 3*time.Second + time.Since(m.start) }
func (m *fakeMachine) Sync()                 { m.synced = true }

func (m *fakeMachine) Inventory() wire.Inventory { return wire.Inventory{Cores: 4, Threads: 4} }

func (m *fakeMachine) Load() (Load, error) {
	m.ticks += 100
	return Load{Busy: m.ticks / 4, All: m.ticks, UsedKiB: 100, TotalKiB: 1000}, nil
}

func (m *fakeMachine) KeepNetwork(ctx context.Context, _ *Lease, up func(netip.Addr)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(m.delay)
	defer t.Stop()
	select {
	case <-t.C:
		up(netip.MustParseAddr("10.77.0.11"))
	case <-ctx.Done():
		return ctx.Err()
	}
	<-ctx.Done()
	return ctx.Err()
}

func newSystem(b *fakeBMC) (*System, *fakeMachine, *bytes.Buffer) {
	console := new(bytes.Buffer)
	m := &fakeMachine{delay: 1500 * time.Millisecond, start: time.Now()}
	return &System{
		Handover: &Handover{
			Unit: "unit-1", Slot: 1, Commit: strings.Repeat("ab", 20), Release: "0.1.0", RootHash: "feed", Path: "switch_root", Stale: true, Sequence: 4,
			Times: []StageTime{{"bootstrap", 1, 0.5}, {"network", 2, 0.75}},
		},
		BMC: b, Machine: m, Console: console, Log: slog.New(slog.DiscardHandler),
	}, m, console
}

// TestRun boots, runs, and stops when the BMC asks.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(fakeBMC)
		s, m, console := newSystem(b)
		type result struct {
			req wire.HostRequest
			err error
		}
		done := make(chan result)
		go func() {
			req, err := s.Run(t.Context())
			done <- result{req, err}
		}()
		time.Sleep(10 * time.Second)
		b.set(func() {
			if want := []wire.Stage{wire.StageOS, wire.StageRunning}; !slices.Equal(b.stages, want) {
				t.Errorf("stages %v, want %v", b.stages, want)
			}
			if len(b.keys) != 1 || b.keys[0] == [32]byte{} {
				t.Errorf("key register %x", b.keys)
			}
			if n := len(b.reports); n < 10 || n > 12 {
				t.Errorf("%d heartbeats in ten seconds", n)
			}
			if n := len(b.inventories); n != 2 || b.inventories[0].Cores != 4 {
				t.Errorf("inventories %+v: want one at the start and one with the address", b.inventories)
			}
			r := b.reports[len(b.reports)-1]
			if r.Commit[0] != 0xab || r.Release.String() != "0.1.0" || !r.Stale || r.CPUPermille != 250 || r.MemoryUsedKiB != 100 ||
				r.MemoryTotalKiB != 1000 || r.Address != [4]byte{10, 77, 0, 11} || r.UptimeSeconds < 12 {
				t.Errorf("report %+v", r)
			}
			b.wanted = wire.HostRestart
		})
		got := <-done
		if got.err != nil || got.req != wire.HostRestart || !m.synced {
			t.Errorf("stopped with %+v, synced %v", got, m.synced)
		}
		if want := []wire.Stage{wire.StageOS, wire.StageRunning, wire.StageStopping, wire.StageHalted}; !slices.Equal(b.stages, want) {
			t.Errorf("stages %v, want %v", b.stages, want)
		}
		for _, text := range []string{"unit-1", "0.1.0", strings.Repeat("ab", 20), "feed", "Stale", "bootstrap    1.00 s   0.25 s cpu"} {
			if !strings.Contains(console.String(), text) {
				t.Errorf("the console does not say %q:\n%s", text, console)
			}
		}
	})
}

// TestSilentBMC: a BMC that is away for a while is told everything again.
func TestSilentBMC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(fakeBMC)
		s, _, _ := newSystem(b)
		done := make(chan error)
		go func() {
			_, err := s.Run(t.Context())
			done <- err
		}()
		time.Sleep(5 * time.Second)
		b.set(func() { b.down = true })
		time.Sleep(20 * time.Second)
		b.set(func() { b.down, b.stages, b.reports = false, nil, nil })
		time.Sleep(40 * time.Second)
		b.set(func() {
			if len(b.keys) != 2 || b.keys[0] != b.keys[1] {
				t.Errorf("key register set %d times", len(b.keys))
			}
			if len(b.reports) < 5 || !slices.Contains(b.stages, wire.StageRunning) {
				t.Errorf("%d heartbeats, stages %v", len(b.reports), b.stages)
			}
			if r := b.reports[len(b.reports)-1]; r.Address != [4]byte{10, 77, 0, 11} {
				t.Errorf("the address is lost: %+v", r)
			}
			b.wanted = wire.HostShutdown
		})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestKeysDiffer: every boot has a key of its own.
func TestKeysDiffer(t *testing.T) {
	var keys [][32]byte
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			b := &fakeBMC{wanted: wire.HostShutdown}
			s, _, _ := newSystem(b)
			if _, err := s.Run(t.Context()); err != nil {
				t.Error(err)
			}
			keys = append(keys, b.keys...)
		})
	}
	if len(keys) != 2 || keys[0] == keys[1] {
		t.Errorf("keys %x", keys)
	}
}

func TestSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := NewSupervisor(slog.New(slog.NewTextHandler(&log, nil)))
		var starts []time.Duration
		begin := time.Now()
		s.Add("fails", func(context.Context) error {
			starts = append(starts, time.Since(begin))
			if len(starts) == 2 {
				panic("a mistake")
			}
			return errors.New("broken")
		})
		lived := false
		s.Add("lives", func(ctx context.Context) error {
			<-ctx.Done()
			lived = true
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.Run(ctx)
		want := []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond}
		if !slices.Equal(starts, want) {
			t.Errorf("started at %v, want %v", starts, want)
		}
		if !lived || !strings.Contains(log.String(), "a mistake") {
			t.Errorf("lived %v, log:\n%s", lived, log.String())
		}
	})
}

func TestParseLoad(t *testing.T) {
	const stat, mem = "cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 4\n", "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     750 kB\n"
	l, err := parseLoad(strings.NewReader(stat), strings.NewReader(mem))
	if err != nil || l != (Load{Busy: 81, All: 531, UsedKiB: 250, TotalKiB: 1000}) {
		t.Errorf("load %+v, %v", l, err)
	}
	for _, bad := range [][2]string{
		{"", mem}, {"cpu 1 2", mem}, {"cpu 1 2 x 4 5 6\n", mem}, {stat, ""}, {stat, "MemTotal: 1 kB\nMemAvailable: 2 kB\n"}, {stat, "MemTotal: x kB\n"},
	} {
		if l, err := parseLoad(strings.NewReader(bad[0]), strings.NewReader(bad[1])); err == nil {
			t.Errorf("%q gives %+v", bad, l)
		}
	}
	if got := (Load{Busy: 150, All: 300}).busySince(Load{Busy: 100, All: 200}); got != 500 {
		t.Errorf("busy %d permille, want 500", got)
	}
	if got := (Load{Busy: 1, All: 2}).busySince(Load{Busy: 3, All: 4}); got != 0 {
		t.Errorf("a counter that went back gives %d permille", got)
	}
}

// TestHandover reads what stage 1 writes; the file is that of a booted unit.
func TestHandover(t *testing.T) {
	h, err := ReadHandover("testdata/handover.json")
	if err != nil {
		t.Fatal(err)
	}
	if h.Unit != "unit-1" || h.Release != "0.1.0" || len(h.Commit) != 40 || h.Lease == nil || h.Lease.Address.String() != "10.77.0.11/24" || len(h.Times) == 0 {
		t.Errorf("handover %+v", h)
	}
	if _, err := ReadHandover("testdata/none.json"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzHandover(f *testing.F) {
	b, err := os.ReadFile("testdata/handover.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHandover(b)
		if err == nil && (h.Unit == "" || h.Release == "") {
			t.Errorf("accepted %q", b)
		}
	})
}

// TestLevels: what stands on others ends before them, and only then they do.
func TestLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := NewSupervisor(slog.New(slog.DiscardHandler))
		var mu sync.Mutex
		var ended []string
		job := func(name string, takes time.Duration) Runnable {
			return func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(takes)
				mu.Lock()
				defer mu.Unlock()
				ended = append(ended, name)
				return ctx.Err()
			}
		}
		tree.AddLevel(2, "kubelet", job("kubelet", 3*time.Second))
		tree.AddLevel(1, "containerd", job("containerd", time.Second))
		tree.Add("network", job("network", 0))
		tree.AddLevel(2, "kube-proxy", job("kube-proxy", time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Minute); cancel() }()
		tree.Run(ctx)
		if want := []string{"kube-proxy", "kubelet", "containerd", "network"}; !slices.Equal(ended, want) {
			t.Errorf("ended %q, want %q", ended, want)
		}
	})
}
