package bmc

import (
	"encoding/binary"
	"strconv"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// Keys of the store. A value is small and little endian; what is missing is zero.
const (
	keyCounters uint8 = iota + 1 // boot count u32, restarts u32
	keyFloors                    // see encodeFloors
	keyDesired                   // see desired
	keyEnergy                    // mJ u64, the meter's own mJ u64
	keyBoot                      // see bootRecord
	keySlotA                     // see slotRecord
	keySlotB
	keyFailure // faulted u8, failure
	keyDamage  // damageSeen or damageKnown
	keyCount
)

// desired is what the operator wants, and how far it has come.
type desired struct {
	generation uint32
	observed   uint32 // newest generation that was converged to
	power      wire.Power
	led        bool
	cap        uint32 // mW
	bootMode   wire.BootMode
	bootSlot   uint8
}

func (d *desired) encode(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, d.generation)
	b = binary.LittleEndian.AppendUint32(b, d.observed)
	b = binary.LittleEndian.AppendUint32(b, d.cap)
	return append(b, byte(d.power), boolByte(d.led), byte(d.bootMode), d.bootSlot)
}

func (d *desired) decode(p []byte) {
	*d = desired{bootSlot: wire.SlotNone}
	if len(p) != 16 {
		return
	}
	d.generation = binary.LittleEndian.Uint32(p)
	d.observed = binary.LittleEndian.Uint32(p[4:])
	d.cap = binary.LittleEndian.Uint32(p[8:])
	d.power, d.led, d.bootMode, d.bootSlot = wire.Power(p[12]), p[13] != 0, wire.BootMode(p[14]), p[15]
}

// bootRecord is what must be known of the present boot after a restart of the BMC, and of the next one.
type bootRecord struct {
	rail      bool // the switch is closed, or about to be
	slot      uint8
	fallback  bool
	void      bool // evidence is void until the next rail cycle
	stage     wire.Stage
	preferred uint8 // the slot to boot when nothing else is asked for
	trial     uint8 // boots left for the preferred slot to prove itself; trialProven: it has
}

const (
	trialProven = 0xFF
	trialBoots  = 2
)

func (r *bootRecord) encode(b []byte) []byte {
	return append(b, boolByte(r.rail), r.slot, boolByte(r.fallback), boolByte(r.void), byte(r.stage), r.preferred, r.trial)
}

func (r *bootRecord) decode(p []byte) {
	*r = bootRecord{slot: wire.SlotNone, preferred: wire.SlotA, trial: trialProven}
	if len(p) != 7 {
		return
	}
	r.rail, r.slot, r.fallback, r.void = p[0] != 0, p[1], p[2] != 0, p[3] != 0
	r.stage, r.preferred, r.trial = wire.Stage(p[4]), p[5], p[6]
	if r.preferred > wire.SlotB {
		r.preferred = wire.SlotA
	}
}

// slotRecord is what is known of a boot slot. Only distrust is kept over restarts: the rest is read from the flash.
type slotRecord struct {
	info       wire.SlotInfo
	distrusted bool     // a chunk of the manifest with this digest failed its check
	digest     [32]byte // of the distrusted manifest
	failure    wire.Failure
}

func (r *slotRecord) encode(b []byte) []byte {
	b = append(b, boolByte(r.distrusted))
	b = append(b, r.digest[:]...)
	return appendFailure(b, &r.failure)
}

func (r *slotRecord) decode(p []byte) {
	if len(p) < 33 {
		return
	}
	r.distrusted = p[0] != 0
	copy(r.digest[:], p[1:])
	r.failure = parseFailure(p[33:])
}

func appendFailure(b []byte, f *wire.Failure) []byte {
	for _, t := range [...][]byte{f.Reason.Bytes(), f.Expected.Bytes(), f.Seen.Bytes()} {
		b = append(append(b, byte(len(t))), t...)
	}
	return b
}

func parseFailure(p []byte) wire.Failure {
	var t [3]string
	for i := range t {
		if len(p) == 0 || len(p) < 1+int(p[0]) {
			return wire.Failure{}
		}
		t[i], p = string(p[1:1+p[0]]), p[1+p[0]:]
	}
	return wire.MakeFailure(t[0], t[1], t[2])
}

func encodeFloors(b []byte, f *trust.Floors) []byte {
	b = binary.LittleEndian.AppendUint64(b, f.Sequence)
	b = binary.LittleEndian.AppendUint32(b, f.RootVersion)
	b = binary.LittleEndian.AppendUint32(b, f.BootSecurity)
	b = append(b, f.Tree[:]...)
	return append(b, f.Commit[:]...)
}

