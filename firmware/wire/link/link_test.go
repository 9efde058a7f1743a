package link_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/firmware/wire/wiretest"
)

func rack(t *testing.T, units int, o link.Options) (*wiretest.Rack, *link.Conn) {
	t.Helper()
	r := wiretest.NewRack(units)
	c := link.New(r.Line(), wire.EIDManagement, o)
	t.Cleanup(func() {
		c.Close()
		r.Close()
	})
	return r, c
}

func TestClient(t *testing.T) {
	r, c := rack(t, 2, link.Options{})
	ctx := t.Context()
	one := wire.BMC(1)

	g, err := c.SetDesired(ctx, one, &wire.Desired{Generation: 5, Mask: wire.DesiredPower, Power: wire.PowerOn, BootSlot: wire.SlotNone})
	if err != nil || g.Desired != 5 {
		t.Fatalf("set desired: %+v, %v", g, err)
	}
	s, err := c.UnitState(ctx, one)
	if err != nil || s.Stage != wire.StageRunning || s.Milliwatts == 0 || s.ObservedGeneration != 5 {
		t.Fatalf("unit state: %+v, %v", s, err)
	}
	page, err := c.ReadEvents(ctx, one, 0)
	if err != nil || len(page.Events) < 3 || page.Events[0].Sequence != 1 || page.Newest != s.LastEvent {
		t.Fatalf("events: %+v, %v", page, err)
	}
	if page, err = c.ReadEvents(ctx, one, page.Newest); err != nil || len(page.Events) != 0 {
		t.Errorf("events after the newest: %+v, %v", page, err)
	}
	r.BMCs[1].Print("login: ")
	if p, err := c.ReadConsole(ctx, one, 3); err != nil || string(p.Data) != "in: " || p.End != 7 {
		t.Errorf("console: %+v, %v", p, err)
	}
	if n, err := c.WriteConsole(ctx, one, []byte("root\n")); err != nil || n != 5 || r.BMCs[1].Typed() != "root\n" {
		t.Errorf("typed %d: %v", n, err)
	}
	if _, err := c.RaiseFloors(ctx, one, []byte("statement")); err == nil {
		t.Error("an unsigned statement was taken")
	} else if e := (*link.RefusedError)(nil); !errors.As(err, &e) || e.Failure.Reason.String() != "floor.signature" {
		t.Errorf("refusal: %v", err)
	}
	if _, err := c.BootConfig(ctx, one); err == nil {
		t.Error("the boot configuration is readable from the bus")
	} else if e := (*link.CodeError)(nil); !errors.As(err, &e) || e.Code != wire.CodeWrongSide {
		t.Errorf("wrong side: %v", err)
	}
	if b, err := c.Evidence(ctx, one, wiretest.Nonce(7)); err != nil || len(b) != 40 {
		t.Errorf("evidence of %d bytes: %v", len(b), err)
	}
	image := bytes.Repeat([]byte("image"), 1000)
	last := 0
	p, err := c.WriteSlot(ctx, one, image, make([]byte, 5000), func(n int) { last = n })
	if err != nil || p.State != wire.SlotValid || p.Slot != wire.SlotB || last != len(image) {
		t.Errorf("write slot: %+v, %v, %d bytes", p, err, last)
	}
	if _, err := c.WriteSlot(ctx, one, image, []byte("!"), nil); err == nil {
		t.Error("a bad manifest was taken")
	}
	if slots, err := c.Slots(ctx, one); err != nil || slots[1].State != wire.SlotValid {
		t.Errorf("a refused offer cost the slot: %+v, %v", slots, err)
	}
	if rs, err := c.RackState(ctx); err != nil || rs.FanCount != 2 || rs.PresentMask != 6 {
		t.Errorf("rack state: %+v, %v", rs, err)
	}
	pol, err := c.Policies(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pol.Generation++
	if g, err := c.SetPolicies(ctx, &pol); err != nil || g.Observed != pol.Generation {
		t.Errorf("set policies: %+v, %v", g, err)
	}
	if pdrs, err := c.PDRs(ctx, one); err != nil || len(pdrs) < 8 {
		t.Errorf("%d records: %v", len(pdrs), err)
	}
	if v, err := c.Sensor(ctx, one, wire.SensorPower); err != nil || v.Value != int64(s.Milliwatts) {
		t.Errorf("sensor: %+v, %v", v, err)
	}
	if err := c.Reset(ctx, one, wire.ResetForceOff); err != nil {
		t.Error(err)
	}
	if v, err := c.StateSensor(ctx, one, wire.SensorPowerState); err != nil || v != wire.SystemPowerOffHard {
		t.Errorf("power state %d: %v", v, err)
	}
}

// TestInBand is the unit's side: it does not know its slot and addresses "who is there".
func TestInBand(t *testing.T) {
	b := wiretest.NewBMC(3)
	near, far := wiretest.Line()
	done := make(chan struct{})
	go func() {
		defer close(done)
		wiretest.Serve(far, wire.BMC(3), 0, wire.SideInBand, b.Faults, b.Handle)
	}()
	c := link.New(near, wire.EIDUnit, link.Options{})
	t.Cleanup(func() {
		c.Close()
		far.Close()
		<-done
	})
	ctx := t.Context()
	if cfg, err := c.BootConfig(ctx, wire.EIDNull); err != nil || string(cfg) != `{"unit":"fake"}` {
		t.Errorf("boot configuration %q: %v", cfg, err)
	}
	f := wire.MakeFailure("rack.tree", "a", "b")
	if err := c.ReportStage(ctx, wire.EIDNull, wire.StageFailed, &f); err != nil {
		t.Error(err)
	}
	if s := b.State(); s.Stage != wire.StageFailed || s.Failure != f {
		t.Errorf("state after the report: %+v", s)
	}
	if err := c.ExtendMeasurement(ctx, wire.EIDNull, 8, [32]byte{1}, "tree"); err != nil {
		t.Error(err)
	}
	if _, err := c.SetDesired(ctx, wire.EIDNull, &wire.Desired{Generation: 1, BootSlot: wire.SlotNone}); err == nil {
		t.Error("a unit may set its desired state")
	}
	if r, err := c.Heartbeat(ctx, wire.EIDNull, &wire.Report{UptimeSeconds: 1}); err != nil || r != wire.HostNone {
		t.Errorf("heartbeat: %v, %v", r, err)
	}
}

// TestSilent: a silent BMC costs its callers a time-out and others nothing.
func TestSilent(t *testing.T) {
	r, c := rack(t, 2, link.Options{Timeout: 30 * time.Millisecond, Attempts: 2})
	r.BMCs[1].SetFaults(wiretest.Faults{Silent: true})
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if _, err := c.UnitState(t.Context(), wire.BMC(1)); !errors.Is(err, link.ErrTimeout) {
				t.Errorf("silent BMC: %v", err)
			}
		})
	}
	for range 50 {
		if _, err := c.UnitState(t.Context(), wire.BMC(2)); err != nil {
			t.Errorf("its neighbour: %v", err)
		}
	}
	wait.Wait()
	if s := c.Stats(); s.Timeouts != 3 || s.Retries < 3 {
		t.Errorf("counted %+v", s)
	}
	r.BMCs[1].SetFaults(wiretest.Faults{})
	if _, err := c.UnitState(t.Context(), wire.BMC(1)); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

