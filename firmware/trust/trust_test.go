package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// owner returns a key that is the same in every run: for tests, and in the
// golden vectors.
func owner(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// owners is the default: two of three.
func owners() *Keyring {
	return &Keyring{Keys: []ed25519.PublicKey{public(owner(1)), public(owner(2)), public(owner(3))}, Threshold: 2}
}

func sampleManifest() *SlotManifest {
	image := sampleImage()
	m := &SlotManifest{
		Version:         "v1.2.3-test",
		SecurityVersion: 7,
		ImageSize:       uint32(len(image)),
		ChunkSize:       ChunkSize,
		Kernel:          sha256.Sum256([]byte("kernel")),
	}
	for len(image) > 0 {
		n := min(len(image), ChunkSize)
		m.Chunks = append(m.Chunks, sha256.Sum256(image[:n]))
		image = image[n:]
	}
	return m
}

// sampleImage is two chunks and a half, so that the last one is short.
func sampleImage() []byte {
	image := make([]byte, 2*ChunkSize+ChunkSize/2)
	for i := range image {
		image[i] = byte(i*7 + i/251)
	}
	return image
}

var sampleRack = [16]byte{0xA, 1, 2, 3}

func sampleFloor() *FloorStatement {
	return &FloorStatement{
		RackID:       sampleRack,
		Sequence:     5,
		RootVersion:  2,
		BootSecurity: 3,
		Tree:         sha256.Sum256([]byte("tree 5")),
		Commit:       [20]byte{0xC0, 5},
		Issued:       1767225600,
	}
}

func sampleEvidence() *Evidence {
	return &Evidence{
		Slot:      2,
		Flags:     EvidenceFallback | EvidenceEmulated,
		BootCount: 41,
		Nonce:     sha256.Sum256([]byte("nonce")),
		Floors:    sampleFloor().Floors(),
		Registers: []Register{
			{Index: RegisterSlot, Kind: Observed, Extends: 1, Value: [32]byte{1}},
			{Index: RegisterUnitKey, Kind: Observed, Extends: 1, Value: [32]byte{2}},
			{Index: RegisterTree, Kind: Asserted, Extends: 0x1234, Value: [32]byte{3}},
		},
	}
}

func signFloor(t testing.TB, s *FloorStatement, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	msg, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return AppendSigned(msg, signAll(DomainFloor, msg, keys...))
}

func signAll(domain string, msg []byte, keys ...ed25519.PrivateKey) []Signature {
	var sigs []Signature
	for _, k := range keys {
		sigs = append(sigs, Sign(domain, k, msg))
	}
	return sigs
}

func TestThreshold(t *testing.T) {
	msg := []byte("document")
	sign := func(n byte) Signature { return Sign(DomainSlot, owner(n), msg) }
	broken := sign(2)
	broken.Sig[10] ^= 1
	renamed := sign(9) // a stranger who claims to be owner 2
	renamed.KeyID = IDOf(public(owner(2)))
	other := Sign(DomainFloor, owner(2), msg) // right key, other domain
	longer := Sign(DomainSlot, owner(2), append(msg, 'x'))

	tests := []struct {
		name string
		sigs []Signature
		got  int // 2: accepted
	}{
		{"two owners", []Signature{sign(1), sign(2)}, 2},
		{"two owners, other order", []Signature{sign(3), sign(1)}, 2},
		{"three owners", []Signature{sign(1), sign(2), sign(3)}, 2},
		{"two owners among strangers", []Signature{sign(8), sign(1), sign(9), sign(2)}, 2},
		{"good after broken of the same key", []Signature{broken, sign(1), sign(2)}, 2},
		{"nobody", nil, 0},
		{"one owner", []Signature{sign(1)}, 1},
		{"one owner twice", []Signature{sign(1), sign(1)}, 1},
		{"one owner eight times", []Signature{sign(1), sign(1), sign(1), sign(1), sign(1), sign(1), sign(1), sign(1)}, 1},
		{"owner and stranger", []Signature{sign(1), sign(9)}, 1},
		{"two strangers", []Signature{sign(8), sign(9)}, 0},
		{"broken signature", []Signature{sign(1), broken}, 1},
		{"stranger under an owner's name", []Signature{sign(1), renamed}, 1},
		{"other domain", []Signature{sign(1), other}, 1},
		{"other document", []Signature{sign(1), longer}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := owners().Verify(DomainSlot, msg, tt.sigs)
			if tt.got == 2 {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var te *ThresholdError
			if !errors.As(err, &te) || te.Got != tt.got || te.Want != 2 {
				t.Fatalf("err = %v, want %d of 2", err, tt.got)
			}
		})
	}
}

func TestKeyringRefusesToDecide(t *testing.T) {
	msg := []byte("document")
	p1, p2 := public(owner(1)), public(owner(2))
	sigs := signAll(DomainSlot, msg, owner(1), owner(2))
	nine := make([]ed25519.PublicKey, MaxKeys+1)
	for i := range nine {
		nine[i] = public(owner(byte(i + 1)))
	}
	tests := map[string]*Keyring{
		"nil":                    nil,
		"zero":                   {},
		"no threshold":           {Keys: []ed25519.PublicKey{p1, p2}},
		"negative threshold":     {Keys: []ed25519.PublicKey{p1, p2}, Threshold: -1},
		"threshold beyond keys":  {Keys: []ed25519.PublicKey{p1, p2}, Threshold: 3},
		"one key twice":          {Keys: []ed25519.PublicKey{p1, p1}, Threshold: 2},
		"one key twice, want 1":  {Keys: []ed25519.PublicKey{p1, p1}, Threshold: 1},
		"short key":              {Keys: []ed25519.PublicKey{p1, p2[:31]}, Threshold: 1},
		"empty key":              {Keys: []ed25519.PublicKey{p1, nil}, Threshold: 1},
		"more keys than allowed": {Keys: nine, Threshold: 2},
	}
	for name, k := range tests {
		t.Run(name, func(t *testing.T) {
			if err := k.Verify(DomainSlot, msg, sigs); !errors.Is(err, ErrKeyring) {
				t.Errorf("Verify = %v, want ErrKeyring", err)
			}
		})
	}
	good := Keyring{Keys: nine[:MaxKeys], Threshold: 2}
	if err := good.Verify(DomainSlot, msg, sigs); err != nil {
		t.Errorf("good keyring refuses: %v", err)
	}
}

func TestSigners(t *testing.T) {
	msg := []byte("document")
	got := owners().Signers(DomainSlot, msg, signAll(DomainSlot, msg, owner(3), owner(9), owner(1)))
	if want := []bool{true, false, true}; !equal(got, want) {
		t.Errorf("Signers = %v, want %v", got, want)
	}
}

func equal(a, b []bool) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestDomainsAreApart signs one document in each domain and shows that no
// signature counts in another.
func TestDomainsAreApart(t *testing.T) {
	domains := []string{DomainSlot, DomainFloor, DomainEvidence}
	k := &Keyring{Keys: []ed25519.PublicKey{public(owner(1))}, Threshold: 1}
	msg := []byte("document")
	for _, signed := range domains {
		if strings.ContainsRune(signed, 0) || len(signed)+1+32 > preimageMax {
			t.Errorf("domain %q cannot be used", signed)
		}
		for _, read := range domains {
			err := k.Verify(read, msg, signAll(signed, msg, owner(1)))
			if (err == nil) != (signed == read) {
				t.Errorf("signed in %q, read in %q: %v", signed, read, err)
			}
		}
	}
}

// TestEveryByteOfAContainer flips each byte of a container in turn: every
// flip must be refused, but those in the signature of the one owner more than
// the threshold needs.
func TestEveryByteOfAContainer(t *testing.T) {
	msg, err := sampleManifest().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	exact := AppendSigned(msg, signAll(DomainSlot, msg, owner(1), owner(2)))
	if _, err := owners().Open(DomainSlot, exact); err != nil {
		t.Fatalf("good container refused: %v", err)
	}
	for i := range exact {
		for _, mask := range []byte{0x01, 0x80, 0xFF} {
			bad := bytes.Clone(exact)
			bad[i] ^= mask
			if _, err := owners().Open(DomainSlot, bad); err == nil {
				t.Fatalf("byte %d flipped by %#x: accepted", i, mask)
			}
		}
	}
	for n := range exact {
		if _, err := owners().Open(DomainSlot, exact[:n]); err == nil {
			t.Fatalf("cut to %d bytes: accepted", n)
		}
	}
	if _, err := owners().Open(DomainSlot, append(bytes.Clone(exact), 0)); err == nil {
		t.Fatal("trailing byte: accepted")
	}

	spare := AppendSigned(msg, signAll(DomainSlot, msg, owner(1), owner(2), owner(3)))
	for i := len(spare) - SignatureSize; i < len(spare); i++ {
		bad := bytes.Clone(spare)
		bad[i] ^= 1
		if _, err := owners().Open(DomainSlot, bad); err != nil {
			t.Fatalf("third signature damaged at %d: refused: %v", i, err)
		}
	}
}

func TestContainerRoundTrip(t *testing.T) {
	for n := 0; n <= MaxSignatures; n++ {
		msg := []byte("document")
		var sigs []Signature
		for i := range n {
			sigs = append(sigs, Sign(DomainSlot, owner(byte(i+1)), msg))
		}
		b := AppendSigned(msg, sigs)
		gotMsg, gotSigs, err := SplitSigned(b)
		if err != nil || !bytes.Equal(gotMsg, msg) || len(gotSigs) != n {
			t.Fatalf("%d signatures: %q, %d, %v", n, gotMsg, len(gotSigs), err)
		}
		for i := range sigs {
			if gotSigs[i] != sigs[i] {
				t.Fatalf("signature %d differs", i)
			}
		}
	}
	// A huge document length must not make anything of that size.
	if _, _, err := SplitSigned([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0}); err == nil {
		t.Error("document of 4 GiB in 5 bytes accepted")
	}
	if _, _, err := SplitSigned(AppendSigned(make([]byte, MaxSlotManifest+1), nil)); err == nil {
		t.Error("document beyond MaxSlotManifest accepted")
	}
}

func TestSlotManifestFields(t *testing.T) {
	good, err := sampleManifest().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ParseSlotManifest(good); err != nil {
		t.Fatal(err)
	} else if again, err := m.MarshalBinary(); err != nil || !bytes.Equal(again, good) {
		t.Fatalf("encoding is not stable: %v", err)
	}
	tests := []struct {
		field string
		spoil func(b []byte) []byte
	}{
		{"length", func(b []byte) []byte { return nil }},
		{"length", func(b []byte) []byte { return b[:slotHeaderSize-1] }},
		{"length", func(b []byte) []byte { return make([]byte, MaxSlotManifest+1) }},
		{"magic", func(b []byte) []byte { b[0] = 'r'; return b }},
		{"magic", func(b []byte) []byte { b[3] = 'L'; return b }},
		{"layout", func(b []byte) []byte { b[4] = 2; return b }},
		{"version length", func(b []byte) []byte { b[5] = 0; return b }},
		{"version length", func(b []byte) []byte { b[5] = 33; return b }},
		{"padding", func(b []byte) []byte { b[5]--; return b }},
		{"version", func(b []byte) []byte { b[5]++; return b }},
		{"padding", func(b []byte) []byte { b[6] = 1; return b }},
		{"padding", func(b []byte) []byte { b[7] = 1; return b }},
		{"padding", func(b []byte) []byte { b[55] = 'x'; return b }},
		{"version", func(b []byte) []byte { b[24] = ' '; return b }},
		{"version", func(b []byte) []byte { b[24] = 0; return b }},
		{"version", func(b []byte) []byte { b[24] = 0x7F; return b }},
		{"version", func(b []byte) []byte { b[24] = 0xC3; return b }},
		{"image size", func(b []byte) []byte { clear(b[12:16]); return b }},
		{"image size", func(b []byte) []byte { b[12]++; return b }},
		{"image size", func(b []byte) []byte { b[15] = 0xFF; return b }},
		{"chunk size", func(b []byte) []byte { b[17] = 0x40; return b }},
		{"chunk size", func(b []byte) []byte { clear(b[16:20]); return b }},
		{"chunk count", func(b []byte) []byte { b[20]++; return b }},
		{"chunk count", func(b []byte) []byte { b[20]--; return b }},
		{"chunk count", func(b []byte) []byte { b[23] = 0xFF; return b }},
		{"chunk count", func(b []byte) []byte { b[20] = 2; return b[:len(b)-32] }},
		{"chunk count", func(b []byte) []byte { b[20] = 4; return append(b, make([]byte, 32)...) }},
		{"chunk count", func(b []byte) []byte { return append(b, 0) }},
		{"chunk count", func(b []byte) []byte { return b[:len(b)-1] }},
	}
	for _, tt := range tests {
		_, err := ParseSlotManifest(tt.spoil(bytes.Clone(good)))
		var fe *FormatError
		if !errors.As(err, &fe) || fe.Field != tt.field {
			t.Errorf("%s: err = %v", tt.field, err)
		}
	}
	for _, spoil := range []func(m *SlotManifest){
		func(m *SlotManifest) { m.Version = "" },
		func(m *SlotManifest) { m.Version = strings.Repeat("v", MaxVersion+1) },
		func(m *SlotManifest) { m.Version = "a b" },
		func(m *SlotManifest) { m.ImageSize = 0 },
		func(m *SlotManifest) { m.ImageSize = MaxImageSize + BlockSize },
		func(m *SlotManifest) { m.ChunkSize = 4096 },
		func(m *SlotManifest) { m.Chunks = m.Chunks[:1] },
	} {
		m := sampleManifest()
		spoil(m)
		if _, err := m.MarshalBinary(); err == nil {
			t.Errorf("encoded %+v", m)
		}
	}
}

func TestSlotManifestAtItsBounds(t *testing.T) {
	m := &SlotManifest{
		Version:   strings.Repeat("v", MaxVersion),
		ImageSize: MaxImageSize,
		ChunkSize: ChunkSize,
		Chunks:    make([][32]byte, MaxChunks),
	}
	b, err := m.MarshalBinary()
	if err != nil || len(b) != MaxSlotManifest {
		t.Fatalf("%d bytes, %v; want %d", len(b), err, MaxSlotManifest)
	}
	if got, err := ParseSlotManifest(b); err != nil || got.Version != m.Version {
		t.Fatal(err)
	}
	var sigs []Signature
	for i := range MaxSignatures {
		sigs = append(sigs, Sign(DomainSlot, owner(byte(i+1)), b))
	}
	if got := len(AppendSigned(b, sigs)); got != MaxSigned {
		t.Errorf("largest container is %d bytes, MaxSigned says %d", got, MaxSigned)
	}
	if MaxSignedFloor > 1024 {
		t.Errorf("MaxSignedFloor = %d does not fit one message", MaxSignedFloor)
	}
}

func TestChunks(t *testing.T) {
	m, image := sampleManifest(), sampleImage()
	if m.Blocks() != uint32(len(image)/BlockSize) {
		t.Errorf("Blocks = %d", m.Blocks())
	}
	for i := range m.Chunks {
		data := bytes.Clone(image[i*ChunkSize:][:m.ChunkLength(i)])
		if !m.ChunkOK(i, data) {
			t.Errorf("chunk %d refused", i)
		}
		if m.ChunkOK((i+1)%len(m.Chunks), data) || m.ChunkOK(i, data[1:]) || m.ChunkOK(-1, data) || m.ChunkOK(len(m.Chunks), data) {
			t.Errorf("chunk %d accepted where it is not", i)
		}
		for _, at := range []int{0, len(data) / 2, len(data) - 1} {
			data[at] ^= 1
			if m.ChunkOK(i, data) {
				t.Errorf("chunk %d with byte %d flipped accepted", i, at)
			}
			data[at] ^= 1
		}
	}
	if m.ChunkLength(0) != ChunkSize || m.ChunkLength(2) != ChunkSize/2 || m.ChunkLength(3) != 0 || m.ChunkLength(-1) != 0 {
		t.Error("chunk lengths are wrong")
	}
}

func TestRaise(t *testing.T) {
	const booted = 4
	start := Floors{Sequence: 5, RootVersion: 2, BootSecurity: 3, Tree: sampleFloor().Tree, Commit: sampleFloor().Commit}
	next := func(f func(s *FloorStatement)) *FloorStatement {
		s := sampleFloor()
		s.Sequence, s.Tree, s.Commit = 6, sha256.Sum256([]byte("tree 6")), [20]byte{0xC0, 6}
		f(s)
		return s
	}
	same := func(f func(s *FloorStatement)) *FloorStatement {
		s := sampleFloor()
		f(s)
		return s
	}
	tests := []struct {
		name      string
		statement *FloorStatement
		field     string // of the FloorError; "" accepted
	}{
		{"equal", same(func(s *FloorStatement) {}), ""},
		{"equal, issued again later", same(func(s *FloorStatement) { s.Issued++ }), ""},
		{"next sequence", next(func(s *FloorStatement) {}), ""},
		{"far sequence", next(func(s *FloorStatement) { s.Sequence = 1 << 63 }), ""},
		{"higher root", next(func(s *FloorStatement) { s.RootVersion = 3 }), ""},
		{"higher root for the same sequence", same(func(s *FloorStatement) { s.RootVersion = 3 }), ""},
		{"boot floor at the booted slot", next(func(s *FloorStatement) { s.BootSecurity = booted }), ""},
		{"older sequence", next(func(s *FloorStatement) { s.Sequence = 4 }), "sequence"},
		{"sequence zero", next(func(s *FloorStatement) { s.Sequence = 0 }), "sequence"},
		{"other tree", same(func(s *FloorStatement) { s.Tree[31] ^= 1 }), "tree"},
		{"other commit", same(func(s *FloorStatement) { s.Commit[0] ^= 1 }), "commit"},
		{"older root", next(func(s *FloorStatement) { s.RootVersion = 1 }), "root version"},
		{"older boot floor", next(func(s *FloorStatement) { s.BootSecurity = 2 }), "boot security"},
		{"boot floor above the booted slot", next(func(s *FloorStatement) { s.BootSecurity = booted + 1 }), "boot security"},
		{"other rack", next(func(s *FloorStatement) { s.RackID[15] ^= 1 }), "rack"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := start
			err := f.Raise(owners(), sampleRack, booted, signFloor(t, tt.statement, owner(1), owner(3)))
			if tt.field == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if f != tt.statement.Floors() {
					t.Fatalf("floors are %+v", f)
				}
				return
			}
			var fe *FloorError
			if !errors.As(err, &fe) || fe.Field != tt.field || fe.Expected == "" || fe.Seen == "" {
				t.Fatalf("err = %v, want %s", err, tt.field)
			}
			if f != start {
				t.Fatalf("refused, and floors changed to %+v", f)
			}
		})
	}

	// Each floor alone: whatever is signed, nothing falls.
	t.Run("unsigned", func(t *testing.T) {
		good := next(func(s *FloorStatement) {})
		for name, signed := range map[string][]byte{
			"one owner":     signFloor(t, good, owner(1)),
			"one twice":     signFloor(t, good, owner(1), owner(1)),
			"strangers":     signFloor(t, good, owner(8), owner(9)),
			"nobody":        signFloor(t, good),
			"empty":         nil,
			"wrong domain":  wrongDomain(t, good),
			"slot manifest": signedSlot(t),
		} {
			f := start
			if err := f.Raise(owners(), sampleRack, booted, signed); err == nil || f != start {
				t.Errorf("%s: err = %v, floors changed: %v", name, err, f != start)
			}
		}
		f := Floors{}
		if err := f.Raise(owners(), sampleRack, booted, signFloor(t, good, owner(1), owner(2))); err != nil {
			t.Errorf("first statement of a new BMC refused: %v", err)
		}
	})
}

