package chip_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/sim/chip"
	"pgregory.net/rapid"
)

// TestFlashIsNOR plays random programs and erases against a plain array: the slow oracle.
func TestFlashIsNOR(t *testing.T) {
	const size = 16 * driver.SectorSize
	path := filepath.Join(t.TempDir(), "flash")
	rapid.Check(t, func(t *rapid.T) {
		os.Remove(path)
		file, err := chip.OpenFlash(path, size)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { file.Close() }()
		mem := chip.NewFlash(size)
		want := bytes.Repeat([]byte{0xFF}, size)
		got := make([]byte, size)
		for range rapid.IntRange(1, 12).Draw(t, "operations") {
			off := rapid.Uint32Range(0, size-1).Draw(t, "offset")
			switch rapid.IntRange(0, 3).Draw(t, "operation") {
			case 0:
				off -= off % driver.SectorSize
				copy(want[off:off+driver.SectorSize], bytes.Repeat([]byte{0xFF}, driver.SectorSize))
				if err := errors.Join(file.Erase(off), mem.Erase(off)); err != nil {
					t.Fatal(err)
				}
			case 1:
				file.Close() // what was programmed is in the file
				if file, err = chip.OpenFlash(path, size); err != nil {
					t.Fatal(err)
				}
			default:
				p := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "data")
				p = p[:min(len(p), size-int(off))]
				for i, b := range p {
					want[int(off)+i] &= b
				}
				if err := errors.Join(file.Program(off, p), mem.Program(off, p)); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range []*chip.Flash{file, mem} {
				if err := f.ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatal("contents differ from the oracle")
				}
			}
		}
	})
}

func TestFlashIsSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flash")
	f, err := chip.OpenFlash(path, chip.FlashSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := uint32(0); off < chip.FlashSize; off += driver.SectorSize {
		if err := f.Erase(off); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != chip.FlashSize || !bytes.Equal(raw[:1<<20], make([]byte, 1<<20)) {
		t.Error("an erased flash is not a file of holes")
	}
	if _, err := chip.OpenFlash(path, chip.FlashSize/2); err == nil {
		t.Error("a file of another size was taken")
	}
}

func TestFlashRefusesWhatIsOutside(t *testing.T) {
	f := chip.NewFlash(2 * driver.SectorSize)
	for name, err := range map[string]error{
		"read":            f.ReadAt(make([]byte, 2), 2*driver.SectorSize-1),
		"program":         f.Program(2*driver.SectorSize-1, make([]byte, 2)),
		"erase outside":   f.Erase(2 * driver.SectorSize),
		"erase unaligned": f.Erase(1),
		"flip":            f.FlipBit(2*driver.SectorSize, 0),
	} {
		if !errors.Is(err, driver.ErrOutOfRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A cut program leaves the bytes before the cut programmed, those after untouched, and the one at it in between; a cut
// erase leaves bits that only came up. The flash answers nothing until its power is back.
func TestFlashPowerCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := chip.NewFlash(driver.SectorSize)
		old := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "old")
		if err := f.Program(0, old); err != nil {
			t.Fatal(err)
		}
		steps := rapid.Int64Range(0, 63).Draw(t, "steps")
		f.CutAfter(steps, rapid.Uint64().Draw(t, "seed"))
		got := make([]byte, 64)
		if rapid.Bool().Draw(t, "erase") {
			if err := f.Erase(0); !errors.Is(err, chip.ErrPowerCut) {
				t.Fatalf("erase: %v", err)
			}
			f.Restore()
			f.ReadAt(got, 0)
			for i := range got {
				if got[i]&old[i] != old[i] {
					t.Fatalf("byte %d: %02x came from %02x by an erase", i, got[i], old[i])
				}
			}
			return
		}
		now := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "new")
		if err := f.Program(0, now); !errors.Is(err, chip.ErrPowerCut) {
			t.Fatalf("program: %v", err)
		}
		if err := f.ReadAt(got, 0); !errors.Is(err, chip.ErrPowerCut) {
			t.Fatalf("read without power: %v", err)
		}
		f.Restore()
		if err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			switch all := old[i] & now[i]; {
			case int64(i) < steps && got[i] != all, int64(i) > steps && got[i] != old[i]:
				t.Fatalf("byte %d of a program cut at %d: %02x", i, steps, got[i])
			case got[i]&all != all || got[i]&^old[i] != 0:
				t.Fatalf("torn byte %d: %02x from %02x and %02x", i, got[i], old[i], now[i])
			}
		}
	})
}

func TestFlashFlipBit(t *testing.T) {
	f := chip.NewFlash(driver.SectorSize)
	if err := f.FlipBit(5, 3); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if err := f.ReadAt(b, 5); err != nil {
		t.Fatal(err)
	}
	if b[0] != 0xF7 || b[1] != 0xFF {
		t.Errorf("% x", b)
	}
}

func BenchmarkFlashRead(b *testing.B) {
	f, err := chip.OpenFlash(filepath.Join(b.TempDir(), "flash"), chip.FlashSize)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	off := uint32(0)
	for b.Loop() {
		if err := f.ReadAt(p, off%(chip.FlashSize/2)); err != nil {
			b.Fatal(err)
		}
		off += 32 << 10
	}
}

func BenchmarkFlashProgram(b *testing.B) {
	f, err := chip.OpenFlash(filepath.Join(b.TempDir(), "flash"), chip.FlashSize)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	off := uint32(0)
	for b.Loop() {
		if err := f.Program(off%(chip.FlashSize/2), p); err != nil {
			b.Fatal(err)
		}
		off += 32 << 10
	}
}
