package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
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
	fail   func(op string, off uint32) error
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
	if f.fail != nil {
		if err := f.fail("program", off); err != nil {
			return err
		}
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
	if f.fail != nil {
		if err := f.fail("erase", off); err != nil {
			return err
		}
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
			if c.j.Damaged() {
				t.Fatal("a cut is taken for damage")
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

// One flipped bit costs one record, or those behind it where it makes a length wrong, and Mount says that it did.
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
	if again, err := open(f); err != nil || again.j.Damaged() || again.values != c.values {
		t.Fatalf("no bit flipped: %v, damaged %v, %v", again.values, again.j.Damaged(), err)
	}
	used := 16 + 8 + len(c.values)*3*12 // header, commit, records
	lost, more, spared := 0, 0, 0
	for bit := range used * 8 {
		f.mem[bit/8] ^= 1 << (bit % 8)
		again, err := open(f)
		if err != nil {
			t.Fatal(err)
		}
		missing := uint32(0)
		for k := range again.values {
			if again.values[k] > 3 {
				t.Fatalf("bit %d made counter %d %d", bit, k, again.values[k])
			}
			missing += 3 - again.values[k]
		}
		switch {
		case missing > 0 && !again.j.Damaged():
			t.Fatalf("bit %d: %v, and no word of damage", bit, again.values)
		case missing > 1:
			more++
			fallthrough
		case missing == 1:
			lost++
		case again.j.Damaged():
			spared++
		}
		// What is written now is kept, and the damage is left behind.
		copied := *f
		copied.mem = bytes.Clone(f.mem)
		again, _ = open(&copied)
		if err := again.raise(0, 0); err != nil {
			t.Fatal(err)
		}
		if once, err := open(&copied); err != nil || once.values != again.values || once.j.Damaged() {
			t.Fatalf("bit %d, after the next record: %v, want %v, damaged %v, %v", bit, once.values, again.values, once.j.Damaged(), err)
		}
		f.mem[bit/8] ^= 1 << (bit % 8)
	}
	if lost == 0 || spared < 16*8 {
		t.Errorf("%d flipped bits lost something, %d nothing", lost, spared)
	}
	if n := 8*8 + len(c.values)*3*16; more > n { // the commit, and lengths
		t.Errorf("%d flipped bits lost more than a record, want at most %d", more, n)
	}
}

// Whole bytes go bad: the newest header, the newest commit, the newest record, with older sectors there to fall back to.
func TestDamageOfTheNewestSector(t *testing.T) {
	f := newNOR(4)
	c, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	for range 700 { // into the third sector
		if err := c.raise(1, 4); err != nil {
			t.Fatal(err)
		}
	}
	at := 0
	for i := range 4 {
		if binary.LittleEndian.Uint32(f.mem[i*driver.SectorSize+8:]) != ^uint32(0) {
			at = i * driver.SectorSize
		}
	}
	end := at + driver.SectorSize
	for f.mem[end-1] == 0xFF {
		end--
	}
	for _, d := range []struct {
		name      string
		from, n   int
		recovered bool
	}{
		{"header", at, 16, true}, {"snapshot", at + 16 + 8, 4, false}, {"commit", at + 16 + 16, 8, false},
		{"first record", at + 16 + 16 + 8, 3, true}, {"newest record", end - 5, 2, false}, {"length of the newest", end - 14, 2, false},
	} {
		g := *f
		g.mem = bytes.Clone(f.mem)
		for i := range d.n {
			g.mem[d.from+i] ^= 0x5A
		}
		again, err := open(&g)
		if err != nil {
			t.Fatal(err)
		}
		if !again.j.Damaged() {
			t.Errorf("%s: %d of %d found, and no word of damage", d.name, again.values[1], c.values[1])
		}
		if d.recovered && again.values[1] != c.values[1] {
			t.Errorf("%s: %d, want %d", d.name, again.values[1], c.values[1])
		}
		best := again.values[1]
		if err := again.j.Salvage(func(kind uint8, p []byte) {
			if kind == 2 {
				best = max(best, binary.LittleEndian.Uint32(p))
			}
		}); err != nil || best+1 < c.values[1] && d.name != "commit" && d.name != "snapshot" {
			t.Errorf("%s: salvaged %d of %d, %v", d.name, best, c.values[1], err)
		}
	}
}

// A record that holds what looks like a record, and is damaged in front of it, is not searched for it.
func TestRecordsWithinRecords(t *testing.T) {
	evil := []byte{0xA5, 1, 4, 0}
	crc := crc32.ChecksumIEEE([]byte{1, 0, 0, 0}) // the sector's sequence
	crc = crc32.Update(crc, crc32.IEEETable, []byte{1, 4, 0, 0, 0, 0, 0})
	evil = append(binary.LittleEndian.AppendUint32(evil, crc), 0, 0, 0, 0)
	for flip := range 12 * 8 {
		f := newNOR(4)
		c, err := open(f)
		if err != nil {
			t.Fatal(err)
		}
		for range 7 {
			if err := c.raise(0, 0); err != nil {
				t.Fatal(err)
			}
		}
		payload := append(bytes.Repeat([]byte{'x'}, 4), evil...)
		payload = append(payload, payload...)
		if err := c.j.Append(99, payload); err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(f.mem, payload) - 8
		if got := f.mem[at+12 : at+24]; !bytes.Equal(got, evil) {
			t.Fatalf("% x", got)
		}
		f.mem[at+flip/8] ^= 1 << (flip % 8)
		if again, err := open(f); err != nil || again.values[0] != 7 {
			t.Fatalf("bit %d: %d, want 7: %v", flip, again.values[0], err)
		}
	}
}

// A sector that cannot be erased, or whose header cannot be programmed, is passed by; a fault that goes away is over.
func TestSectorsThatCannotBeErased(t *testing.T) {
	for _, what := range []string{"erase", "program"} {
		f := newNOR(4)
		c, err := open(f)
		if err != nil {
			t.Fatal(err)
		}
		refuse := func(sector uint32) bool { return sector == 1 }
		fail := func(op string, off uint32) error {
			if op == what && refuse(off/driver.SectorSize) {
				return errCut
			}
			return nil
		}
		f.fail = fail
		for i := range 2000 {
			if err := c.raise(1, 40); err != nil {
				t.Fatalf("%s, record %d: %v", what, i, err)
			}
		}
		if again, err := open(f); err != nil || again.values[1] != 2000 || again.j.Damaged() {
			t.Errorf("%s: %d, %v", what, again.values[1], err)
		}
		refuse = func(uint32) bool { return true }
		for range 200 {
			_ = c.raise(1, 40) // fails once the last good sector is full
		}
		refuse = func(uint32) bool { return false }
		for i := range 20 {
			if err = c.raise(1, 40); err == nil {
				break
			}
			if i == 19 {
				t.Errorf("%s: works again, and is not used: %v", what, err)
			}
		}
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