func wrongDomain(t *testing.T, s *FloorStatement) []byte {
	msg, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return AppendSigned(msg, signAll(DomainSlot, msg, owner(1), owner(2)))
}

func signedSlot(t *testing.T) []byte {
	msg, err := sampleManifest().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return AppendSigned(msg, signAll(DomainFloor, msg, owner(1), owner(2)))
}

// TestRaiseNeverLowers is a property: over any walk of statements, signed or
// spoiled, no floor ever falls and a refusal changes nothing.
func TestRaiseNeverLowers(t *testing.T) {
	var f Floors
	x := uint32(1)
	random := func(n uint32) uint32 { // xorshift: the walk is the same in each run
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		return x % n
	}
	accepted := 0
	for range 2000 {
		s := FloorStatement{
			RackID:       sampleRack,
			Sequence:     f.Sequence + uint64(random(4)) - 1,
			RootVersion:  f.RootVersion + random(3) - 1,
			BootSecurity: f.BootSecurity + random(3) - 1,
			Tree:         [32]byte{byte(random(2))},
		}
		signed := signFloor(t, &s, owner(1+byte(random(4))), owner(1+byte(random(4))))
		before := f
		if err := f.Raise(owners(), sampleRack, 20, signed); err != nil {
			if f != before {
				t.Fatalf("refused (%v) and changed", err)
			}
			continue
		}
		accepted++
		if f.Sequence < before.Sequence || f.RootVersion < before.RootVersion || f.BootSecurity < before.BootSecurity || f.BootSecurity > 20 {
			t.Fatalf("%+v fell to %+v", before, f)
		}
		if f.Sequence == before.Sequence && (f.Tree != before.Tree || f.Commit != before.Commit) {
			t.Fatalf("tree of sequence %d changed", f.Sequence)
		}
	}
	if accepted < 20 {
		t.Errorf("only %d statements accepted: the walk proves little", accepted)
	}
}

