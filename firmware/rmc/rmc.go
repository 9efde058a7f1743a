// Package rmc is the rack management controller's firmware: power budget, staggered start, fans, temperatures, rack
// energy, presence, identify LEDs, and the bridge between the management computer and the BMCs.
//
// It is a pure state machine. It has no pins, no chips and no clock of its own: those around it hand in bytes (Management,
// Bus) and time (Step, milliseconds that never go back), and give it chips and pins as small interfaces (Ports). It keeps
// the state of the rack, not of the units: what a unit is to do is told to its BMC, through the bridge.
//
//	management computer (EID 9) ══ serial ══ RMC (EID 8) ══ multi-drop bus, master ══ BMC of slot n (EID 0x10+n)
//
// # A slot, as the RMC sees it
//
//	         inserted            answers             wants power                  fits, one per interval
//	absent ──────────▶ unknown ──────────▶ known ───────────────▶ waiting ─────────────────────────────▶ granted
//	   ▲                  │ 3 polls          │ ▲  off, faulted       │  ▲                                    │
//	   │ pulled           ▼ unanswered       ▼ │                     │  └── too hot, over budget ◀── withdrawn ┘
//	(from anywhere)     silent ◀──────── silent┘ answers             └─▶ refused (does not fit; tried again)
//
// A silent BMC is flagged with its age (RackState.SlotAgeMillis) and its readings are no longer believed; its grant stays
// reserved, as its unit may well run on. So is one that contradicts itself (doubt.go). Nothing but pulling the tray makes the RMC forget it.
//
// # Power
//
// Grants never exceed budget less reserve (Allot). Units start one by one, the next one a stagger interval after the last
// one's rail came up, and none while the supply is low: so after a brown-out as well, when BMCs that lost their rails ask
// again. A BMC or RMC that restarted beside a running unit gets its grant
// confirmed at once. A budget that shrinks withdraws grants from the highest slot down; a withdrawn grant makes the BMC
// shut its unit down in order. Desired power stays what the operator set: the unit comes back when the grant does.
//
// # Heat
//
//	normal ── throttle limit ──▶ throttled ── shutdown limit, twice ──▶ shut down
//	   ▲                            │                                      │
//	   └── throttle − hysteresis ◀──┴──────────────────────────────────────┘
//
// Throttled, a unit's grant is cut to 60 percent and the fans run at full speed; shut down, the grant is withdrawn. Both
// are events with limit and reading.
//
// # Fans
//
// The duty follows the policy's curve at the hottest reading of all trays and the inlet, upwards at once, downwards behind
// the hysteresis (Hold), never below the curve. Every fan runs at full speed while anything is unknown: after a restart
// until every sensor has been read, without the inlet's sensor, with a running tray silent or without its sensor, with the
// management computer silent, with a fan that stands still, and above the throttle limit.
//
// # The bus
//
// One transaction at a time. The RMC's own (polls, grants, clock) and bridged requests take turns; own polls are paced, so
// the bridge gets the rest. A bridged request is stored whole (four at most) and its answer forwarded packet by packet. An
// answer that is late, of another slot or with another tag is dropped and counted. A bridged request to a silent BMC
// waits no longer than a poll does.
//
// # Memory
//
// One RMC takes less than 64 KiB: four bridged requests of 4 KiB, two assemblers and one response of 4 KiB each, 64 events
// of 0.3 KiB, ten slots of 0.4 KiB. Nothing is allocated after New but by the standard library's error paths. On the flash
// it takes FlashSize bytes. An RMC is not safe for concurrent use; the writers in Ports must not call back into it.
package rmc

import (
	"errors"
	"io"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/store"
	"github.com/racklet/racklet/firmware/wire"
)

// Fans is a fan controller; the emc2305 driver is one.
type Fans interface {
	// SetDuty drives a fan, counted from 0, with a share of full speed in percent.
	SetDuty(fan int, percent uint8) error
	// Speed returns a fan's speed; stalled says that it is driven and stands still.
	Speed(fan int) (rpm uint32, stalled bool, err error)
}

// Ports is what the RMC is wired to. Nil interfaces are not fitted: a missing Meter or Inlet counts as lost, a missing
// Present as an empty slot, a missing Flash means that nothing outlives a restart.
type Ports struct {
	Bus        io.Writer // to the multi-drop bus; errors are ignored: the transaction times out
	Management io.Writer // to the management computer
	Flash      driver.Flash
	Meter      driver.PowerMeter
	Inlet      driver.Thermometer
	Fans       Fans
	Identity   driver.Identity              // the board's EEPROM
	Present    [wire.MaxSlots]driver.Input  // of slot n at index n-1
	LED        [wire.MaxSlots]driver.Output // identify LED of slot n at index n-1
}

// Config says what rack it is.
type Config struct {
	Slots    uint8         // 1 to wire.MaxSlots
	Fans     uint8         // 0 to wire.MaxFans
	Policies wire.Policies // in force until others are set; the zero value takes DefaultPolicies
	// SupplyMillivolts is the supply's nominal voltage; 20000. No unit is started below nine tenths of it.
	SupplyMillivolts uint32
	Limits           Limits
}

