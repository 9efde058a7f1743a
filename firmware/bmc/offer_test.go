package bmc

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// try sends a manifest in-band and returns what the last part gave.
func (r *rig) try(m []byte) (code wire.Code, f wire.Failure) {
	r.t.Helper()
	for off := 0; off < len(m); off += 100 {
		var rest []byte
		code, rest = r.call(wire.SideInBand, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(m)), uint32(off), m[off:min(off+100, len(m))]))
		if code == wire.CodeRefused {
			f, _ = wire.ParseFailure(rest)
		}
		if code != wire.CodeSuccess {
			return code, f
		}
	}
	return code, f
}

// TestOffer: a unit that was taken over cannot have its other image erased for one that could not boot afterwards, nor for
// the one that it runs. An operator can.
func TestOffer(t *testing.T) {
	three := testImage(testImageSize, "3.0")
	one := testImage(testImageSize, "1.0")
	for _, c := range []struct {
		name   string
		m      []byte
		reason string
	}{
		{"nobody signed", []byte("RKSGnonsense"), "slot.manifest"},
		{"one owner", signed(t, manifestFor(three, "3.0", 9), owners[0]), "slot.signature"},
		{"two times one owner", signed(t, manifestFor(three, "3.0", 9), owners[0], owners[0]), "slot.signature"},
		{"an owner and a stranger", signed(t, manifestFor(three, "3.0", 9), owners[0], stranger), "slot.signature"},
		{"below the floor", signed(t, manifestFor(three, "3.0", 4), owners[0], owners[1]), "slot.floor"},
		{"what runs", nil, "slot.manifest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.runUnit()
			if code := r.raise(r.statement(1, 5, 1, owners[0], owners[1])); code != wire.CodeSuccess {
				t.Fatal(code)
			}
			if c.m == nil {
				c.m = signed(t, &r.b.manifest, owners[0], owners[1])
			}
			flash := r.contents(imageOf(wire.SlotB), testImageSize, manifestOf(wire.SlotB), manifestSize)
			if code, f := r.try(c.m); code != wire.CodeRefused || f.Reason.String() != c.reason {
				t.Errorf("offer: %v, %+v", code, f)
			}
			if code, _ := r.call(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize)); code != wire.CodeNotReady {
				t.Errorf("erase: %v", code)
			}
			if !bytes.Equal(r.contents(imageOf(wire.SlotB), testImageSize, manifestOf(wire.SlotB), manifestSize), flash) {
				t.Error("slot B has changed")
			}
			r.mustCall(wire.SideBus, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize))
		})
	}
	t.Run("a unit that keeps its session open", func(t *testing.T) {
		r := newRig(t)
		r.runUnit()
		m := signed(t, manifestFor(three, "3.0", 9), owners[0], owners[1])
		r.offer(m)
		r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize))
		for off := 0; off < len(m); off += 100 { // the operator is not kept out
			r.mustCall(wire.SideBus, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(m)), uint32(off), m[off:min(off+100, len(m))]))
		}
		r.mustCall(wire.SideBus, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize))
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, 0, three[:100])); code == wire.CodeSuccess {
			t.Error("the unit writes on")
		}
		r.write(wire.SideBus, three)
	})
	t.Run("another size than offered", func(t *testing.T) {
		r := newRig(t)
		r.runUnit()
		r.offer(signed(t, manifestFor(three, "3.0", 9), owners[0], owners[1]))
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize-512)); code != wire.CodeNotReady {
			t.Errorf("erase: %v", code)
		}
	})
	t.Run("another manifest than offered", func(t *testing.T) {
		r := newRig(t)
		r.runUnit()
		r.offer(signed(t, manifestFor(three, "3.0", 9), owners[0], owners[1]))
		r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize))
		r.write(wire.SideInBand, three)
		if code, f := r.try(signed(t, manifestFor(three, "3.1", 9), owners[0], owners[1])); code != wire.CodeRefused || f.Reason.String() != "slot.manifest" {
			t.Errorf("commit: %v, %+v", code, f)
		}
	})
	t.Run("what the other slot holds", func(t *testing.T) {
		r := newRig(t)
		r.runUnit()
		m, two := r.signedManifest(wire.SlotB), r.contents(imageOf(wire.SlotB), testImageSize)
		before := r.flash.writes
		for range 2 { // its answers were lost: all of it once more
			r.offer(m)
		}
		r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize))
		r.write(wire.SideInBand, two)
		if code, _ := r.try(m); code != wire.CodeSuccess || r.b.boot.preferred != wire.SlotB {
			t.Errorf("commit: %v, preferred %d", code, r.b.boot.preferred)
		}
		if n := r.flash.writes - before; n > 2*len(m)/100+100 {
			t.Errorf("%d flash operations to write what was there", n)
		}
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
		if got, err := r.readAll(); err != nil || !bytes.Equal(got, two) || bytes.Equal(got, one) {
			t.Errorf("slot B: %v", err)
		}
	})
	t.Run("other bytes for what the other slot holds", func(t *testing.T) {
		r := newRig(t)
		r.runUnit()
		m := r.signedManifest(wire.SlotB)
		r.offer(m)
		r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, testImageSize))
		if code, _ := r.call(wire.SideInBand, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, 0, make([]byte, 512))); code != wire.CodeError {
			t.Errorf("write: %v", code)
		}
		if f := r.b.inspect(wire.SlotB); !f.IsZero() {
			t.Errorf("slot B: %v", f)
		}
	})
	t.Run("begun anew, from either side", func(t *testing.T) {
		r := newRig(t)
		r.runUnit()
		a, b := signed(t, manifestFor(three, "3.0", 9), owners[0], owners[1]), signed(t, manifestFor(three, "3.1", 9), owners[0], owners[1])
		part := func(side wire.Side, m []byte, from, to int) wire.Code {
			code, _ := r.call(side, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(m)), uint32(from), m[from:to]))
			return code
		}
		for i, s := range []struct {
			side     wire.Side
			m        []byte
			from, to int
			want     wire.Code
		}{
			{wire.SideInBand, a, 0, 100, wire.CodeSuccess}, {wire.SideInBand, a, 0, 100, wire.CodeSuccess}, {wire.SideInBand, a, 200, 300, wire.CodeInvalidData},
			{wire.SideInBand, b, 0, 100, wire.CodeSuccess}, {wire.SideInBand, a, 100, 200, wire.CodeSuccess}, {wire.SideInBand, a, 0, 100, wire.CodeSuccess},
			{wire.SideBus, a, 100, 200, wire.CodeNotReady}, {wire.SideBus, a, 0, 100, wire.CodeSuccess}, {wire.SideInBand, b, 0, 100, wire.CodeBusy},
			{wire.SideBus, a, 100, len(a), wire.CodeSuccess}, {wire.SideBus, a, 100, len(a), wire.CodeSuccess}, {wire.SideInBand, b, 0, len(b), wire.CodeSuccess},
		} {
			if code := part(s.side, s.m, s.from, s.to); code != s.want {
				t.Errorf("%d: %v, want %v", i, code, s.want)
			}
		}
	})
}