func TestFloorStatementFields(t *testing.T) {
	good, err := sampleFloor().MarshalBinary()
	if err != nil || len(good) != FloorStatementSize {
		t.Fatalf("%d bytes, %v", len(good), err)
	}
	want, err := ParseFloorStatement(good)
	if err != nil || want != *sampleFloor() {
		t.Fatalf("%+v, %v", want, err)
	}
	// Each byte either is refused or changes the statement; none is ignored.
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		if got, err := ParseFloorStatement(b); err == nil && got == want {
			t.Errorf("byte %d says nothing", i)
		}
	}
	for _, b := range [][]byte{nil, good[:FloorStatementSize-1], append(bytes.Clone(good), 0)} {
		if _, err := ParseFloorStatement(b); err == nil {
			t.Errorf("%d bytes accepted", len(b))
		}
	}
}

func TestEvidence(t *testing.T) {
	device, e := owner(7), sampleEvidence()
	signed, err := AppendSignedEvidence(nil, device, e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyEvidence(public(device), e.Nonce, signed)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := AppendSignedEvidence(nil, device, got); err != nil || !bytes.Equal(again, signed) {
		t.Fatalf("encoding is not stable: %v", err)
	}
	for i := range signed {
		for _, mask := range []byte{0x01, 0x80} {
			bad := bytes.Clone(signed)
			bad[i] ^= mask
			if _, err := VerifyEvidence(public(device), e.Nonce, bad); err == nil {
				t.Fatalf("byte %d flipped: accepted", i)
			}
		}
	}
	if _, err := VerifyEvidence(public(owner(8)), e.Nonce, signed); !errors.Is(err, ErrEvidenceSignature) {
		t.Errorf("other device: %v", err)
	}
	if _, err := VerifyEvidence(public(device), [32]byte{1}, signed); !errors.Is(err, ErrEvidenceNonce) {
		t.Errorf("other nonce: %v", err)
	}
	if _, err := VerifyEvidence(nil, e.Nonce, signed); err == nil {
		t.Error("no key: accepted")
	}
	if _, err := VerifyEvidence(public(device), e.Nonce, signed[:63]); err == nil {
		t.Error("short: accepted")
	}
	for _, spoil := range []struct {
		field string
		do    func(e *Evidence)
	}{
		{"slot", func(e *Evidence) { e.Slot = 0 }},
		{"flags", func(e *Evidence) { e.Flags = 1 << 15 }},
		{"register count", func(e *Evidence) { e.Registers = make([]Register, MaxRegisters+1) }},
		{"register order", func(e *Evidence) { e.Registers[0].Index = 9 }},
		{"register order", func(e *Evidence) { e.Registers[1].Index = e.Registers[0].Index }},
		{"register kind", func(e *Evidence) { e.Registers[0].Kind = 0 }},
		{"register kind", func(e *Evidence) { e.Registers[0].Kind = 3 }},
	} {
		e := sampleEvidence()
		spoil.do(e)
		_, err := AppendSignedEvidence(nil, device, e)
		var fe *FormatError
		if !errors.As(err, &fe) || fe.Field != spoil.field {
			t.Errorf("%s: err = %v", spoil.field, err)
		}
	}
	full := sampleEvidence()
	full.Registers = nil
	for i := range MaxRegisters {
		full.Registers = append(full.Registers, Register{Index: uint8(i), Kind: Observed})
	}
	if b, err := AppendSignedEvidence(nil, device, full); err != nil || len(b) != MaxSignedEvidence {
		t.Errorf("fullest evidence: %d bytes, %v; want %d", len(b), err, MaxSignedEvidence)
	}
}

// TestRailTexts pins the values of the rail register: a verifier compares what BMCs in the field sign with them.
func TestRailTexts(t *testing.T) {
	var r Register
	for _, c := range []struct{ text, want string }{
		{RailOn, "2785e09771f813d3ecfececcf7b94100012ec9ce83959df10b00f43a26559f68"},
		{RailReset, "09807baeae10e699fe8493416e71f8eda985cfcf0d37200948bf64ad7f9299f7"},
		{RailAdopted, "99fa30991653eedbe73733fc95ac26204b2e5048378e4f2521ad8a0941e61620"},
	} {
		r.Extend(sha256.Sum256([]byte(c.text)))
		if got := hex.EncodeToString(r.Value[:]); got != c.want {
			t.Errorf("after %q: %s, want %s", c.text, got, c.want)
		}
	}
}

func TestRegister(t *testing.T) {
	r := Register{Index: RegisterTree, Kind: Asserted}
	a, b := [32]byte{1}, [32]byte{2}
	r.Extend(a)
	r.Extend(b)
	first := sha256.Sum256(append(make([]byte, 32), a[:]...))
	want := sha256.Sum256(append(first[:], b[:]...))
	if r.Value != want || r.Extends != 2 {
		t.Errorf("register = %x after %d", r.Value, r.Extends)
	}
	swapped := Register{}
	swapped.Extend(b)
	swapped.Extend(a)
	if swapped.Value == r.Value {
		t.Error("order does not matter")
	}
	r.Extends = 0xFFFF
	r.Extend(a)
	if r.Extends != 0xFFFF {
		t.Error("extension count wrapped")
	}
	r.Set(a)
	if r.Value != a {
		t.Error("Set did not")
	}
	r.Reset()
	if (r != Register{Index: RegisterTree, Kind: Asserted}) {
		t.Errorf("after a power cycle: %+v", r)
	}
	if Observed.String() != "observed" || Asserted.String() != "asserted" || Kind(0).String() != "unknown" {
		t.Error("kinds are misnamed")
	}
}
