package sim

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/machine"
	"github.com/racklet/racklet/sim/netswitch"
)

// Chips by the names that /sim/v1 gives them.
var (
	trayChips = map[string]uint16{"power": ina228.DefaultAddress, "temperature": tmp117.DefaultAddress, "eeprom": eeprom.DefaultAddress}
	rackChips = map[string]uint16{"power": ina228.DefaultAddress, "temperature": tmp117.DefaultAddress, "fans": emc2305.DefaultAddress, "eeprom": eeprom.DefaultAddress}
)

// State is the truth about every physical thing, as nobody inside the rack
// knows it. It is the answer of GET /sim/v1.
type State struct {
	Seconds     float64        `json:"seconds" doc:"simulated time since the start"`
	Accelerator string         `json:"accelerator" doc:"how machines are emulated: tcg, kvm or hvf"`
	Supply      SupplyState    `json:"supply" doc:"the power brick"`
	Air         AirState       `json:"air" doc:"air and heat"`
	Fans        []FanState     `json:"fans" doc:"fans, from 0"`
	RMC         FirmwareState  `json:"rmc" doc:"rack controller"`
	Bus         BusStats       `json:"bus" doc:"the multi-drop bus between RMC and BMCs"`
	Slots       []SlotState    `json:"slots" doc:"all slots in order"`
	Ports       []PortState    `json:"ports" doc:"ports of the network switch"`
	Services    []ServiceState `json:"services" doc:"what the neighbourhood offers"`
	Simulator   SimulatorState `json:"simulator" doc:"what the emulation costs this host"`
}

// SupplyState is the supply, at the busbar.
type SupplyState struct {
	Volts     float64 `json:"volts"`
	Amps      float64 `json:"amps"`
	Watts     float64 `json:"watts"`
	Joules    float64 `json:"joules" doc:"energy given since the start"`
	Tripped   bool    `json:"tripped" doc:"off after over-current, about to try again"`
	Standby   bool    `json:"standby" doc:"controllers, fans and switch have power"`
	Imbalance float64 `json:"imbalance" doc:"joules that the ledger of energy cannot account for; 0 but for rounding"`
}

// AirState is the air through the rack.
type AirState struct {
	InletCelsius   float64 `json:"inletCelsius"`
	ExhaustCelsius float64 `json:"exhaustCelsius"`
	Flow           float64 `json:"flow" doc:"cubic metres per second"`
}

// FanState is one fan.
type FanState struct {
	RPM          float64 `json:"rpm" doc:"as its tachometer tells"`
	DrivePercent float64 `json:"drivePercent"`
	Watts        float64 `json:"watts"`
}

// FirmwareState is one controller.
type FirmwareState struct {
	Alive  bool `json:"alive" doc:"has power and is not hung"`
	Hung   bool `json:"hung"`
	Starts int  `json:"starts" doc:"since the simulator started"`
}

// SlotState is one slot with what is in it.
type SlotState struct {
	Slot         uint8         `json:"slot"`
	Unit         string        `json:"unit,omitempty" doc:"name of the compute unit; none: the slot is empty"`
	Present      bool          `json:"present" doc:"the tray is in"`
	Standby      bool          `json:"standby" doc:"its BMC has power"`
	SwitchClosed bool          `json:"switchClosed" doc:"the BMC drives the load switch closed"`
	PowerGood    bool          `json:"powerGood" doc:"the unit's rail is within its limits"`
	Tripped      bool          `json:"tripped" doc:"the fuse tripped by over-current"`
	Volts        float64       `json:"volts" doc:"at the unit"`
	Amps         float64       `json:"amps"`
	Watts        float64       `json:"watts"`
	Joules       float64       `json:"joules" doc:"energy since the start"`
	SoCCelsius   float64       `json:"socCelsius"`
	BoardCelsius float64       `json:"boardCelsius" doc:"where the BMC measures"`
	AirCelsius   float64       `json:"airCelsius" doc:"in the tray"`
	Throttled    bool          `json:"throttled" doc:"the SoC slows itself down"`
	UnitLED      bool          `json:"unitLED" doc:"identify light on the tray, driven by the BMC"`
	SlotLED      bool          `json:"slotLED" doc:"identify light at the slot, driven by the RMC"`
	BMC          FirmwareState `json:"bmc"`
	ClockAhead   int64         `json:"clockAheadSeconds" doc:"how far the unit's real-time clock is ahead of the truth, from its next start on"`
	DeviceKey    string        `json:"deviceKey,omitempty" doc:"the BMC's public key, hex, as noted when it was flashed"`
	Flash        *FlashState   `json:"flash,omitempty" doc:"the BMC's flash; none in an empty slot"`
	Machine      *MachineState `json:"machine,omitempty" doc:"the compute unit; none in an empty slot"`
}

// FlashState is the wear of a flash.
type FlashState struct {
	ProgrammedBytes uint64 `json:"programmedBytes" doc:"since the simulator started"`
	ErasedSectors   uint64 `json:"erasedSectors"`
}

// MachineState is the compute unit as a machine.
type MachineState struct {
	Phase         string  `json:"phase" doc:"off, boot ROM, running or halted"`
	Boots         int     `json:"boots" doc:"machines started since the simulator started"`
	PID           int     `json:"pid,omitempty" doc:"process of the emulator"`
	CPUSeconds    float64 `json:"cpuSeconds,omitempty" doc:"of that process"`
	ResidentBytes uint64  `json:"residentBytes,omitempty" doc:"of that process"`
	LastError     string  `json:"lastError,omitempty" doc:"why the boot ROM or the emulator failed last"`
}

