package trust

import (
	"crypto/ed25519"
	"testing"
)

// TestAllocations holds the package to what its comments promise: deciding
// allocates nothing, so that a BMC cannot run out of memory by it.
func TestAllocations(t *testing.T) {
	manifest, err := sampleManifest().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	slot := AppendSigned(manifest, signAll(DomainSlot, manifest, owner(1), owner(2)))
	floor := signFloor(t, sampleFloor(), owner(1), owner(2))
	evidence := sampleEvidence()
	keys, device := owners(), owner(7)
	into := SlotManifest{Chunks: make([][32]byte, 0, MaxChunks)}
	out := make([]byte, 0, MaxSignedEvidence)
	image := sampleImage()
	parsed := sampleManifest()
	register := Register{}
	var floors Floors

	// What Ed25519 itself allocates is the library's; it is measured here so
	// that the budgets below are about this package.
	msg := make([]byte, 57)
	sig := ed25519.Sign(device, msg)
	verify := testing.AllocsPerRun(50, func() { ed25519.Verify(public(device), msg, sig) })
	sign := testing.AllocsPerRun(50, func() { _ = ed25519.Sign(device, msg) })

	tests := []struct {
		name string
		max  float64
		run  func() error
	}{
		{"open a slot manifest", 2 * verify, func() error { _, err := keys.Open(DomainSlot, slot); return err }},
		{"raise floors", 2 * verify, func() error { return floors.Raise(keys, sampleRack, 9, floor) }},
		{"parse into a used manifest", 1, func() error { return into.Parse(manifest) }},
		{"check a chunk", 0, func() error { parsed.ChunkOK(0, image[:ChunkSize]); return nil }},
		{"extend a register", 0, func() error { register.Extend([32]byte{1}); return nil }},
		{"sign evidence", sign, func() error { _, err := AppendSignedEvidence(out, device, evidence); return err }},
	}
	for _, tt := range tests {
		var err error
		got := testing.AllocsPerRun(50, func() {
			if e := tt.run(); e != nil {
				err = e
			}
		})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got > tt.max {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.max)
		}
	}
}

func BenchmarkOpenSlot(b *testing.B) {
	manifest, err := sampleManifest().MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	slot := AppendSigned(manifest, signAll(DomainSlot, manifest, owner(1), owner(2)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := owners().Open(DomainSlot, slot); err != nil {
			b.Fatal(err)
		}
	}
}
