package plant_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"math"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/plant"
)

// The closed loop: physics, chips at register level, the real drivers, the real BMCs and RMC, on a bus of bytes. No
// machines: a unit is its activity.

const units = 4

type input func() bool

func (f input) Get() bool { return f() }

type output func(bool)

func (f output) Set(v bool) { f(v) }

type tray struct {
	flash *chip.Flash
	bus   *chip.Bus
	bmc   *bmc.BMC // nil without standby power
	port  wire.Port
	cpu   float64
	hung  bool
}

type loop struct {
	t     *testing.T
	p     *plant.Plant
	now   uint64
	trays [units]*tray
	bus   *chip.Bus // the rack's
	flash *chip.Flash
	rmc   *rmc.RMC
	hung  bool // the RMC does not run

	toBus, toLine bytes.Buffer
	tag           uint8
	generation    uint32
	silent        bool
	line          func(p []byte) // takes what the RMC says to the management computer; nil: nobody does
}

const (
	trayMeter = 0x40
	trayHeat  = 0x48
	rackMeter = 0x45
	rackInlet = 0x48
	rackFans  = 0x2E
)

func newLoop(t *testing.T) *loop {
	t.Helper()
	p, err := plant.New(plant.Config{Seed: 1, Slots: []plant.Board{plant.Pi5, plant.Pi5, plant.Pi5, plant.Pi5}})
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{t: t, p: p, bus: chip.NewBus(), flash: chip.NewFlash(rmc.FlashSize)}
	l.bus.Attach(rackMeter, chip.NewINA228(0.005, 1, func() chip.Rail {
		r := p.Rack()
		return chip.Rail{Volts: r.Volts, Amps: r.Amps, Joules: r.Joules, Die: r.Inlet}
	}))
	l.bus.Attach(rackInlet, chip.NewTMP117(func() float64 { return p.Rack().Inlet }))
	l.bus.Attach(rackFans, chip.NewEMC2305(func(f int) float64 { return p.Fan(f).RPM }, p.SetDrive))
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	owners := trust.Keyring{Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Threshold: 1}
	image := make([]byte, trust.ChunkSize)
	m := trust.SlotManifest{Version: "1", SecurityVersion: 1, ImageSize: uint32(len(image)), ChunkSize: trust.ChunkSize, Chunks: [][32]byte{sha256.Sum256(image)}}
	manifest, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	signed := trust.AppendSigned(manifest, []trust.Signature{trust.Sign(trust.DomainSlot, key, manifest)})
	for i := range l.trays {
		n := i + 1
		y := &tray{flash: chip.NewFlash(bmc.FlashSize), bus: chip.NewBus()}
		l.trays[i] = y
		y.bus.Attach(trayMeter, chip.NewINA228(0.005, p.Slot(n).Gain, func() chip.Rail {
			s := p.Slot(n)
			return chip.Rail{Volts: s.Volts, Amps: s.Amps, Joules: s.Joules, Die: s.Air}
		}))
		y.bus.Attach(trayHeat, chip.NewTMP117(func() float64 { return p.Slot(n).Board }))
		cfg := bmc.Config{Slot: uint8(n), DeviceKey: key, Owners: owners, Emulated: true}
		if err := bmc.Provision(y.flash, cfg); err != nil {
			t.Fatal(err)
		}
		if err := bmc.WriteSlot(y.flash, wire.SlotA, bytes.NewReader(image), signed); err != nil {
			t.Fatal(err)
		}
	}
	l.startRMC()
	return l
}

func (l *loop) startRMC() {
	l.t.Helper()
	meter, err := ina228.New(l.bus, ina228.Config{Address: rackMeter, ShuntMicroohms: 5000, MaxMilliamps: 8000})
	if err != nil {
		l.t.Fatal(err)
	}
	fans, err := emc2305.New(l.bus, rackFans, 2)
	if err != nil {
		l.t.Fatal(err)
	}
	ports := rmc.Ports{Bus: &l.toBus, Management: &l.toLine, Flash: l.flash, Meter: meter, Inlet: tmp117.New(l.bus, rackInlet), Fans: fans}
	for i := range l.trays {
		ports.Present[i] = input(func() bool { return l.p.Slot(i + 1).Present })
	}
	if l.rmc, err = rmc.New(rmc.Config{Slots: units, Fans: 2}, ports); err != nil {
		l.t.Fatal(err)
	}
}

