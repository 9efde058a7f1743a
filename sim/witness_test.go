package sim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/sim/chip"
)

// disk is a medium in memory.
type disk []byte

func (d disk) Blocks() uint32 { return uint32(len(d) / trust.BlockSize) }
func (d disk) Read(lba uint32, dst []byte) error {
	copy(dst, d[lba*trust.BlockSize:])
	return nil
}

// TestWitness: what a unit boots is told from what its owners signed, whoever of BMC, flash and owners is at fault.
func TestWitness(t *testing.T) {
	var owners trust.Keyring
	var keys []ed25519.PrivateKey
	for n := range byte(3) {
		seed := sha256.Sum256([]byte{n})
		k := ed25519.NewKeyFromSeed(seed[:])
		keys = append(keys, k)
		owners.Keys = append(owners.Keys, k.Public().(ed25519.PublicKey))
	}
	owners.Threshold = 2
	image := make([]byte, 3*trust.ChunkSize+trust.BlockSize)
	for i := range image {
		image[i] = byte(i*i>>9 ^ i)
	}
	m := trust.SlotManifest{Version: "1", ImageSize: uint32(len(image)), ChunkSize: trust.ChunkSize}
	for off := 0; off < len(image); off += trust.ChunkSize {
		m.Chunks = append(m.Chunks, sha256.Sum256(image[off:min(off+trust.ChunkSize, len(image))]))
	}
	doc, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(image)
	other[2*trust.ChunkSize+7] ^= 1
	for _, tt := range []struct {
		name           string
		flashed, given []byte
		signers        int
		ok             bool
	}{
		{"as signed", image, image, 2, true},
		{"the BMC serves other bytes", image, other, 2, false},
		{"the flash holds other bytes", other, other, 2, false},
		{"one owner signed", image, image, 1, false},
	} {
		f := chip.NewFlash(bmc.FlashSize)
		var sigs []trust.Signature
		for _, k := range keys[:tt.signers] {
			sigs = append(sigs, trust.Sign(trust.DomainSlot, k, doc))
		}
		if err := bmc.WriteSlot(f, 1, bytes.NewReader(tt.flashed), trust.AppendSigned(doc, sigs)); err != nil {
			t.Fatal(err)
		}
		for _, part := range []struct {
			name  string
			first uint32
			n     int
			bad   bool // the other byte is in it
		}{{"all", 0, len(image), true}, {"three blocks around it", 2*64 - 1, 3 * trust.BlockSize, true}, {"another chunk", 1, trust.BlockSize, false}} {
			w := newWitness(disk(tt.given))
			if err := w.Read(part.first, make([]byte, part.n)); err != nil {
				t.Fatal(err)
			}
			want := tt.ok || tt.signers == 2 && !part.bad
			if err := w.check(f, 1, &owners); (err == nil) != want {
				t.Errorf("%s, %s: %v", tt.name, part.name, err)
			}
		}
		if err := newWitness(disk(tt.given)).check(f, 0, &owners); err == nil {
			t.Errorf("%s: an empty slot will do", tt.name)
		}
	}
}
