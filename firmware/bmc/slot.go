package bmc

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// ErrMedium is returned for every read of a boot medium that is not there, beyond its end, or whose chunk does not have
// the hash that its signed manifest names.
var ErrMedium = errors.New("bmc: boot medium not readable")

// intended is the slot that boots when nothing is wrong with it.
func (b *BMC) intended() uint8 {
	if b.desired.bootMode != wire.BootDisabled && b.desired.bootSlot <= wire.SlotB {
		return b.desired.bootSlot
	}
	return b.boot.preferred
}

// chooseOrder begins a verification: the intended slot, then the other. A staged slot that did not prove itself in its
// trial boots stands back.
func (b *BMC) chooseOrder() {
	first := b.intended()
	if b.desired.bootMode == wire.BootDisabled && b.boot.trial == 0 {
		b.event(wire.EventSlot, uint16(first), "passed over: did not prove itself", nil)
		first = otherSlot(first)
	}
	b.order = [2]uint8{first, otherSlot(first)}
	b.at, b.rereading = 0, -1
	b.bootSlot = wire.SlotNone
}

// stepVerifying checks one slot per Step, or a few chunks of a distrusted one.
func (b *BMC) stepVerifying() {
	if b.desired.power != wire.PowerOn {
		b.enter(wire.StateOff)
		return
	}
	if b.at >= len(b.order) {
		b.chooseOrder()
	}
	slot := b.order[b.at]
	if b.rereading < 0 {
		f := b.inspect(slot)
		switch {
		case f.IsZero():
			b.choose(slot)
		case b.recheck && b.slots[slot].distrustedOnly(b.digest):
			b.rereading = 0
		default:
			b.reject(slot, f)
		}
		return
	}
	for n := 0; n < chunksPerStep; n++ {
		if b.rereading >= len(b.manifest.Chunks) {
			b.rereading = -1
			b.trustAgain(slot)
			b.choose(slot)
			return
		}
		if f := b.load(b.rereading); !f.IsZero() {
			b.rereading = -1
			b.reject(slot, f)
			return
		}
		b.rereading++
	}
}

// choose takes a verified slot for this boot.
func (b *BMC) choose(slot uint8) {
	b.recheck = false
	b.bootSlot = slot
	b.boot.fallback = slot != b.intended()
	b.cached = -1
	text := "chosen"
	if b.boot.fallback {
		text = "chosen as fallback"
	}
	b.event(wire.EventSlot, uint16(slot), text, nil)
	b.enter(wire.StatePowering)
}

// reject goes on to the other slot, or gives up.
func (b *BMC) reject(slot uint8, f wire.Failure) {
	b.event(wire.EventSlot, uint16(slot), "rejected", &f)
	first := b.at == 0
	b.at++
	// The failure that people are told is that of the intended slot, unless there is simply nothing in it.
	if first || b.failure.Reason == wire.MakeText32("slot.empty") {
		if !first && f.Reason == b.failure.Reason {
			f = wire.MakeFailure("slot.none", "a signed image in slot A or B", "both empty")
		}
		b.failure = f
		b.keepFailure()
	}
	if !first {
		b.recheck = false
		b.fault(b.failure)
	}
}

// distrust marks a slot until it is written anew, or read again as a whole on an operator's order.
func (b *BMC) distrust(slot uint8, f wire.Failure) {
	s := &b.slots[slot]
	s.distrusted, s.digest, s.failure = true, b.digest, f
	s.info.State, s.info.Failure = wire.SlotInvalid, f
	b.keepSlot(slot)
}

// distrustedOnly says whether nothing but an earlier bad chunk speaks against a manifest that was just checked.
func (s *slotRecord) distrustedOnly(digest [32]byte) bool {
	return s.distrusted && s.digest == digest && s.info.State == wire.SlotInvalid && s.info.Failure == s.failure
}

func (b *BMC) trustAgain(slot uint8) {
	s := &b.slots[slot]
	s.distrusted, s.failure = false, wire.Failure{}
	s.info.State, s.info.Failure = wire.SlotValid, wire.Failure{}
	b.keepSlot(slot)
}

// inspect verifies the manifest of a slot into b.manifest and b.digest. The failure is zero when the slot may boot.
// It uses the chunk buffer.
func (b *BMC) inspect(slot uint8) wire.Failure {
	digest, f := b.check(slot, &b.manifest)
	b.digest = digest
	return f
}

