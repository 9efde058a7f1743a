package wiretest

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// BMC is a fake BMC. Its unit boots at once when it has power, unless Stuck says otherwise.
type BMC struct {
	Slot uint8

	mu        sync.Mutex
	faults    Faults
	state     wire.UnitState
	events    []wire.Event
	limit     int // of events kept
	sequence  uint32
	console   []byte
	start     uint64 // offset of console[0]
	typed     []byte
	inventory wire.Inventory
	restarts  int
	report    wire.Report
	reported  time.Time
	slots     [2]wire.SlotInfo
	config    []byte
	identity  []byte
	evidence  func(nonce [32]byte) []byte
	rack      [16]byte
	registers [16][32]byte
	request   wire.HostRequest
	clock     uint64
	resets    []wire.ResetKind
	stuck     *wire.Failure
	image     []byte
	erased    bool
}

// NewBMC returns a BMC of a slot with its rail off and both boot slots valid.
func NewBMC(slot uint8) *BMC {
	b := &BMC{Slot: slot, limit: 128, identity: Identity(slot), config: []byte(`{"unit":"fake"}`)}
	b.state = wire.UnitState{
		Slot: slot, BootSlot: wire.SlotNone, BootOverride: wire.SlotNone,
		Millivolts: 5100, MilliCelsius: 31_500, Flags: 0,
	}
	for i := range b.slots {
		b.slots[i] = wire.SlotInfo{State: wire.SlotValid, SecurityVersion: 1, Version: wire.MakeText32("v0.1.0")}
		b.slots[i].Digest[0] = byte(i + 1)
	}
	b.evidence = func(nonce [32]byte) []byte { return append([]byte("evidence"), nonce[:]...) }
	b.event(wire.EventRestart, 0, "controller started", wire.Failure{})
	return b
}

// Update changes the state under the BMC's lock and records nothing.
func (b *BMC) Update(f func(*wire.UnitState)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.state)
}

// State returns a copy of the state.
func (b *BMC) State() wire.UnitState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current()
}

// SetFaults makes the BMC misbehave from now on.
func (b *BMC) SetFaults(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = f
}

// Faults returns what SetFaults has set.
func (b *BMC) Faults() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

// Stuck makes boots end in StageFailed with this failure; nil: they succeed.
func (b *BMC) Stuck(f *wire.Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = f
}

// SetReport sets what the unit has reported last.
func (b *BMC) SetReport(r wire.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report, b.reported = r, time.Now()
}

// Firmware is the version that fake controllers say they have.
const Firmware = "v1.2.3"

// SetInventory sets what the unit has said that it is made of.
func (b *BMC) SetInventory(v wire.Inventory) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inventory = v
}

// Restarts counts how often the BMC was asked to start anew.
func (b *BMC) Restarts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.restarts
}

// Clock is what the BMC's clock was set to last, in Unix milliseconds.
func (b *BMC) Clock() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clock
}

// SetSlots sets what GetSlots answers.
func (b *BMC) SetSlots(s [2]wire.SlotInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slots = s
}

// SetEvidence sets what answers GetEvidence.
func (b *BMC) SetEvidence(f func(nonce [32]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evidence = f
}

// Print lets the unit print on its console.
func (b *BMC) Print(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.console = append(b.console, s...)
	if over := len(b.console) - 16<<10; over > 0 {
		b.console = b.console[over:]
		b.start += uint64(over)
	}
	b.state.ConsoleEnd = b.start + uint64(len(b.console))
}

// Typed returns what was written to the console.
func (b *BMC) Typed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.typed)
}

// Resets returns the reset orders so far.
func (b *BMC) Resets() []wire.ResetKind {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]wire.ResetKind(nil), b.resets...)
}

// Record adds an event to the ring.
func (b *BMC) Record(kind wire.EventKind, code uint16, text string, f wire.Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.event(kind, code, text, f)
}

// Forget empties the ring and starts numbering anew, as a BMC without its memory does.
func (b *BMC) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events, b.sequence = nil, 0
	b.event(wire.EventRestart, 0, "controller started", wire.Failure{})
}

func (b *BMC) event(kind wire.EventKind, code uint16, text string, f wire.Failure) {
	b.sequence++
	e := wire.Event{
		Sequence: b.sequence, Millis: uint64(time.Now().UnixMilli()), ClockSet: true, Boot: b.state.BootCount,
		Kind: kind, Slot: b.Slot, Code: code, Text: wire.MakeText64(text), Failure: f,
	}
	b.events = append(b.events, e)
	if len(b.events) > b.limit {
		b.events = b.events[len(b.events)-b.limit:]
	}
	b.state.LastEvent = b.sequence
}

