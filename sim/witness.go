package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/bootrom"
)

// A witness stands between a BMC and its unit's boot ROM and notes what is read. It asks no BMC: it goes to the flash chip,
// has the owners' keys decide about the slot's manifest, and compares. It stops nothing; the invariant verified-boot and
// people hear of it.
type witness struct {
	bootrom.Medium
	image []byte // what was read of it
	read  []bool // by block
}

// newWitness listens in on a medium.
func newWitness(m bootrom.Medium) *witness {
	n := m.Blocks()
	return &witness{Medium: m, image: make([]byte, int(n)*trust.BlockSize), read: make([]bool, n)}
}

// Read implements bootrom.Medium.
func (w *witness) Read(lba uint32, dst []byte) error {
	if err := w.Medium.Read(lba, dst); err != nil {
		return err
	}
	for i := 0; i < len(dst); i += trust.BlockSize {
		b := int(lba) + i/trust.BlockSize
		if b >= len(w.read) {
			return fmt.Errorf("the medium has grown to more than %d blocks", len(w.read))
		}
		w.read[b] = true
		copy(w.image[b*trust.BlockSize:], dst[i:i+trust.BlockSize])
	}
	return nil
}

// Places in a BMC's flash (firmware/bmc, flash.go).
const (
	slotPitch     = trust.MaxImageSize
	manifestBase  = 60 << 20
	manifestPitch = 64 << 10
)

// check returns nil when all that was served belongs to an image that enough of the owners signed.
func (w *witness) check(flash driver.Flash, slot uint8, owners *trust.Keyring) error {
	if slot > wire.SlotB {
		return fmt.Errorf("it was served from slot %d", slot)
	}
	var head [4]byte
	at := manifestBase + uint32(slot)*manifestPitch
	if err := flash.ReadAt(head[:], at); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > trust.MaxSigned {
		return fmt.Errorf("its slot has no manifest")
	}
	signed := make([]byte, n)
	if err := flash.ReadAt(signed, at+4); err != nil {
		return err
	}
	doc, err := owners.Open(trust.DomainSlot, signed)
	if err != nil {
		return fmt.Errorf("manifest of its slot: %w", err)
	}
	m, err := trust.ParseSlotManifest(doc)
	if err != nil {
		return err
	}
	const blocks = trust.ChunkSize / trust.BlockSize
	chunk := make([]byte, trust.ChunkSize)
	for i := 0; i*blocks < len(w.read); i++ {
		first, end := i*blocks, min((i+1)*blocks, len(w.read))
		if !slices.Contains(w.read[first:end], true) {
			continue
		}
		chunk = chunk[:(end-first)*trust.BlockSize]
		if err := flash.ReadAt(chunk, uint32(slot)*slotPitch+uint32(i)*trust.ChunkSize); err != nil {
			return err
		}
		for b := first; b < end; b++ {
			if w.read[b] {
				copy(chunk[(b-first)*trust.BlockSize:], w.image[b*trust.BlockSize:(b+1)*trust.BlockSize])
			}
		}
		if !m.ChunkOK(i, chunk) {
			return fmt.Errorf("chunk %d is %x, not as the owners signed it", i, sha256.Sum256(chunk))
		}
	}
	return nil
}
