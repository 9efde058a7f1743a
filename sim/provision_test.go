package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"os"
	"testing"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/sim/chip"
)

// ownerOf is a keyring of one owner, and a boot image that this owner signed.
func ownerOf(t *testing.T, name string) (trust.Keyring, BootImage) {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	image := make([]byte, 2*trust.BlockSize)
	copy(image, name)
	m := trust.SlotManifest{Version: "1", SecurityVersion: 1, ImageSize: uint32(len(image)), ChunkSize: trust.ChunkSize, Chunks: [][32]byte{sha256.Sum256(image)}}
	doc, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	signed := trust.AppendSigned(doc, []trust.Signature{trust.Sign(trust.DomainSlot, key, doc)})
	return trust.Keyring{Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Threshold: 1}, BootImage{Image: image, Manifest: signed}
}

const provisionedRack = "0df30000-0000-4000-8000-000000000001"

func TestNewBoardNeedsABootImage(t *testing.T) {
	dir, flash := t.TempDir(), chip.NewFlash(chip.FlashSize)
	owners, boot := ownerOf(t, "anna")
	cfg := bmc.Config{Slot: 1, Owners: owners, BootConfig: []byte("{}")}
	if _, err := provisionSlot(dir, flash, cfg, "one", provisionedRack, BootImage{}); err == nil {
		t.Fatal("a new board without a boot image passes for provisioned")
	}
	if _, err := os.Stat(recordFile(dir)); err == nil {
		t.Error("and is noted as provisioned")
	}
	if _, err := provisionSlot(dir, flash, cfg, "one", provisionedRack, boot); err != nil {
		t.Fatal(err)
	}
	for slot := range uint8(2) {
		if err := bmc.CheckSlot(flash, slot, owners); err != nil {
			t.Errorf("slot %d: %v", slot, err)
		}
	}
}

// TestChangeOfOwners: when the owners change, slots that only the old ones signed are written anew; others are left.
func TestChangeOfOwners(t *testing.T) {
	dir, flash := t.TempDir(), chip.NewFlash(chip.FlashSize)
	anna, old := ownerOf(t, "anna")
	berta, boot := ownerOf(t, "berta")
	provision := func(owners trust.Keyring, config string, boot BootImage) {
		t.Helper()
		cfg := bmc.Config{Slot: 1, Owners: owners, BootConfig: []byte(config)}
		if _, err := provisionSlot(dir, flash, cfg, "one", provisionedRack, boot); err != nil {
			t.Fatal(err)
		}
	}
	first := func() string {
		var b [5]byte
		if err := flash.ReadAt(b[:], 0); err != nil {
			t.Fatal(err)
		}
		return string(b[:])
	}
	provision(anna, "1", old)
	if bmc.CheckSlot(flash, 0, berta) == nil {
		t.Fatal("a stranger's slot verifies")
	}
	provision(berta, "1", boot)
	for slot := range uint8(2) {
		if err := bmc.CheckSlot(flash, slot, berta); err != nil {
			t.Errorf("slot %d: %v", slot, err)
		}
	}
	provision(berta, "2", old) // nothing wrong with the slots: what they hold stays
	if first() != "berta" {
		t.Errorf("slot A holds %q", first())
	}
	provision(anna, "2", BootImage{}) // no image at hand: no error, the BMC will say it
}
