package bmc

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

func TestPowersAUnitFromAVerifiedSlot(t *testing.T) {
	r := newRig(t)
	r.step(10)
	if r.sw.on || r.b.MediumBlocks() != 0 {
		t.Fatal("rail on or medium shown without being asked for")
	}
	r.desire(1, wire.PowerOn)
	r.until(wire.StateRunning)
	img, err := r.readAll()
	if err != nil || !bytes.Equal(img, testImage(testImageSize, "1.0")) {
		t.Fatalf("medium: %v, %d bytes", err, len(img))
	}
	for s := wire.StageBootstrap; s <= wire.StageRunning; s++ {
		r.stage(s)
	}
	r.step(1)
	s := r.b.UnitState()
	if s.BootCount != 1 || s.Stage != wire.StageRunning || s.BootSlot != wire.SlotA || !s.Rail ||
		s.ObservedGeneration != 1 || !s.Failure.IsZero() || s.Flags != 0 {
		t.Fatalf("%+v", s)
	}

	var nonce [32]byte
	nonce[3] = 9
	ev, err := wire.ParseBytes(r.mustCall(wire.SideBus, wire.CmdGetEvidence, nonce[:]), wire.MaxEvidence)
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.VerifyEvidence(key(9).Public().(ed25519.PublicKey), nonce, ev)
	if err != nil {
		t.Fatal(err)
	}
	var slot, rail trust.Register
	doc, _ := manifestFor(img, "1.0", 5).MarshalBinary()
	slot.Extend(sha(doc))
	rail.Extend(sha([]byte(trust.RailOn)))
	if e.Flags != trust.EvidenceEmulated || e.BootCount != 1 || e.Registers[0].Value != slot.Value ||
		e.Registers[0].Extends != 1 || e.Registers[1].Extends != 4 || e.Registers[2].Value != rail.Value {
		t.Fatalf("%+v", e)
	}
}

func sha(p []byte) [32]byte { return sha256.Sum256(p) }