func (b *BMC) stage(s wire.Stage) {
	b.state.Stage = s
	b.event(wire.EventStage, uint16(s), s.String(), wire.Failure{})
}

// current is the state with what follows from it.
func (b *BMC) current() wire.UnitState {
	s := b.state
	if s.Rail {
		s.Milliwatts, s.Milliamps = 3200, 630
	} else {
		s.Milliwatts, s.Milliamps = 0, 0
	}
	return s
}

// converge does at once what a real BMC takes seconds for.
func (b *BMC) converge() {
	s := &b.state
	switch {
	case s.Power == wire.PowerOn && !s.Rail:
		if s.GrantMilliwatts == 0 {
			s.State, s.RequestMilliwatts = wire.StatePowering, 8000
			s.Flags |= wire.FlagWaitGrant
			return
		}
		s.Flags &^= wire.FlagWaitGrant
		s.RequestMilliwatts = 8000
		s.Rail, s.State = true, wire.StateRunning
		s.BootCount++
		s.BootSlot = wire.SlotA
		if s.BootMode != wire.BootDisabled {
			s.BootSlot = s.BootOverride
		}
		if s.BootMode == wire.BootOnce {
			s.BootMode, s.BootOverride = wire.BootDisabled, wire.SlotNone
		}
		s.Resets = 0
		s.Failure = wire.Failure{}
		b.event(wire.EventRail, 1, "rail on", wire.Failure{})
		if b.stuck != nil {
			s.Failure = *b.stuck
			s.Stage = wire.StageFailed
			b.event(wire.EventFailure, 0, "boot refused", *b.stuck)
		} else {
			b.stage(wire.StageBootstrap)
			b.stage(wire.StageRunning)
		}
	case s.Power == wire.PowerOff && (s.Rail || s.State != wire.StateOff):
		b.off()
	}
	s.ObservedGeneration = s.DesiredGeneration
}

func (b *BMC) off() {
	s := &b.state
	s.Rail, s.State, s.BootSlot = false, wire.StateOff, wire.SlotNone
	s.RequestMilliwatts, s.GrantMilliwatts = 0, 0
	b.reported = time.Time{}
	b.event(wire.EventRail, 0, "rail off", wire.Failure{})
	b.stage(wire.StageOff)
}

func (b *BMC) desire(d wire.Desired) {
	s := &b.state
	if d.Generation <= s.DesiredGeneration {
		return
	}
	s.DesiredGeneration = d.Generation
	b.apply(d)
}

// apply is desire without a generation, as the standard's effecters are.
func (b *BMC) apply(d wire.Desired) {
	s := &b.state
	if d.Mask&wire.DesiredPower != 0 {
		s.Power = d.Power
	}
	if d.Mask&wire.DesiredLED != 0 {
		s.LED = d.LED
	}
	if d.Mask&wire.DesiredCap != 0 {
		s.CapMilliwatts = d.CapMilliwatts
	}
	if d.Mask&wire.DesiredBoot != 0 {
		s.BootMode, s.BootOverride = d.BootMode, d.BootSlot
	}
	b.event(wire.EventDesired, uint16(d.Mask), "desired state", wire.Failure{})
	b.converge()
}

func (b *BMC) reset(k wire.ResetKind) {
	s := &b.state
	b.resets = append(b.resets, k)
	switch k {
	case wire.ResetGracefulOff, wire.ResetForceOff:
		s.Power = wire.PowerOff
		b.converge()
	case wire.ResetCycle, wire.ResetGracefulCycle:
		grant := s.GrantMilliwatts
		if s.Rail {
			b.off()
		}
		s.Power, s.GrantMilliwatts = wire.PowerOn, grant
		b.converge()
	case wire.ResetForceRestart:
		if s.Rail {
			s.Resets++
			s.Flags |= wire.FlagEvidenceVoid
			b.event(wire.EventReset, 1, "reset", wire.Failure{})
		}
	}
}

// Nonce returns a nonce that starts with n, for tests.
func Nonce(n uint64) (nonce [32]byte) {
	binary.LittleEndian.PutUint64(nonce[:], n)
	return nonce
}