func (l *loop) startBMC(i int) {
	l.t.Helper()
	y, n := l.trays[i], i+1
	meter, err := ina228.New(y.bus, ina228.Config{Address: trayMeter, ShuntMicroohms: 5000, MaxMilliamps: 8000})
	if err != nil {
		l.t.Fatal(err)
	}
	y.port = wire.Port{Own: wire.BMC(uint8(n)), Slot: uint8(n)}
	y.bmc, err = bmc.New(bmc.Config{}, bmc.Ports{
		Flash: y.flash, Meter: meter, Thermometer: tmp117.New(y.bus, trayHeat),
		Switch:    output(func(v bool) { l.p.SetSwitch(n, v) }),
		PowerGood: input(func() bool { return l.p.Slot(n).PowerGood }),
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// run lets simulated time pass, in steps of ten milliseconds.
func (l *loop) run(d time.Duration) {
	l.t.Helper()
	for end := l.now + uint64(d.Milliseconds()); l.now < end; {
		l.now += 10
		l.p.Step(10 * time.Millisecond)
		rack := l.p.Rack()
		l.bus.Power(rack.Standby)
		l.bus.Advance(10 * time.Millisecond)
		for i, y := range l.trays {
			s := l.p.Slot(i + 1)
			y.bus.Power(s.Standby)
			y.bus.Advance(10 * time.Millisecond)
			switch {
			case !s.Standby && y.bmc != nil:
				y.bmc = nil
				l.p.SetSwitch(i+1, false) // its enable pin is pulled down
			case s.Standby && y.bmc == nil:
				l.startBMC(i)
			}
			if y.bmc != nil && !y.hung {
				y.bmc.Step(l.now)
			}
			l.p.SetActivity(i+1, plant.Activity{Running: s.PowerGood, CPU: y.cpu})
		}
		switch {
		case !rack.Standby:
			l.rmc = nil
		case l.rmc == nil:
			l.startRMC()
		}
		if l.rmc != nil && !l.hung {
			l.rmc.Step(l.now)
			l.pump()
			if l.now%1000 == 0 && !l.silent {
				l.send(wire.EIDRMC, wire.CmdGetRackState, nil)
				l.pump()
			}
		}
		if l.line != nil && l.toLine.Len() > 0 {
			l.line(l.toLine.Bytes())
		}
		l.toLine.Reset()
	}
}

func (l *loop) pump() {
	resp := make([]byte, wire.MaxMessage-1)
	for l.toBus.Len() > 0 {
		p := bytes.Clone(l.toBus.Bytes())
		l.toBus.Reset()
		for _, y := range l.trays {
			if y.bmc == nil || y.hung {
				continue
			}
			for _, b := range p {
				m, ok := y.port.Push(b)
				if !ok {
					continue
				}
				if out, control := y.port.Control(nil, &m); control {
					l.rmc.Bus(out)
					continue
				}
				if n := y.bmc.Handle(wire.SideBus, l.now, m.Body, resp); n > 0 {
					l.rmc.Bus(y.port.Respond(nil, &m, resp[:n]))
				}
			}
		}
	}
}

func (l *loop) send(dest wire.EID, command uint8, payload []byte) {
	l.t.Helper()
	l.tag = (l.tag + 1) & 7
	body := append(wire.AppendRequest(nil, l.tag, wire.TypeOEM, command), payload...)
	a := wire.Address{Dest: dest, Source: wire.EIDManagement, Tag: l.tag, TagOwner: true}
	frames, err := wire.AppendMessage(nil, 0, a, wire.MessagePLDM, body, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	l.rmc.Management(frames)
}

// on desires power for all trays and waits until every unit runs.
func (l *loop) on() {
	l.t.Helper()
	l.run(time.Second)
	l.generation++
	for i := range l.trays {
		l.send(wire.BMC(uint8(i+1)), wire.CmdSetDesired, wire.AppendDesired(nil, &wire.Desired{
			Generation: l.generation, Mask: wire.DesiredPower, Power: wire.PowerOn, BootSlot: wire.SlotNone}))
		l.run(100 * time.Millisecond)
	}
	l.run(15 * time.Second)
	for i := range l.trays {
		if s := l.state(i); s.State != wire.StateRunning {
			l.t.Fatalf("slot %d: %v, %v, grant %d of %d, %+v", i+1, s.State, s.Failure, s.GrantMilliwatts, s.RequestMilliwatts, l.p.Slot(i+1))
		}
	}
}

func (l *loop) state(i int) wire.UnitState {
	if l.trays[i].bmc == nil {
		return wire.UnitState{}
	}
	return l.trays[i].bmc.UnitState()
}

func (l *loop) drive() float64 { return min(l.p.Fan(0).Drive, l.p.Fan(1).Drive) }

func (l *loop) cpu(share float64) {
	for _, y := range l.trays {
		y.cpu = share
	}
}

func TestLoopCountsEnergy(t *testing.T) {
	l := newLoop(t)
	l.on()
	e0, rack0 := l.p.Energy(), l.rmc.State().Millijoules
	var bmc0 [units]uint64
	for i := range bmc0 {
		bmc0[i] = l.state(i).Millijoules
	}
	for k := range 20 {
		for i, y := range l.trays {
			y.cpu = float64((k*7+i*3)%10) / 10
		}
		l.run(15 * time.Second)
		if k == 10 {
			l.startRMC() // a restart loses no energy
		}
	}
	e := l.p.Energy()
	for i := range bmc0 {
		want := (e.Unit[i] - e0.Unit[i]) * 1000
		if got := float64(l.state(i).Millijoules - bmc0[i]); math.Abs(got-want) > want*0.01 {
			t.Errorf("unit %d took %.0f mJ, its BMC counted %.0f", i+1, want, got)
		}
	}
	want := (e.Supply - e0.Supply) * 1000
	got := float64(l.rmc.State().Millijoules - rack0)
	if math.Abs(got-want) > want*0.02 { // the supply's own droop is before the meter
		t.Errorf("supply gave %.0f mJ, the RMC counted %.0f", want, got)
	}
	if s := l.rmc.State(); s.Flags != wire.RackPolicyUnset || s.AnswerMask != 0b11110 {
		t.Errorf("%+v", s)
	}
}

func TestLoopFansFollowTheLoad(t *testing.T) {
	l := newLoop(t)
	l.on()
	l.run(3 * time.Minute)
	idle := l.drive()
	l.cpu(1)
	l.run(8 * time.Minute)
	busy := l.drive()
	if busy <= idle+0.1 || l.p.Slot(2).SoC > 75 {
		t.Errorf("idle %.2f, busy %.2f, SoC %.1f °C", idle, busy, l.p.Slot(2).SoC)
	}
	// At rest the loop is at rest: the duty hardly moves.
	lo, hi := busy, busy
	for range 120 {
		l.run(time.Second)
		lo, hi = min(lo, l.drive()), max(hi, l.drive())
	}
	if hi-lo > 0.05 {
		t.Errorf("duty swings between %.2f and %.2f at constant load", lo, hi)
	}
	t.Logf("idle %.2f, busy %.2f to %.2f, SoC %.1f °C", idle, lo, hi, l.p.Slot(2).SoC)
}

func TestLoopFullSpeed(t *testing.T) {
	for name, c := range map[string]struct {
		breaks, heals func(l *loop)
		within        time.Duration
	}{
		"inlet sensor": {
			func(l *loop) { l.bus.SetFault(rackInlet, chip.Fault{Absent: true}) },
			func(l *loop) { l.bus.SetFault(rackInlet, chip.Fault{}) }, 3 * time.Second},
		"tray sensor": {
			func(l *loop) { l.trays[1].bus.SetFault(trayHeat, chip.Fault{Absent: true}) },
			func(l *loop) { l.trays[1].bus.SetFault(trayHeat, chip.Fault{}) }, 5 * time.Second},
		"hung BMC": {
			func(l *loop) { l.trays[2].hung = true },
			func(l *loop) { l.trays[2].hung = false }, 5 * time.Second},
		"management computer": {
			func(l *loop) { l.silent = true },
			func(l *loop) { l.silent = false }, 16 * time.Second},
		"restarted RMC": {
			func(l *loop) { l.startRMC() },
			func(l *loop) {}, 50 * time.Millisecond},
		"hung RMC": { // the fan controller's own watchdog
			func(l *loop) { l.hung = true },
			func(l *loop) { l.hung = false }, 5 * time.Second},
		"stuck fan": {
			func(l *loop) { l.p.Edit(func(f *plant.Faults) { f.Fan[0].Stuck = true }) },
			func(l *loop) { l.p.Edit(func(f *plant.Faults) { f.Fan[0].Stuck = false }) }, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t)
			l.on()
			l.run(30 * time.Second)
			before := l.drive()
			if before > 0.9 {
				t.Fatalf("duty %.2f before, %+v", before, l.rmc.State())
			}
			c.breaks(l)
			l.run(c.within)
			if l.drive() < 0.99 {
				t.Errorf("duty %.2f after %v", l.drive(), c.within)
			}
			c.heals(l)
			l.run(30 * time.Second)
			if l.drive() > 0.9 {
				t.Errorf("duty %.2f after it healed, %+v", l.drive(), l.rmc.State())
			}
			for i := range l.trays {
				if !l.p.Slot(i + 1).PowerGood {
					t.Errorf("slot %d lost its power", i+1)
				}
			}
		})
	}
}

func TestLoopShortTripsOneSlot(t *testing.T) {
	l := newLoop(t)
	l.on()
	l.p.Edit(func(f *plant.Faults) { f.Slot[1].Short = true })
	l.run(time.Minute)
	if s := l.state(1); s.State != wire.StateFaulted || s.Failure.IsZero() {
		t.Errorf("shorted slot: %v, %v", s.State, s.Failure.Reason)
	}
	for _, i := range []int{0, 2, 3} {
		if s := l.state(i); s.State != wire.StateRunning || s.BootCount != 1 {
			t.Errorf("slot %d: %v, booted %d times", i+1, s.State, s.BootCount)
		}
	}
	if s := l.rmc.State(); s.GrantedMilliwatts != 36_000 {
		t.Errorf("granted %d mW", s.GrantedMilliwatts)
	}
}

// A brown-out, and a rack that lost its power altogether: it comes back by itself, one unit at a time.
func TestLoopComesBackStaggered(t *testing.T) {
	for name, sag := range map[string]float64{"brown-out": 0.4, "cut": 1} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t)
			l.on()
			energy := l.rmc.State().Millijoules
			l.p.Edit(func(f *plant.Faults) { f.Sag = sag })
			l.run(5 * time.Second)
			for i := range l.trays {
				if l.p.Slot(i + 1).PowerGood {
					t.Errorf("slot %d has power", i+1)
				}
			}
			l.p.Edit(func(f *plant.Faults) { f.Sag = 0 })
			var up [units]uint64
			for range 200 {
				l.run(100 * time.Millisecond)
				for i := range up {
					if up[i] == 0 && l.p.Slot(i+1).PowerGood {
						up[i] = l.now
					}
				}
			}
			for i := range up {
				if up[i] == 0 {
					t.Fatalf("slot %d did not come back: %+v", i+1, l.state(i))
				}
				for _, other := range up[:i] {
					if d := max(up[i], other) - min(up[i], other); d < 800 {
						t.Errorf("two units came up within %d ms", d)
					}
				}
			}
			if now := l.rmc.State().Millijoules; now+1_000_000 < energy {
				t.Errorf("energy went from %d to %d mJ", energy, now)
			}
		})
	}
}

