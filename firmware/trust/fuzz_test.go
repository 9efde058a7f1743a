package trust

import (
	"bytes"
	"testing"
)

// The fuzz targets hold each parser to three things: no panic, nothing
// accepted that does not encode to the same bytes again, and no document
// accepted without its signatures.

func FuzzParseSlotManifest(f *testing.F) {
	good, err := sampleManifest().MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:slotHeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseSlotManifest(b)
		if err != nil {
			return
		}
		if again, err := m.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one manifest: %v", err)
		}
	})
}

func FuzzParseFloorStatement(f *testing.F) {
	good, err := sampleFloor().MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseFloorStatement(b)
		if err != nil {
			return
		}
		if again, err := s.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one statement: %v", err)
		}
	})
}

func FuzzParseEvidence(f *testing.F) {
	good, err := sampleEvidence().AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:evidenceHeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err != nil {
			return
		}
		if again, err := e.AppendBinary(nil); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one piece of evidence: %v", err)
		}
	})
}

func FuzzSplitSigned(f *testing.F) {
	f.Add(signFloor(f, sampleFloor(), owner(1), owner(2)))
	f.Add(signFloor(f, sampleFloor()))
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, sigs, err := SplitSigned(b)
		if err != nil {
			return
		}
		if !bytes.Equal(AppendSigned(msg, sigs), b) {
			t.Fatal("two encodings of one container")
		}
	})
}

func FuzzRaise(f *testing.F) {
	good := signFloor(f, sampleFloor(), owner(1), owner(2))
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		var floors Floors
		err := floors.Raise(owners(), sampleRack, 9, b)
		if err == nil && (len(b) < len(good) || !bytes.Equal(b[4:4+FloorStatementSize], good[4:4+FloorStatementSize])) {
			t.Fatal("a statement was accepted that nobody signed")
		}
	})
}
