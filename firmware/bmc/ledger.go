package bmc

import "github.com/racklet/racklet/firmware/store"

// A ledger keeps the last value of a few keys in a journal. Values live in RAM as well, so reading costs nothing.
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
	maxValue = 256 // bytes of the longest value
)

func (l *ledger) mount() error {
	l.values = [keyCount]value{}
	l.Snapshot = l.writeSnapshot
	return l.Journal.Mount(1, func(kind uint8, p []byte) {
		if kind < keyCount && len(p) <= maxValue {
			l.values[kind].n = uint16(copy(l.values[kind].data[:], p))
		}
	})
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
	v.n = uint16(copy(v.data[:], p))
	return nil
}
