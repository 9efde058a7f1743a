// Package bootrom is what a compute unit does between power-on and its kernel:
// it reads the boot medium and finds kernel, initramfs and command line, as
// the firmware of a Raspberry Pi does with the first partition of a USB disk.
//
// It believes what it reads: the BMC has verified each block before serving it.
// A block that cannot be read is the end of it, like a Pi that finds no boot
// medium. It knows nothing of QEMU; sim's top writes the files down for it.
package bootrom

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/racklet/racklet/artifact/fat"
)

const block = 512

// What a boot medium may have at most, in bytes: a slot is 30 MiB.
const (
	maxFile    = 30 << 20
	maxCmdline = 2048 // COMMAND_LINE_SIZE of arm64 Linux (arch/arm64/include/uapi/asm/setup.h)
)

// ErrNoMedium says that there is nothing to boot from.
var ErrNoMedium = errors.New("no boot medium")

// Medium is a disk of 512-byte blocks.
type Medium interface {
	// Blocks is the size; 0 when nothing is exposed.
	Blocks() uint32
	// Read fills dst, a whole number of blocks, from block lba on.
	Read(lba uint32, dst []byte) error
}

// Image is what the unit boots.
type Image struct {
	Kernel    []byte // gzip or plain arm64 Image
	Initramfs []byte
	Cmdline   string
}

// Load reads the medium.
func Load(m Medium) (*Image, error) {
	n := m.Blocks()
	if n == 0 {
		return nil, ErrNoMedium
	}
	r := &reader{medium: m, size: int64(n) * block}
	volume, err := fat.Open(r, r.size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMedium, err)
	}
	image := &Image{}
	cmdline, err := volume.ReadFile("cmdline.txt", maxCmdline)
	if err != nil {
		return nil, fmt.Errorf("read cmdline.txt: %w", err)
	}
	// One line; the firmware of a Pi takes the first and ignores the rest.
	image.Cmdline, _, _ = strings.Cut(string(cmdline), "\n")
	image.Cmdline = strings.TrimSpace(image.Cmdline)
	if strings.ContainsRune(image.Cmdline, 0) {
		return nil, fmt.Errorf("read cmdline.txt: holds a zero byte")
	}
	if image.Kernel, err = volume.ReadFile("kernel", maxFile); err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	if image.Initramfs, err = volume.ReadFile("initramfs", maxFile); err != nil {
		return nil, fmt.Errorf("read initramfs: %w", err)
	}
	return image, nil
}

// reader makes an io.ReaderAt of a medium.
type reader struct {
	medium Medium
	size   int64
	buf    []byte
}

// ReadAt implements io.ReaderAt.
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	end := min(off+int64(len(p)), r.size)
	first, last := off/block, (end+block-1)/block
	if first*block == off && last*block == end {
		if err := r.medium.Read(uint32(first), p[:end-off]); err != nil {
			return 0, err
		}
	} else {
		if n := int(last-first) * block; cap(r.buf) < n {
			r.buf = make([]byte, n)
		} else {
			r.buf = r.buf[:n]
		}
		if err := r.medium.Read(uint32(first), r.buf); err != nil {
			return 0, err
		}
		copy(p, r.buf[off-first*block:end-first*block])
	}
	if n := int(end - off); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}
