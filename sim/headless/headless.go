// Package headless is the virtual rack without machines: physics, chips at register level, flash, the real BMCs and the
// real RMC on a bus of bytes, with ghosts in place of the units' machines (ghost.go). It lives in simulated time, as fast
// as the host computes it, in one goroutine, and does the same thing for the same scenario every time, byte for byte.
//
//	plant ── chips ── BMC ── ghost          management computer (manage)
//	   └──── chips ── RMC ══ bus ══ BMCs        │ policies, clock, desired power, asks once a second
//	                   └──────── line ──────────┘
//
// Scenarios that need no booting machine run on it: racklet fault run, and the tests of examples/scenarios.
package headless

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/sim/plant"
)

// Wiring, as in package sim.
const (
	fans           = 2
	shuntMicroohms = 5000
	maxMilliamps   = 8000
	tick           = 10 * time.Millisecond
	lookEvery      = 100 * time.Millisecond
	idle           = 0.1 // share of a ghost's cores in use while it runs
	booting        = 0.6
)

// Rack is a headless rack. Its methods must be called from one goroutine at a time.
type Rack struct {
	signed  *states
	id      [16]byte
	plant   *plant.Plant
	now     uint64 // ms
	trays   []*tray
	chips   *chip.Bus
	flash   *chip.Flash
	rmc     *rmc.RMC
	starts  int
	powered bool
	hung    bool
	jam     bool
	rng     *rand.Rand
	resp    []byte

	toBus, toLine bytes.Buffer
	late          []answer
	tag           uint8
	generation    uint32
	wanted        bool // power, by the management computer
	effects       *fault.Effects
	options       Options
	defect        string // see Options

	log    fault.Log
	words  string
	events uint64
}

// answer is what a slow BMC says, on its way.
type answer struct {
	at    uint64
	bytes []byte
}

type tray struct {
	slot   int // from 1
	name   string
	key    ed25519.PrivateKey
	chips  *chip.Bus
	flash  *chip.Flash
	bmc    *bmc.BMC // nil without standby power
	starts int
	hung   bool
	held   bool // reset line
	port   wire.Port
	ghost  ghost
	busy   float64 // below 0: by itself

	log   fault.Log
	words string
}

// alive is the BMC if it runs.
func (t *tray) alive() *bmc.BMC {
	if t.hung {
		return nil
	}
	return t.bmc
}

// cpu is the share of the cores that the ghost uses.
func (t *tray) cpu() (share float64, running bool) {
	switch s := t.ghost.step; {
	case s == stepOff:
		return 0, t.ghost.on
	case s == stepHalted:
		return 0, false
	case t.busy >= 0 && s == stepRunning:
		return t.busy, true
	case s == stepRunning, s == stepFailed:
		return idle, true
	}
	return booting, true
}

type pin func(bool)

func (p pin) Set(v bool) { p(v) }

type sense func() bool

func (s sense) Get() bool { return s() }

// Options say what rack to build.
type Options struct {
	Units int // 1 to 9; 4
	Seed  uint64
	// Defect plants one of Defects, to see that somebody catches it.
	Defect string
	// Dir keeps the flash chips as files in a directory, from which a later rack goes on; "" keeps them in memory.
	Dir string

	onOp func(*chip.Flash, chip.Op) // tests: called before each operation of a flash chip
}

