package sim

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/sim/netswitch"
	"github.com/racklet/racklet/sim/plant"
)

// Wiring of a tray's board. The chips' addresses are their defaults.
const (
	shuntMicroohms = 5000
	maxMilliamps   = 8000
	stepEvery      = 10 * time.Millisecond
)

// tray is one slot's board: the BMC with its chips and flash, and the compute
// unit that it powers.
type tray struct {
	rack *Rack
	slot uint8
	name string // of the unit
	spec rack.ComputeUnitSpec
	dir  string
	log  *slog.Logger

	chips  *chip.Bus
	flash  *chip.Flash
	inbox  *inbox // from the multi-drop bus
	port   *netswitch.Port
	device ed25519.PublicKey

	mu      sync.Mutex // guards the BMC and all below
	bmc     *bmc.BMC   // nil without standby power
	busPort wire.Port
	started time.Time // when the BMC began; its clock
	starts  int
	hung    bool
	restart bool          // asked for by the operator
	slow    time.Duration // of its answers on the bus
	says    string        // power state that it claims; "": the truth
	boards  fault.Log
	words   string // of its log
	bad     bool   // its unit has booted what the owners did not sign

	led        bool
	resetHeld  bool  // by the BMC
	clockAhead int64 // seconds, of the unit's real-time clock
	diskFull   bool  // its data disk takes no more
	resetSeen  bool  // the unit reset itself; until it is read
	unit       *unit
}

// The BMC's pins. They are called with t.mu held, by the BMC.
type pin func(bool)

func (p pin) Set(v bool) { p(v) }

type sense func() bool

func (s sense) Get() bool { return s() }

func newTray(r *Rack, slot uint8, u *rack.ComputeUnit) (*tray, error) {
	t := &tray{rack: r, slot: slot, name: u.Metadata.Name, spec: u.Spec, inbox: newInbox(),
		dir: filepath.Join(r.cfg.Dir, fmt.Sprintf("slot-%d", slot)),
		log: r.cfg.Log.With("unit", u.Metadata.Name, "slot", slot)}
	t.unit = newUnit(t)
	p, n := r.plant, int(slot)
	t.chips = chip.NewBus()
	t.chips.Attach(ina228.DefaultAddress, chip.NewINA228(shuntMicroohms*1e-6, p.Slot(n).Gain, func() chip.Rail {
		s := p.Slot(n)
		return chip.Rail{Volts: s.Volts, Amps: s.Amps, Joules: s.Joules, Die: s.Air}
	}))
	t.chips.Attach(tmp117.DefaultAddress, chip.NewTMP117(func() float64 { return p.Slot(n).Board }))
	return t, nil
}

// boot starts the BMC as its power does: everything it knows comes out of the
// flash. The caller holds t.mu.
func (t *tray) boot() error {
	meter, err := ina228.New(t.chips, ina228.Config{ShuntMicroohms: shuntMicroohms, MaxMilliamps: maxMilliamps})
	if err != nil {
		return err
	}
	p, n := t.rack.plant, int(t.slot)
	t.resetHeld = false
	b, err := bmc.New(bmc.Config{}, bmc.Ports{
		Flash:       t.flash,
		Switch:      pin(func(on bool) { p.SetSwitch(n, on) }),
		PowerGood:   sense(func() bool { return p.Slot(n).PowerGood }),
		UnitReset:   pin(func(on bool) { t.resetHeld = on }),
		ResetSeen:   sense(t.readReset),
		LED:         pin(func(on bool) { t.led = on }),
		Meter:       meter,
		Thermometer: tmp117.New(t.chips, 0),
		Identity:    eeprom.New(t.chips, 0),
	})
	if err != nil {
		return fmt.Errorf("start BMC of slot %d: %w", t.slot, err)
	}
	t.bmc, t.started, t.hung, t.restart = b, time.Now(), false, false
	t.starts++
	t.busPort = wire.Port{Own: wire.BMC(t.slot), Slot: t.slot}
	return nil
}

func (t *tray) readReset() bool {
	seen := t.resetSeen || t.resetHeld
	t.resetSeen = false
	return seen
}

// millis is the BMC's clock.
func (t *tray) millis() uint64 { return uint64(time.Since(t.started) / time.Millisecond) }

