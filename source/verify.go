package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
)

// Verify decides whether a bundle holds state that the owners signed, at a
// time that the caller knows. The error is a *Refusal that names the first
// check that failed, in this order: the chain of roots from the anchor's, the
// timestamp, the snapshot, the targets, expiry, rack.json (rack, repository,
// ref, sequence), the floor statement, the commit, the tree, the rack's
// objects, the slot manifests.
//
// Expired metadata is accepted only for exactly the version accepted last:
// sequence, tree and commit equal to the anchor's floors. Then Stale is set.
func Verify(b *Bundle, a Anchor, now time.Time) (*Verified, error) {
	v := &verifier{bundle: b, anchor: a, now: now}
	out, err := v.run(now)
	var expired *expiredError
	if !errors.As(err, &expired) {
		return out, err
	}
	// Once more without looking at dates, which says what it is that has
	// expired; nothing but the last accepted version may be.
	out, err = v.run(time.Time{})
	if err != nil {
		return nil, err
	}
	last := trust.Floors{Sequence: out.Sequence, Tree: out.TreeDigest, Commit: a.Floors.Commit,
		RootVersion: a.Floors.RootVersion, BootSecurity: a.Floors.BootSecurity}
	if last != a.Floors || a.Floors.Sequence == 0 || hex.EncodeToString(a.Floors.Commit[:]) != out.Commit {
		return nil, &Refusal{
			Check:    "tuf." + expired.role + ".expired",
			Expected: fmt.Sprintf("metadata valid at %s, or sequence %d, the last accepted", day(now), a.Floors.Sequence),
			Seen:     fmt.Sprintf("sequence %d, expired %s", out.Sequence, day(expired.at)),
		}
	}
	out.Stale = true
	return out, nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// expiredError says which role has expired.
type expiredError struct {
	role string
	at   time.Time
}

func (e *expiredError) Error() string { return e.role + " expired " + day(e.at) }

// verifier holds what one verification has come to trust so far.
type verifier struct {
	bundle *Bundle
	anchor Anchor
	now    time.Time

	tuf     *trustedmetadata.TrustedMetadata
	root    []byte
	targets *metadata.Metadata[metadata.TargetsType]
	owners  trust.Keyring
}

// run verifies at a reference time, the zero time being before every date.
func (v *verifier) run(at time.Time) (*Verified, error) {
	out := &Verified{}
	if err := v.roots(at); err != nil {
		return nil, err
	}
	if err := v.roles(out); err != nil {
		return nil, err
	}
	t, err := v.rackTarget()
	if err != nil {
		return nil, err
	}
	out.Sequence, out.Commit, out.Root, out.Owners = t.Sequence, t.Commit, v.root, v.owners
	if out.TreeDigest, err = t.Tree.Sum(); err != nil {
		return nil, &Refusal{"tuf.targets", "a tree digest in rack.json", string(t.Tree)}
	}
	if err := v.sequence(out); err != nil {
		return nil, err
	}
	if out.FloorStatement, err = v.floor(out); err != nil {
		return nil, err
	}
	files, err := v.tree(t, rackDir)
	if err != nil {
		return nil, err
	}
	if out.Set, err = manifest.Load(newFS(files)); err != nil {
		return nil, &Refusal{"rack.manifest", "valid rack objects", firstLine(err)}
	}
	if id := out.Set.Rack.Spec.ID; !strings.EqualFold(id, v.anchor.RackID) {
		return nil, &Refusal{"rack.repository", "rack " + v.anchor.RackID, "rack " + id}
	}
	if err := v.releases(files); err != nil {
		return nil, err
	}
	if out.Slots, err = v.slots(out.Set); err != nil {
		return nil, err
	}
	apps, commit, refusal := v.apps()
	if refusal == nil {
		files = append(files, apps...)
	}
	out.AppsCommit, out.AppsRefusal = commit, refusal
	out.FS = newFS(files)
	out.Pending = v.pending(out)
	return out, nil
}

// rackTarget returns rack.json, which the targets name by hash, and checks
// that it is for this rack.
func (v *verifier) rackTarget() (*target, error) {
	t, err := v.namedTarget(v.targets, "rack.json")
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(t.Rack, v.anchor.RackID) {
		return nil, &Refusal{"rack.repository", "rack " + v.anchor.RackID, "rack " + t.Rack}
	}
	if err := v.place(t); err != nil {
		return nil, err
	}
	if t.Sequence == 0 || uint64(v.targets.Signed.Version) != t.Sequence {
		return nil, &Refusal{"rack.sequence", fmt.Sprintf("sequence %d, as the version of the targets", v.targets.Signed.Version), fmt.Sprint(t.Sequence)}
	}
	return t, nil
}

// namedTarget returns rack.json or apps.json as signed.
func (v *verifier) namedTarget(m *metadata.Metadata[metadata.TargetsType], name string) (*target, error) {
	info := m.Signed.Targets[name]
	if info == nil {
		return nil, &Refusal{"tuf.targets", "a target " + name, "none"}
	}
	data, err := v.file(targetPath(name, info.Hashes["sha256"].String()))
	if err != nil {
		return nil, err
	}
	if err := info.VerifyLengthHashes(data); err != nil {
		return nil, &Refusal{"tuf.targets", name + " with SHA-256 " + info.Hashes["sha256"].String(), hexSum(data)}
	}
	t, err := parseTarget(data)
	if err != nil {
		return nil, &Refusal{"tuf.metadata", name, firstLine(err)}
	}
	return t, nil
}

func hexSum(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

// place checks repository and ref.
func (v *verifier) place(t *target) error {
	if want := v.anchor.Repository.URL; t.Repository != want && !slices.Contains(t.Alternatives, want) {
		return &Refusal{"rack.repository", want, t.Repository}
	}
	if want := v.anchor.Repository.Ref; t.Ref != want {
		return &Refusal{"rack.ref", want, t.Ref}
	}
	return nil
}

// sequence checks against what was accepted last.
func (v *verifier) sequence(out *Verified) error {
	f := v.anchor.Floors
	switch {
	case out.Sequence < f.Sequence:
		return &Refusal{"rack.sequence", fmt.Sprintf("sequence %d or higher", f.Sequence), fmt.Sprintf("sequence %d", out.Sequence)}
	case out.Sequence > f.Sequence:
		return nil
	case out.TreeDigest != f.Tree:
		return &Refusal{"rack.tree", fmt.Sprintf("%s for sequence %d, as accepted before", rack.DigestOf(f.Tree), f.Sequence), string(rack.DigestOf(out.TreeDigest))}
	case out.Commit != hex.EncodeToString(f.Commit[:]):
		return &Refusal{"rack.commit", fmt.Sprintf("%x for sequence %d, as accepted before", f.Commit, f.Sequence), out.Commit}
	}
	return nil
}

// floor returns the floor statement of the sequence after verifying it.
func (v *verifier) floor(out *Verified) ([]byte, error) {
	name := floorPath(out.Sequence)
	signed, ok := v.bundle.Metadata[name]
	if !ok {
		return nil, &Refusal{"floor.statement", name, "no such file"}
	}
	msg, err := v.owners.Open(trust.DomainFloor, signed)
	if err != nil {
		return nil, &Refusal{"floor.statement", fmt.Sprintf("%d signatures of owners", v.owners.Threshold), firstLine(err)}
	}
	s, err := trust.ParseFloorStatement(msg)
	if err != nil {
		return nil, &Refusal{"floor.statement", "a floor statement", firstLine(err)}
	}
	id, err := rack.ParseUUID(v.anchor.RackID)
	switch f := v.anchor.Floors; {
	case err != nil:
		return nil, &Refusal{"floor.identity", "a UUID as identifier of the rack", v.anchor.RackID}
	case s.RackID != id:
		return nil, &Refusal{"floor.identity", "rack " + v.anchor.RackID, fmt.Sprintf("rack %x", s.RackID)}
	case s.Sequence != out.Sequence:
		return nil, &Refusal{"floor.statement", fmt.Sprintf("a statement for sequence %d", out.Sequence), fmt.Sprintf("sequence %d", s.Sequence)}
	case s.Tree != out.TreeDigest:
		return nil, &Refusal{"floor.tree", string(rack.DigestOf(out.TreeDigest)), string(rack.DigestOf(s.Tree))}
	case hex.EncodeToString(s.Commit[:]) != out.Commit:
		return nil, &Refusal{"floor.tree", "commit " + out.Commit, fmt.Sprintf("commit %x", s.Commit)}
	case int64(s.RootVersion) > v.tuf.Root.Signed.Version:
		return nil, &Refusal{"tuf.root", fmt.Sprintf("root version %d or newer, as the floor statement says", s.RootVersion), fmt.Sprintf("version %d", v.tuf.Root.Signed.Version)}
	case s.RootVersion < f.RootVersion || s.BootSecurity < f.BootSecurity:
		return nil, &Refusal{"floor.rollback", fmt.Sprintf("root version %d, boot security %d or higher", f.RootVersion, f.BootSecurity), fmt.Sprintf("%d, %d", s.RootVersion, s.BootSecurity)}
	}
	return signed, nil
}

// firstLine is an error for the Seen of a Refusal.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
