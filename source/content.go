package source

import (
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
)

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
// the rack's metadata, and no fault of theirs keeps a unit from booting. Which
// of the operator's versions counts, until it expires, is the timestamp's to
// say: a BMC keeps no floor for apps (docs/security.md).
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
	if v.tuf.RefTime.IsZero() { // no floor guards them against older ones
		return nil, "", &Refusal{"rack.stale", "apps under metadata that has not expired", "expired metadata"}
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

// pending looks for what is newer than the verified state. A proposal is
// judged like published targets would be.
func (v *verifier) pending(out *Verified) *Refusal {
	newest := int64(0)
	for name := range v.bundle.Metadata {
		if n, ok := version(name, metadata.TARGETS); ok {
			newest = max(newest, n)
		}
	}
	if newest > int64(out.Sequence) {
		proposal := fmt.Sprintf("sequence %d: ", newest)
		m, err := metadata.Targets().FromBytes(v.bundle.Metadata[metadataPath(metadata.TARGETS, newest)])
		if err != nil {
			return &Refusal{"tuf.metadata", proposal + "targets.json", firstLine(err)}
		}
		if v.tuf.Root.VerifyDelegate(metadata.TARGETS, m) == nil {
			return &Refusal{"tuf.timestamp", proposal + "a timestamp that leads to it", fmt.Sprintf("sequence %d", out.Sequence)}
		}
		d, err := rootRole(v.tuf.Root, metadata.TARGETS)
		if err != nil {
			return nil
		}
		expected, seen := signatures(d, m)
		return &Refusal{"tuf.targets", proposal + expected, seen}
	}
	if tip := v.bundle.Tip; tip != out.Commit && tip != out.AppsCommit {
		return &Refusal{"rack.commit", out.Commit + ", which the owners signed", tip + " on " + v.anchor.Repository.Ref}
	}
	return nil
}