// Limits are times in milliseconds and counts. A zero takes the default given.
type Limits struct {
	PollMillis       uint32 // between two polls; 50
	ReplyMillis      uint32 // a BMC's time to answer a poll; 500
	SilentMillis     uint32 // between two polls of a BMC that is silent; 2000
	BridgeMillis     uint32 // a BMC's time to answer a bridged request; 1500
	SilentPolls      uint32 // unanswered polls that make a BMC silent; 3
	ManagementMillis uint32 // silence of the management computer that puts fans to full speed; 15000
	SenseMillis      uint32 // between two readings of the RMC's own sensors; 250
	StallMillis      uint32 // a fan may take to turn; 4000
	KeepMillis       uint32 // between two records of the energy counter; 10000
	OverMillis       uint32 // the rack may draw more than its budget; 5000
	StartMillis      uint32 // a unit may take from its grant to its rail before the next one starts; 5000
}

func (l *Limits) fill() {
	for _, d := range [...]struct {
		v *uint32
		n uint32
	}{
		{&l.PollMillis, 50}, {&l.ReplyMillis, 500}, {&l.SilentMillis, 2_000}, {&l.BridgeMillis, 1500}, {&l.SilentPolls, 3}, {&l.ManagementMillis, 15_000},
		{&l.SenseMillis, 250}, {&l.StallMillis, 4_000}, {&l.KeepMillis, 10_000}, {&l.OverMillis, 5_000},
		{&l.StartMillis, 5_000},
	} {
		if *d.v == 0 {
			*d.v = d.n
		}
	}
}

// DefaultPolicies hold until the first SetPolicies: a careful curve, and a budget that a 100 W supply carries.
func DefaultPolicies() wire.Policies {
	return wire.Policies{
		CurveCount: 3,
		Curve:      [wire.MaxCurvePoints]wire.CurvePoint{{MilliCelsius: 35_000, DutyPercent: 30}, {MilliCelsius: 55_000, DutyPercent: 60}, {MilliCelsius: 70_000, DutyPercent: 100}},

		ThrottleMilliCelsius: 78_000, ShutdownMilliCelsius: 88_000, HysteresisMilliCelsius: 4_000,
		BudgetMilliwatts: 80_000, ReserveMilliwatts: 15_000, StaggerMillis: 1_000,
	}
}

var errConfig = errors.New("rmc: slots or fans out of range")

// RMC is a rack management controller.
type RMC struct {
	cfg    Config
	ports  Ports
	limits Limits
	now    uint64
	begun  bool
	since  uint64 // first Step

	slots  [wire.MaxSlots]slot
	policy wire.Policies
	unset  bool // policy is the built-in one

	// bus.go
	tx       transaction
	pollNext uint8 // index of the slot to poll next
	pollAt   uint64
	turn     bool // the bridge's turn
	tag      uint8
	instance uint8
	busIn    wire.Deframer
	answers  wire.Assembler
	queue    [queueLength]request
	queued   int
	first    int // index of the oldest request

	// management.go
	lineIn    wire.Deframer
	requests  wire.Assembler // to ourselves
	bridged   wire.Assembler // to BMCs
	heard     bool           // the management computer has spoken
	heardAt   uint64
	quiet     bool // it fell silent
	tid       uint8
	restart   bool   // it was asked to start anew
	stray     uint32 // packets that belong to nothing, requests that found no room
	response  [wire.MaxMessage]byte
	frame     [wire.MaxFrame + 1]byte
	packet    [wire.MaxPacket]byte
	message   [32]byte // a request of our own
	clock     int64    // Unix time in milliseconds at now == 0
	clockSet  bool
	starting  int    // index of the slot that was granted its start and does not run yet; -1: none
	grantedAt uint64 // when it was
	startedAt uint64 // when a unit last started
	started   bool   // one has
	nextStart uint8

	// sense.go
	sensedAt  uint64
	power     driver.Power
	powerLost bool
	chip      uint64
	chipKnown bool
	energy    uint64
	keptAt    uint64
	kept      uint64
	inlet     int32
	inletLost bool
	inletRead bool
	overSince uint64
	over      bool
	low       bool // supply voltage

	// fan.go
	hold     Hold
	fans     [wire.MaxFans]fan
	failsafe string // why the fans run at full speed; empty: they follow the curve

	// keep.go
	state     store.Journal
	log       store.Journal
	worn      bool
	resets    uint32
	leds      uint16
	fru       [wire.MaxFRUTable]byte // the board's identity: identity.go
	fruLen    int                    // 0: there is none
	events    [eventRing]wire.Event
	eventSeq  uint32
	eventHeld int
	bucket    bucket
}

// slot is what the RMC knows of one slot.
type slot struct {
	present  bool
	debounce uint8
	known    bool // state is from this tray
	silent   bool
	missed   uint32
	polledAt uint64
	heardAt  uint64
	state    wire.UnitState

	grant     uint32 // mW decided
	confirmed bool   // the BMC has reported that grant
	withdrawn bool   // its unit must be off before it is granted anything again
	sentAt    uint64
	lookedAt  uint64 // when it was last asked out of turn, before a grant; 0: never
	refused   bool   // an event has told that it does not fit
	heat      heat
	hotPolls  uint8
	doubts    uint8  // answers in a row that contradict themselves
	doubted   bool   // so many that it is not believed any more
	cold      uint8  // answers in a row colder than the inlet
	clockAt   uint64 // when the clock was last sent; 0: never
}

