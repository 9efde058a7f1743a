package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/store"
	"pgregory.net/rapid"
)

var errCut = errors.New("power cut")

// nor is a NOR flash that can be cut: after left more bytes (an erase counts 64) the operation at hand is torn and all
// others fail.
type nor struct {
	mem    []byte
	left   int
	dead   bool
	worn   func(off uint32) bool // sectors that keep nothing
	rand   uint64
	erases map[uint32]int
}

func newNOR(sectors int) *nor {
	return &nor{mem: bytes.Repeat([]byte{0xFF}, sectors*driver.SectorSize), left: 1 << 30, erases: map[uint32]int{}}
}

func (f *nor) next() byte {
	f.rand = f.rand*6364136223846793005 + 1442695040888963407
	return byte(f.rand >> 56)
}

func (f *nor) Size() uint32 { return uint32(len(f.mem)) }

func (f *nor) ReadAt(p []byte, off uint32) error {
	if f.dead {
		return errCut
	}
	copy(p, f.mem[off:])
	return nil
}

func (f *nor) Program(off uint32, p []byte) error {
	if f.dead {
		return errCut
	}
	for i, b := range p {
		if f.left == 0 {
			f.mem[int(off)+i] &= b | f.next()
			f.dead = true
			return errCut
		}
		f.left--
		if f.worn == nil || !f.worn(off) {
			f.mem[int(off)+i] &= b
		}
	}
	return nil
}

func (f *nor) Erase(off uint32) error {
	if f.dead {
		return errCut
	}
	f.erases[off]++
	sector := f.mem[off : off+driver.SectorSize]
	if f.left < 64 {
		for i := range sector {
			sector[i] |= f.next() // any bits may have come up
		}
		f.dead = true
		return errCut
	}
	f.left -= 64
	for i := range sector {
		sector[i] = 0xFF
	}
	return nil
}

// counters is an owner of a journal: a few numbers that only rise.
type counters struct {
	j      store.Journal
	values [5]uint32
}

func open(f driver.Flash) (*counters, error) {
	c := &counters{}
	c.j = store.Journal{Flash: f, Sectors: 4, Snapshot: func(j *store.Journal) error {
		for k, v := range c.values {
			if v == 0 {
				continue
			}
			if err := j.Put(uint8(k+1), binary.LittleEndian.AppendUint32(nil, v)); err != nil {
				return err
			}
		}
		return nil
	}}
	err := c.j.Mount(1, func(kind uint8, p []byte) {
		if kind >= 1 && int(kind) <= len(c.values) && len(p) >= 4 {
			c.values[kind-1] = binary.LittleEndian.Uint32(p)
		}
	})
	return c, err
}

// raise adds one to counter k with a payload of some length.
func (c *counters) raise(k, length int) error {
	p := binary.LittleEndian.AppendUint32(nil, c.values[k]+1)
	p = append(p, make([]byte, length)...)
	err := c.j.Append(uint8(k+1), p)
	if err == nil {
		c.values[k]++
	}
	return err
}

// Cut at any byte, any number of times: what Append acknowledged is there, and what it did not is there or not, whole.
func TestPowerCuts(t *testing.T) {
	cuts := 0
	rapid.Check(t, func(t *rapid.T) {
		f := newNOR(4)
		f.rand = rapid.Uint64().Draw(t, "seed")
		var sure [5]uint32 // acknowledged
		for range rapid.IntRange(1, 8).Draw(t, "lives") {
			f.dead, f.left = false, 1<<30
			c, err := open(f)
			if err != nil {
				t.Fatal(err)
			}
			for k := range sure {
				if c.values[k] != sure[k] && c.values[k] != sure[k]+1 {
					t.Fatalf("counter %d is %d, %d was acknowledged", k, c.values[k], sure[k])
				}
			}
			sure = c.values
			f.left = rapid.IntRange(0, 6000).Draw(t, "bytes until the cut")
			length := rapid.IntRange(0, 400).Draw(t, "length")
			for i := 0; ; i++ {
				k := i % len(sure)
				if err := c.raise(k, length); err != nil {
					break
				}
				sure[k]++
			}
			if !f.dead {
				t.Fatal("it failed without a cut")
			}
			cuts++
		}
	})
	t.Logf("%d cuts", cuts)
}