// The same seed and the same schedule give the same physics and the same log, to the byte.
func TestLoopIsDeterministic(t *testing.T) {
	run := func() (plantHash [32]byte, log [32]byte) {
		l := newLoop(t)
		l.on()
		for k := range 30 {
			l.trays[k%units].cpu = float64(k%7) / 6
			l.p.Edit(func(f *plant.Faults) {
				f.Slot[2].Short = k == 10
				f.Fan[1].Stuck = k > 15 && k < 20
				f.Sag = float64(k/25) * 0.5
			})
			l.run(2 * time.Second)
		}
		h := sha256.New()
		for after := uint32(0); ; {
			resp := make([]byte, wire.MaxMessage-1)
			n := l.rmc.Handle(wire.SideBus, l.now, wire.AppendReadEvents(wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdReadEvents), after), resp)
			h.Write(resp[:n])
			events, err := wire.ParseEvents(resp[wire.HeaderSize+1 : n])
			if err != nil {
				t.Fatal(err)
			}
			var e wire.Event
			more := false
			for events.Next(&e) {
				after, more = e.Sequence, true
			}
			if !more {
				break
			}
		}
		return l.p.Hash(), [32]byte(h.Sum(nil))
	}
	p1, log1 := run()
	p2, log2 := run()
	if p1 != p2 || log1 != log2 {
		t.Errorf("two runs differ: physics %v, log %v", p1 != p2, log1 != log2)
	}
}

