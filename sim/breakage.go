package sim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/sim/machine"
	"github.com/racklet/racklet/sim/netswitch"
)

// breakage is the rack as package fault breaks it: a fault.Body. What the engine does it does on top of what was broken
// by hand through the other operations of /sim/v1; where both speak of the same thing, the last word counts.
type breakage struct {
	rack   *Rack
	engine *fault.Engine

	// Order of locks: mu, the engine's, looks, those of controllers.
	mu       sync.Mutex
	running  *fault.Run // the scenario that runs or ran last
	scenario string

	preparing sync.Mutex // of what an impostor shows

	looks  sync.Mutex
	log    fault.Log
	words  string // of the RMC's log
	events uint64
}

// room is the temperature around the rack in °C unless a fault says otherwise.
const room = 23

func newBreakage(r *Rack) *breakage {
	b := &breakage{rack: r}
	b.engine = fault.New(b)
	return b
}

// Times of the engine.
const (
	engineEvery = 50 * time.Millisecond
	lookEvery   = 100 * time.Millisecond
)

// run lets the engine act, until ctx ends.
func (b *breakage) run(ctx context.Context) {
	ticker := time.NewTicker(engineEvery)
	defer ticker.Stop()
	var looked time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := b.rack.plant.Now()
		b.engine.Step(now)
		b.mu.Lock()
		run := b.running
		b.mu.Unlock()
		if run == nil || now-looked < lookEvery {
			continue
		}
		looked = now
		view := b.Look()
		b.mu.Lock()
		run.Step(view)
		b.mu.Unlock()
	}
}

// SlotOf implements fault.Site.
func (b *breakage) SlotOf(unit string) int {
	for _, t := range b.rack.trays {
		if t.name == unit {
			return int(t.slot)
		}
	}
	return 0
}

// Ports implements fault.Site.
func (b *breakage) Ports() []string {
	var names []string
	for _, p := range b.rack.netw.Ports() {
		names = append(names, p.Name())
	}
	return names
}

// FanCount implements fault.Site.
func (b *breakage) FanCount() int { return fans }

// ready says why a fault cannot happen on this rack, and prepares what it takes.
func (b *breakage) ready(f *rack.FaultSpec) error {
	switch service, impostor := impostors[f.Kind]; {
	case f.Kind == "load":
		return errors.New("a machine is as busy as it is: give it work")
	case (impostor || f.Kind == "git-down") && !b.rack.ours():
		return fmt.Errorf("%s breaks the built-in Git host, and units fetch from another one here", f.Kind)
	case impostor:
		b.preparing.Lock()
		defer b.preparing.Unlock()
		if b.engine.Effects().Git == service {
			return nil // it is shown already
		}
		return b.rack.prepare(service)
	}
	return nil
}