// The check can fail: a journal that forgets is noticed.
func TestPowerCutsNegativeControl(t *testing.T) {
	f := newNOR(4)
	c, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := c.raise(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range driver.SectorSize {
		f.mem[i] = 0xFF
	}
	again, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	if again.values[0] != 0 {
		t.Error("a wiped flash remembers")
	}
}

func TestWornSectorsArePassedBy(t *testing.T) {
	f := newNOR(4)
	f.worn = func(off uint32) bool { return off/driver.SectorSize == 2 }
	c, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := c.raise(1, 40); err != nil {
			t.Fatal(err)
		}
	}
	again, err := open(f)
	if err != nil || again.values[1] != 2000 {
		t.Errorf("%d after a worn sector, %v", again.values[1], err)
	}
	f.worn = func(uint32) bool { return true }
	for range 1000 {
		if err = c.raise(1, 40); err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrWorn) {
		t.Errorf("a flash that keeps nothing: %v", err)
	}
	if again, err := open(f); err != nil || again.values[1] < 2000 {
		t.Errorf("the last good sector is gone: %d, %v", again.values[1], err)
	}
}

// A sector that stops keeping what is written in its middle costs nothing that was acknowledged.
func TestSectorThatWearsOut(t *testing.T) {
	f := newNOR(4)
	f.worn = func(off uint32) bool { return off/driver.SectorSize == 1 && off%driver.SectorSize > 2000 }
	c, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	for range 1500 {
		if err := c.raise(2, 30); err != nil {
			t.Fatal(err)
		}
		again, err := open(f)
		if err != nil || again.values[2] != c.values[2] {
			t.Fatalf("%d found, %d acknowledged, %v", again.values[2], c.values[2], err)
		}
	}
}

// One flipped bit costs one record at most.
func TestFlippedBits(t *testing.T) {
	f := newNOR(4)
	c, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	for k := range c.values {
		for range 3 {
			if err := c.raise(k, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	lost := 0
	for bit := range 400 * 8 {
		f.mem[bit/8] ^= 1 << (bit % 8)
		again, err := open(f)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for k := range again.values {
			if again.values[k] > 3 {
				t.Fatalf("bit %d made counter %d %d", bit, k, again.values[k])
			}
			if again.values[k] < 2 {
				missing++
			}
		}
		if missing > 0 {
			lost++ // the sector's own header or its commit
		}
		f.mem[bit/8] ^= 1 << (bit % 8)
	}
	if lost > (16+8)*8 {
		t.Errorf("%d of 3200 flipped bits lost more than a record", lost)
	}
}

func TestLimits(t *testing.T) {
	f := newNOR(4)
	j := store.Journal{Flash: f, Sectors: 4}
	if err := j.Mount(4, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(1, make([]byte, store.MaxRecord+1)); !errors.Is(err, store.ErrTooLong) {
		t.Error(err)
	}
	// A log without a snapshot keeps its newest sectors.
	for i := range uint32(3000) {
		if err := j.Append(1, binary.LittleEndian.AppendUint32(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	var first, last, n uint32
	if err := j.Mount(4, func(_ uint8, p []byte) {
		if n++; n == 1 {
			first = binary.LittleEndian.Uint32(p)
		}
		last = binary.LittleEndian.Uint32(p)
	}); err != nil {
		t.Fatal(err)
	}
	if last != 2999 || last-first+1 != n || n < 900 {
		t.Errorf("%d records, %d to %d", n, first, last)
	}
	for i := uint32(0); i < 4; i++ {
		if d := f.erases[i*driver.SectorSize] - f.erases[0]; d < -1 || d > 1 {
			t.Errorf("sector %d was erased %d times, sector 0 %d times", i, f.erases[i*driver.SectorSize], f.erases[0])
		}
	}
}

func FuzzMount(f *testing.F) {
	n := newNOR(4)
	c, _ := open(n)
	for i := range 50 {
		if err := c.raise(i%5, i); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(n.mem[:2000])
	f.Fuzz(func(t *testing.T, b []byte) {
		n := newNOR(4)
		copy(n.mem, b)
		c, err := open(n)
		if err != nil {
			t.Fatal(err)
		}
		// Whatever stood there, what is written now is found again.
		c.values[0] = 5
		if err := c.raise(0, 0); err != nil {
			t.Fatal(err)
		}
		again, err := open(n)
		if err != nil || again.values[0] != 6 {
			t.Fatalf("%d, %v", again.values[0], err)
		}
	})
}