// Without air the units throttle, then shut down in order, and return when it is cool again.
func TestLoopOverheating(t *testing.T) {
	l := newLoop(t)
	l.on()
	l.cpu(1)
	l.p.SetAmbient(45)
	l.p.Edit(func(f *plant.Faults) {
		f.Blocked = 1
		f.Slot[1].HeatOff = 0.5
	})
	throttled := false
	for range 3600 {
		l.run(time.Second)
		throttled = throttled || l.rmc.State().Flags&wire.RackThrottling != 0
		if !l.p.Slot(2).PowerGood {
			break
		}
	}
	if l.p.Slot(2).PowerGood || !throttled {
		t.Fatalf("slot 2 at %.1f °C: throttled %v, on %v", l.p.Slot(2).SoC, throttled, l.p.Slot(2).PowerGood)
	}
	if l.drive() < 0.99 {
		t.Errorf("duty %.2f", l.drive())
	}
	t.Logf("off after %v at %.1f °C", time.Duration(l.now)*time.Millisecond, l.p.Slot(2).SoC)
	l.p.SetFaults(plant.Faults{})
	l.p.SetAmbient(23)
	l.cpu(0.1)
	l.run(5 * time.Minute)
	if s := l.state(1); s.State != wire.StateRunning {
		t.Errorf("cooled down: %v, %v", s.State, s.Failure.Reason)
	}
}