// run is the tray's life until ctx ends: it steps the BMC, carries the bus to
// it, and starts and ends the unit with its power.
func (t *tray) run(ctx context.Context) {
	ticker := time.NewTicker(stepEvery)
	defer ticker.Stop()
	var bytes, out []byte
	resp := make([]byte, wire.MaxMessage-1)
	keys := make([]byte, 256)
	defer t.unit.end()
	for {
		tick := false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			tick = true
		case <-t.inbox.wake:
		}
		s := t.rack.plant.Slot(int(t.slot))

		t.mu.Lock()
		switch {
		case !s.Standby && t.bmc != nil:
			t.bmc = nil
			t.chips.Power(false)
		case s.Standby && t.bmc == nil, t.restart:
			t.chips.Power(true)
			if err := t.boot(); err != nil {
				t.log.Error("BMC does not start", "err", err)
				t.bmc = nil
			}
		}
		bytes = t.inbox.take(bytes)
		t.restart = t.bmc != nil && t.bmc.RestartWanted() // its answer has left since
		if t.bmc != nil && !t.hung {
			if out = t.hear(bytes, out[:0], resp); len(out) > 0 {
				t.send(out)
			}
			if tick {
				t.bmc.Step(t.millis())
			}
			if n := t.bmc.ConsoleOutput(keys); n > 0 {
				t.unit.typed(keys[:n])
			}
		}
		held := t.resetHeld
		t.mu.Unlock()

		t.unit.power(ctx, s.PowerGood && !held)
		if tick {
			t.unit.load()
		}
	}
}

// hear takes bytes from the bus and appends the answers to out. The caller
// holds t.mu.
func (t *tray) hear(p, out, resp []byte) []byte {
	for _, c := range p {
		m, ok := t.busPort.Push(c)
		if !ok {
			continue
		}
		var done bool
		if out, done = t.busPort.Control(out, &m); done || m.Type != wire.MessagePLDM {
			continue
		}
		if n := t.bmc.Handle(wire.SideBus, t.millis(), m.Body, resp); n > 0 {
			out = t.busPort.Respond(out, &m, fault.Claim(m.Body, resp[:n], t.says))
		}
	}
	return out
}

// send puts the BMC's answer on the bus, at once or as late as a slow one. The caller holds t.mu.
func (t *tray) send(out []byte) {
	if t.slow == 0 {
		t.rack.bus.send(t.inbox, out)
		return
	}
	late := append([]byte(nil), out...)
	time.AfterFunc(t.slow, func() { t.rack.bus.send(t.inbox, late) })
}

// Blocks implements bootrom.Medium.
func (t *tray) Blocks() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bmc == nil || t.hung {
		return 0
	}
	return t.bmc.MediumBlocks()
}

// Read implements bootrom.Medium. It lets the BMC do other things between
// pieces, as its USB stack would.
func (t *tray) Read(lba uint32, dst []byte) error {
	const piece = 64 * 512
	for len(dst) > 0 {
		n := min(len(dst), piece)
		t.mu.Lock()
		if t.bmc == nil || t.hung {
			t.mu.Unlock()
			return bmc.ErrMedium
		}
		err := t.bmc.ReadMedium(lba, dst[:n])
		t.mu.Unlock()
		if err != nil {
			return err
		}
		lba += uint32(n / 512)
		dst = dst[n:]
	}
	return nil
}

// testify notes whether what the boot ROM has read was signed.
func (t *tray) testify(w *witness) {
	slot := wire.SlotNone
	t.mu.Lock()
	if t.bmc != nil {
		slot = t.bmc.UnitState().BootSlot
	}
	t.mu.Unlock()
	if slot == wire.SlotNone {
		return // its power has gone meanwhile
	}
	if err := w.check(t.flash, slot, &t.rack.cfg.Provisioning.Owners); err != nil {
		t.log.Error("the unit boots what its owners did not sign", "err", err)
		t.mu.Lock()
		t.bad = true
		t.mu.Unlock()
	}
}

// inBand answers one message that the unit sent.
func (t *tray) inBand(p *wire.Port, c byte, out, resp []byte) []byte {
	m, ok := p.Push(c)
	if !ok {
		return out
	}
	var done bool
	if out, done = p.Control(out, &m); done || m.Type != wire.MessagePLDM {
		return out
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bmc == nil || t.hung {
		return out
	}
	if n := t.bmc.Handle(wire.SideInBand, t.millis(), m.Body, resp); n > 0 {
		out = p.Respond(out, &m, resp[:n])
	}
	return out
}

// printed shows the BMC what the unit printed.
func (t *tray) printed(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bmc != nil && !t.hung {
		t.bmc.ConsoleInput(p)
	}
}

func (t *tray) sawReset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resetSeen = true
}

// activity tells the plant what the machine does.
func (t *tray) activity(a plant.Activity) { t.rack.plant.SetActivity(int(t.slot), a) }
