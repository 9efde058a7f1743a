package trust

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata")

// A vector is one file of testdata/vectors, for other implementations too:
// lines "name: value", the verdict first, an empty line, and the bytes in hex.
// The keyring of all vectors is two of the three Ed25519 keys whose seeds are
// 32 bytes of 1, of 2 and of 3; the device key's seed is 32 bytes of 7. The
// rack is 0a010203 and twelve zero bytes, the booted slot has security version
// 4, the floors are those of raise-equal, the nonce is SHA-256("nonce").
type vector struct {
	name   string
	expect string // "accept" or the text of the error
	kind   string // "slot", "floor", "raise", "evidence"
	why    string
	body   []byte
}

func vectors(t *testing.T) []vector {
	slot, err := sampleManifest().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	slotSigned := func(keys ...byte) []byte {
		var sigs []Signature
		for _, k := range keys {
			sigs = append(sigs, Sign(DomainSlot, owner(k), slot))
		}
		return AppendSigned(slot, sigs)
	}
	floor := func(f func(s *FloorStatement), keys ...byte) []byte {
		s := sampleFloor()
		f(s)
		msg, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var sigs []Signature
		for _, k := range keys {
			sigs = append(sigs, Sign(DomainFloor, owner(k), msg))
		}
		return AppendSigned(msg, sigs)
	}
	edit := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	evidence, err := AppendSignedEvidence(nil, owner(7), sampleEvidence())
	if err != nil {
		t.Fatal(err)
	}
	otherNonce := sampleEvidence()
	otherNonce.Nonce = [32]byte{}
	stale, err := AppendSignedEvidence(nil, owner(7), otherNonce)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := AppendSignedEvidence(nil, owner(8), sampleEvidence())
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(*FloorStatement) {}
	return []vector{
		{"slot-two-owners", "accept", "slot", "owners 1 and 2 signed", slotSigned(1, 2)},
		{"slot-three-owners", "accept", "slot", "one more than needed, and not in order", slotSigned(3, 1, 2)},
		{"slot-one-owner", "signatures: got 1, want 2", "slot", "below the threshold", slotSigned(1)},
		{"slot-one-owner-twice", "signatures: got 1, want 2", "slot", "a key counts once", slotSigned(1, 1)},
		{"slot-stranger", "signatures: got 1, want 2", "slot", "key 9 is in no keyring", slotSigned(1, 9)},
		{"slot-unsigned", "signatures: got 0, want 2", "slot", "no signatures", slotSigned()},
		{"slot-flipped", "signatures: got 0, want 2", "slot", "one byte of a chunk hash", edit(slotSigned(1, 2), 4+90, 0x55)},
		{"slot-trailing", "container: bad signature count", "slot", "a byte too many", append(slotSigned(1, 2), 0)},
		{"slot-short", "container: bad signature count", "slot", "a byte missing", slotSigned(1, 2)[:len(slotSigned(1, 2))-1]},
		{"raise-equal", "accept", "raise", "the floors themselves", floor(nothing, 1, 2)},
		{"raise-next", "accept", "raise", "the next sequence with the booted slot's security version",
			floor(func(s *FloorStatement) {
				s.Sequence, s.BootSecurity, s.Tree, s.Commit = 6, 4, [32]byte{6}, [20]byte{6}
			}, 2, 3)},
		{"raise-replay", "floor sequence: expected at least 5, seen 4", "raise", "an older sequence",
			floor(func(s *FloorStatement) { s.Sequence = 4 }, 1, 2)},
		{"raise-same-sequence-other-tree", "floor tree: expected " + hex.EncodeToString(sliceOf(sampleFloor().Tree)) + ", seen " + strings.Repeat("00", 32), "raise", "one sequence is one tree",
			floor(func(s *FloorStatement) { s.Tree = [32]byte{} }, 1, 2)},
		{"raise-beyond-slot", "floor boot security: expected at most 4 (booted slot), seen 5", "raise", "would leave nothing to boot",
			floor(func(s *FloorStatement) { s.Sequence, s.BootSecurity = 6, 5 }, 1, 2)},
		{"raise-other-rack", "floor rack: expected 0a010203000000000000000000000000, seen 00000000000000000000000000000000", "raise", "signed for another rack",
			floor(func(s *FloorStatement) { s.RackID = [16]byte{} }, 1, 2)},
		{"raise-one-owner", "signatures: got 1, want 2", "raise", "below the threshold", floor(nothing, 3)},
		{"raise-slot-manifest", "signatures: got 0, want 2", "raise", "signed by two owners, as another document", slotSigned(1, 2)},
		{"raise-padding", "signatures: got 0, want 2", "raise", "reserved byte set after signing", edit(floor(nothing, 1, 2), 4+5, 1)},
		{"evidence", "accept", "evidence", "signed by the device key over the nonce", evidence},
		{"evidence-other-nonce", "evidence: not for this nonce", "evidence", "an answer to another question", stale},
		{"evidence-other-device", "evidence: not signed by the device key", "evidence", "signed by key 8", stranger},
		{"evidence-flipped", "evidence: not signed by the device key", "evidence", "void flag cleared or set", edit(evidence, 6, evidence[6]^1)},
	}
}

func sliceOf(a [32]byte) []byte { return a[:] }

func (v vector) verdict() string {
	var err error
	switch v.kind {
	case "slot":
		var msg []byte
		if msg, err = owners().Open(DomainSlot, v.body); err == nil {
			_, err = ParseSlotManifest(msg)
		}
	case "raise":
		floors := sampleFloor().Floors()
		err = floors.Raise(owners(), sampleRack, 4, v.body)
	case "evidence":
		_, err = VerifyEvidence(public(owner(7)), sampleEvidence().Nonce, v.body)
	default:
		return "unknown kind " + v.kind
	}
	if err != nil {
		return err.Error()
	}
	return "accept"
}

func (v vector) file() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "expect: %s\nkind: %s\nwhy: %s\n\n", v.expect, v.kind, v.why)
	for rest := v.body; len(rest) > 0; {
		n := min(32, len(rest))
		fmt.Fprintf(&b, "%x\n", rest[:n])
		rest = rest[n:]
	}
	return b.Bytes()
}

func parseVector(t *testing.T, file []byte) vector {
	t.Helper()
	head, body, ok := strings.Cut(string(file), "\n\n")
	if !ok {
		t.Fatal("no empty line")
	}
	if !strings.HasPrefix(head, "expect: ") {
		t.Fatal("does not open with its verdict")
	}
	var v vector
	for _, line := range strings.Split(head, "\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "expect":
			v.expect = value
		case "kind":
			v.kind = value
		case "why":
			v.why = value
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	var err error
	if v.body, err = hex.DecodeString(strings.ReplaceAll(body, "\n", "")); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVectors reads every vector from its file and compares the verdict. With
// -update it writes the files first.
func TestVectors(t *testing.T) {
	const dir = "testdata/vectors"
	want := map[string]bool{}
	for _, v := range vectors(t) {
		path := filepath.Join(dir, v.name+".txt")
		want[path] = true
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, v.file(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(file, v.file()) {
			t.Errorf("%s is not what this package makes", path)
		}
	}
	files, err := filepath.Glob(dir + "/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			v := parseVector(t, file)
			if got := v.verdict(); got != v.expect {
				t.Errorf("verdict %q, want %q", got, v.expect)
			}
			if !want[path] {
				t.Errorf("no test made %s", path)
			}
		})
	}
}
