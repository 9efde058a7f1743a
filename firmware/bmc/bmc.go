// Package bmc is the management controller under one compute unit, as a pure state machine: no pins, no chips and no
// clock of its own. It powers the unit, shows it a boot medium out of a slot that the rack's owners signed, remembers
// what the unit did, and says so over its signature.
//
// It is not the RMC (firmware/rmc), which owns budget, fans and bus, and not the wire (firmware/wire). A board, or the
// virtual rack, joins it to chips through Ports, calls Step about every 10 ms, hands every PLDM message to Handle and
// serves blocks out of ReadMedium. All methods belong to one caller at a time; nothing here locks.
//
//	                   desired On, or                  slot verified
//	                   ResetCycle                      (manifest: owners, floor)
//	       ┌─────────┐ ─────────────▶ ┌────────────────┐ ───────────▶ ┌─────────────────────────┐
//	start  │   Off   │                │   Verifying    │              │        Powering         │
//	──────▶│ rail off│                │ rail off, slot │              │ 1 ask the RMC for power │
//	       └─────────┘ ◀──┐           │ A or B checked │              │ 2 close the load switch │
//	            ▲         │           └────────────────┘              │ 3 wait for power-good   │
//	            │         │                   │                       └─────────────────────────┘
//	rail cut    │         │ retry             │ neither slot                │           │ power-good
//	            │         │ (bounded)         ▼ may boot       no power-good│           ▼
//	       ┌──────────┐   │           ┌────────────────┐       in time, last│     ┌───────────┐
//	       │ Draining │   └────────── │    Faulted     │ ◀─────────try──────┘     │  Running  │
//	       │ unit is  │               │ rail off, the  │ ◀─────────────────────── │  rail on  │
//	       │ asked    │               │ reason is kept │  over-current, rail lost │           │
//	       └──────────┘               └────────────────┘  or chunk bad too often  └───────────┘
//	            ▲                             │ newer generation with power, or an order to reset      │
//	            │                             └──▶ Off                                                 │
//	            └──────────────────────────────────────────────────────────────────────────────────────┘
//	              desired Off, grant withdrawn, too hot, graceful cycle, unit halted by itself
//
// A BMC that restarts under a running unit finds power-good and its own record that the rail is on: it goes straight
// to Running, with evidence void until the next rail cycle, because it did not watch. Without that record it opens the
// switch.
//
// A unit that wants another boot slot (it has staged one) reports StageHalted or resets itself: the BMC cycles the
// rail, because the desired power is still On.
//
// What the BMC has promised to remember, above all the floors, stands in one flash (firmware/store). When records of it
// have become unreadable, the BMC takes the highest floors that are left, says bmc.damage, and starts no unit until an
// operator orders a power cycle; its evidence is void until then. A cut of the power is not damage.
//
// Memory: one BMC takes at most MemoryBudget bytes, most of it the hash table of the slot being served and one chunk.
// After New, what happens all the time allocates nothing. A staging's commit takes a second hash table for the length of
// one call, and failures take the few bytes of their texts. Tests hold both.
//
// Work: of the signatures that a unit asks for, an effort of one a second (offer.go).
//
// Wear: a unit alone can cause one event a second (bucket), eight offers and stagings per rail cycle, and, by halting again and
// again, a rail cycle about every two seconds, which the flash stands for a year. An hour of quiet running writes 60
// energy checkpoints. A power cut of the whole board loses at most the last minute of energy; floors, counters, events
// and desired state are written before anybody is told of them.
package bmc

