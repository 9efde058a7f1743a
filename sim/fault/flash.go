package fault

import "github.com/racklet/racklet/rack"

// Parts of a BMC's flash (docs/sim-v1.md).
var flashParts = map[string]uint32{"slot-a": 0, "slot-b": 30 << 20, "manifest-a": 60 << 20, "manifest-b": 60<<20 + 64<<10}

// FlashBit is the bit that a flash-flip flips.
func FlashBit(f *rack.FaultSpec) (offset uint32, bit uint8) {
	return flashParts[f.Word("where")] + uint32(f.Number("offset")), uint8(f.Number("bit"))
}
