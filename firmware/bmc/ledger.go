package bmc

import (
	"encoding/binary"

	"github.com/racklet/racklet/firmware/store"
)

// A ledger keeps the last value of a few keys in a journal. Values live in RAM as well, so reading costs nothing.
//
// When the journal is damaged, values may be older than what put promised. The ledger then salvages floors and counters
// from all sectors, and keeps under keyDamage that it happened until somebody puts damageKnown there.
type ledger struct {
	store.Journal
	values [keyCount]value
}

type value struct {
	n    uint16
	data [maxValue]byte
}

/* Implementation constants */
const (
	maxValue     = 256 // bytes of the longest value
	floorsSize   = 68  // of keyFloors
	countersSize = 8   // of keyCounters
)

var damageSeen, damageKnown = []byte{1}, []byte{0} // values of keyDamage

func (l *ledger) mount() error {
	l.values = [keyCount]value{}
	l.Snapshot = l.writeSnapshot
	err := l.Journal.Mount(1, func(kind uint8, p []byte) {
		switch {
		case kind == keyFloors:
			l.higher(kind, p)
		case kind < keyCount && len(p) <= maxValue:
			l.set(kind, p)
		}
	})
	if err != nil || !l.Damaged() {
		return err
	}
	// What may never go down is looked for in every sector. The mark is in the next snapshot, and so as durable as the
	// first thing that is written.
	err = l.Journal.Salvage(func(kind uint8, p []byte) {
		if kind == keyFloors || kind == keyCounters {
			l.higher(kind, p)
		}
	})
	l.set(keyDamage, damageSeen)
	return err
}

func (l *ledger) set(key uint8, p []byte) {
	l.values[key].n = uint16(copy(l.values[key].data[:], p))
}

// higher takes from p what is higher than the value of a key that never goes down.
func (l *ledger) higher(key uint8, p []byte) {
	have := l.get(key)
	switch {
	case key == keyFloors && len(have) == floorsSize:
		if len(p) == floorsSize {
			a, b := decodeFloors(have), decodeFloors(p)
			if b.Sequence < a.Sequence {
				a, b = b, a
			}
			b.RootVersion, b.BootSecurity = max(a.RootVersion, b.RootVersion), max(a.BootSecurity, b.BootSecurity)
			encodeFloors(have[:0], &b)
		}
	case key == keyCounters && len(have) == countersSize:
		for i := 0; i < len(p) && len(p) == countersSize; i += 4 {
			v := max(binary.LittleEndian.Uint32(have[i:]), binary.LittleEndian.Uint32(p[i:]))
			binary.LittleEndian.PutUint32(have[i:], v)
		}
	case len(p) <= maxValue:
		l.set(key, p)
	}
}

// writeSnapshot writes every value that is set.
func (l *ledger) writeSnapshot(j *store.Journal) error {
	for k := uint8(1); k < keyCount; k++ {
		if v := &l.values[k]; v.n > 0 {
			if err := j.Put(k, v.data[:v.n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// get returns the value of a key; empty when it was never put. It is valid until the next put of that key.
func (l *ledger) get(key uint8) []byte { return l.values[key].data[:l.values[key].n] }

// put makes p the value of key and returns nil once that survives a power cut. An equal value is not written again.
func (l *ledger) put(key uint8, p []byte) error {
	if len(p) > maxValue {
		return store.ErrTooLong
	}
	v := &l.values[key]
	if int(v.n) == len(p) && string(v.data[:v.n]) == string(p) {
		return nil
	}
	if err := l.Append(key, p); err != nil {
		return err
	}
	l.set(key, p)
	return nil
}