// New builds a rack: all trays are in, everything is off.
func New(o Options) (*Rack, error) {
	if o.Units == 0 {
		o.Units = 4
	}
	if o.Units < 1 || o.Units > rack.MaxSlots-1 {
		return nil, fmt.Errorf("headless: %d units, want 1 to %d", o.Units, rack.MaxSlots-1)
	}
	s, err := signed()
	if err != nil {
		return nil, fmt.Errorf("headless: %w", err)
	}
	r := &Rack{signed: s, chips: chip.NewBus(), rng: rand.New(rand.NewPCG(o.Seed, 7)),
		resp: make([]byte, wire.MaxMessage-1), effects: &fault.Effects{}, options: o, defect: o.Defect, powered: true}
	if r.flash, err = r.memory("rmc", rmc.FlashSize); err != nil {
		return nil, fmt.Errorf("headless: %w", err)
	}
	id, err := hex.DecodeString(strings.ReplaceAll(rackID, "-", ""))
	if err != nil {
		return nil, err
	}
	r.id = [16]byte(id)
	boards := make([]plant.Board, o.Units)
	for i := range boards {
		boards[i] = plant.Pi5
	}
	if r.plant, err = plant.New(plant.Config{Seed: o.Seed + 1, Slots: boards, Fans: fans}); err != nil {
		return nil, fmt.Errorf("headless: %w", err)
	}
	p := r.plant
	r.chips.Attach(ina228.DefaultAddress, chip.NewINA228(shuntMicroohms*1e-6, 1, func() chip.Rail {
		s := p.Rack()
		return chip.Rail{Volts: s.Volts, Amps: s.Amps, Joules: s.Joules, Die: s.Exhaust}
	}))
	r.chips.Attach(tmp117.DefaultAddress, chip.NewTMP117(func() float64 { return p.Rack().Inlet }))
	r.chips.Attach(emc2305.DefaultAddress, chip.NewEMC2305(func(f int) float64 { return p.Fan(f).RPM }, r.drive))
	for i := range o.Units {
		t, err := r.fit(i + 1)
		if err != nil {
			return nil, fmt.Errorf("headless: slot %d: %w", i+1, err)
		}
		r.trays = append(r.trays, t)
	}
	return r, nil
}

// memory is a flash chip: new, or as an earlier rack left it in Options.Dir.
func (r *Rack) memory(name string, size uint32) (f *chip.Flash, err error) {
	if r.options.Dir == "" {
		return chip.NewFlash(size), nil
	}
	if f, err = chip.OpenFlash(filepath.Join(r.options.Dir, name+".flash"), size); err != nil {
		return nil, err
	}
	if r.options.onOp != nil {
		f.OnOp(func(op chip.Op) { r.options.onOp(f, op) })
	}
	return f, nil
}

// Close closes the files of the flash chips.
func (r *Rack) Close() error {
	errs := []error{r.flash.Close()}
	for _, t := range r.trays {
		errs = append(errs, t.flash.Close())
	}
	return errors.Join(errs...)
}

func (r *Rack) fit(n int) (*tray, error) {
	seed := sha256.Sum256([]byte("device " + strconv.Itoa(n)))
	t := &tray{slot: n, name: fmt.Sprintf("unit-%d", n), key: ed25519.NewKeyFromSeed(seed[:]), chips: chip.NewBus(), busy: -1}
	var err error
	if t.flash, err = r.memory(t.name, bmc.FlashSize); err != nil {
		return nil, err
	}
	t.ghost = ghost{rack: r, tray: t}
	p := r.plant
	t.chips.Attach(ina228.DefaultAddress, chip.NewINA228(shuntMicroohms*1e-6, p.Slot(n).Gain, func() chip.Rail {
		s := p.Slot(n)
		return chip.Rail{Volts: s.Volts, Amps: s.Amps, Joules: s.Joules, Die: s.Air}
	}))
	t.chips.Attach(tmp117.DefaultAddress, chip.NewTMP117(func() float64 { return p.Slot(n).Board }))
	done := filepath.Join(r.options.Dir, t.name+".provisioned") // made last
	if _, err := os.Stat(done); err == nil && r.options.Dir != "" {
		return t, nil
	}
	cfg := bmc.Config{Slot: uint8(n), RackID: r.id, DeviceKey: t.key, Owners: r.signed.owners, BootConfig: []byte("{}"), Emulated: true, Limits: r.limits()}
	if err := bmc.Provision(t.flash, cfg); err != nil {
		return nil, err
	}
	for slot := range uint8(2) {
		if err := bmc.WriteSlot(t.flash, slot, bytes.NewReader(r.signed.image), r.signed.slot); err != nil {
			return nil, err
		}
	}
	if r.options.Dir != "" {
		return t, os.WriteFile(done, nil, 0o600)
	}
	return t, nil
}