func decodeFloors(p []byte) (f trust.Floors) {
	if len(p) != floorsSize {
		return f
	}
	f.Sequence = binary.LittleEndian.Uint64(p)
	f.RootVersion = binary.LittleEndian.Uint32(p[8:])
	f.BootSecurity = binary.LittleEndian.Uint32(p[12:])
	copy(f.Tree[:], p[16:])
	copy(f.Commit[:], p[48:])
	return f
}

// restore reads everything that outlives a restart.
func (b *BMC) restore() error {
	b.ledger.Flash, b.ledger.Base, b.ledger.Sectors = b.ports.Flash, stateOffset, stateSize/driver.SectorSize
	if err := b.ledger.mount(); err != nil {
		return err
	}
	if c := b.ledger.get(keyCounters); len(c) == countersSize {
		b.bootCount, b.restarts = binary.LittleEndian.Uint32(c), binary.LittleEndian.Uint32(c[4:])
	}
	b.floors = decodeFloors(b.ledger.get(keyFloors))
	b.desired.decode(b.ledger.get(keyDesired))
	b.boot.decode(b.ledger.get(keyBoot))
	b.slots[wire.SlotA].decode(b.ledger.get(keySlotA))
	b.slots[wire.SlotB].decode(b.ledger.get(keySlotB))
	if e := b.ledger.get(keyEnergy); len(e) == 16 {
		b.energy, b.chip, b.chipKnown = binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint64(e[8:]), true
	}
	if f := b.ledger.get(keyFailure); len(f) > 0 {
		b.faulted, b.failure = f[0] != 0, parseFailure(f[1:])
	}
	b.log.Flash, b.log.Base, b.log.Sectors = b.ports.Flash, eventOffset, eventSize/driver.SectorSize
	return b.recoverEvents()
}

// damaged says whether records of the store have become unreadable since an operator last acknowledged such a thing.
// Floors may then be lower than what was promised, and the unit is not powered.
func (b *BMC) damaged() bool { return string(b.ledger.get(keyDamage)) == string(damageSeen) }

func (b *BMC) damageFailure() wire.Failure {
	return wire.MakeFailure("bmc.damage", "all records of the store readable",
		"some lost; sequence "+strconv.FormatUint(b.floors.Sequence, 10)+", boot security "+number(b.floors.BootSecurity))
}

// acknowledge takes an operator's order to go on with what is left of the store, and says whether that was kept.
func (b *BMC) acknowledge() bool {
	if !b.damaged() {
		return true
	}
	if !b.keep(keyDamage, damageKnown) {
		return false
	}
	b.event(wire.EventFloors, 2, "damage of the store acknowledged", nil)
	return true
}

// keep writes one value and says whether it will survive. A store that failed once is flagged until the BMC restarts, and
// what must not happen unrecorded does not happen.
func (b *BMC) keep(key uint8, p []byte) bool {
	err := b.ledger.put(key, p)
	if err != nil {
		b.worn = true
	}
	return err == nil
}

func (b *BMC) keepCounters() bool {
	var buf [countersSize]byte
	binary.LittleEndian.PutUint32(buf[:], b.bootCount)
	binary.LittleEndian.PutUint32(buf[4:], b.restarts)
	return b.keep(keyCounters, buf[:])
}

func (b *BMC) keepEnergy() {
	var buf [16]byte
	binary.LittleEndian.PutUint64(buf[:], b.energy)
	binary.LittleEndian.PutUint64(buf[8:], b.chip)
	b.keep(keyEnergy, buf[:])
	b.checkpoint = b.now
}

func (b *BMC) keepBoot() bool {
	var buf [8]byte
	return b.keep(keyBoot, b.boot.encode(buf[:0]))
}

func (b *BMC) keepDesired() bool {
	var buf [16]byte
	return b.keep(keyDesired, b.desired.encode(buf[:0]))
}

func (b *BMC) keepSlot(slot uint8) bool {
	var buf [maxValue]byte
	return b.keep(keySlotA+slot, b.slots[slot].encode(buf[:0]))
}

func (b *BMC) keepFailure() bool {
	var buf [maxValue]byte
	return b.keep(keyFailure, appendFailure(append(buf[:0], boolByte(b.faulted)), &b.failure))
}
