package bmc

import (
	"strconv"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// offer is a signed slot manifest that was shown before anything is erased. It lies in a part of the flash of its own.
type offer struct {
	side   wire.Side
	next   uint32   // offset of its next byte
	total  uint32   // bytes
	size   uint32   // of the image that it names; 0: it has not been found good
	digest [32]byte // of the manifest
	begun  uint8    // in-band since the rail came on
}

// covers says whether an image of this size may be written for it.
func (o *offer) covers(size uint32) bool { return o.size != 0 && o.size == size }

// stageOffer takes the next part of a signed manifest that nothing has been erased for yet. The part that reaches total has
// it verified: the owners' signatures and the floor, and, from a unit, that it does not ask to have its only other image
// replaced by the one that it runs.
func (b *BMC) stageOffer(side wire.Side, total, offset uint32, part []byte) wire.Code {
	s := &b.staging
	o := &s.offer
	switch {
	case total < 5 || total > trust.MaxSigned || len(part) == 0:
		return wire.CodeInvalidData
	case b.state == wire.StateVerifying:
		return wire.CodeBusy // it needs the buffer
	}
	same := o.next > 0 && o.total == total && o.side == side
	if same && offset < o.next {
		if offset+uint32(len(part)) <= o.next && b.matches(offerOffset+offset, part) == nil {
			return wire.CodeSuccess // again: its answer was lost
		}
		if offset > 0 {
			return wire.CodeInvalidData
		}
	}
	switch {
	case offset == 0:
		if side == wire.SideInBand {
			if o.begun >= maxSessions || o.next > 0 && o.size == 0 && o.side != side {
				return wire.CodeBusy
			}
			o.begun++
		}
		*o = offer{side: side, total: total, begun: o.begun}
		s.committed, s.failure = false, wire.Failure{}
		if err := eraseRange(b.ports.Flash, offerOffset, (total+driver.SectorSize-1)/driver.SectorSize*driver.SectorSize); err != nil {
			return b.offerBroken(err)
		}
	case !same || o.size != 0:
		return wire.CodeNotReady
	case offset != o.next:
		return wire.CodeInvalidData
	}
	if uint32(len(part)) > total-offset {
		return wire.CodeInvalidData
	}
	whole := offset+uint32(len(part)) == total
	if whole && side == wire.SideInBand && !b.effort.take(b.now, verifyCost) {
		return wire.CodeBusy
	}
	if err := b.ports.Flash.Program(offerOffset+offset, part); err != nil {
		return b.offerBroken(err)
	}
	if err := b.matches(offerOffset+offset, part); err != nil {
		return b.offerBroken(err)
	}
	o.next += uint32(len(part))
	if !whole {
		return wire.CodeSuccess
	}
	if f := b.judge(side, o); !f.IsZero() {
		*o = offer{side: side, begun: o.begun}
		s.failure = f
		b.unitEvent(wire.EventSlot, uint16(b.idleSlot()), "offer refused", &f)
		return wire.CodeRefused
	}
	return wire.CodeSuccess
}

func (b *BMC) offerBroken(err error) wire.Code {
	b.staging.offer = offer{begun: b.staging.offer.begun}
	b.staging.failure = wire.MakeFailure("bmc.store", "offer written", err.Error())
	return wire.CodeError
}

// judge decides about an offer that is whole. It uses the chunk buffer.
func (b *BMC) judge(side wire.Side, o *offer) wire.Failure {
	b.cached = -1
	raw := b.buf[:o.total]
	if err := b.ports.Flash.ReadAt(raw, offerOffset); err != nil {
		return wire.MakeFailure("slot.manifest", "readable flash", err.Error())
	}
	var m trust.SlotManifest
	digest, f := b.openManifest(raw, &m)
	if !f.IsZero() {
		return f
	}
	if m.SecurityVersion < b.floors.BootSecurity {
		return belowFloor(b.floors.BootSecurity, m.SecurityVersion)
	}
	idle := b.idleSlot()
	if side == wire.SideInBand && b.bootSlot <= wire.SlotB && digest == b.digest && b.slots[idle].info.State == wire.SlotValid {
		return wire.MakeFailure("slot.manifest", "another image than the one that runs", digestText(&digest))
	}
	o.size, o.digest = m.ImageSize, digest
	return wire.Failure{}
}

// effort bounds what a unit can make the BMC compute: signatures take a microcontroller a good part of a second each.
// effortSize units of them at once, one a second after that.
type effort struct {
	tokens uint32
	at     uint64
}

/* Implementation constants */
const (
	effortSize   = 32
	effortMillis = 1_000
	verifyCost   = 4 // a threshold of signatures, and forged ones beside them
	signCost     = 1
)

func (e *effort) take(now uint64, cost uint32) bool {
	if n := (now - e.at) / effortMillis; n > 0 {
		e.tokens = uint32(min(uint64(e.tokens)+n, effortSize))
		e.at += n * effortMillis
	}
	if e.tokens < cost {
		return false
	}
	e.tokens -= cost
	return true
}

func belowFloor(floor, seen uint32) wire.Failure {
	return wire.MakeFailure("slot.floor", "security version at least "+number(floor), number(seen))
}

func thresholdFailure(err *trust.ThresholdError) wire.Failure {
	return wire.MakeFailure("slot.signature", strconv.Itoa(err.Want)+" signatures of owners", strconv.Itoa(err.Got))
}
