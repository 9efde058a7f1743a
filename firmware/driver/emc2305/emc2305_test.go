package emc2305

import (
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
)

// memory is a bus with one chip whose registers are plain memory.
type memory [256]byte

func (m *memory) Tx(_ uint16, w, r []byte) error {
	if len(w) == 2 && w[0] < 0x3E {
		m[w[0]] = w[1]
	}
	for i := range r {
		r[i] = m[w[0]]
	}
	return nil
}

func TestSpeeds(t *testing.T) {
	m := &memory{regMaker: makerID, regProduct: productBase + 3}
	d, err := New(m, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		count   uint32
		rpm     uint32
		stalled bool
	}{{1573, 4999, false}, {7864, 1000, false}, {7904, 0, true}, {7000, 1123, false}, {tachStalled, 0, true}, {786, 10005, false}} {
		m[0x3E], m[0x3F] = byte(c.count>>5), byte(c.count<<3)
		rpm, stalled, err := d.Speed(0)
		if err != nil {
			t.Fatal(err)
		}
		if stalled != c.stalled || rpm != c.rpm {
			t.Errorf("count %d: %d rpm, stalled %v, want %d, %v", c.count, rpm, stalled, c.rpm, c.stalled)
		}
	}
	m[0x3E], m[0x3F] = 0, 0
	if _, _, err := d.Speed(0); !errors.Is(err, ErrRange) {
		t.Errorf("count 0: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	for _, c := range []struct {
		maker, product byte
		fans           int
		want           error
	}{{0x5D, 0x34, 5, nil}, {0x5D, 0x37, 1, nil}, {0x5D, 0x37, 2, driver.ErrNoDevice}, {0x5D, 0x35, 4, driver.ErrNoDevice},
		{0x5D, 0x33, 1, driver.ErrNoDevice}, {0x5D, 0x38, 1, driver.ErrNoDevice}, {0x41, 0x34, 1, driver.ErrNoDevice}} {
		m := &memory{regMaker: c.maker, regProduct: c.product}
		d, err := New(m, 0, c.fans)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Configure(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("maker %x product %x, %d fans: %v, want %v", c.maker, c.product, c.fans, err, c.want)
		}
	}
}
