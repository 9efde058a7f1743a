package wire

// The multi-drop bus puts one address byte of our own before each serial frame,
// whose inside stays as DSP0253 has it. Controllers look at that byte to know
// which frames are theirs; the top bits keep it apart from the flag (0x7E) and
// the escape (0x7D).
//
//	bits 7:6  10 from the master to a slot, 11 from a slot to the master
//	bits 5:4  00
//	bits 3:0  slot, 1 to MaxSlots
//
// Only the master speaks unasked. A slot answers a request with all frames of the
// response and says nothing else.
const (
	toSlot   = 0x80
	fromSlot = 0xC0
)

// ToSlot is the bus address of frames from the master to a slot.
func ToSlot(slot uint8) byte { return toSlot | slot&0x0F }

// FromSlot is the bus address of frames from a slot to the master.
func FromSlot(slot uint8) byte { return fromSlot | slot&0x0F }

// IsAddress reports whether b can be a bus address.
func IsAddress(b byte) bool {
	slot := b & 0x0F
	return b&0xB0 == toSlot && slot >= 1 && slot <= MaxSlots
}

// AddressSlot returns the slot of a bus address and whether the frame goes to the master.
func AddressSlot(b byte) (slot uint8, toMaster bool) { return b & 0x0F, b&0xF0 == fromSlot }

// AppendBusFrame appends packet as one frame of the multi-drop bus.
func AppendBusFrame(dst []byte, address byte, packet []byte) ([]byte, error) {
	if len(packet) > MaxPacket {
		return dst, ErrLong
	}
	if !IsAddress(address) {
		return dst, ErrValue
	}
	return AppendFrame(append(dst, address), packet)
}