// check verifies the manifest of a slot into m, and notes what it found for GetSlots.
func (b *BMC) check(slot uint8, m *trust.SlotManifest) (digest [32]byte, f wire.Failure) {
	s := &b.slots[slot]
	var h [4]byte
	if err := b.ports.Flash.ReadAt(h[:], manifestOf(slot)); err != nil {
		f = wire.MakeFailure("slot.manifest", "readable flash", err.Error())
		s.info = wire.SlotInfo{State: wire.SlotInvalid, Failure: f}
		return digest, f
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n == blankLength {
		f = wire.MakeFailure("slot.empty", "a signed manifest", "nothing")
		if b.staging.active && b.staging.slot == slot {
			s.info = wire.SlotInfo{State: wire.SlotWriting}
		} else {
			s.info = wire.SlotInfo{State: wire.SlotEmpty, Failure: f}
		}
		return digest, f
	}
	return b.checkRaw(slot, n, m)
}

// checkRaw verifies n bytes of signed manifest. It uses the chunk buffer.
func (b *BMC) checkRaw(slot uint8, n uint32, m *trust.SlotManifest) (digest [32]byte, f wire.Failure) {
	s := &b.slots[slot]
	s.info = wire.SlotInfo{State: wire.SlotInvalid}
	defer func() { s.info.Failure = f }()
	b.cached = -1
	if n > trust.MaxSigned {
		return digest, wire.MakeFailure("slot.manifest", "at most "+number(trust.MaxSigned)+" bytes", number(n))
	}
	raw := b.buf[:n]
	if err := b.ports.Flash.ReadAt(raw, manifestOf(slot)+4); err != nil {
		return digest, wire.MakeFailure("slot.manifest", "readable flash", err.Error())
	}
	if digest, f = b.openManifest(raw, m); !f.IsZero() {
		return digest, f
	}
	s.info.SecurityVersion, s.info.Version, s.info.Digest = m.SecurityVersion, wire.MakeText32(m.Version), digest
	if m.SecurityVersion < b.floors.BootSecurity {
		s.info.State = wire.SlotBelowFloor
		return digest, belowFloor(b.floors.BootSecurity, m.SecurityVersion)
	}
	if s.distrusted {
		if s.digest == digest {
			return digest, s.failure
		}
		s.distrusted, s.failure = false, wire.Failure{} // another image
		b.keepSlot(slot)
	}
	s.info.State = wire.SlotValid
	return digest, wire.Failure{}
}

// openManifest has the owners' keys decide about a signed manifest and reads it into m.
func (b *BMC) openManifest(raw []byte, m *trust.SlotManifest) (digest [32]byte, f wire.Failure) {
	doc, err := b.cfg.Owners.Open(trust.DomainSlot, raw)
	if err != nil {
		if t, ok := err.(*trust.ThresholdError); ok {
			return digest, thresholdFailure(t)
		}
		return digest, wire.MakeFailure("slot.manifest", "a signed manifest", err.Error())
	}
	if err := m.Parse(doc); err != nil {
		return digest, wire.MakeFailure("slot.manifest", "a well-formed manifest", err.Error())
	}
	return sha256.Sum256(doc), wire.Failure{}
}

// load brings one chunk of b.manifest's image into the buffer and checks it. The failure is zero when it is what the
// owners signed; only then does the buffer count.
func (b *BMC) load(i int) wire.Failure {
	if b.cached == i {
		return wire.Failure{}
	}
	b.cached = -1
	slot := b.bootSlot
	if slot == wire.SlotNone {
		slot = b.order[b.at]
	}
	data := b.buf[:b.manifest.ChunkLength(i)]
	if err := b.ports.Flash.ReadAt(data, imageOf(slot)+uint32(i)*trust.ChunkSize); err != nil {
		return wire.MakeFailure("slot.chunk", "readable flash", err.Error())
	}
	if sum := sha256.Sum256(data); sum != b.manifest.Chunks[i] {
		return wire.MakeFailure("slot.chunk", digestText(&b.manifest.Chunks[i]), digestText(&sum))
	}
	b.cached = i
	return wire.Failure{}
}

// MediumBlocks returns the size of the unit's boot medium in blocks of 512 bytes; 0 when there is none.
func (b *BMC) MediumBlocks() uint32 {
	if !b.exposed {
		return 0
	}
	return b.manifest.Blocks()
}

// ReadMedium fills dst, a whole number of 512-byte blocks, from block lba of the boot medium on. Every byte it delivers
// belongs to a chunk that has just been compared with the signed manifest, or is still in the buffer since then. The
// first bad chunk ends the boot: all reads fail, the slot is distrusted, and the next Step cuts the rail.
func (b *BMC) ReadMedium(lba uint32, dst []byte) error {
	if !b.exposed || len(dst)%trust.BlockSize != 0 {
		return ErrMedium
	}
	count := uint32(len(dst) / trust.BlockSize)
	if blocks := b.manifest.Blocks(); lba > blocks || count > blocks-lba {
		return ErrMedium
	}
	if b.stage == wire.StagePowered {
		b.setStage(wire.StageMedium, "")
	}
	for off := lba * trust.BlockSize; len(dst) > 0; {
		i := int(off / trust.ChunkSize)
		if f := b.load(i); !f.IsZero() {
			b.exposed, b.broken = false, f
			b.distrust(b.bootSlot, f)
			b.event(wire.EventSlot, uint16(b.bootSlot), "chunk "+strconv.Itoa(i)+" is bad", &f)
			return ErrMedium
		}
		if bit := byte(1) << (i % 8); b.served[i/8]&bit == 0 {
			b.served[i/8] |= bit
			b.extend(registerMedium, &b.manifest.Chunks[i])
		}
		n := copy(dst, b.buf[off%trust.ChunkSize:b.manifest.ChunkLength(i)])
		dst = dst[n:]
		off += uint32(n)
	}
	return nil
}

// digestText is "sha256:" and the digest in hexadecimal.
func digestText(d *[32]byte) string {
	const hex = "0123456789abcdef"
	var b [7 + 64]byte
	copy(b[:], "sha256:")
	for i, c := range d {
		b[7+2*i], b[8+2*i] = hex[c>>4], hex[c&15]
	}
	return string(b[:])
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
