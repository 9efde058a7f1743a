package bmc

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
)

func smallLedger(f driver.Flash) *ledger {
	s := &ledger{}
	s.Flash, s.Sectors = f, 4
	return s
}

// someValue is any value but one of floors, which never go down.
func someValue(fill int, i uint32) []byte {
	if fill == floorsSize-4 {
		fill++
	}
	return binary.LittleEndian.AppendUint32(bytes.Repeat([]byte{byte(i)}, fill), i)
}

func TestLedgerKeepsTheLastValue(t *testing.T) {
	f := newFlash()
	s := smallLedger(f)
	if err := s.mount(); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(2000) {
		key := uint8(1 + i%(uint32(keyCount)-1))
		if err := s.put(key, someValue(int(i%200), i)); err != nil {
			t.Fatal(err)
		}
		if i%97 == 0 {
			again := smallLedger(f)
			if err := again.mount(); err != nil {
				t.Fatal(err)
			}
			for k := uint8(1); k < keyCount; k++ {
				if !bytes.Equal(again.get(k), s.get(k)) {
					t.Fatalf("after %d puts a mount finds another value of key %d", i, k)
				}
			}
			s = again
		}
	}
	// Wear is even: each sector within one erase of the others.
	for i := range uint32(4) {
		if d := f.erases[i] - f.erases[0]; d < -1 || d > 1 {
			t.Errorf("sector %d: %d erases, sector 0: %d", i, f.erases[i], f.erases[0])
		}
	}
}

func TestLedgerWritesNothingTwice(t *testing.T) {
	f := newFlash()
	s := smallLedger(f)
	if err := s.mount(); err != nil {
		t.Fatal(err)
	}
	if err := s.put(1, []byte("same")); err != nil {
		t.Fatal(err)
	}
	before := f.writes
	for range 100 {
		if err := s.put(1, []byte("same")); err != nil {
			t.Fatal(err)
		}
	}
	if f.writes != before {
		t.Fatalf("%d flash operations for equal values", f.writes-before)
	}
}

// TestLedgerSurvivesPowerCuts cuts the power at every kind of moment: in a program, in an erase, during a mount's own
// writes. What put acknowledged must be there; the value being put may be old or new, whole in either case.
func TestLedgerSurvivesPowerCuts(t *testing.T) {
	const seed = 20261123
	cuts := 10 * *cutCount
	if testing.Short() {
		cuts = min(cuts, 2_000)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	f := newFlash()
	f.rnd = rnd
	var sure, maybe [keyCount][]byte
	n := uint32(0)
	for c := range cuts {
		f.dead, f.cut = false, 1+rnd.IntN(40)
		s := smallLedger(f)
		if err := s.mount(); err != nil {
			t.Fatalf("cut %d: mount: %v", c, err)
		}
		if s.Damaged() {
			t.Fatalf("seed %d, cut %d: taken for damage", seed, c)
		}
		for k := uint8(1); k < keyCount; k++ {
			got := s.get(k)
			switch {
			case bytes.Equal(got, sure[k]):
			case maybe[k] != nil && bytes.Equal(got, maybe[k]):
				sure[k] = maybe[k]
			default:
				t.Fatalf("seed %d, cut %d, key %d: found %x, want %x or %x", seed, c, k, got, sure[k], maybe[k])
			}
			maybe[k] = nil
		}
		for !f.dead {
			n++
			k := uint8(1 + rnd.IntN(int(keyCount)-1))
			v := someValue(rnd.IntN(120), n)
			if err := s.put(k, v); err != nil {
				maybe[k] = v
				break
			}
			sure[k] = v
		}
	}
	t.Logf("seed %d: %d cuts, %d values put, none lost", seed, cuts, n)
}

// TestPowerCutModelBites is the control: the same cuts break a store that believes the last record it finds.
func TestPowerCutModelBites(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	torn, blank := 0, bytes.Repeat([]byte{0xFF}, 300)
	for range 200 {
		f := newFlash()
		f.rnd, f.cut = rnd, 1
		want := bytes.Repeat([]byte{0x55}, 300)
		if err := f.Program(0, want); err == nil {
			t.Fatal("no cut")
		}
		f.dead = false
		got := make([]byte, 300)
		f.ReadAt(got, 0)
		if !bytes.Equal(got, want) && !bytes.Equal(got, blank) {
			torn++
		}
	}
	if torn < 150 {
		t.Fatalf("only %d of 200 cuts tear", torn)
	}
}

func TestLedgerPassesBadSectorsBy(t *testing.T) {
	f := newFlash()
	f.bad = map[uint32]bool{1: true, 2: true}
	s := smallLedger(f)
	if err := s.mount(); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := range uint32(500) {
		if s.put(1, binary.LittleEndian.AppendUint32(make([]byte, 100), i)) != nil {
			lost++
		}
		again := smallLedger(f)
		if err := again.mount(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.get(1), s.get(1)) {
			t.Fatalf("put %d: acknowledged and gone", i)
		}
	}
	if lost == 500 {
		t.Error("two bad sectors of four stop everything")
	}
}

func TestLedgerGivesUpOnDeadFlashButKeepsWhatItHas(t *testing.T) {
	f := newFlash()
	s := smallLedger(f)
	if err := s.mount(); err != nil {
		t.Fatal(err)
	}
	if err := s.put(1, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	f.bad = map[uint32]bool{0: true, 1: true, 2: true, 3: true}
	for range 50 {
		if s.put(2, []byte("lost")) == nil {
			t.Fatal("a dead flash took a value")
		}
	}
	again := smallLedger(f)
	if err := again.mount(); err != nil {
		t.Fatal(err)
	}
	if string(again.get(1)) != "kept" {
		t.Fatal("the last good sector was erased")
	}
}

// TestLedgerStepsOverFlippedBits: a flipped bit costs at most the record that it is in, or those behind it when it makes
// a length wrong, and the ledger marks itself.
func TestLedgerStepsOverFlippedBits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	more := 0
	for range 500 {
		f := newFlash()
		s := smallLedger(f)
		if err := s.mount(); err != nil {
			t.Fatal(err)
		}
		for k := uint8(1); k < keyDamage; k++ {
			if err := s.put(k, []byte{k, 1, 2, 3, 4, 5}); err != nil {
				t.Fatal(err)
			}
		}
		f.flip(16+8+uint32(rnd.IntN(int(uint32(keyDamage-1)*16))), 1<<rnd.IntN(8))
		again := smallLedger(f)
		if err := again.mount(); err != nil {
			t.Fatal(err)
		}
		missing := 0
		for k := uint8(1); k < keyDamage; k++ {
			if len(again.get(k)) == 0 {
				missing++
			} else if !bytes.Equal(again.get(k), []byte{k, 1, 2, 3, 4, 5}) {
				t.Fatalf("key %d: damaged value believed", k)
			}
		}
		if missing > 0 && string(again.get(keyDamage)) != string(damageSeen) {
			t.Fatalf("%d values lost by one bit, and no mark", missing)
		}
		if missing > 1 {
			more++
		}
		// And it can still be written.
		if err := again.put(1, []byte("new")); err != nil {
			t.Fatal(err)
		}
	}
	if more > 100 {
		t.Errorf("%d of 500 flips lost more than a record", more)
	}
}
