package enroll

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/enroll/api"
)

func refuse(check, expected, seen string) *api.Refusal {
	return &api.Refusal{Check: check, Expected: expected, Seen: seen}
}

// A board is what is known of a unit's BMC: where it sits and which key it was
// provisioned with.
type board struct {
	unit   string
	slot   uint8
	device ed25519.PublicKey
}

// examine decides whether signed evidence over nonce admits a unit that holds
// the key with the given digest. It is a pure function: evidence, references
// and nonce in, the state that the unit runs or a refusal out.
//
// What the BMC saw itself (slot, rail, key) is compared first, then what stage
// 1 asserted on the unit's word. Register 1, the order in which chunks of the
// boot medium were read, differs between boot ROMs and is not compared: the
// BMC checked each chunk against the manifest in register 0 when it served it.
func examine(b board, refs *references, key, nonce [32]byte, signed []byte) (*trust.Evidence, *State, *api.Refusal) {
	e, err := trust.VerifyEvidence(b.device, nonce, signed)
	switch {
	case errors.Is(err, trust.ErrEvidenceSignature):
		return nil, nil, refuse("evidence.signature", fmt.Sprintf("the signature of board %x", b.device[:8]), "another one")
	case errors.Is(err, trust.ErrEvidenceNonce):
		return nil, nil, refuse("evidence.signature", "evidence over the verifier's nonce", "evidence over another one")
	case err != nil:
		return nil, nil, refuse("evidence.format", "evidence of layout 1", err.Error())
	}
	if r := observed(b, e, key); r != nil {
		return e, nil, r
	}
	states := refs.admitting(b.unit)
	if len(states) == 0 {
		return e, nil, refuse("enroll.unit", "a signed state that names unit "+b.unit, "none")
	}
	s, r := asserted(e, b.unit, states)
	return e, s, r
}

// observed compares what the BMC saw.
func observed(b board, e *trust.Evidence, key [32]byte) *api.Refusal {
	if e.Slot != b.slot {
		return refuse("evidence.slot", fmt.Sprintf("slot %d", b.slot), fmt.Sprintf("slot %d", e.Slot))
	}
	for i, index := range []uint8{trust.RegisterSlot, trust.RegisterRail, trust.RegisterUnitKey, trust.RegisterTree, trust.RegisterOS, trust.RegisterRootHash, trust.RegisterHandover} {
		want := trust.Asserted
		if i < 3 {
			want = trust.Observed
		}
		if g := register(e, index); g == nil || g.Kind != want {
			return refuse("evidence.format", fmt.Sprintf("register %d, %s", index, want), "none")
		}
	}
	if g := register(e, trust.RegisterRail); e.Flags&trust.EvidenceVoid != 0 || g.Value != extended(sha256.Sum256([]byte(trust.RailOn))) {
		seen := fmt.Sprintf("%x", g.Value[:8])
		if e.Flags&trust.EvidenceVoid != 0 {
			seen = "void"
		}
		return refuse("evidence.rail", "one boot, watched since the rail came on", fmt.Sprintf("%s after %d entries", seen, g.Extends))
	}
	if g := register(e, trust.RegisterUnitKey); g.Value != key {
		return refuse("evidence.key", fmt.Sprintf("%x", key), fmt.Sprintf("%x", g.Value))
	}
	return nil
}

// asserted finds the state that the unit says it booted. If there is none it
// names the first register that differs, in the order of the boot, from the
// state that comes closest.
func asserted(e *trust.Evidence, unit string, states []*State) (*State, *api.Refusal) {
	var best *api.Refusal
	most := -1
	for _, s := range states {
		release := s.Releases[s.Units[unit]]
		passed, r := compare(e, s, &release)
		if r == nil {
			if e.Floors.Sequence > s.Sequence {
				r = refuse("evidence.floor", fmt.Sprintf("sequence %d or above, as the BMC's floor says", e.Floors.Sequence), fmt.Sprintf("sequence %d", s.Sequence))
			} else if e.Floors.BootSecurity > release.SecurityVersion {
				r = refuse("evidence.floor", fmt.Sprintf("security version %d or above", e.Floors.BootSecurity), fmt.Sprint(release.SecurityVersion))
			}
			passed++
		}
		if r == nil {
			return s, nil
		}
		if passed > most {
			best, most = r, passed
		}
	}
	return nil, best
}

// compare holds the registers against one state. passed counts those that
// agree, in the order of the boot.
func compare(e *trust.Evidence, s *State, release *rack.ReleaseSpec) (passed int, _ *api.Refusal) {
	hand, ok := handover(release)
	if !ok {
		return 0, refuse("evidence.handover", "a release that fixes its command line", "release "+release.Version+" does not")
	}
	for _, c := range []struct {
		check  string
		index  uint8
		digest rack.Digest
		what   string
	}{
		{"evidence.slot", trust.RegisterSlot, release.Boot.SlotManifest, "boot image of release " + release.Version},
		{"evidence.tree", trust.RegisterTree, s.Floor, fmt.Sprintf("sequence %d", s.Sequence)},
		{"evidence.os", trust.RegisterOS, release.OS.Digest, "operating system of release " + release.Version},
		{"evidence.root-hash", trust.RegisterRootHash, "sha256:" + rack.Digest(release.OS.RootHash), "root hash of release " + release.Version},
		{"evidence.handover", trust.RegisterHandover, rack.DigestOf(hand), "handover of release " + release.Version},
	} {
		sum, err := c.digest.Sum()
		if err != nil {
			return passed, refuse(c.check, "a release with digests", err.Error())
		}
		g, want := register(e, c.index), extended(sum)
		if !bytes.Equal(g.Value[:], want[:]) {
			seen := fmt.Sprintf("%x", g.Value)
			if g.Extends == 0 {
				seen = "nothing measured"
			}
			return passed, refuse(c.check, fmt.Sprintf("%s, register %d = %x", c.what, c.index, want), seen)
		}
		passed++
	}
	return passed, nil
}

func register(e *trust.Evidence, index uint8) *trust.Register {
	i := slices.IndexFunc(e.Registers, func(r trust.Register) bool { return r.Index == index })
	if i < 0 {
		return nil
	}
	return &e.Registers[i]
}
