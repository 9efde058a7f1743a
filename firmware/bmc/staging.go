package bmc

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/store"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// Staging writes the slot that is not in use, from any side: what is written boots only if the owners signed it. A unit,
// which may have been taken over, must first show what it is about to write (offer.go): nothing is erased for an image that
// could not boot afterwards.
//
//	SlotCommit  in-band, and before SlotErase: the signed manifest, as an offer
//	SlotErase   the slot's manifest goes first, so that nothing half written can boot
//	SlotWrite   the image in order; sectors are erased as the writing reaches them; what was programmed is read back
//	SlotCommit  the signed manifest; when it is whole, signatures, floor and the hashes of all chunks are verified, and
//	            only then its length is programmed, which makes the slot bootable, and it becomes the preferred one
//
// A power cut anywhere leaves the other slot as it was, and this one empty or whole.

/* Implementation constants */
const (
	// maxSessions bounds the wear that a unit can cause between two power-ons.
	maxSessions = 8
)

// idleSlot is the one that may be written.
func (b *BMC) idleSlot() uint8 {
	if b.bootSlot <= wire.SlotB {
		return otherSlot(b.bootSlot)
	}
	if b.slots[b.boot.preferred].info.State == wire.SlotValid {
		return otherSlot(b.boot.preferred)
	}
	return b.boot.preferred
}

// stageErase begins a session. It answers CodeBusy while the other side is in one, or the unit has begun too many.
func (b *BMC) stageErase(side wire.Side, size uint32) wire.Code {
	s := &b.staging
	switch {
	case size == 0 || size > slotSize || size%trust.BlockSize != 0:
		return wire.CodeInvalidData
	case b.state == wire.StateVerifying:
		return wire.CodeBusy // it reads both slots now
	case s.active && s.side != side && side == wire.SideInBand:
		return wire.CodeBusy
	case side == wire.SideInBand && !s.offer.covers(size):
		return wire.CodeNotReady
	case side == wire.SideInBand && s.sessions >= maxSessions:
		return wire.CodeBusy
	}
	if s.active && s.side == side && s.next == 0 && s.manifest == 0 {
		return wire.CodeSuccess // its answer was lost
	}
	if side == wire.SideInBand {
		s.sessions++
	}
	slot := b.idleSlot()
	*s = staging{side: side, slot: slot, sessions: s.sessions, offer: s.offer, chunk: sha256.New(), all: sha256.New()}
	if side == wire.SideInBand && b.slots[slot].info.State == wire.SlotValid && b.slots[slot].info.Digest == s.offer.digest {
		s.active, s.there, s.next = true, true, size // it is in the slot already: what comes is compared only
		return wire.CodeSuccess
	}
	if b.boot.preferred == slot && b.bootSlot <= wire.SlotB {
		// The unit runs from the fallback. From now on that is the only slot there is.
		b.boot.preferred, b.boot.trial = b.bootSlot, trialProven
		b.keepBoot()
	}
	if err := eraseRange(b.ports.Flash, manifestOf(slot), manifestSize); err != nil {
		s.failure = wire.MakeFailure("bmc.store", "slot erased", err.Error())
		return wire.CodeError
	}
	s.active = true
	b.slots[slot].info = wire.SlotInfo{State: wire.SlotWriting}
	if b.slots[slot].distrusted {
		b.slots[slot].distrusted, b.slots[slot].failure = false, wire.Failure{}
		b.keepSlot(slot)
	}
	b.unitEvent(wire.EventSlot, uint16(slot), "being written", nil)
	return wire.CodeSuccess
}

// stageWrite takes the next bytes of the image. Bytes that were taken before, sent again, are compared only.
func (b *BMC) stageWrite(side wire.Side, offset uint32, data []byte) wire.Code {
	s := &b.staging
	switch {
	case !s.active || s.side != side:
		return wire.CodeNotReady
	case len(data) == 0 || offset > slotSize || uint32(len(data)) > slotSize-offset:
		return wire.CodeInvalidData
	}
	if offset < s.next {
		again := min(uint32(len(data)), s.next-offset)
		if b.matches(imageOf(s.slot)+offset, data[:again]) != nil {
			if s.there {
				return b.stageBroken(store.ErrWorn) // the boot that serves this chunk would have found out
			}
			return wire.CodeInvalidData
		}
		if offset, data = offset+again, data[again:]; len(data) == 0 {
			return wire.CodeSuccess
		}
	}
	if offset != s.next {
		return wire.CodeInvalidData
	}
	for len(data) > 0 {
		at := imageOf(s.slot) + s.next
		if s.next%driver.SectorSize == 0 {
			if err := b.ports.Flash.Erase(at); err != nil {
				return b.stageBroken(err)
			}
		}
		n := min(uint32(len(data)), driver.SectorSize-s.next%driver.SectorSize)
		if err := b.ports.Flash.Program(at, data[:n]); err != nil {
			return b.stageBroken(err)
		}
		if err := b.matches(at, data[:n]); err != nil {
			return b.stageBroken(err)
		}
		s.chunk.Write(data[:n])
		s.next += n
		if s.next%trust.ChunkSize == 0 {
			s.endChunk()
		}
		data = data[n:]
	}
	return wire.CodeSuccess
}