func (r *Rack) random() float64 { return r.rng.Float64() }

// startRMC is the RMC's power-on.
func (r *Rack) startRMC() error {
	meter, err := ina228.New(r.chips, ina228.Config{ShuntMicroohms: shuntMicroohms, MaxMilliamps: maxMilliamps})
	if err != nil {
		return err
	}
	chip, err := emc2305.New(r.chips, emc2305.DefaultAddress, fans)
	if err != nil {
		return err
	}
	ports := rmc.Ports{Bus: &r.toBus, Management: &r.toLine, Flash: r.flash, Meter: meter, Inlet: tmp117.New(r.chips, 0), Fans: chip}
	for i := range r.trays {
		ports.Present[i] = driver.Input(sense(func() bool { return r.plant.Slot(i + 1).Present }))
	}
	r.hung = false
	if r.rmc, err = rmc.New(rmc.Config{Slots: uint8(len(r.trays)), Fans: fans}, ports); err != nil {
		return err
	}
	r.starts++
	return nil
}

func (r *Rack) startBMC(t *tray) error {
	meter, err := ina228.New(t.chips, ina228.Config{ShuntMicroohms: shuntMicroohms, MaxMilliamps: maxMilliamps})
	if err != nil {
		return err
	}
	t.held, t.hung = false, false
	if r.lossy() && t.starts > 0 {
		fresh, err := r.fit(t.slot)
		if err != nil {
			return err
		}
		t.flash, r.wanted = fresh.flash, r.defect != "desired-forgotten"
	}
	t.port = wire.Port{Own: wire.BMC(uint8(t.slot)), Slot: uint8(t.slot)}
	t.bmc, err = bmc.New(bmc.Config{Limits: r.limits()}, bmc.Ports{
		Flash: t.flash, Meter: meter, Thermometer: tmp117.New(t.chips, 0),
		Switch:    pin(func(on bool) { r.plant.SetSwitch(t.slot, on) }),
		PowerGood: sense(func() bool { return r.plant.Slot(t.slot).PowerGood }),
		UnitReset: pin(func(on bool) { t.held = on }),
		ResetSeen: sense(func() bool { seen := t.ghost.reset || t.held; t.ghost.reset = false; return seen }),
	})
	if err != nil {
		return err
	}
	t.starts++
	return nil
}

// Now is the rack's clock.
func (r *Rack) Now() time.Duration { return time.Duration(r.now) * time.Millisecond }

// Step lets ten milliseconds pass.
func (r *Rack) Step() error {
	r.now += uint64(tick / time.Millisecond)
	r.plant.Step(tick)
	all := r.plant.Rack()
	r.chips.Power(all.Standby)
	r.chips.Advance(tick)
	for _, t := range r.trays {
		s := r.plant.Slot(t.slot)
		t.chips.Power(s.Standby)
		t.chips.Advance(tick)
		switch {
		case !s.Standby && t.bmc != nil:
			t.bmc = nil
			r.plant.SetSwitch(t.slot, false) // its enable pin is pulled down
		case s.Standby && (t.bmc == nil || t.bmc.RestartWanted()):
			if err := r.startBMC(t); err != nil {
				return fmt.Errorf("start BMC of slot %d: %w", t.slot, err)
			}
		}
		if b := t.alive(); b != nil {
			b.Step(r.now)
		}
		t.ghost.power(r.now, s.PowerGood && !t.held)
		t.ghost.run(r.now, r.effects)
		cpu, running := t.cpu()
		r.plant.SetActivity(t.slot, plant.Activity{Running: running && s.PowerGood, CPU: cpu})
	}
	switch {
	case !all.Standby:
		r.rmc = nil
	case r.rmc == nil || r.rmc.RestartWanted():
		if err := r.startRMC(); err != nil {
			r.rmc = nil // as a controller that starts over, until its chips answer
		}
	}
	if r.rmc != nil && !r.hung {
		r.rmc.Step(r.now)
		r.carry()
		if r.now%250 == 0 {
			r.manage()
			r.carry()
		}
	}
	r.toLine.Reset()
	return nil
}

