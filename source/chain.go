package source

import (
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

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
