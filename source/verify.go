package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
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
	return out, nil
}

// roots walks from the anchor's root to the newest (TUF, 5.3).
func (v *verifier) roots(at time.Time) error {
	tuf, err := trustedmetadata.New(v.anchor.TUFRoot)
	if err != nil {
		return &Refusal{"tuf.root", "a root.json from the BMC that is signed by its own keys", firstLine(err)}
	}
	tuf.RefTime = at
	v.root = v.anchor.TUFRoot
	for range maxRoots {
		next := tuf.Root.Signed.Version + 1
		data, ok := v.bundle.Metadata[metadataPath(metadata.ROOT, next)]
		if !ok {
			break
		}
		old := tuf.Root
		if _, err := tuf.UpdateRoot(data); err != nil {
			return rootRefusal(old, next, data, err)
		}
		v.root = data
	}
	if floor := int64(v.anchor.Floors.RootVersion); tuf.Root.Signed.Version < floor {
		return &Refusal{"tuf.root", fmt.Sprintf("root version %d or newer", floor), fmt.Sprintf("version %d", tuf.Root.Signed.Version)}
	}
	v.tuf = tuf
	if v.owners, err = keyring(tuf.Root); err != nil {
		return &Refusal{"tuf.root", "owners with Ed25519 keys, no more than 8", firstLine(err)}
	}
	if tuf.Root.Signed.IsExpired(at) {
		return &expiredError{metadata.ROOT, tuf.Root.Signed.Expires}
	}
	return nil
}

func rootRefusal(old *metadata.Metadata[metadata.RootType], version int64, data []byte, err error) error {
	next, perr := metadata.Root().FromBytes(data)
	if perr != nil {
		return &Refusal{"tuf.metadata", fmt.Sprintf("%d.root.json", version), firstLine(perr)}
	}
	for _, by := range []*metadata.Metadata[metadata.RootType]{old, next} {
		if by.VerifyDelegate(metadata.ROOT, next) == nil {
			continue
		}
		d, derr := rootRole(by, metadata.ROOT)
		if derr != nil {
			break
		}
		expected, seen := signatures(d, next)
		return &Refusal{"tuf.root", fmt.Sprintf("%s of root %d", expected, by.Signed.Version), seen}
	}
	return &Refusal{"tuf.root", fmt.Sprintf("root version %d", version), firstLine(err)}
}

// file returns a file of the metadata ref.
func (v *verifier) file(name string) ([]byte, error) {
	data, ok := v.bundle.Metadata[name]
	if !ok {
		return nil, &Refusal{"tuf.metadata", name, "no such file"}
	}
	return data, nil
}

// roles verifies timestamp, snapshot and targets (TUF, 5.4 to 5.6), and notes
// who signed and what expires first.
func (v *verifier) roles(out *Verified) error {
	// Timestamp.
	data, err := v.file("metadata/timestamp.json")
	if err != nil {
		return err
	}
	if _, err := v.tuf.UpdateTimestamp(data); err != nil {
		if v.tuf.Timestamp != nil && v.tuf.Timestamp.Signed.IsExpired(v.tuf.RefTime) {
			return &expiredError{metadata.TIMESTAMP, v.tuf.Timestamp.Signed.Expires}
		}
		return roleRefusal(v, metadata.Timestamp(), metadata.TIMESTAMP, data, err)
	}
	link := v.tuf.Timestamp.Signed.Meta["snapshot.json"]
	if link == nil {
		return &Refusal{"tuf.timestamp", "a timestamp that names a snapshot", "none"}
	}

	// Snapshot.
	if data, err = v.file(metadataPath(metadata.SNAPSHOT, link.Version)); err != nil {
		return err
	}
	if _, err := v.tuf.UpdateSnapshot(data, false); err != nil {
		s := v.tuf.Snapshot
		switch {
		case s == nil:
			return v.snapshotRefusal(data, err)
		case s.Signed.Version != link.Version:
			return &Refusal{"tuf.snapshot", fmt.Sprintf("version %d", link.Version), fmt.Sprintf("version %d", s.Signed.Version)}
		}
		return &expiredError{metadata.SNAPSHOT, s.Signed.Expires}
	}
	link = v.tuf.Snapshot.Signed.Meta["targets.json"]
	if link == nil {
		return &Refusal{"tuf.snapshot", "a snapshot that names the targets", "none"}
	}

	// Targets.
	if data, err = v.file(metadataPath(metadata.TARGETS, link.Version)); err != nil {
		return err
	}
	if v.targets, err = v.tuf.UpdateTargets(data); err != nil {
		m, perr := metadata.Targets().FromBytes(data)
		if perr == nil && v.tuf.Root.VerifyDelegate(metadata.TARGETS, m) == nil {
			if m.Signed.Version != link.Version {
				return &Refusal{"tuf.targets", fmt.Sprintf("version %d", link.Version), fmt.Sprintf("version %d", m.Signed.Version)}
			}
			if m.Signed.IsExpired(v.tuf.RefTime) {
				return &expiredError{metadata.TARGETS, m.Signed.Expires}
			}
		}
		return roleRefusal(v, metadata.Targets(), metadata.TARGETS, data, err)
	}
	d, err := rootRole(v.tuf.Root, metadata.TARGETS)
	if err != nil {
		return &Refusal{"tuf.root", "a role for targets", firstLine(err)}
	}
	out.Signers, _ = signers(d, v.targets)
	slices.Sort(out.Signers)
	out.Expires = v.tuf.Root.Signed.Expires
	for _, t := range []time.Time{v.tuf.Timestamp.Signed.Expires, v.tuf.Snapshot.Signed.Expires, v.targets.Signed.Expires} {
		if t.Before(out.Expires) {
			out.Expires = t
		}
	}
	return nil
}

