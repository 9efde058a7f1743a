package source

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/memory"
)

// unpack puts the objects of a pack into a store, after checking that they are
// of a bearable size: a few bytes of a pack can stand for gigabytes, packed
// (zlib) or described (deltas).
func unpack(pack []byte, store *memory.Storage) error {
	if err := checkPack(pack); err != nil {
		return err
	}
	parser, err := packfile.NewParserWithStorage(packfile.NewScanner(bytes.NewReader(pack)), store)
	if err != nil {
		return err
	}
	_, err = parser.Parse()
	return err
}

// checkPack counts the objects in a pack (gitformat-pack(5)), each of which the
// library spends a kilobyte and more on, and adds up their sizes. The scanner
// inflates no object beyond the size in its header.
func checkPack(pack []byte) error {
	s := packfile.NewScanner(bytes.NewReader(pack))
	_, n, err := s.Header()
	if err != nil {
		return err
	}
	if n > maxObjects {
		return &Refusal{"source.bundle", fmt.Sprintf("a pack of at most %d objects", maxObjects), fmt.Sprint(n)}
	}
	left := int64(maxUnpacked)
	take := func(size int64) error {
		if size < 0 || size > left {
			return &Refusal{"source.bundle", fmt.Sprintf("objects of at most %d bytes together", maxUnpacked), "more"}
		}
		left -= size
		return nil
	}
	for range n {
		h, err := s.NextObjectHeader()
		if err != nil {
			return err
		}
		if err := take(h.Length); err != nil {
			return err
		}
		var start prefix
		if _, _, err := s.NextObject(&start); err != nil {
			return err
		}
		if !h.Type.IsDelta() {
			continue
		}
		size, ok := start.deltaSize()
		if !ok {
			return packfile.ErrInvalidDelta
		}
		if err := take(size); err != nil {
			return err
		}
	}
	return nil
}

// prefix keeps the first bytes written to it.
type prefix struct {
	b [2 * binary.MaxVarintLen64]byte
	n int
}

func (p *prefix) Write(b []byte) (int, error) {
	p.n += copy(p.b[p.n:], b)
	return len(b), nil
}

// deltaSize is the size of what a delta makes, the second number in it.
func (p *prefix) deltaSize() (int64, bool) {
	b := p.b[:p.n]
	_, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, false
	}
	size, n := binary.Uvarint(b[n:])
	return int64(size), n > 0 && size <= 1<<62
}
