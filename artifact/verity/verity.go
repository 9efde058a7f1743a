// Package verity computes dm-verity hash trees: the SHA-256 of each block of a read-only image, of
// the hashes, and so on up to one root hash. With the root hash from a verified release, the kernel
// checks every block as it is read.
//
// The layout is that of `veritysetup format --no-superblock`, hash type 1 (Linux,
// Documentation/admin-guide/device-mapper/verity.rst): each block's hash is SHA-256(salt || block);
// hash blocks are filled with zeros; levels are stored from the root's down to the one above the data.
package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// BlockSize is the size of data and hash blocks, in bytes.
const BlockSize = 4096

const perBlock = BlockSize / sha256.Size

// ErrMismatch says that a block is not what the root hash promises.
var ErrMismatch = errors.New("block differs from its hash")

// A Tree describes an image with its hash tree appended, in the words of dm-verity's table.
type Tree struct {
	Root       [32]byte
	Salt       []byte
	DataBlocks uint64 // number of data blocks
	HashOffset int64  // where the tree starts, bytes; a multiple of BlockSize
	HashBlocks uint64 // number of hash blocks
}

// Append returns the data, filled up with zeros to whole blocks (two at least), followed by its hash tree.
func Append(data, salt []byte) ([]byte, Tree) {
	data = append(bytes.Clone(data), make([]byte, (BlockSize-len(data)%BlockSize)%BlockSize)...)
	if short := 2*BlockSize - len(data); short > 0 { // one block alone has no tree in dm-verity's count of levels
		data = append(data, make([]byte, short)...)
	}
	t := Tree{Salt: salt, DataBlocks: uint64(len(data) / BlockSize), HashOffset: int64(len(data))}
	levels := [][]byte{hashes(data, salt)}
	for len(levels[len(levels)-1]) > BlockSize {
		levels = append(levels, hashes(levels[len(levels)-1], salt))
	}
	top := levels[len(levels)-1]
	t.Root = sum(top, salt)
	for i := len(levels) - 1; i >= 0; i-- {
		data = append(data, levels[i]...)
		t.HashBlocks += uint64(len(levels[i]) / BlockSize)
	}
	return data, t
}

// hashes returns the hash blocks of whole blocks.
func hashes(data, salt []byte) []byte {
	out := make([]byte, 0, (len(data)/BlockSize+perBlock-1)/perBlock*BlockSize)
	for ; len(data) > 0; data = data[BlockSize:] {
		s := sum(data[:BlockSize], salt)
		out = append(out, s[:]...)
	}
	return append(out, make([]byte, (BlockSize-len(out)%BlockSize)%BlockSize)...)
}

func sum(block, salt []byte) (s [32]byte) {
	h := sha256.New()
	h.Write(salt)
	h.Write(block)
	h.Sum(s[:0])
	return s
}

// Size is the length of the whole image, tree included, in bytes.
func (t Tree) Size() int64 { return t.HashOffset + int64(t.HashBlocks)*BlockSize }

// Table returns the parameters of the device-mapper target "verity" for data and tree on one device.
// Its start is sector 0, its length Sectors.
func (t Tree) Table(device string) string {
	salt := "-"
	if len(t.Salt) > 0 {
		salt = hex.EncodeToString(t.Salt)
	}
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s", device, device, BlockSize, BlockSize, t.DataBlocks, t.HashOffset/BlockSize, t.Root, salt)
}

// Sectors is the length of the verified device in units of 512 bytes.
func (t Tree) Sectors() uint64 { return t.DataBlocks * (BlockSize / 512) }

// Verify reads the whole image and compares it, tree included, with the root hash.
func (t Tree) Verify(r io.ReaderAt) error {
	if t.HashOffset != int64(t.DataBlocks)*BlockSize || t.DataBlocks < 2 || t.DataBlocks > 1<<28 {
		return fmt.Errorf("verify image: tree at %d after %d blocks", t.HashOffset, t.DataBlocks)
	}
	data := make([]byte, t.HashOffset)
	if n, err := r.ReadAt(data, 0); n < len(data) {
		return fmt.Errorf("verify image: %w", err)
	}
	img, want := Append(data, t.Salt)
	if want.Root != t.Root || want.HashBlocks != t.HashBlocks {
		return fmt.Errorf("verify image: %w: expected root %x, got %x", ErrMismatch, t.Root, want.Root)
	}
	tree := make([]byte, len(img)-len(data))
	if n, err := r.ReadAt(tree, t.HashOffset); n < len(tree) {
		return fmt.Errorf("verify image: %w", err)
	}
	if !bytes.Equal(tree, img[len(data):]) {
		return fmt.Errorf("verify image: %w: in the tree", ErrMismatch)
	}
	return nil
}

// CountHashBlocks returns how many hash blocks a tree over DataBlocks has.
func (t Tree) CountHashBlocks() (total uint64) {
	for n := t.DataBlocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		total += n
	}
	return total
}