// carry moves bytes between RMC and BMCs until nobody has anything to say.
func (r *Rack) carry() {
	for i := 0; i < len(r.late); {
		if a := r.late[i]; a.at <= r.now {
			r.late = append(r.late[:i], r.late[i+1:]...)
			r.rmc.Bus(r.garble(a.bytes))
			continue
		}
		i++
	}
	for r.toBus.Len() > 0 {
		p := r.garble(bytes.Clone(r.toBus.Bytes()))
		r.toBus.Reset()
		for _, t := range r.trays {
			b := t.alive()
			if r.defect == "silence-believed" {
				b = t.bmc
			}
			if b == nil {
				continue
			}
			for _, c := range p {
				m, ok := t.port.Push(c)
				if !ok {
					continue
				}
				e := &r.effects.Trays[t.slot-1]
				out, control := t.port.Control(nil, &m)
				if !control {
					n := b.Handle(wire.SideBus, r.now, m.Body, r.resp)
					if n == 0 {
						continue
					}
					out = t.port.Respond(nil, &m, fault.Claim(m.Body, r.resp[:n], e.Says))
				}
				if e.Slow > 0 {
					r.late = append(r.late, answer{r.now + uint64(e.Slow.Milliseconds()), out})
				} else {
					r.rmc.Bus(r.garble(out))
				}
			}
		}
	}
}

func (r *Rack) garble(p []byte) []byte {
	if r.jam {
		for i := range p {
			p[i] ^= byte(i*7) | 1
		}
	}
	return p
}

// manage is the management computer: four times a second it asks for the rack's state, and brings policies, clock and
// desired power to whom they miss.
func (r *Rack) manage() {
	state := r.rmc.State()
	switch {
	case state.Flags&wire.RackPolicyUnset != 0:
		r.send(wire.EIDRMC, wire.CmdSetPolicies, wire.AppendPolicies(nil, r.policies()))
	case state.Flags&wire.RackClockSet == 0:
		r.send(wire.EIDRMC, wire.CmdSetTime, wire.AppendTime(nil, uint64(epoch.UnixMilli())+3_600_000+r.now))
	default:
		r.send(wire.EIDRMC, wire.CmdGetRackState, nil)
	}
	if !r.wanted {
		return
	}
	for _, t := range r.trays {
		if b := t.alive(); b != nil && b.UnitState().DesiredGeneration < r.generation {
			r.send(wire.BMC(uint8(t.slot)), wire.CmdSetDesired, wire.AppendDesired(nil, &wire.Desired{
				Generation: r.generation, Mask: wire.DesiredPower, Power: wire.PowerOn, BootSlot: wire.SlotNone}))
			return // one at a time
		}
	}
}

// policies are those of the example repository, for a supply of 100 W.
func (r *Rack) policies() *wire.Policies {
	p := rmc.DefaultPolicies()
	p.Generation = 1
	p.UnitCapMilliwatts = 15_000
	r.spoil(&p)
	return &p
}

func (r *Rack) send(dest wire.EID, command uint8, payload []byte) {
	r.tag = (r.tag + 1) & 7
	body := append(wire.AppendRequest(nil, r.tag, wire.TypeOEM, command), payload...)
	frames, err := wire.AppendMessage(nil, 0, wire.Address{Dest: dest, Source: wire.EIDManagement, Tag: r.tag, TagOwner: true}, wire.MessagePLDM, body, 0)
	if err == nil {
		r.rmc.Management(frames)
	}
}
