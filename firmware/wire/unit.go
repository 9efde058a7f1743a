package wire

// EID is an MCTP endpoint ID (DSP0236, 8.2 "Endpoint IDs").
type EID uint8

// Endpoint IDs of a rack. They are fixed, not assigned: the wiring says who is who.
const (
	EIDNull       EID = 0    // "whoever is at the other end"; used on the in-band link before discovery
	EIDRMC        EID = 8    // rack management controller, bus master and bridge
	EIDManagement EID = 9    // management computer
	EIDBMC        EID = 0x10 // plus the slot number, see BMC
	EIDUnit       EID = 0x20 // a compute unit on its own in-band link
)

// MaxSlots bounds the slot numbers on the wire: 1 to MaxSlots.
const MaxSlots = 10

// BMC returns the endpoint of the BMC in a slot.
func BMC(slot uint8) EID { return EIDBMC + EID(slot) }

// Slot returns the slot of a BMC's endpoint, or 0 if e is not one.
func (e EID) Slot() uint8 {
	if e > EIDBMC && e <= EIDBMC+MaxSlots {
		return uint8(e - EIDBMC)
	}
	return 0
}

// Side is the way a message came to a controller. What may be asked depends on it.
type Side uint8

// Sides of a controller.
const (
	SideInBand Side = iota // from the compute unit, which is not trusted
	SideBus                // from the RMC over the multi-drop bus; on the RMC: from the management computer
	SideDebug              // from the debug port on the board, with physical access
)

// String returns a lower-case word.
func (s Side) String() string { return word(sides[:], int(s)) }

var sides = [...]string{"in-band", "bus", "debug"}

// State is the state of a BMC's state machine.
type State uint8

// States of a BMC.
const (
	StateOff       State = iota // rail off
	StateVerifying              // rail off, boot slot being verified
	StatePowering               // load switch closed, waiting for grant or power-good
	StateRunning                // rail on
	StateDraining               // asked to shut down, waiting for it or for the deadline
	StateFaulted                // rail off after a failure that the BMC does not retry alone
	numStates
)

// String returns a lower-case word.
func (s State) String() string { return word(states[:], int(s)) }

var states = [...]string{"off", "verifying", "powering", "running", "draining", "faulted"}

// Stage is how far a compute unit has come. The BMC sets the first ones from what
// it sees; from StageBootstrap on the unit reports.
type Stage uint8

// Stages of a compute unit, in order.
const (
	StageOff       Stage = iota // no power
	StagePowered                // rail on, nothing read yet
	StageMedium                 // the boot ROM reads the boot medium
	StageBootstrap              // the bootstrap environment runs
	StageNetwork                // it configures the network
	StageSource                 // it fetches repository and metadata
	StageVerified               // repository and metadata are verified
	StageFetch                  // it fetches the operating system
	StageArtifact               // the operating system is verified and on disk
	StageHandover               // it hands over
	StageOS                     // the operating system started
	StageRunning                // the operating system is up and sends heartbeats
	StageStopping               // it shuts down
	StageHalted                 // it has shut down; the rail may be cut
	StageFailed                 // a check failed; Failure names it
	numStages
)

// String returns a lower-case word.
func (s Stage) String() string { return word(stages[:], int(s)) }

// ParseStage returns the stage that String spells as s.
func ParseStage(s string) (Stage, bool) {
	for i, w := range stages {
		if w == s {
			return Stage(i), true
		}
	}
	return 0, false
}

var stages = [...]string{
	"off", "powered", "medium", "bootstrap", "network", "source", "verified", "fetch",
	"artifact", "handover", "os", "running", "stopping", "halted", "failed",
}

// Power is a desired or present power state.
type Power uint8

// Power states.
const (
	PowerOff Power = iota
	PowerOn
	numPowers
)

// String returns "Off" or "On", as rack objects and Redfish spell it.
func (p Power) String() string { return word(powers[:], int(p)) }

var powers = [...]string{"Off", "On"}

