package bmc

import (
	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/store"
	"github.com/racklet/racklet/firmware/wire"
)

const recordEvent = 1 // kind of a record in the event journal

// bucket bounds what a unit can make the BMC write into its flash: bucketSize events at once, one a second after that. An
// operator's order to start makes room for a boot's, so that even the tenth boot of a minute leaves its refusal in the log.
type bucket struct {
	tokens uint32
	at     uint64
	lost   uint32 // events that were not logged
}

const (
	bucketSize   = 64
	bucketMillis = 1_000
	bucketBoot   = 32 // more than what stages and measurements of a boot log
)

func (k *bucket) take(now uint64) bool {
	if n := (now - k.at) / bucketMillis; n > 0 {
		k.tokens = uint32(min(uint64(k.tokens)+n, bucketSize))
		k.at += n * bucketMillis
	}
	if k.tokens == 0 {
		k.lost++
		return false
	}
	k.tokens--
	return true
}

// recoverEvents fills the ring from the flash: as many sectors as a ring of the longest events takes.
func (b *BMC) recoverEvents() error {
	return b.log.Mount(eventRing*store.MaxRecord/2/driver.SectorSize+2, func(kind uint8, p []byte) {
		if kind != recordEvent {
			return
		}
		e, err := wire.ParseEvent(p)
		if err != nil || e.Sequence <= b.eventSeq {
			return
		}
		b.hold(&e)
	})
}

func (b *BMC) hold(e *wire.Event) {
	b.events[e.Sequence%eventRing] = *e
	if e.Sequence != b.eventSeq+1 {
		b.eventHeld = 0 // a gap: what is before it cannot be told apart
	}
	b.eventSeq = e.Sequence
	if b.eventHeld < eventRing {
		b.eventHeld++
	}
}

// event adds one event to the ring, in the flash first. A flash that fails loses events over a restart, not now.
func (b *BMC) event(kind wire.EventKind, code uint16, text string, failure *wire.Failure) {
	e := wire.Event{
		Sequence: b.eventSeq + 1, Millis: b.time(), Boot: b.bootCount, Kind: kind, ClockSet: b.clockSet,
		Slot: b.cfg.Slot, Code: code, Text: wire.MakeText64(text),
	}
	if failure != nil {
		e.Failure = *failure
	}
	var buf [store.MaxRecord]byte
	if err := b.log.Append(recordEvent, wire.AppendEvent(buf[:0], &e)); err != nil {
		b.worn = true
	}
	b.hold(&e)
}

// unitEvent is event for what the unit can cause as often as it likes.
func (b *BMC) unitEvent(kind wire.EventKind, code uint16, text string, failure *wire.Failure) {
	if b.bucket.take(b.now) {
		b.event(kind, code, text, failure)
	}
}

// time is what goes into events: Unix milliseconds once the clock has been set, else since the BMC started.
func (b *BMC) time() uint64 {
	if b.clockSet {
		return uint64(b.clock + int64(b.now))
	}
	return b.now
}

// readEvents writes the events after a sequence that fit.
func (b *BMC) readEvents(dst []byte, after uint32, limit int) []byte {
	oldest := uint32(0)
	if b.eventHeld > 0 {
		oldest = b.eventSeq - uint32(b.eventHeld) + 1
	}
	w := wire.StartEvents(dst, oldest, b.eventSeq, limit)
	if b.eventHeld > 0 && after < b.eventSeq {
		for seq := max(after+1, oldest); seq <= b.eventSeq; seq++ {
			if !w.Add(&b.events[seq%eventRing]) {
				break
			}
		}
	}
	return w.Bytes()
}