// Apply implements fault.Body.
func (b *breakage) Apply(before, after *fault.Effects) error {
	r := b.rack
	if before.Plant != after.Plant {
		r.plant.SetFaults(after.Plant)
	}
	if before.Ambient != after.Ambient {
		if after.Ambient == 0 {
			r.plant.SetAmbient(room)
		} else {
			r.plant.SetAmbient(after.Ambient)
		}
	}
	if before.Jam != after.Jam {
		r.bus.jam(after.Jam)
	}
	if before.RMC != after.RMC {
		r.rmc.mu.Lock()
		r.rmc.hung = after.RMC.Hung
		r.rmc.mu.Unlock()
		r.rmc.chips.SetFault(ina228.DefaultAddress, after.RMC.Power)
		r.rmc.chips.SetFault(tmp117.DefaultAddress, after.RMC.Temperature)
		r.rmc.chips.SetFault(emc2305.DefaultAddress, after.RMC.Fans)
	}
	if before.Git != after.Git {
		r.services["git"].Store(after.Git == fault.ServiceDown)
		r.git.Pretend(r.impostorDir(after.Git))
	}
	if before.Mirror != after.Mirror {
		r.services["mirror"].Store(after.Mirror == fault.ServiceDown)
	}
	var first error
	for _, p := range r.netw.Ports() {
		x, y := before.Cables[p.Name()], after.Cables[p.Name()]
		if x == y {
			continue
		}
		if err := p.SetFault(netswitch.FromDevice, y.FromDevice); err != nil && first == nil {
			first = err
		}
		if err := p.SetFault(netswitch.ToDevice, y.ToDevice); err != nil && first == nil {
			first = err
		}
		p.SetGroup(y.Group)
		for _, t := range r.trays {
			if t.port == p {
				go t.carrier(context.Background()) // it asks the machine, which may take its time
			}
		}
	}
	for _, t := range r.trays {
		x, y := &before.Trays[t.slot-1], &after.Trays[t.slot-1]
		if *x != *y {
			if err := b.tray(t, x, y); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}

// tray makes one tray follow.
func (b *breakage) tray(t *tray, before, after *fault.TrayEffects) error {
	if before.Pulled != after.Pulled {
		b.rack.plant.SetPresent(int(t.slot), !after.Pulled)
	}
	t.chips.SetFault(ina228.DefaultAddress, after.Power)
	t.chips.SetFault(tmp117.DefaultAddress, after.Temperature)
	t.mu.Lock()
	t.slow, t.says = after.Slow, after.Says
	if before.Hung != after.Hung {
		t.hung = after.Hung
	}
	t.diskFull = after.DiskFull
	if before.ClockAhead != after.ClockAhead {
		t.clockAhead = int64(after.ClockAhead / time.Second)
	}
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	m := t.machine()
	if before.DiskFull != after.DiskFull && m != nil {
		if err := m.SetDiskFull(ctx, after.DiskFull); err != nil {
			return err
		}
	}
	if before.Silent != after.Silent {
		switch {
		case m == nil && after.Silent:
			return fmt.Errorf("unit %s does not run", t.name)
		case m == nil:
			return nil
		}
		do := m.Resume
		if after.Silent {
			do = m.Pause
		}
		return do(ctx)
	}
	if !before.KeyStolen && after.KeyStolen {
		return t.thief(b.rack)
	}
	return nil
}

// thief hands the BMC, in the unit's name, a floor statement that is signed with the BMC's own key.
func (t *tray) thief(r *Rack) error {
	key, _, err := deviceKey(filepath.Join(t.dir, "device.pem"))
	if err != nil {
		return err
	}
	id, err := parseUUID(r.cfg.Rack.Spec.ID)
	if err != nil {
		return err
	}
	return t.forge(key, id)
}

func (t *tray) forge(key ed25519.PrivateKey, id [16]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bmc == nil || t.hung {
		return fmt.Errorf("the BMC of slot %d does not answer", t.slot)
	}
	statement := fault.ThiefsFloors(key, id, t.bmc.UnitState().Floors)
	req := wire.AppendBytes(wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdRaiseFloors), statement)
	t.bmc.Handle(wire.SideInBand, t.millis(), req, make([]byte, wire.MaxMessage-1))
	return nil
}

// Once implements fault.Body.
func (b *breakage) Once(f *rack.FaultSpec) error {
	if f.Kind == "rmc-restart" {
		b.rack.rmc.mu.Lock()
		defer b.rack.rmc.mu.Unlock()
		b.rack.rmc.restart = true
		return nil
	}
	for _, t := range b.rack.trays {
		if t.name == f.Target {
			return t.once(f)
		}
	}
	return fmt.Errorf("no unit %q", f.Target)
}

func (t *tray) once(f *rack.FaultSpec) error {
	switch f.Kind {
	case "bmc-restart":
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.bmc == nil {
			return fmt.Errorf("the BMC of slot %d has no power", t.slot)
		}
		t.restart = true
		return nil
	case "flash-flip":
		off, bit := fault.FlashBit(f)
		return t.flash.FlipBit(off, bit)
	case "disk-flip":
		return flipFile(machine.DiskPath(t.dir), int64(f.Number("offset")), uint8(f.Number("bit")))
	case "unit-reset":
		m := t.machine()
		if m == nil {
			return fmt.Errorf("unit %s does not run", t.name)
		}
		m.Kill() // without power lost: the boot ROM begins again
		return nil
	}
	return fmt.Errorf("%s: not known here", f.Kind)
}

// Look implements fault.Body.
func (b *breakage) Look() *fault.View {
	r := b.rack
	v := &fault.View{Now: r.plant.Now(), Rack: r.plant.Rack(), Energy: r.plant.Energy()}
	for i := range fans {
		v.Fans = append(v.Fans, r.plant.Fan(i))
	}
	about := map[int]string{} // words of the RMC's log by slot
	b.looks.Lock()
	defer b.looks.Unlock()
	c := r.rmc
	c.mu.Lock()
	v.RMCAlive, v.Starts = c.rmc != nil && !c.hung, c.starts
	if v.RMCAlive {
		v.RMC = c.rmc.State()
		now := uint64(time.Since(c.started) / time.Millisecond)
		b.events += uint64(b.log.Read(v.RMC.LastEvent, func(req, resp []byte) int { return c.rmc.Handle(wire.SideDebug, now, req, resp) }, func(e *wire.Event) {
			b.words += fault.Words(e)
			about[int(e.Slot)] += fault.Words(e)
		}))
	}
	c.mu.Unlock()
	for _, t := range r.trays {
		t.words += about[int(t.slot)]
		v.Units = append(v.Units, b.look(t))
	}
	v.Log, v.Events = " "+b.words, b.events
	return v
}

func (b *breakage) look(t *tray) fault.UnitView {
	u := fault.UnitView{Unit: t.name, Slot: int(t.slot), Truth: b.rack.plant.Slot(int(t.slot)), BMC: "off"}
	t.unit.mu.Lock()
	u.Machine = t.unit.phase
	t.unit.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	u.Starts, u.Unverified = t.starts, t.bad
	if t.bmc != nil {
		u.BMC, u.Said = "alive", t.bmc.UnitState()
		if t.hung {
			u.BMC = "hung"
		} else {
			b.events += uint64(t.boards.Read(u.Said.LastEvent, func(req, resp []byte) int { return t.bmc.Handle(wire.SideDebug, t.millis(), req, resp) },
				func(e *wire.Event) { t.words += fault.Words(e) }))
		}
		fault.Pretend(&u.Said, t.says)
	}
	u.Log = " " + t.words
	return u
}

// forget empties what logs are asked for: what was before a scenario does not count.
func (b *breakage) forget() {
	b.Look()
	b.looks.Lock()
	defer b.looks.Unlock()
	b.words = ""
	for _, t := range b.rack.trays {
		t.words = ""
	}
}

// start runs a scenario. There is one at a time.
func (b *breakage) start(s *rack.Scenario) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running != nil && b.running.Outcome().State == "running" {
		return conflict("scenario %s is running", b.scenario)
	}
	for i := range s.Spec.Faults {
		if err := fault.Check(b, &s.Spec.Faults[i]); err != nil {
			return bad("faults[%d]: %v", i, err)
		}
		if err := b.ready(&s.Spec.Faults[i]); err != nil {
			return conflict("faults[%d]: %v", i, err)
		}
	}
	b.forget()
	run, err := fault.Start(s, b.engine, b.Look())
	if err != nil {
		return bad("%v", err)
	}
	b.running, b.scenario = run, s.Metadata.Name
	return nil
}

// outcome is that of the scenario that runs or ran last.
func (b *breakage) outcome() (fault.Outcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		return fault.Outcome{}, missing("no scenario was run")
	}
	return b.running.Outcome(), nil
}

// stop ends the scenario and heals everything.
func (b *breakage) stop() int {
	b.mu.Lock()
	if b.running != nil {
		b.running.Stop()
	}
	b.mu.Unlock()
	return b.engine.ClearAll()
}