func (s *staging) endChunk() {
	var sum [32]byte
	s.all.Write(s.chunk.Sum(sum[:0]))
	s.chunk.Reset()
}

func (b *BMC) stageBroken(err error) wire.Code {
	b.staging.active = false
	b.staging.failure = wire.MakeFailure("bmc.store", "slot written", err.Error())
	return wire.CodeError
}

// matches compares flash with data.
func (b *BMC) matches(off uint32, data []byte) error {
	var buf [256]byte
	for len(data) > 0 {
		n := min(len(data), len(buf))
		if err := b.ports.Flash.ReadAt(buf[:n], off); err != nil {
			return err
		}
		if string(buf[:n]) != string(data[:n]) {
			return store.ErrWorn
		}
		off += uint32(n)
		data = data[n:]
	}
	return nil
}

// stageCommit takes the next part of the signed manifest; the last one closes the session.
func (b *BMC) stageCommit(side wire.Side, total, offset uint32, part []byte) wire.Code {
	s := &b.staging
	if s.committed && s.side == side && offset+uint32(len(part)) == total && total == s.manifest {
		return wire.CodeSuccess // the last part again: its answer was lost
	}
	switch {
	case !s.active, side != wire.SideInBand && s.side == wire.SideInBand:
		// A unit that keeps a session open must not keep the operator out: SlotErase will take it over.
		return b.stageOffer(side, total, offset, part)
	case s.side != side:
		return wire.CodeNotReady
	case total < 5 || total > trust.MaxSigned || len(part) == 0:
		return wire.CodeInvalidData
	}
	at := manifestOf(s.slot) + 4
	if offset < s.manifest {
		if offset+uint32(len(part)) > s.manifest || b.matches(at+offset, part) != nil {
			return wire.CodeInvalidData
		}
		return wire.CodeSuccess
	}
	if offset != s.manifest {
		return wire.CodeInvalidData
	}
	if !s.there {
		if err := b.ports.Flash.Program(at+offset, part); err != nil {
			return b.stageBroken(err)
		}
	}
	if err := b.matches(at+offset, part); err != nil {
		return b.stageBroken(err)
	}
	s.manifest += uint32(len(part))
	if s.manifest < total {
		return wire.CodeSuccess
	}
	s.active = false
	if f := b.stageVerify(total); !f.IsZero() {
		s.failure = f
		b.slots[s.slot].info.State, b.slots[s.slot].info.Failure = wire.SlotInvalid, f
		b.unitEvent(wire.EventSlot, uint16(s.slot), "written and refused", &f)
		return wire.CodeRefused
	}
	s.committed = true
	b.boot.preferred, b.boot.trial = s.slot, trialBoots
	b.keepBoot()
	b.event(wire.EventSlot, uint16(s.slot), "written, boots next", nil)
	return wire.CodeSuccess
}