// TestEffort: however often a unit asks, signatures take the BMC no more than so much; the operator is not kept waiting,
// and a unit that waits is heard again.
func TestEffort(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	var nonce [32]byte
	forged := r.statement(9, 1, 9, stranger, stranger)
	offer := signed(t, manifestFor(testImage(512, "3.0"), "3.0", 9), stranger, stranger)
	ask := func(side wire.Side, command uint8, payload []byte) bool {
		code, _ := r.call(side, command, payload)
		return code != wire.CodeBusy
	}
	for _, c := range []struct {
		name    string
		command uint8
		payload []byte
		cost    int
	}{{"evidence", wire.CmdGetEvidence, nonce[:], signCost}, {"floors", wire.CmdRaiseFloors, wire.AppendBytes(nil, forged), verifyCost},
		{"offers", wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(offer)), 0, offer), verifyCost}} {
		r.step(effortSize * effortMillis / 10)
		done := 0
		for range 500 {
			if ask(wire.SideInBand, c.command, c.payload) {
				done++
			}
		}
		if most := effortSize / c.cost; done == 0 || done > most {
			t.Errorf("%s: %d at once, want at most %d", c.name, done, most)
		}
		if !ask(wire.SideBus, wire.CmdGetEvidence, nonce[:]) || !ask(wire.SideDebug, wire.CmdRaiseFloors, wire.AppendBytes(nil, forged)) {
			t.Errorf("%s: the operator waits for the unit", c.name)
		}
		r.step(verifyCost * effortMillis / 10)
		if !ask(wire.SideInBand, wire.CmdGetEvidence, nonce[:]) {
			t.Errorf("%s: never heard again", c.name)
		}
	}
}

// write sends an image.
func (r *rig) write(side wire.Side, img []byte) {
	r.t.Helper()
	for off := 0; off < len(img); off += wire.MaxSlotWrite {
		r.mustCall(side, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, uint32(off), img[off:min(off+wire.MaxSlotWrite, len(img))]))
	}
}

// signedManifest is what a slot holds.
func (r *rig) signedManifest(slot uint8) []byte {
	n := binary.LittleEndian.Uint32(r.contents(manifestOf(slot), 4))
	return r.contents(manifestOf(slot)+4, n)
}

// contents reads parts of the flash: offset, length, offset, length …
func (r *rig) contents(parts ...uint32) (all []byte) {
	r.t.Helper()
	for i := 0; i < len(parts); i += 2 {
		b := make([]byte, parts[i+1])
		if err := r.flash.ReadAt(b, parts[i]); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}