// PortState is one port of the switch.
type PortState struct {
	Name       string             `json:"name"`
	Plugged    bool               `json:"plugged" doc:"a device with power is at the cable's other end"`
	FromDevice netswitch.Fault    `json:"fromDevice" doc:"what is wrong from the device to the switch"`
	ToDevice   netswitch.Fault    `json:"toDevice" doc:"what is wrong from the switch to the device"`
	Counters   netswitch.Counters `json:"counters"`
}

// ServiceState is a service that units use.
type ServiceState struct {
	Name string `json:"name" doc:"git or mirror"`
	Down bool   `json:"down"`
}

// SimulatorState is what the emulation costs.
type SimulatorState struct {
	CPUSeconds         float64 `json:"cpuSeconds" doc:"of this process, without the machines"`
	ResidentBytes      uint64  `json:"residentBytes" doc:"of this process; 0 where the system does not tell"`
	TotalResidentBytes uint64  `json:"totalResidentBytes" doc:"with the machines"`
}

// Ports tells how the ports of the switch are. It takes no time.
func (r *Rack) Ports() []PortState {
	var all []PortState
	for _, p := range r.netw.Ports() {
		all = append(all, PortState{Name: p.Name(), Plugged: p.Plugged(), Counters: p.Counters(), FromDevice: p.Fault(netswitch.FromDevice), ToDevice: p.Fault(netswitch.ToDevice)})
	}
	return all
}

// State returns the truth.
func (r *Rack) State() State {
	p := r.plant
	all := p.Rack()
	s := State{
		Seconds: p.Now().Seconds(), Accelerator: string(r.cfg.Accel),
		Supply: SupplyState{Volts: all.Volts, Amps: all.Amps, Watts: all.Watts, Joules: all.Joules, Tripped: all.Tripped, Standby: all.Standby, Imbalance: p.Energy().Imbalance()},
		Air:    AirState{InletCelsius: all.Inlet, ExhaustCelsius: all.Exhaust, Flow: all.Flow},
		Bus:    r.bus.statistics(),
	}
	for i := range fans {
		f := p.Fan(i)
		s.Fans = append(s.Fans, FanState{RPM: f.RPM, DrivePercent: 100 * f.Drive, Watts: f.Watts})
	}
	for _, name := range []string{"git", "mirror"} {
		s.Services = append(s.Services, ServiceState{name, r.services[name].Load()})
	}
	r.rmc.mu.Lock()
	s.RMC = FirmwareState{Alive: r.rmc.rmc != nil && !r.rmc.hung, Hung: r.rmc.hung, Starts: r.rmc.starts}
	leds := r.rmc.leds
	r.rmc.mu.Unlock()
	s.Simulator.CPUSeconds, s.Simulator.ResidentBytes = machine.Self()
	s.Simulator.TotalResidentBytes = s.Simulator.ResidentBytes
	for slot := uint8(1); slot <= r.cfg.Rack.Spec.Slots; slot++ {
		v := p.Slot(int(slot))
		x := SlotState{Slot: slot, Present: v.Present, Standby: v.Standby, SwitchClosed: v.Closed, PowerGood: v.PowerGood, Tripped: v.Tripped,
			Volts: v.Volts, Amps: v.Amps, Watts: v.Watts, Joules: v.Joules, SoCCelsius: v.SoC, BoardCelsius: v.Board, AirCelsius: v.Air,
			Throttled: v.Throttled, SlotLED: leds[slot-1]}
		for _, t := range r.trays {
			if t.slot == slot {
				t.describe(&x)
				s.Simulator.TotalResidentBytes += x.Machine.ResidentBytes
			}
		}
		s.Slots = append(s.Slots, x)
	}
	s.Ports = r.Ports()
	return s
}

func (t *tray) describe(s *SlotState) {
	t.mu.Lock()
	s.Unit, s.UnitLED, s.DeviceKey = t.name, t.led, hex.EncodeToString(t.device)
	s.ClockAhead = t.clockAhead
	s.BMC = FirmwareState{Alive: t.bmc != nil && !t.hung, Hung: t.hung, Starts: t.starts}
	t.mu.Unlock()
	programmed, erased := t.flash.Worked()
	s.Flash = &FlashState{ProgrammedBytes: programmed, ErasedSectors: erased}
	u := t.unit
	u.mu.Lock()
	m := u.machine
	s.Machine = &MachineState{Phase: u.phase, Boots: u.boots, LastError: u.lastErr}
	u.mu.Unlock()
	if m != nil {
		s.Machine.PID, s.Machine.ResidentBytes = m.PID(), m.Resident()
		if d, err := m.CPUTime(); err == nil {
			s.Machine.CPUSeconds = d.Seconds()
		}
	}
}

// machine returns the machine that runs in the tray, or nil.
func (t *tray) machine() *machine.Machine {
	t.unit.mu.Lock()
	defer t.unit.mu.Unlock()
	return t.unit.machine
}

// cut reports whether the unit's cable is cut both ways.
func (t *tray) cut() bool {
	return t.port.Fault(netswitch.FromDevice).Down && t.port.Fault(netswitch.ToDevice).Down
}

// full reports whether the unit's data disk takes no more.
func (t *tray) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.diskFull
}

// carrier tells the unit's network card whether its cable is whole.
func (t *tray) carrier(ctx context.Context) {
	m := t.machine()
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := m.SetLink(ctx, !t.cut()); err != nil {
		t.log.Debug("carrier not told", "err", err)
	}
}

// UnitState returns the slot's part of State; ok is false for a slot that the
// rack does not have.
func (r *Rack) UnitState(slot rack.SlotID) (s SlotState, ok bool) {
	for _, s := range r.State().Slots {
		if rack.SlotID(s.Slot) == slot {
			return s, true
		}
	}
	return s, false
}