func TestFaults(t *testing.T) {
	r, c := rack(t, 1, link.Options{Timeout: 50 * time.Millisecond, Attempts: 2})
	for name, f := range map[string]wiretest.Faults{
		"corrupt":        {Corrupt: true},
		"other command":  {Lie: func(h wire.Header, _ []byte) []byte { h.Command++; return wire.AppendResponse(nil, h, 0) }},
		"other instance": {Lie: func(h wire.Header, _ []byte) []byte { h.Instance ^= 1; return wire.AppendResponse(nil, h, 0) }},
		"a request":      {Lie: func(h wire.Header, _ []byte) []byte { return wire.AppendHeader(nil, h) }},
		"garbage":        {Lie: func(wire.Header, []byte) []byte { return []byte{0xFF} }},
		"truncated":      {Lie: func(_ wire.Header, b []byte) []byte { return b[:len(b)-3] }},
		"an error":       {Code: wire.CodeError},
		"busy":           {Code: wire.CodeNotReady},
	} {
		r.BMCs[1].SetFaults(f)
		if s, err := c.UnitState(t.Context(), wire.BMC(1)); err == nil {
			t.Errorf("%s: taken as %+v", name, s)
		}
	}
	r.BMCs[1].SetFaults(wiretest.Faults{})
	if _, err := c.UnitState(t.Context(), wire.BMC(1)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if s := c.Stats(); s.Strays == 0 || s.Dropped == 0 {
		t.Errorf("counted %+v", s)
	}
}

// TestOnce: what must not happen twice is not repeated, however late the answer is.
func TestOnce(t *testing.T) {
	r, c := rack(t, 1, link.Options{Timeout: 40 * time.Millisecond, Attempts: 5})
	r.BMCs[1].SetFaults(wiretest.Faults{Delay: 70 * time.Millisecond})
	if err := c.Reset(t.Context(), wire.BMC(1), wire.ResetCycle); err != nil {
		t.Error(err)
	}
	if n := len(r.BMCs[1].Resets()); n != 1 {
		t.Errorf("%d resets", n)
	}
}

func TestCancelAndClose(t *testing.T) {
	r, c := rack(t, 1, link.Options{Timeout: time.Hour})
	r.BMCs[1].SetFaults(wiretest.Faults{Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.UnitState(ctx, wire.BMC(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	result := make(chan error)
	go func() {
		_, err := c.UnitState(t.Context(), wire.BMC(1))
		result <- err
	}()
	c.Close()
	if err := <-result; !errors.Is(err, link.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := c.RackState(t.Context()); !errors.Is(err, link.ErrClosed) {
		t.Errorf("after closing: %v", err)
	}
}