// roleRefusal says why the library did not accept a role's metadata.
func roleRefusal[T metadata.Roles](v *verifier, m *metadata.Metadata[T], role string, data []byte, err error) error {
	if _, perr := m.FromBytes(data); perr != nil {
		return &Refusal{"tuf.metadata", role + ".json", firstLine(perr)}
	}
	if v.tuf.Root.VerifyDelegate(role, m) != nil {
		if d, derr := rootRole(v.tuf.Root, role); derr == nil {
			expected, seen := signatures(d, m)
			return &Refusal{"tuf." + role, expected, seen}
		}
	}
	return &Refusal{"tuf." + role, role + " that follows from what is trusted", firstLine(err)}
}

// snapshotRefusal is for a snapshot that the library did not accept. The owners
// sign targets and snapshot in one go, so when both lack signatures it is the
// targets that people want to hear of.
func (v *verifier) snapshotRefusal(data []byte, err error) error {
	m, perr := metadata.Snapshot().FromBytes(data)
	if perr == nil && v.tuf.Root.VerifyDelegate(metadata.SNAPSHOT, m) != nil {
		if link := m.Signed.Meta["targets.json"]; link != nil {
			data := v.bundle.Metadata[metadataPath(metadata.TARGETS, link.Version)]
			t, perr := metadata.Targets().FromBytes(data)
			if perr == nil && v.tuf.Root.VerifyDelegate(metadata.TARGETS, t) != nil {
				return roleRefusal(v, t, metadata.TARGETS, data, err)
			}
		}
	}
	return roleRefusal(v, metadata.Snapshot(), metadata.SNAPSHOT, data, err)
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

// tree returns the files of a folder of the target's commit, checked against
// the commit's and the target's digests.
func (v *verifier) tree(t *target, folder string) ([]File, error) {
	id, ok := parseID(t.Commit)
	if !ok {
		return nil, &Refusal{"rack.commit", "40 hexadecimal digits", t.Commit}
	}
	raw, err := v.bundle.objects.lookup(id, plumbing.CommitObject)
	if errors.Is(err, errMissing) {
		return nil, &Refusal{"rack.commit", t.Commit + " on " + t.Ref, "no such commit; the ref is at " + v.bundle.Tip}
	}
	var c commit
	if err == nil {
		c, err = parseCommit(raw)
	}
	if err != nil {
		return nil, &Refusal{"rack.commit", t.Commit, firstLine(err)}
	}
	sum, files, err := v.bundle.objects.digest(c.tree, folder)
	if err != nil {
		return nil, &Refusal{"rack.tree", string(t.Tree), firstLine(err)}
	}
	if got := rack.DigestOf(sum); got != t.Tree {
		return nil, &Refusal{"rack.tree", string(t.Tree), string(got)}
	}
	return files, nil
}

// digest returns the files of a folder and their digest; a folder that is not
// there has none.
func (o objects) digest(root objectID, folder string) ([32]byte, []File, error) {
	id, ok, err := o.folder(root, folder)
	if err != nil || !ok {
		return TreeDigest(nil), nil, err
	}
	files, err := o.files(id, folder)
	return TreeDigest(files), files, err
}

// releases checks that each release file is a target as signed.
func (v *verifier) releases(files []File) error {
	for _, f := range files {
		if !inFolder(f.Path, releasesDir) {
			continue
		}
		info := v.targets.Signed.Targets[f.Path]
		if info == nil {
			return &Refusal{"tuf.targets", "a target " + f.Path, "none"}
		}
		if info.VerifyLengthHashes(f.Content) != nil {
			return &Refusal{"tuf.targets", f.Path + " with SHA-256 " + info.Hashes["sha256"].String(), hexSum(f.Content)}
		}
	}
	return nil
}

// slots returns the signed slot manifests of the releases. One that is not
// there is left out, one that is wrong is refused.
func (v *verifier) slots(set *manifest.Set) (map[rack.Digest][]byte, error) {
	slots := map[rack.Digest][]byte{}
	for name, release := range set.Releases {
		boot := release.Spec.Boot
		signed, ok := v.bundle.Metadata[slotPath(boot.SlotManifest.Hex())]
		if !ok {
			continue
		}
		msg, _, err := trust.SplitSigned(signed)
		if err != nil {
			return nil, &Refusal{"slot.manifest", "slot manifest of release " + name, firstLine(err)}
		}
		if got := rack.SHA256(msg); got != boot.SlotManifest {
			return nil, &Refusal{"slot.manifest", string(boot.SlotManifest), string(got)}
		}
		if _, err := v.owners.Open(trust.DomainSlot, signed); err != nil {
			return nil, &Refusal{"slot.signature", fmt.Sprintf("%d signatures of owners", v.owners.Threshold), firstLine(err)}
		}
		if err := slotMatches(msg, release); err != nil {
			return nil, &Refusal{"slot.manifest", "slot manifest that fits release " + name, firstLine(err)}
		}
		slots[boot.SlotManifest] = signed
	}
	return slots, nil
}

// slotMatches compares a slot manifest with the release that names it.
func slotMatches(msg []byte, release *rack.Release) error {
	m, err := trust.ParseSlotManifest(msg)
	if err != nil {
		return err
	}
	if got, want := m.SecurityVersion, release.Spec.SecurityVersion; got != want {
		return fmt.Errorf("security version %d, the release says %d", got, want)
	}
	if got, want := rack.DigestOf(m.Kernel), release.Spec.Boot.Kernel; got != want {
		return fmt.Errorf("kernel %s, the release says %s", got, want)
	}
	return nil
}

// apps returns the files under apps/ as the operator signed them. They follow
// the rack's metadata, and no fault of theirs keeps a unit from booting.
func (v *verifier) apps() ([]File, string, *Refusal) {
	files, commit, err := v.appsFiles()
	var refusal *Refusal
	if err != nil && !errors.As(err, &refusal) {
		refusal = &Refusal{"tuf.targets", "apps signed by the operator", firstLine(err)}
	}
	return files, commit, refusal
}

func (v *verifier) appsFiles() ([]File, string, error) {
	link := v.tuf.Timestamp.Signed.Meta["apps.json"]
	d, delegated := appsRole(v.tuf.Root, v.targets)
	if link == nil || !delegated {
		return nil, "", nil
	}
	data, err := v.file(metadataPath(roleApps, link.Version))
	if err != nil {
		return nil, "", err
	}
	m, err := metadata.Targets().FromBytes(data)
	if err != nil {
		return nil, "", &Refusal{"tuf.metadata", "apps.json", firstLine(err)}
	}
	if v.targets.VerifyDelegate(roleApps, m) != nil {
		expected, seen := signatures(d, m)
		return nil, "", &Refusal{"tuf.targets", expected + " for apps", seen}
	}
	if m.Signed.Version != link.Version {
		return nil, "", &Refusal{"tuf.targets", fmt.Sprintf("apps version %d", link.Version), fmt.Sprintf("version %d", m.Signed.Version)}
	}
	if m.Signed.IsExpired(v.tuf.RefTime) {
		return nil, "", &Refusal{"tuf.targets.expired", "apps valid at " + day(v.now), "expired " + day(m.Signed.Expires)}
	}
	t, err := v.namedTarget(m, "apps.json")
	if err != nil {
		return nil, "", err
	}
	if err := v.place(t); err != nil {
		return nil, "", err
	}
	files, err := v.tree(t, appsDir)
	if err != nil {
		return nil, "", err
	}
	return files, t.Commit, nil
}

// firstLine is an error for the Seen of a Refusal.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