// word returns names[i], or "unknown".
func word(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// Failure names a failed check: its dotted name out of rack.Reasons, what was
// expected and what was seen. The zero value is "no failure".
type Failure struct {
	Reason   Text32
	Expected Text72
	Seen     Text72
}

// MakeFailure returns a failure; texts that are too long are cut.
func MakeFailure(reason, expected, seen string) Failure {
	return Failure{Reason: MakeText32(reason), Expected: MakeText72(expected), Seen: MakeText72(seen)}
}

// IsZero reports whether f names no failure.
func (f *Failure) IsZero() bool { return f.Reason.n == 0 }

// Floors is what a BMC has accepted last and never goes below. It has the fields
// of trust.Floors in the same order: the two convert into each other.
type Floors struct {
	Sequence     uint64
	RootVersion  uint32
	BootSecurity uint32
	Tree         [32]byte
	Commit       [20]byte
}

// Boot slot numbers as they stand in UnitState and Desired.
const (
	SlotA    uint8 = 0
	SlotB    uint8 = 1
	SlotNone uint8 = 0xFF
)

// Flags of UnitState.
const (
	FlagEvidenceVoid uint16 = 1 << iota // the unit was reset without a rail cycle: evidence says nothing until the next one
	FlagFallbackSlot                    // the preferred slot was bad, the other one booted
	FlagStale                           // the unit runs on expired metadata
	FlagSensorLost                      // a sensor of this BMC does not answer
	FlagCapped                          // the power cap or the grant holds the unit off or back
	FlagClockSet                        // the BMC's clock has been set: Millis in events are Unix time
	FlagReportStale                     // no heartbeat for longer than the unit promised
	FlagWaitGrant                       // waiting for the RMC's power grant
	FlagStoreWorn                       // the flash's store reports write errors
)

// BootMode says how long a boot slot chosen in Desired holds.
type BootMode uint8

// Boot modes: Redfish's BootSourceOverrideEnabled.
const (
	BootDisabled   BootMode = iota // newest valid slot
	BootOnce                       // BootSlot at the next boot only, then BootDisabled
	BootContinuous                 // BootSlot until changed
	numBootModes
)

// String returns "Disabled", "Once" or "Continuous".
func (m BootMode) String() string { return word(bootModes[:], int(m)) }

var bootModes = [...]string{"Disabled", "Once", "Continuous"}

// UnitState is everything a BMC says about its slot in one message.
type UnitState struct {
	Slot              uint8 // 1 to MaxSlots
	State             State
	Stage             Stage
	BootSlot          uint8 // SlotA, SlotB: the one being shown or booted; SlotNone
	Power             Power // desired
	Rail              bool  // the load switch is closed and power is good
	LED               bool  // identify LED, desired and shown
	BootMode          BootMode
	BootOverride      uint8  // the slot BootMode speaks of, or SlotNone
	Flags             uint16 // Flag…
	DesiredGeneration uint32 // newest accepted
	// ObservedGeneration is the newest generation that has been converged to.
	ObservedGeneration uint32
	BootCount          uint32 // rail cycles, never reset
	Resets             uint32 // resets of the unit since the rail came on
	Milliwatts         uint32
	Millivolts         uint32
	Milliamps          uint32
	MilliCelsius       int32
	Millijoules        uint64 // counter over the BMC's life
	RailMillis         uint64 // since the rail came on; 0 while off
	GrantMilliwatts    uint32 // granted by the RMC; 0: none
	RequestMilliwatts  uint32 // wanted from the RMC; 0: nothing
	CapMilliwatts      uint32 // desired power cap; 0: none
	LastEvent          uint32 // sequence of the newest event
	ConsoleEnd         uint64 // offset behind the newest console byte
	Floors             Floors
	Failure            Failure // last failed check; zero when the last boot passed
}

// Report is what a running unit says about itself with each heartbeat.
type Report struct {
	Commit         [20]byte // Git commit it runs
	Release        Text32   // version of the release
	UptimeSeconds  uint32   // of the operating system
	CPUPermille    uint16   // busy time of all processors, 0 to 1000
	MemoryUsedKiB  uint32
	MemoryTotalKiB uint32
	Stale          bool    // booted on expired metadata
	Address        [4]byte // IPv4, zero if none
}

// HostRequest is what a BMC asks of its unit in the answer to a heartbeat.
type HostRequest uint8

// Requests to the unit.
const (
	HostNone     HostRequest = iota
	HostShutdown             // shut down cleanly, then report StageHalted
	HostRestart              // shut down cleanly, then report StageHalted; the BMC cycles the rail
	numHostRequests
)

// MaxGenerationStep is how far a Desired may be ahead of the newest accepted generation: so that no single message uses up
// all generations, after which no order would ever be taken again.
const MaxGenerationStep = 1024

// Desired is the desired state of a slot. Only the fields whose bit is in Mask
// change. A generation at or below the newest accepted one changes nothing and
// is answered with success, so that repeats cause no second action.
type Desired struct {
	Generation    uint32
	Mask          uint8 // Desired…
	Power         Power
	LED           bool
	CapMilliwatts uint32 // 0: no cap
	BootMode      BootMode
	BootSlot      uint8 // SlotA or SlotB with BootOnce and BootContinuous, else SlotNone
}

// Bits of Desired.Mask.
const (
	DesiredPower uint8 = 1 << iota
	DesiredLED
	DesiredCap
	DesiredBoot
	desiredAll = DesiredPower | DesiredLED | DesiredCap | DesiredBoot
)

// ResetKind is a one-off action on a unit. It is an order, not a state: it does not
// change the desired power except that the two "off" kinds set it to Off.
type ResetKind uint8

// Kinds of reset.
const (
	ResetGracefulOff   ResetKind = iota // ask the unit, wait for the deadline, then cut the rail; desired power Off
	ResetForceOff                       // cut the rail; desired power Off
	ResetCycle                          // cut the rail, then boot again; desired power On
	ResetForceRestart                   // pulse the unit's reset without a rail cycle: voids the evidence
	ResetGracefulCycle                  // ask the unit, then cycle the rail
	numResetKinds
)

// String returns a lower-case word.
func (k ResetKind) String() string { return word(resetKinds[:], int(k)) }

var resetKinds = [...]string{"graceful off", "force off", "cycle", "force restart", "graceful cycle"}

// SlotState is the state of a boot slot in the BMC's flash.
type SlotState uint8

// States of a boot slot.
const (
	SlotEmpty      SlotState = iota // no manifest
	SlotValid                       // manifest verified and at or above the floor; chunks are checked as they are served
	SlotInvalid                     // manifest or a chunk failed its check
	SlotBelowFloor                  // manifest verified, security version below the floor
	SlotWriting                     // being written, not committed
	numSlotStates
)

// String returns a lower-case word.
func (s SlotState) String() string { return word(slotStates[:], int(s)) }

var slotStates = [...]string{"empty", "valid", "invalid", "below floor", "writing"}

// SlotInfo describes one boot slot.
type SlotInfo struct {
	State           SlotState
	SecurityVersion uint32
	Version         Text32
	Digest          [32]byte // of the slot manifest's bytes
	Failure         Failure
}

// SlotProgress is the answer to the commands that write the idle slot.
type SlotProgress struct {
	Slot     uint8 // SlotA or SlotB: the idle one
	State    SlotState
	Capacity uint32 // bytes an image may have
	Next     uint32 // offset of the next byte expected
	Failure  Failure
}