// heat is a slot's thermal state.
type heat uint8

const (
	heatNormal heat = iota
	heatThrottled
	heatShutdown
)

// New returns an RMC that has recovered what its flash kept: policies, LEDs, energy, events. It touches no other port; the
// first Step does. Errors: an impossible configuration, or the flash's.
func New(cfg Config, ports Ports) (*RMC, error) {
	if cfg.Slots < 1 || cfg.Slots > wire.MaxSlots || cfg.Fans > wire.MaxFans {
		return nil, errConfig
	}
	r := &RMC{cfg: cfg, ports: ports, limits: cfg.Limits, unset: true, starting: -1, tid: uint8(wire.EIDRMC)}
	r.limits.fill()
	if r.cfg.SupplyMillivolts == 0 {
		r.cfg.SupplyMillivolts = 20_000
	}
	r.policy = cfg.Policies
	if r.policy.CurveCount == 0 {
		r.policy = DefaultPolicies()
	}
	if f := Check(&r.policy); !f.IsZero() {
		return nil, errPolicy
	}
	r.busIn.Bus = true
	r.requests.Own = wire.EIDRMC
	r.answers.Own = wire.EIDRMC
	if err := r.recover(); err != nil {
		return nil, err
	}
	return r, nil
}

// Step lets time pass, in milliseconds since any beginning. Call it about every 10 ms.
func (r *RMC) Step(now uint64) {
	if !r.begun {
		r.now = now
		r.begin()
	}
	if now < r.now {
		return
	}
	r.now = now
	r.watchPresence()
	r.sense()
	r.watchManagement()
	r.decide()
	r.driveFans()
	r.transact()
}

// begin is the first Step: count the restart, show the LEDs, blow.
func (r *RMC) begin() {
	r.begun = true
	r.since, r.pollAt, r.keptAt = r.now, r.now, r.now
	r.resets++
	r.keepCounters()
	r.event(wire.EventRestart, 0, 0, "", nil)
	r.readIdentity()
	for i := range r.cfg.Slots {
		if r.ports.LED[i] != nil {
			r.ports.LED[i].Set(r.leds&(1<<(i+1)) != 0)
		}
		in := r.ports.Present[i]
		r.slots[i].present = in != nil && in.Get()
	}
}

// State returns what GetRackState answers.
func (r *RMC) State() wire.RackState {
	s := wire.RackState{
		Millijoules: r.energy, BudgetMilliwatts: r.policy.BudgetMilliwatts, FanCount: r.cfg.Fans, LEDMask: r.leds,
		PolicyGeneration: r.policy.Generation, LastEvent: r.eventSeq, UptimeMillis: r.now - r.since, Resets: r.resets,
		FrameErrors: r.busIn.Stats.Errors + r.lineIn.Stats.Errors + r.stray,
	}
	if !r.powerLost {
		s.Milliwatts, s.SupplyMillivolts = r.power.Milliwatts, r.power.Millivolts
	}
	if !r.inletLost {
		s.InletMilliCelsius = r.inlet
	}
	throttling := false
	for i := range s.SlotAgeMillis {
		s.SlotAgeMillis[i] = wire.AgeNever
		t := &r.slots[i]
		s.GrantedMilliwatts += t.grant
		if !t.present {
			continue
		}
		s.PresentMask |= 1 << (i + 1)
		if t.known {
			s.SlotAgeMillis[i] = uint32(min(r.now-t.heardAt, uint64(wire.AgeNever)-1))
		}
		if t.known && t.missed == 0 && !t.doubted {
			s.AnswerMask |= 1 << (i + 1)
		}
		throttling = throttling || t.heat != heatNormal
	}
	for i := range r.cfg.Fans {
		f := &r.fans[i]
		s.Fans[i] = wire.FanState{RPM: uint16(min(f.rpm, 0xFFFF)), DutyPercent: f.duty}
		if f.stalled {
			s.Fans[i].Flags |= wire.FanStalled
		}
		if r.failsafe != "" {
			s.Fans[i].Flags |= wire.FanFailsafe
		}
	}
	for _, f := range [...]struct {
		when bool
		flag uint16
	}{
		{r.failsafe != "", wire.RackFailsafe}, {r.powerLost || r.inletLost || r.fansLost(), wire.RackSensorLost},
		{throttling, wire.RackThrottling}, {r.over, wire.RackOverBudget}, {r.clockSet, wire.RackClockSet},
		{r.unset, wire.RackPolicyUnset},
	} {
		if f.when {
			s.Flags |= f.flag
		}
	}
	return s
}

// Version of this firmware, as GetFirmware tells it.
const Version = "0.1.0"

// RestartWanted reports whether the RMC was asked to start anew. Its board does so once the answer has left.
func (r *RMC) RestartWanted() bool { return r.restart }
