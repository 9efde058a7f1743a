package bmc

import (
	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// Map of the BMC's second flash.
//
//	 0 MiB            image of slot A, 30 MiB
//	30 MiB            image of slot B, 30 MiB
//	60 MiB            signed manifest of slot A, 64 KiB
//	60 MiB +  64 KiB  signed manifest of slot B, 64 KiB
//	60 MiB + 128 KiB  provisioning record, two copies of 32 KiB
//	60 MiB + 192 KiB  state: floors, counters, desired state (firmware/store), 256 KiB
//	60 MiB + 448 KiB  events (firmware/store), 256 KiB
//	60 MiB + 704 KiB  signed manifest that was offered and not yet written for, 64 KiB
//	60 MiB + 768 KiB  free, kept for the BMC's own firmware
//
// A signed manifest is a little-endian length and the container of firmware/trust. The length is programmed last.
const (
	// FlashSize is how large the flash must be at least, in bytes.
	FlashSize = 64 << 20

	slotSize        = trust.MaxImageSize
	manifestOffset  = 60 << 20
	manifestSize    = 64 << 10
	provisionOffset = manifestOffset + 2*manifestSize
	provisionSize   = 32 << 10
	stateOffset     = provisionOffset + 2*provisionSize
	stateSize       = 256 << 10
	eventOffset     = stateOffset + stateSize
	eventSize       = 256 << 10
	offerOffset     = eventOffset + eventSize

	blankLength = 0xFFFF_FFFF // length of a manifest that is not there
)

func imageOf(slot uint8) uint32    { return uint32(slot) * slotSize }
func manifestOf(slot uint8) uint32 { return manifestOffset + uint32(slot)*manifestSize }

func otherSlot(slot uint8) uint8 {
	if slot == wire.SlotA {
		return wire.SlotB
	}
	return wire.SlotA
}

func slotName(slot uint8) string {
	switch slot {
	case wire.SlotA:
		return "A"
	case wire.SlotB:
		return "B"
	}
	return "none"
}

// eraseRange erases whole sectors from a sector-aligned offset on.
func eraseRange(f driver.Flash, off, n uint32) error {
	for end := off + n; off < end; off += driver.SectorSize {
		if err := f.Erase(off); err != nil {
			return err
		}
	}
	return nil
}
