package rmc

import (
	"encoding/binary"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/store"
	"github.com/racklet/racklet/firmware/wire"
)

// Implementation constants: what is kept on the flash.
const (
	stateSectors = 8
	logSectors   = 16
	eventRing    = 64 // events in memory

	recordPolicies = 1 // wire.AppendPolicies
	recordCounters = 2 // LED mask u16, restarts u32
	recordEnergy   = 3 // mJ u64, the meter's own mJ u64
	recordEvent    = 4 // wire.AppendEvent
)

// FlashSize is what the RMC takes of its flash, from offset 0 on.
const FlashSize = (stateSectors + logSectors) * driver.SectorSize

// recover reads back what an earlier life of this RMC kept.
func (r *RMC) recover() error {
	if r.ports.Flash == nil {
		return nil
	}
	if r.ports.Flash.Size() < FlashSize {
		return driver.ErrOutOfRange
	}
	r.state = store.Journal{Flash: r.ports.Flash, Sectors: stateSectors, Snapshot: r.snapshot}
	r.log = store.Journal{Flash: r.ports.Flash, Base: stateSectors * driver.SectorSize, Sectors: logSectors}
	err := r.state.Mount(1, func(kind uint8, p []byte) {
		le := binary.LittleEndian
		switch {
		case kind == recordPolicies:
			if p, err := wire.ParsePolicies(p); err == nil {
				r.policy, r.unset = p, false
			}
		case kind == recordCounters && len(p) == 6:
			r.leds, r.resets = le.Uint16(p), le.Uint32(p[2:])
		case kind == recordEnergy && len(p) == 16:
			r.energy, r.chip, r.chipKnown = le.Uint64(p), le.Uint64(p[8:]), true
		}
	})
	if err != nil {
		return err
	}
	r.kept = r.energy
	return r.log.Mount(logSectors, func(kind uint8, p []byte) {
		if kind != recordEvent {
			return
		}
		if e, err := wire.ParseEvent(p); err == nil && e.Sequence > r.eventSeq {
			r.remember(&e)
		}
	})
}

// snapshot writes all that a new sector of the state must hold.
func (r *RMC) snapshot(j *store.Journal) error {
	var buf [store.MaxRecord]byte
	if !r.unset {
		if err := j.Put(recordPolicies, wire.AppendPolicies(buf[:0], &r.policy)); err != nil {
			return err
		}
	}
	if err := j.Put(recordCounters, r.counters(buf[:0])); err != nil {
		return err
	}
	return j.Put(recordEnergy, r.energies(buf[:0]))
}

func (r *RMC) counters(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(b, r.leds), r.resets)
}

func (r *RMC) energies(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, r.energy), r.chip)
}

// keep appends a record and reports whether it will outlive a power cut. Without a flash nothing does, and nobody minds.
func (r *RMC) keep(kind uint8, payload []byte) bool {
	if r.ports.Flash == nil {
		return true
	}
	err := r.state.Append(kind, payload)
	r.worn = err != nil
	return err == nil
}

func (r *RMC) keepCounters() bool {
	var buf [8]byte
	return r.keep(recordCounters, r.counters(buf[:0]))
}

func (r *RMC) keepEnergy() {
	var buf [16]byte
	r.keptAt = r.now
	if r.chipKnown && r.keep(recordEnergy, r.energies(buf[:0])) {
		r.kept = r.energy
	}
}

func (r *RMC) remember(e *wire.Event) {
	if e.Sequence != r.eventSeq+1 {
		r.eventHeld = 0 // a gap: what is before it cannot be told apart
	}
	r.events[e.Sequence%eventRing] = *e
	r.eventSeq = e.Sequence
	r.eventHeld = min(r.eventHeld+1, eventRing)
}

// bucket bounds what a loose contact or a bad cable can make the RMC write into its flash: bucketSize events at once, one
// a second after that. Events beyond are lost, and never told.
type bucket struct {
	tokens uint32
	at     uint64
	filled bool
}

const (
	bucketSize   = 200
	bucketMillis = 1_000
)

func (b *bucket) take(now uint64) bool {
	if !b.filled {
		*b = bucket{tokens: bucketSize, at: now, filled: true}
	}
	if n := (now - b.at) / bucketMillis; n > 0 {
		b.tokens = uint32(min(uint64(b.tokens)+n, bucketSize))
		b.at += n * bucketMillis
	}
	if b.tokens == 0 {
		return false
	}
	b.tokens--
	return true
}

// event adds one event about a slot (0: the rack), to the flash first. A flash that fails loses it at the next restart.
func (r *RMC) event(kind wire.EventKind, slot uint8, code uint16, text string, failure *wire.Failure) {
	if !r.bucket.take(r.now) {
		return
	}
	e := wire.Event{
		Sequence: r.eventSeq + 1, Millis: r.time(), Boot: r.resets, Kind: kind, ClockSet: r.clockSet, Slot: slot, Code: code,
		Text: wire.MakeText64(text),
	}
	if failure != nil {
		e.Failure = *failure
	}
	if r.ports.Flash != nil {
		var buf [store.MaxRecord]byte
		if err := r.log.Append(recordEvent, wire.AppendEvent(buf[:0], &e)); err != nil {
			r.worn = true
		}
	}
	r.remember(&e)
}

// time is what goes into events: Unix milliseconds once the clock has been set, else since the RMC started.
func (r *RMC) time() uint64 {
	if r.clockSet {
		return uint64(r.clock + int64(r.now))
	}
	return r.now - r.since
}