import (
	"crypto/ed25519"
	"hash"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/store"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

/* Implementation constants */
const (
	// MemoryBudget is the RAM of one BMC in bytes, the transient second hash table included.
	MemoryBudget = 160 << 10

	consoleSize      = 16 << 10 // scroll-back in bytes
	consoleInSize    = 512      // typed and not yet taken by the unit
	eventRing        = 64       // events in RAM; the flash holds more
	sensePower       = 50       // ms between readings of the power meter
	senseHeat        = 1_000    // ms between readings of the thermometer
	checkpointMillis = 60_000   // least time between energy checkpoints while the rail is on
	resetPulse       = 100      // ms of the unit's reset line
	grantMillis      = 10_000   // waiting longer than this for a grant is worth a word
	busMillis        = 10_000   // an RMC that polled and has said nothing for so long is silent
	capMillis        = 5_000    // drawing more than cap or grant for so long is worth a word
	chunksPerStep    = 4        // chunks of a distrusted slot read again per Step: 128 KiB of SHA-256
)

// BMC is the state of one management controller. New makes one.
type BMC struct {
	cfg      Config
	limits   Limits
	ports    Ports
	bootAt   uint32 // where the boot configuration stands in the flash; 0: it is in cfg
	bootLen  uint32
	ledger   ledger
	log      store.Journal
	started  bool
	now      uint64 // ms of the last Step or Handle
	clock    int64  // Unix ms at now == 0
	clockSet bool
	busAt    uint64 // ms of the last message from the bus; 0: none yet
	busLost  bool
	restart  bool // it was asked to start anew

	// Power: power.go
	state      wire.State
	since      uint64       // when state was entered
	closed     bool         // the load switch is closed
	railAt     uint64       // when power-good came
	openedAt   uint64       // when the switch was opened last
	grant      uint32       // mW granted by the RMC
	broken     wire.Failure // the medium could not be served: the boot ends at the next Step
	drain      drain
	tries      uint32 // power cycles by our own decision since the last good boot or order
	recheck    bool   // read distrusted slots again: an operator asked for this power-on
	resetLine  uint64 // when the reset line is released; 0: it is not held
	resetLevel bool   // ResetSeen at the last Step
	resets     uint32 // since the rail came on

	// Kept over restarts: state.go
	bootCount uint32
	restarts  uint32
	floors    trust.Floors
	desired   desired
	slots     [2]slotRecord
	boot      bootRecord
	failure   wire.Failure
	faulted   bool
	energy    uint64 // mJ
	chip      uint64 // mJ by the meter's own accumulator at the last reading
	worn      bool

	// The unit: unit.go
	stage       wire.Stage
	stageSince  uint64
	overdue     bool // the timeout of this stage has been reported
	handedOver  bool // stage 1 has handed over since the unit last started: its configuration is out of reach
	inventory   wire.Inventory
	report      wire.Report
	reportAt    uint64
	reported    bool
	reportStale bool

	// Senses: sense.go
	power      driver.Power
	powerAt    uint64
	powerLost  bool
	chipKnown  bool
	chipAt     uint64 // when the accumulator was last believed; 0: not yet
	overSince  uint64 // when the power went over the trip level; 0: it is not
	heat       int32
	heatAt     uint64
	heatLost   bool
	hot        bool
	overCap    uint64 // when the power went over cap or grant; 0: it is not
	capTold    bool
	checkpoint uint64 // when the energy was written last

	// Slots and medium: slot.go
	order     [2]uint8
	at        int // place in order of the slot being verified; 2: none is
	rereading int // chunk of a distrusted slot that is next; -1: none
	bootSlot  uint8
	exposed   bool // the medium may be read
	manifest  trust.SlotManifest
	digest    [32]byte // of manifest
	cached    int      // chunk in the buffer; -1: none
	served    [trust.MaxChunks / 8]byte
	buf       [trust.ChunkSize]byte
	staging   staging
	effort    effort // of signatures, for the unit

	// Measurements: measure.go
	registers [registerCount]trust.Register

	// The board's identity as a FRU table: identity.go
	fru    [wire.MaxFRUTable]byte
	fruLen int // 0: there is none

	// Rings: event.go, console.go
	events    [eventRing]wire.Event
	eventSeq  uint32 // of the newest
	eventHeld int
	bucket    bucket
	console   consoleRing
	input     inputRing
}

// A signed manifest fits into the chunk buffer.
const _ = uint(trust.ChunkSize - trust.MaxSigned)

// staging is the slot being written over the wire.
type staging struct {
	active    bool
	side      wire.Side
	slot      uint8
	next      uint32    // offset of the next byte of the image
	manifest  uint32    // offset of the next byte of the signed manifest
	chunk     hash.Hash // of the chunk being written
	all       hash.Hash // of the hashes of the chunks before it
	sessions  uint8     // begun in-band since the rail came on
	offer     offer
	there     bool // the image is in the slot already
	failure   wire.Failure
	committed bool
}

// New returns a BMC that goes on where the flash says it stopped. With a cfg that has no DeviceKey, slot, keys and boot
// configuration come from the record that Provision wrote; else cfg is taken and the record ignored.
func New(cfg Config, p Ports) (*BMC, error) {
	if p.Flash == nil || p.Switch == nil || p.PowerGood == nil {
		return nil, ErrConfig
	}
	if p.Flash.Size() < FlashSize {
		return nil, ErrFlash
	}
	b := &BMC{cfg: cfg, ports: p}
	if len(cfg.DeviceKey) != ed25519.PrivateKeySize {
		rec, err := readProvision(p.Flash)
		if err != nil {
			return nil, err
		}
		b.cfg, b.bootAt, b.bootLen = rec.Config, rec.bootConfig, rec.bootLen
	} else {
		b.bootLen = uint32(len(cfg.BootConfig))
	}
	if err := b.cfg.check(); err != nil {
		return nil, err
	}
	b.limits = b.cfg.Limits
	b.limits.defaults()
	b.cfg.Limits = Limits{}
	b.manifest.Chunks = make([][32]byte, 0, trust.MaxChunks)
	b.bootSlot, b.at, b.rereading, b.cached = wire.SlotNone, len(b.order), -1, -1
	b.bucket.tokens, b.effort.tokens = bucketSize, effortSize
	b.resetRegisters()
	if err := b.restore(); err != nil {
		return nil, err
	}
	return b, nil
}

// Step lets time pass: now is a monotonic time in milliseconds. It is to be called about every 10 ms; fewer calls make
// the BMC slower to react, nothing else.
func (b *BMC) Step(now uint64) {
	b.advance(now)
	b.sense()
	b.watchReset()
	switch b.state {
	case wire.StateOff:
		b.stepOff()
	case wire.StateVerifying:
		b.stepVerifying()
	case wire.StatePowering:
		b.stepPowering()
	case wire.StateRunning:
		b.stepRunning()
	case wire.StateDraining:
		b.stepDraining()
	case wire.StateFaulted:
		b.stepFaulted()
	}
	b.watchUnit()
	b.observe()
}

// advance moves the clock, never backwards, and starts the machine at the first call.
func (b *BMC) advance(now uint64) {
	if now > b.now {
		b.now = now
	}
	if !b.started {
		b.started = true
		b.start()
	}
}

// Version of this firmware, as GetFirmware tells it.
const Version = "0.1.0"

// RestartWanted reports whether the BMC was asked to start anew. Its board does so once the answer has left; the unit's
// power is not touched.
func (b *BMC) RestartWanted() bool { return b.restart }