// stageVerify verifies the manifest that was written, and with it the image; then it makes the slot bootable.
func (b *BMC) stageVerify(total uint32) wire.Failure {
	s := &b.staging
	if s.next%trust.ChunkSize != 0 {
		s.endChunk()
	}
	var m trust.SlotManifest
	digest, f := b.checkRaw(s.slot, total, &m)
	if !f.IsZero() {
		return f
	}
	if s.side == wire.SideInBand && digest != s.offer.digest {
		return wire.MakeFailure("slot.manifest", "the manifest that was offered", digestText(&digest))
	}
	if s.there {
		return wire.Failure{}
	}
	if m.ImageSize != s.next {
		return wire.MakeFailure("slot.chunk", number(m.ImageSize)+" bytes of image", number(s.next))
	}
	want := sha256.New()
	for i := range m.Chunks {
		want.Write(m.Chunks[i][:])
	}
	var a, c [32]byte
	want.Sum(a[:0])
	s.all.Sum(c[:0])
	if a != c {
		return wire.MakeFailure("slot.chunk", "chunks as signed, "+digestText(&a)[7:23], digestText(&c)[7:23])
	}
	var h [4]byte
	binary.LittleEndian.PutUint32(h[:], total)
	if err := b.ports.Flash.Program(manifestOf(s.slot), h[:]); err != nil {
		return wire.MakeFailure("bmc.store", "slot closed", err.Error())
	}
	if err := b.matches(manifestOf(s.slot), h[:]); err != nil {
		return wire.MakeFailure("bmc.store", "slot closed", err.Error())
	}
	return wire.Failure{}
}

// progress is the answer to the commands of a session.
func (b *BMC) progress() wire.SlotProgress {
	s := &b.staging
	slot := s.slot
	if !s.active && !s.committed && s.failure.IsZero() {
		slot = b.idleSlot()
	}
	return wire.SlotProgress{
		Slot: slot, State: b.slots[slot].info.State, Capacity: slotSize, Next: s.next, Failure: s.failure,
	}
}

// WriteSlot writes an image and its signed manifest into a slot, as is done over a cable before the BMC first starts.
// It checks nothing but sizes: the BMC verifies what it boots. image is read to its end. A slot that the BMC distrusted is
// given a new chance, and the slot becomes the preferred one when the other has no manifest.
func WriteSlot(f driver.Flash, slot uint8, image io.Reader, signedManifest []byte) error {
	if slot > wire.SlotB || len(signedManifest) > trust.MaxSigned {
		return ErrConfig
	}
	if f.Size() < FlashSize {
		return ErrFlash
	}
	if err := eraseRange(f, manifestOf(slot), manifestSize); err != nil {
		return err
	}
	var buf [driver.SectorSize]byte
	for off := uint32(0); ; off += driver.SectorSize {
		n, err := io.ReadFull(image, buf[:])
		if n > 0 {
			if off >= slotSize {
				return ErrFlash
			}
			if err := f.Erase(imageOf(slot) + off); err != nil {
				return err
			}
			if err := f.Program(imageOf(slot)+off, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := f.Program(manifestOf(slot)+4, signedManifest); err != nil {
		return err
	}
	var h [4]byte
	binary.LittleEndian.PutUint32(h[:], uint32(len(signedManifest)))
	if err := f.Program(manifestOf(slot), h[:]); err != nil {
		return err
	}
	return slotWritten(f, slot)
}

// CheckSlot says whether a BMC with these owners would take a slot for one that may boot: whether its manifest is there and
// signed. Floors and chunks are not looked at.
func CheckSlot(f driver.Flash, slot uint8, owners trust.Keyring) error {
	if slot > wire.SlotB || f.Size() < FlashSize {
		return ErrConfig
	}
	b := &BMC{ports: Ports{Flash: f}}
	b.cfg.Owners = owners
	if _, failure := b.check(slot, &b.manifest); !failure.IsZero() {
		return errors.New(failure.Reason.String() + ": expected " + failure.Expected.String() + ", seen " + failure.Seen.String())
	}
	return nil
}

// slotWritten puts right what the store says about a slot that was written over a cable.
func slotWritten(f driver.Flash, slot uint8) error {
	b := &BMC{ports: Ports{Flash: f}}
	b.ledger.Flash, b.ledger.Base, b.ledger.Sectors = f, stateOffset, stateSize/driver.SectorSize
	if err := b.ledger.mount(); err != nil {
		return err
	}
	var buf [maxValue]byte
	var rec slotRecord
	rec.decode(b.ledger.get(keySlotA + slot))
	if rec.distrusted {
		rec = slotRecord{}
		if err := b.ledger.put(keySlotA+slot, rec.encode(buf[:0])); err != nil {
			return err
		}
	}
	b.boot.decode(b.ledger.get(keyBoot))
	var h [4]byte
	if err := f.ReadAt(h[:], manifestOf(otherSlot(slot))); err != nil {
		return err
	}
	if b.boot.preferred != slot && binary.LittleEndian.Uint32(h[:]) == blankLength {
		b.boot.preferred, b.boot.trial = slot, trialProven
		return b.ledger.put(keyBoot, b.boot.encode(buf[:0]))
	}
	return nil
}
