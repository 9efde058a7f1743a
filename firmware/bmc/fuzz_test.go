package bmc

import (
	"encoding/binary"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// FuzzHandle throws sequences of messages from all sides at a running BMC: it never panics, never answers with more
// than fits, never lowers a floor or a counter, never shows an unverified byte, and a unit alone never moves its switch.
// Input: records of side, type, command, length and payload; a side beyond the last one lets time pass instead.
func FuzzHandle(f *testing.F) {
	seeds := &rig{t: f}
	for i := range rules {
		for side := range byte(3) {
			p := valid(seeds, rules[i].kind, rules[i].command)
			if len(p) > 255 {
				p = p[:255]
			}
			f.Add(append([]byte{side, rules[i].kind, rules[i].command, byte(len(p))}, p...))
		}
	}
	f.Add([]byte{3, 0, 0, 0, 0, wire.TypeOEM, wire.CmdHeartbeat, 0, 3, 0, 0, 0})
	floors := seeds.statement(3, 4, 3, owners[0], owners[2])
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRig(t)
		r.runUnit()
		if code := r.raise(floors); code != wire.CodeSuccess {
			t.Fatal(code)
		}
		r.step(1)
		var resp [wire.MaxMessage]byte
		onlyUnit := true
		sets := r.sw.sets
		for len(in) >= 4 {
			side, kind, command, n := in[0], in[1], in[2], int(in[3])
			in = in[4:]
			if side > 2 {
				r.step(1)
				continue
			}
			onlyUnit = onlyUnit && side == uint8(wire.SideInBand)
			// A unit that halts, or stages a slot and resets, does ask for its rail to be cycled.
			if kind == wire.TypeOEM && command == wire.CmdReportStage {
				onlyUnit = false
			}
			n = min(n, len(in))
			before := r.b.UnitState()
			req := append(wire.AppendRequest(nil, 1, kind, command), in[:n]...)
			in = in[n:]
			m := r.b.Handle(wire.Side(side), r.now, req, resp[:])
			if m != 0 {
				if _, _, _, err := wire.ParseResponse(resp[:m]); err != nil {
					t.Fatalf("answer %x: %v", resp[:m], err)
				}
			}
			// An answer in a small buffer is an error or fits.
			if m := r.b.Handle(wire.Side(side), r.now, req, resp[:32]); m > 32 {
				t.Fatalf("%d bytes in a buffer of 32", m)
			}
			after := r.b.UnitState()
			if after.Floors.Sequence < before.Floors.Sequence || after.Floors.BootSecurity < before.Floors.BootSecurity ||
				after.BootCount < before.BootCount || after.Millijoules < before.Millijoules ||
				after.LastEvent < before.LastEvent || after.DesiredGeneration < before.DesiredGeneration {
				t.Fatalf("went back: %+v to %+v", before, after)
			}
			if after.Floors != before.Floors {
				t.Fatal("floors moved without a statement of the owners") // the corpus holds one of sequence 1 only
			}
		}
		if onlyUnit && r.sw.sets != sets {
			t.Fatal("the unit moved the load switch")
		}
		if r.b.exposed {
			if img, err := r.readAll(); err == nil && string(img[:16]) != string(testImage(testImageSize, "1.0")[:16]) &&
				string(img[:16]) != string(testImage(testImageSize, "1.1")[:16]) {
				t.Fatal("an image that nobody signed")
			}
		}
	})
}

// FuzzRawMessage throws single messages without a well-formed header.
func FuzzRawMessage(f *testing.F) {
	f.Add(uint8(0), []byte{0x80, 0, 2})
	f.Add(uint8(1), []byte{0xC0, 0x3F, 9})
	r := newRig(f)
	r.runUnit()
	var resp [wire.MaxMessage]byte
	f.Fuzz(func(t *testing.T, side uint8, req []byte) {
		n := r.b.Handle(wire.Side(side), r.now, req, resp[:])
		h, _, err := wire.ParseHeader(req)
		if (err != nil || !h.Request || h.Datagram || side > uint8(wire.SideDebug)) && n != 0 {
			t.Fatalf("answered %x", req)
		}
	})
}

// FuzzLedgerSectors mounts a ledger over sectors of anything: it never panics, and can be written afterwards.
func FuzzLedgerSectors(f *testing.F) {
	g := newFlash()
	s := smallLedger(g)
	s.mount()
	s.put(1, []byte("one"))
	s.put(2, []byte("two"))
	img := make([]byte, 200)
	g.ReadAt(img, 0)
	f.Add(img)
	f.Fuzz(func(t *testing.T, in []byte) {
		fl := newFlash()
		for i := 0; i < len(in) && i < 4*4096; i++ {
			fl.sector(uint32(i), true)[i%4096] = in[i]
		}
		s := smallLedger(fl)
		if err := s.mount(); err != nil {
			t.Fatal(err)
		}
		if err := s.put(3, []byte("three")); err != nil {
			t.Fatal(err)
		}
		again := smallLedger(fl)
		if err := again.mount(); err != nil || string(again.get(3)) != "three" {
			t.Fatalf("%v: %q", err, again.get(3))
		}
	})
}

// FuzzFlash starts a BMC on a flash whose management areas were damaged anywhere.
func FuzzFlash(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0xFF})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRig(t)
		r.runUnit()
		for ; len(in) >= 5; in = in[5:] {
			off := manifestOffset + binary.LittleEndian.Uint32(in)%(eventOffset+eventSize-manifestOffset)
			r.flash.flip(off, in[4])
		}
		b, err := New(Config{}, r.ports())
		if err == ErrUnprovisioned {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		r.b, r.now = b, 0
		r.step(300)
		if r.b.exposed {
			if _, err := r.readAll(); err != nil {
				t.Fatal("a manifest was believed that is not that of the image")
			}
		}
	})
}
