package bmc

import (
	"crypto/sha256"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// The registers of a BMC in the order of their indices. Nothing but a cycle of the rail clears them (clearBoot).
const (
	registerSlot   = iota // observed: digest of the slot manifest, once
	registerMedium        // observed: each chunk when it is served for the first time since the rail came on, in that order
	registerRail          // observed: digestRail once; digestReset at each reset, digestAdopted when the BMC restarted
	registerKey           // observed: what the unit set last
	registerFirstAsserted
	registerCount = registerFirstAsserted + 4
)

// registerIndices gives the index of each register in evidence.
var registerIndices = [registerCount]uint8{
	trust.RegisterSlot, trust.RegisterMedium, trust.RegisterRail, trust.RegisterUnitKey,
	trust.RegisterTree, trust.RegisterOS, trust.RegisterRootHash, trust.RegisterHandover,
}

var (
	digestRail    = sha256.Sum256([]byte(trust.RailOn))
	digestReset   = sha256.Sum256([]byte(trust.RailReset))
	digestAdopted = sha256.Sum256([]byte(trust.RailAdopted))
)

func (b *BMC) resetRegisters() {
	for i := range b.registers {
		kind := trust.Observed
		if i >= registerFirstAsserted {
			kind = trust.Asserted
		}
		b.registers[i] = trust.Register{Index: registerIndices[i], Kind: kind}
	}
}

func (b *BMC) extend(register int, digest *[32]byte) { b.registers[register].Extend(*digest) }

// assert extends a register on the word of the unit and says whether there is such a register.
func (b *BMC) assert(index uint8, digest *[32]byte, label string) bool {
	for i := registerFirstAsserted; i < registerCount; i++ {
		if b.registers[i].Index == index {
			b.extend(i, digest)
			b.unitEvent(wire.EventMeasurement, uint16(index), label, nil)
			return true
		}
	}
	return false
}

func (b *BMC) setKey(hash *[32]byte) {
	b.registers[registerKey].Set(*hash)
	b.unitEvent(wire.EventKey, 0, "", nil)
}

// evidence appends the signed statement over the caller's nonce.
func (b *BMC) evidence(dst []byte, nonce *[32]byte) ([]byte, error) {
	e := trust.Evidence{
		Slot: b.cfg.Slot, BootCount: b.bootCount, Nonce: *nonce, Floors: b.floors, Registers: b.registers[:],
	}
	if b.boot.void || b.damaged() {
		e.Flags |= trust.EvidenceVoid
	}
	if b.boot.fallback && b.closed {
		e.Flags |= trust.EvidenceFallback
	}
	if b.cfg.Emulated {
		e.Flags |= trust.EvidenceEmulated
	}
	return trust.AppendSignedEvidence(dst, b.cfg.DeviceKey, &e)
}

// raise takes a floor statement of the owners. The failure is zero when the floors now stand where it says.
func (b *BMC) raise(signed []byte) wire.Failure {
	floors := b.floors
	booted := uint32(0)
	if b.closed && b.bootSlot <= wire.SlotB {
		booted = b.manifest.SecurityVersion
	}
	if err := floors.Raise(&b.cfg.Owners, b.cfg.RackID, booted, signed); err != nil {
		f := floorFailure(err)
		b.unitEvent(wire.EventFloors, 0, "refused", &f)
		return f
	}
	if floors == b.floors {
		return wire.Failure{}
	}
	var buf [80]byte
	if !b.keep(keyFloors, encodeFloors(buf[:0], &floors)) {
		return wire.MakeFailure("bmc.store", "floors written", "flash error")
	}
	b.floors = floors
	b.event(wire.EventFloors, 1, "raised", nil)
	return wire.Failure{}
}

// floorFailure names why a statement was refused.
func floorFailure(err error) wire.Failure {
	switch e := err.(type) {
	case *trust.FloorError:
		reason := "floor.rollback"
		switch e.Field {
		case "rack":
			reason = "floor.identity"
		case "tree", "commit":
			reason = "floor.tree"
		case "boot security":
			if len(e.Expected) > 2 && e.Expected[:3] == "at " && len(e.Expected) > 6 && e.Expected[3:7] == "most" {
				reason = "floor.security"
			}
		}
		return wire.MakeFailure(reason, e.Field+" "+e.Expected, e.Seen)
	}
	return wire.MakeFailure("floor.statement", "a statement of the owners", err.Error())
}
