package chip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/racklet/racklet/firmware/driver"
)

// ErrPowerCut is returned by every access after the power cut that CutAfter ordered, until Restore.
var ErrPowerCut = errors.New("chip: flash has no power")

// FlashSize is the size of the BMC's second flash: 64 MiB, as the W25Q512JV has.
const FlashSize = 64 << 20

// eraseCost is what one sector erase counts in CutAfter's steps; a cut may fall within.
const eraseCost = 64

// block is the unit of bulk work.
const block = 64 << 10

// Flash models a SPI NOR flash: Program only clears bits, Erase sets a sector of 4 KiB to 0xFF. It implements
// driver.Flash.
//
// It is backed by a file, which holds every byte inverted: so an erased flash is a file of holes and takes no space.
// Each operation is written through before it returns, so that killing the process loses nothing that was programmed.
// Program and Erase can be torn at a chosen step, as a power cut tears them.
type Flash struct {
	mu   sync.Mutex
	f    *os.File // nil: mem
	mem  []byte
	size uint32
	buf  [block]byte

	steps  int64 // until the power cut; <0: none ordered
	dead   bool
	rand   uint64
	onOp   func(op Op)
	erases uint64
	bytes  uint64
}

// Op is one Program or Erase, as seen by OnOp.
type Op struct {
	Erase  bool
	Offset uint32
	Length int
}

var _ driver.Flash = (*Flash)(nil)

// NewFlash returns an erased flash in memory. size must be a multiple of 4 KiB.
func NewFlash(size uint32) *Flash {
	return &Flash{mem: make([]byte, size), size: size, steps: -1}
}

// OpenFlash opens the flash backed by the file at path, making an erased one where there is none. The error says what
// is wrong with the file.
func OpenFlash(path string, size uint32) (*Flash, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open flash: %w", err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() == 0 {
		err = f.Truncate(int64(size))
	} else if err == nil && st.Size() != int64(size) {
		err = fmt.Errorf("%s has %d bytes, want %d", path, st.Size(), size)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open flash: %w", err)
	}
	return &Flash{f: f, size: size, steps: -1}, nil
}

// Close closes the backing file.
func (f *Flash) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

// Size implements driver.Flash.
func (f *Flash) Size() uint32 { return f.size }

// ReadAt implements driver.Flash.
func (f *Flash) ReadAt(p []byte, off uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return ErrPowerCut
	}
	if uint64(off)+uint64(len(p)) > uint64(f.size) {
		return driver.ErrOutOfRange
	}
	if err := f.load(p, off); err != nil {
		return err
	}
	invert(p)
	return nil
}

// Program implements driver.Flash.
func (f *Flash) Program(off uint32, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return ErrPowerCut
	}
	if uint64(off)+uint64(len(p)) > uint64(f.size) {
		return driver.ErrOutOfRange
	}
	if f.onOp != nil {
		f.onOp(Op{Offset: off, Length: len(p)})
	}
	torn := -1
	if f.steps >= 0 && int64(len(p)) > f.steps {
		torn = int(f.steps)
		p = p[:torn+1]
	}
	for done := 0; done < len(p); {
		n := min(block, len(p)-done)
		b := f.buf[:n]
		if err := f.load(b, off+uint32(done)); err != nil {
			return err
		}
		for i := range b { // inverted: a programmed zero is a stored one
			set := ^p[done+i]
			if done+i == torn {
				set &= byte(f.next()) // some of the byte's bits made it
			}
			b[i] |= set
		}
		if err := f.store(b, off+uint32(done)); err != nil {
			return err
		}
		done += n
	}
	f.bytes += uint64(len(p))
	return f.spend(int64(len(p)), torn >= 0)
}

// Erase implements driver.Flash.
func (f *Flash) Erase(off uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return ErrPowerCut
	}
	if off%driver.SectorSize != 0 || off >= f.size {
		return driver.ErrOutOfRange
	}
	if f.onOp != nil {
		f.onOp(Op{Erase: true, Offset: off, Length: driver.SectorSize})
	}
	torn := f.steps >= 0 && f.steps < eraseCost
	b := f.buf[:driver.SectorSize]
	if err := f.load(b, off); err != nil {
		return err
	}
	dirty := false
	for i := range b {
		switch {
		case b[i] == 0:
		case !torn:
			b[i], dirty = 0, true
		default: // half erased: each bit may or may not have come up
			b[i], dirty = b[i]&byte(f.next()), true
		}
	}
	if dirty { // an erased sector is left alone, so that holes stay holes
		if err := f.store(b, off); err != nil {
			return err
		}
	}
	f.erases++
	return f.spend(eraseCost, torn)
}

// FlipBit inverts one bit, as radiation or a worn cell does. bit is 0 to 7.
func (f *Flash) FlipBit(off uint32, bit uint8) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= f.size || bit > 7 {
		return driver.ErrOutOfRange
	}
	b := f.buf[:1]
	if err := f.load(b, off); err != nil {
		return err
	}
	b[0] ^= 1 << bit
	return f.store(b, off)
}

// CutAfter orders a power cut after the given number of steps from now: each programmed byte is a step, each erase 64.
// The operation at that point is torn; seed decides which of its bits made it.
func (f *Flash) CutAfter(steps int64, seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps, f.rand = steps, seed
}

// Restore gives the power back and cancels an ordered cut.
func (f *Flash) Restore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps, f.dead = -1, false
}

// OnOp has h called at the beginning of every Program and Erase, with the lock held.
func (f *Flash) OnOp(h func(op Op)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onOp = h
}

// Worked returns the number of bytes programmed and of sectors erased since the flash was opened.
func (f *Flash) Worked() (programmed, erases uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes, f.erases
}

func (f *Flash) spend(steps int64, torn bool) error {
	if f.steps < 0 {
		return nil
	}
	if f.steps -= steps; torn {
		f.dead = true
		return ErrPowerCut
	}
	f.steps = max(f.steps, 0)
	return nil
}

// next is splitmix64.
func (f *Flash) next() uint64 {
	f.rand += 0x9E3779B97F4A7C15
	z := f.rand
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

func (f *Flash) load(p []byte, off uint32) error {
	if f.f == nil {
		copy(p, f.mem[off:])
		return nil
	}
	if _, err := f.f.ReadAt(p, int64(off)); err != nil {
		return fmt.Errorf("read flash at %#x: %w", off, err)
	}
	return nil
}

func (f *Flash) store(p []byte, off uint32) error {
	if f.f == nil {
		copy(f.mem[off:], p)
		return nil
	}
	if _, err := f.f.WriteAt(p, int64(off)); err != nil {
		return fmt.Errorf("write flash at %#x: %w", off, err)
	}
	return nil
}

func invert(p []byte) {
	for len(p) >= 8 {
		binary.NativeEndian.PutUint64(p, ^binary.NativeEndian.Uint64(p))
		p = p[8:]
	}
	for i := range p {
		p[i] = ^p[i]
	}
}
