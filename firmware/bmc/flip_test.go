package bmc

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// boots reports which slot a fresh BMC boots from and what it says, with one flash changed by change.
func bootsWith(t *testing.T, change func(r *rig)) (r *rig, img []byte, err error) {
	t.Helper()
	r = newRig(t)
	change(r)
	r.boot()
	r.desire(1, wire.PowerOn)
	for range 300 {
		r.step(1)
		if r.b.state == wire.StateRunning || r.b.state == wire.StateFaulted {
			break
		}
	}
	img, err = r.readAll()
	return r, img, err
}

// TestFlipsInTheManifest flips one bit in every byte of what makes up slot A's signed manifest: the length before it, the
// container, the document's fields, each chunk hash, each signature. Slot A is never shown; slot B is, whole.
func TestFlipsInTheManifest(t *testing.T) {
	good := testImage(testImageSize, "1.0")
	other := testImage(testImageSize, "1.1")
	doc, _ := manifestFor(good, "1.0", 5).MarshalBinary()
	n := len(signed(t, manifestFor(good, "1.0", 5), owners[0], owners[2]))
	field := func(off int) string {
		switch {
		case off < 4:
			return "flash length"
		case off < 8:
			return "document length"
		case off < 8+len(doc):
			return fmt.Sprintf("document byte %d", off-8)
		case off == 8+len(doc):
			return "signature count"
		}
		return fmt.Sprintf("signature byte %d", off-9-len(doc))
	}
	reasons := map[string]int{}
	for off := range 4 + n {
		if testing.Short() && off%7 != 0 {
			continue
		}
		bit := byte(1) << (off % 8)
		r, img, err := bootsWith(t, func(r *rig) { r.flash.flip(manifestOf(wire.SlotA)+uint32(off), bit) })
		if r.b.bootSlot != wire.SlotB || err != nil || !bytes.Equal(img, other) {
			t.Fatalf("%s: boot slot %d, %v", field(off), r.b.bootSlot, err)
		}
		f := r.b.UnitState().Failure
		reasons[f.Reason.String()]++
		if r.b.UnitState().Flags&wire.FlagFallbackSlot == 0 || f.IsZero() || f.Expected.Len() == 0 || f.Seen.Len() == 0 {
			t.Errorf("%s: flags %#x, failure %v", field(off), r.b.UnitState().Flags, f)
		}
	}
	if reasons["slot.signature"] == 0 || reasons["slot.manifest"] == 0 {
		t.Errorf("reasons: %v", reasons)
	}
	// The control: without a flip slot A boots.
	if r, img, err := bootsWith(t, func(*rig) {}); r.b.bootSlot != wire.SlotA || err != nil || !bytes.Equal(img, good) {
		t.Fatal("the unchanged slot does not boot")
	}
}

// TestFlipsInChunks flips one bit in each block of the image. The boot ROM gets no byte of the bad chunk.
func TestFlipsInChunks(t *testing.T) {
	good := testImage(testImageSize, "1.0")
	for off := 0; off < testImageSize; off += trust.BlockSize {
		at := off + off/trust.BlockSize%trust.BlockSize
		r, img, err := bootsWith(t, func(r *rig) { r.flash.flip(imageOf(wire.SlotA)+uint32(at), 1<<(at%8)) })
		chunk := at / trust.ChunkSize * trust.ChunkSize
		if err == nil || len(img) != chunk || !bytes.Equal(img, good[:chunk]) {
			t.Fatalf("byte %d: served %d bytes, %v", at, len(img), err)
		}
		if f := r.b.slots[wire.SlotA].info.Failure; f.Reason.String() != "slot.chunk" {
			t.Fatalf("byte %d: %v", at, f)
		}
		r.step(1)
		r.until(wire.StateRunning)
		if r.b.bootSlot != wire.SlotB {
			t.Fatalf("byte %d: other slot not tried", at)
		}
	}
}

// TestFlipsUnderTheRunningUnit: a chunk that goes bad after the manifest was verified, and after it was served once.
func TestFlipsUnderTheRunningUnit(t *testing.T) {
	r := newRig(t)
	r.desire(1, wire.PowerOn)
	r.until(wire.StateRunning)
	if _, err := r.readAll(); err != nil {
		t.Fatal(err)
	}
	r.flash.flip(imageOf(wire.SlotA)+3, 1)
	if err := r.b.ReadMedium(0, make([]byte, 512)); err == nil {
		t.Fatal("a chunk that went bad was served")
	}
}

