package plant_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/driver/eeprom"
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
	label(t, l.bus, "RACK")
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
		label(t, y.bus, "TRAY"+string(rune('0'+n)))
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

// label puts an EEPROM with a serial number on a board.
func label(t *testing.T, bus *chip.Bus, serial string) {
	t.Helper()
	bus.Attach(eeprom.DefaultAddress, chip.NewEEPROM([6]byte{2, 0, 0, 0, 0, 1}))
	var r eeprom.Record
	if err := r.Set(eeprom.SerialNumber, serial); err != nil {
		t.Fatal(err)
	}
	if err := r.Set(eeprom.Manufacturer, "Racklet"); err != nil {
		t.Fatal(err)
	}
	if err := eeprom.New(bus, 0).WriteRecord(&r); err != nil {
		t.Fatal(err)
	}
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
	ports := rmc.Ports{Bus: &l.toBus, Management: &l.toLine, Flash: l.flash, Meter: meter, Inlet: tmp117.New(l.bus, rackInlet), Fans: fans, Identity: eeprom.New(l.bus, 0)}
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
		Flash: y.flash, Meter: meter, Thermometer: tmp117.New(y.bus, trayHeat), Identity: eeprom.New(y.bus, 0),
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
