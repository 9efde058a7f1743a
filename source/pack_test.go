package source

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"
)

// packObject is one object of a pack to be made: a delta names its base.
type packObject struct {
	kind    plumbing.ObjectType
	base    plumbing.Hash
	claimed int // size in the header; 0: the true one
	content []byte
}

// newPack writes a pack by hand (gitformat-pack(5)), so that it can lie.
func newPack(t testing.TB, list ...packObject) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("PACK\x00\x00\x00\x02")
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(list))))
	for _, o := range list {
		size := o.claimed
		if size == 0 {
			size = len(o.content)
		}
		first := byte(o.kind)<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			b.WriteByte(first | 0x80)
			first = byte(size & 127)
		}
		b.WriteByte(first)
		if o.kind == plumbing.REFDeltaObject {
			b.Write(o.base[:])
		}
		z := zlib.NewWriter(&b)
		if _, err := z.Write(o.content); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha1.Sum(b.Bytes())
	b.Write(sum[:])
	return b.Bytes()
}

// TestUnpack refuses packs that would fill a unit's memory.
func TestUnpack(t *testing.T) {
	blob := []byte("hello")
	id := plumbing.ComputeHash(plumbing.BlobObject, blob)
	// A delta: sizes of base and result, then copies of the base.
	delta := func(result uint64, copies int) []byte {
		d := binary.AppendUvarint(binary.AppendUvarint(nil, 5), result)
		return append(d, bytes.Repeat([]byte{0x90, 5}, copies)...)
	}
	good := newPack(t, packObject{kind: plumbing.BlobObject, content: blob},
		packObject{kind: plumbing.REFDeltaObject, base: id, content: delta(10, 2)})
	store := memory.NewStorage()
	if err := unpack(good, store); err != nil {
		t.Fatalf("good control: %v", err)
	}
	if got, err := readObject(store, plumbing.ComputeHash(plumbing.BlobObject, []byte("hellohello")), plumbing.BlobObject); err != nil || string(got) != "hellohello" {
		t.Fatalf("good control: %q, %v", got, err)
	}

	big := bytes.Repeat([]byte{0}, 3<<20)
	many := make([]packObject, maxUnpacked/len(big)+1)
	for i := range many {
		many[i] = packObject{kind: plumbing.BlobObject, content: big}
	}
	tiny := make([]packObject, maxObjects+1)
	for i := range tiny {
		tiny[i] = packObject{kind: plumbing.BlobObject, content: fmt.Append(nil, i)}
	}
	if err := unpack(newPack(t, tiny[1:]...), memory.NewStorage()); err != nil {
		t.Fatalf("as many objects as allowed: %v", err)
	}
	for name, pack := range map[string][]byte{
		"too many objects":     newPack(t, tiny...), // each costs far more than its bytes
		"zeros, packed":        newPack(t, many...),
		"delta of a gigabyte":  newPack(t, packObject{kind: plumbing.BlobObject, content: blob}, packObject{kind: plumbing.REFDeltaObject, base: id, content: delta(1<<30, 2)}),
		"delta of 2^63":        newPack(t, packObject{kind: plumbing.BlobObject, content: blob}, packObject{kind: plumbing.REFDeltaObject, base: id, content: delta(1<<63, 2)}),
		"header of a gigabyte": newPack(t, packObject{kind: plumbing.BlobObject, claimed: 1 << 30, content: blob}),
		"header too small":     newPack(t, packObject{kind: plumbing.BlobObject, claimed: 5, content: big}),
		"empty delta":          newPack(t, packObject{kind: plumbing.BlobObject, content: blob}, packObject{kind: plumbing.REFDeltaObject, base: id}),
		"delta without a base": newPack(t, packObject{kind: plumbing.REFDeltaObject, base: id, content: delta(10, 2)}),
		"cut":                  good[:len(good)-25],
		"empty":                nil,
	} {
		t.Run(name, func(t *testing.T) {
			if err := unpack(pack, memory.NewStorage()); err == nil {
				t.Error("accepted")
			} else if r := (*Refusal)(nil); len(pack) > 1<<10 && name != "header too small" && !errors.As(err, &r) {
				t.Errorf("err = %v, want a Refusal", err)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(newPack(f, packObject{kind: plumbing.BlobObject, content: []byte("hello")},
		packObject{kind: plumbing.REFDeltaObject, base: plumbing.ComputeHash(plumbing.BlobObject, []byte("hello")), content: []byte{5, 10, 0x90, 5, 0x90, 5}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		store := memory.NewStorage()
		if unpack(b, store) != nil {
			return
		}
		size := int64(0)
		for _, o := range store.Objects {
			size += o.Size()
		}
		if size > maxUnpacked {
			t.Fatalf("%d bytes unpacked", size)
		}
	})
}