// TestSignedBySomebodyElse goes through who may sign a slot.
func TestSignedBySomebodyElse(t *testing.T) {
	img := testImage(testImageSize, "1.2")
	m := manifestFor(img, "1.2", 5)
	for _, c := range []struct {
		name   string
		signed []byte
		reason string
	}{
		{"two owners", signed(t, m, owners[1], owners[2]), ""},
		{"two owners and a stranger", signed(t, m, stranger, owners[1], owners[2]), ""},
		{"one owner", signed(t, m, owners[0]), "slot.signature"},
		{"one owner twice", signed(t, m, owners[0], owners[0]), "slot.signature"},
		{"an owner and a stranger", signed(t, m, owners[0], stranger), "slot.signature"},
		{"nobody", signed(t, m), "slot.signature"},
		{"owners, as a floor statement", func() []byte {
			doc, _ := m.MarshalBinary()
			return trust.AppendSigned(doc, []trust.Signature{
				trust.Sign(trust.DomainFloor, owners[0], doc), trust.Sign(trust.DomainFloor, owners[1], doc)})
		}(), "slot.signature"},
		{"owners, but not a manifest", func() []byte {
			doc := []byte("RKSM and then something else entirely")
			return trust.AppendSigned(doc, []trust.Signature{
				trust.Sign(trust.DomainSlot, owners[0], doc), trust.Sign(trust.DomainSlot, owners[1], doc)})
		}(), "slot.manifest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _, _ := bootsWith(t, func(r *rig) {
				if err := WriteSlot(r.flash, wire.SlotA, bytes.NewReader(img), c.signed); err != nil {
					t.Fatal(err)
				}
			})
			want := wire.SlotA
			if c.reason != "" {
				want = wire.SlotB
			}
			if s := r.b.UnitState(); s.BootSlot != want || s.Failure.Reason.String() != c.reason {
				t.Errorf("boot slot %d, failure %v", s.BootSlot, s.Failure)
			}
		})
	}
}

// TestStagingRefuses goes through what may be wrong with a staged slot. The running slot stays the preferred one.
func TestStagingRefuses(t *testing.T) {
	img := testImage(testImageSize, "3.0")
	for _, c := range []struct {
		name     string
		image    []byte
		security uint32
		keys     []ed25519.PrivateKey
		reason   string
	}{
		{"good", img, 5, owners[:2], ""},
		{"one owner", img, 5, owners[:1], "slot.signature"},
		{"below the floor", img, 4, owners[:2], "slot.floor"},
		{"one byte other", func() []byte { b := bytes.Clone(img); b[trust.ChunkSize+1] ^= 1; return b }(), 5, owners[:2], "slot.chunk"},
		{"chunks exchanged", append(bytes.Clone(img[trust.ChunkSize:2*trust.ChunkSize]),
			append(bytes.Clone(img[:trust.ChunkSize]), img[2*trust.ChunkSize:]...)...), 5, owners[:2], "slot.chunk"},
		{"too short", img[:len(img)-512], 5, owners[:2], "slot.chunk"},
		{"too long", append(bytes.Clone(img), make([]byte, 512)...), 5, owners[:2], "slot.chunk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.runUnit()
			if code := r.raise(r.statement(1, 5, 1, owners[0], owners[1])); code != wire.CodeSuccess {
				t.Fatal(code)
			}
			side := wire.SideBus // a manifest that is refused is not written for in-band: TestOffer
			if c.reason == "" || c.reason == "slot.chunk" && len(c.image) == len(img) {
				side = wire.SideInBand
				r.offer(signed(t, manifestFor(img, "3.0", c.security), c.keys...))
			}
			r.mustCall(side, wire.CmdSlotErase, wire.AppendSlotErase(nil, uint32(len(c.image))))
			for off := 0; off < len(c.image); off += 2000 {
				part := wire.AppendSlotWrite(nil, uint32(off), c.image[off:min(off+2000, len(c.image))])
				r.mustCall(side, wire.CmdSlotWrite, part)
				r.mustCall(side, wire.CmdSlotWrite, part) // its answer was lost: once more
			}
			m := signed(t, manifestFor(img, "3.0", c.security), c.keys...)
			var code wire.Code
			var rest []byte
			for off := 0; off < len(m); off += 100 {
				part := wire.AppendSlotCommit(nil, uint32(len(m)), uint32(off), m[off:min(off+100, len(m))])
				code, rest = r.call(side, wire.CmdSlotCommit, part)
			}
			var refusal wire.Failure
			if code == wire.CodeRefused {
				var err error
				if refusal, err = wire.ParseFailure(rest); err != nil {
					t.Fatal(err)
				}
			}
			slots, err := wire.ParseSlots(r.mustCall(wire.SideBus, wire.CmdGetSlots, nil))
			if err != nil {
				t.Fatal(err)
			}
			if c.reason == "" {
				if code != wire.CodeSuccess || r.b.boot.preferred != wire.SlotB || slots[1].State != wire.SlotValid || slots[1].Version.String() != "3.0" {
					t.Fatalf("good slot: %v, %+v", code, slots[1])
				}
				again := wire.AppendSlotCommit(nil, uint32(len(m)), uint32(len(m)/100*100), m[len(m)/100*100:])
				if code, _ := r.call(side, wire.CmdSlotCommit, again); code != wire.CodeSuccess {
					t.Errorf("last part again: %v", code)
				}
				return
			}
			if code != wire.CodeRefused || refusal.Reason.String() != c.reason {
				t.Errorf("code %v, %v", code, refusal)
			}
			if slots[1].State == wire.SlotValid || slots[1].Failure.Reason.String() != c.reason || r.b.boot.preferred != wire.SlotA {
				t.Errorf("slot %+v, preferred %d", slots[1], r.b.boot.preferred)
			}
			r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
			r.until(wire.StateRunning)
			if got, err := r.readAll(); err != nil || !bytes.Equal(got, testImage(testImageSize, "1.0")) {
				t.Errorf("old slot: %v", err)
			}
		})
	}
}

// TestStagingKeepsToItsSlot: no sequence of offsets and sizes reaches beyond the idle slot.
func TestStagingKeepsToItsSlot(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	const size = 512
	img := testImage(size, "3.0")
	r.offer(signed(t, manifestFor(img, "3.0", 7), owners[0], owners[1]))
	r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, size))
	for _, off := range []uint32{512, trust.MaxImageSize - 1, trust.MaxImageSize, 0xFFFFFFFF, 0x80000000} {
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, off, make([]byte, 512))); code != wire.CodeInvalidData {
			t.Errorf("write at %#x: %v", off, code)
		}
	}
	for _, size := range []uint32{0, 1, trust.MaxImageSize + 512, 0xFFFFFE00} {
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, size)); code != wire.CodeInvalidData {
			t.Errorf("erase for %d bytes: %v", size, code)
		}
	}
	for _, total := range []uint32{0, 4, trust.MaxSigned + 1, 0xFFFFFFFF} {
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, total, 0, nil)); code != wire.CodeInvalidData {
			t.Errorf("commit of %d bytes: %v", total, code)
		}
	}
	// The other side cannot join in, and the unit cannot wear the flash out.
	if code, _ := r.call(wire.SideBus, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, 0, make([]byte, 512))); code != wire.CodeNotReady {
		t.Errorf("write from the other side: %v", code)
	}
	busy := 0
	for range 20 {
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, 512)); code == wire.CodeBusy {
			busy++
		}
		r.call(wire.SideInBand, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, 0, make([]byte, 512)))
	}
	if busy != 20-maxSessions { // the first of the 20 repeats the erase above, to which nothing was written
		t.Errorf("%d sessions of 20 refused", busy)
	}
}

// TestMediumHasAnEnd: no read reaches beyond the image, and none is of half a block.
func TestMediumHasAnEnd(t *testing.T) {
	r := newRig(t)
	if err := r.b.ReadMedium(0, nil); err == nil {
		t.Error("read without a medium")
	}
	r.desire(1, wire.PowerOn)
	r.until(wire.StateRunning)
	blocks := r.b.MediumBlocks()
	if blocks != testImageSize/512 {
		t.Fatalf("%d blocks", blocks)
	}
	for _, c := range []struct {
		lba uint32
		n   int
		ok  bool
	}{
		{0, 512, true}, {0, 0, true}, {blocks - 1, 512, true}, {0, testImageSize, true}, {blocks, 0, true},
		{blocks, 512, false}, {blocks - 1, 1024, false}, {0, testImageSize + 512, false}, {1, testImageSize, false},
		{0xFFFFFFFF, 512, false}, {0x80000000, 512, false}, {0, 511, false}, {0, 513, false},
	} {
		if err := r.b.ReadMedium(c.lba, make([]byte, c.n)); (err == nil) != c.ok {
			t.Errorf("%d bytes from block %d: %v", c.n, c.lba, err)
		}
	}
	if !r.b.exposed || r.b.slots[wire.SlotA].distrusted {
		t.Error("a bad request spoilt the slot")
	}
}

// TestSessionEndsWithTheBoot: what one boot began to stage, another system that boots later does not go on with.
func TestSessionEndsWithTheBoot(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	r.offer(signed(t, manifestFor(testImage(512, "3.0"), "3.0", 7), owners[0], owners[1]))
	r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, 512))
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
	r.until(wire.StateRunning)
	if code, _ := r.call(wire.SideInBand, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, 0, make([]byte, 512))); code != wire.CodeNotReady {
		t.Errorf("session went on: %v", code)
	}
}
