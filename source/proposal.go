package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
)

// A draft is what HEAD would be published as.
type draft struct {
	target // rack.json without a sequence
	files  []File
	set    *manifest.Set
}

// draft reads HEAD.
func (p *publication) draft(o SignOptions) (*draft, error) {
	branch, head, err := p.clone.head()
	if err != nil {
		return nil, err
	}
	files, err := p.clone.commitFiles(head, rackDir)
	if err != nil {
		return nil, fmt.Errorf("read files of HEAD: %w", err)
	}
	if err := p.clone.checkClean(rackDir, files); err != nil {
		return nil, err
	}
	set, err := manifest.Load(newFS(files))
	if err != nil {
		return nil, fmt.Errorf("rack objects of HEAD: %w", err)
	}
	t := target{Ref: defaultRef}
	if last := p.lastTarget(); last != nil {
		t.Repository, t.Alternatives, t.Ref = last.Repository, last.Alternatives, last.Ref
	}
	if o.Repository != "" {
		t.Repository = o.Repository
	}
	if o.Alternatives != nil {
		t.Alternatives = o.Alternatives
	}
	if o.Ref != "" {
		t.Ref = o.Ref
	}
	if t.Repository == "" {
		return nil, errors.New("the repository's URL is not known yet: give it once")
	}
	if branch != t.Ref {
		return nil, fmt.Errorf("HEAD is on %s, the rack follows %s", branch, t.Ref)
	}
	t.Rack = set.Rack.Spec.ID
	t.Commit = head.String()
	t.Tree = rack.DigestOf(TreeDigest(files))
	return &draft{t, files, set}, nil
}

// proposalFor returns the version of the proposal for a draft, making one when
// the newest is another or grows old.
func (p *publication) proposalFor(want *draft, o SignOptions) (int64, error) {
	n := p.newest()
	if n > 0 && !(o.Renew && p.published() == n) {
		same, err := p.isFor(n, want, o)
		if err != nil {
			return 0, err
		}
		if same {
			return n, nil
		}
	}
	return n + 1, p.propose(n+1, want, o)
}

// isFor says whether a proposal is what the draft says, with dates that are
// neither nearly over nor further off than they may be.
func (p *publication) isFor(n int64, want *draft, o SignOptions) (bool, error) {
	has, err := p.bundle().target(metadata.TARGETS, n)
	if err != nil {
		return false, nil
	}
	t := want.target
	t.Sequence = uint64(n)
	a, err := json.Marshal(has)
	if err != nil {
		return false, err
	}
	b, err := json.Marshal(&t)
	if err != nil {
		return false, err
	}
	targets, snapshot, err := p.load(n)
	if err != nil {
		return false, err
	}
	for _, at := range []time.Time{targets.Signed.Expires, snapshot.Signed.Expires} {
		if left := at.Sub(p.now); left < TargetsLifetime/3 || left > TargetsLifetime {
			return false, nil
		}
	}
	for name, release := range want.set.Releases {
		if targets.Signed.Targets[slotTarget(release)] != nil {
			continue
		}
		if msg, err := p.slotManifest(release, o); err != nil {
			return false, fmt.Errorf("release %s: %w", name, err)
		} else if msg != nil {
			return false, nil // it could not be had when this was proposed
		}
	}
	s, err := p.floorStatement(n)
	if err != nil {
		return false, nil
	}
	return bytes.Equal(a, b) && s.BootSecurity >= o.BootSecurity && s.RootVersion == uint32(p.root.Signed.Version), nil
}

// propose writes an unsigned proposal.
func (p *publication) propose(n int64, want *draft, o SignOptions) error {
	t := want.target
	t.Sequence = uint64(n)
	content, err := json.Marshal(&t)
	if err != nil {
		return err
	}
	expires := p.now.Add(TargetsLifetime).Truncate(time.Second)
	targets := metadata.Targets(expires)
	targets.Signed.Version = n
	if err := p.addTarget(targets, "rack.json", content); err != nil {
		return err
	}
	if err := p.addReleases(targets, want, o); err != nil {
		return err
	}
	if targets.Signed.Delegations, err = p.delegations(); err != nil {
		return err
	}
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = n
	snapshot.Signed.Meta = map[string]*metadata.MetaFiles{"targets.json": metadata.MetaFile(n)}

	tree, err := t.Tree.Sum()
	if err != nil {
		return err
	}
	id, err := rack.ParseUUID(t.Rack)
	if err != nil {
		return err
	}
	commit, _ := parseID(t.Commit)
	floor := trust.FloorStatement{
		RackID:       id,
		Sequence:     uint64(n),
		RootVersion:  uint32(p.root.Signed.Version),
		BootSecurity: max(o.BootSecurity, p.lastBootSecurity()),
		Tree:         tree,
		Commit:       [20]byte(commit),
		Issued:       uint64(p.now.Unix()),
	}
	msg, err := floor.MarshalBinary()
	if err != nil {
		return err
	}
	p.files[floorPath(uint64(n))] = trust.AppendSigned(msg, nil)
	return p.store(n, targets, snapshot)
}

// signProposal adds a key's signatures, after comparing what cannot be read
// off rack.json with what this owner would have proposed.
func (p *publication) signProposal(n int64, key OwnerKey, want *draft, o SignOptions) (changed bool, err error) {
	targets, snapshot, err := p.load(n)
	if err != nil {
		return false, err
	}
	if err := p.checkForm(n, want, targets, snapshot); err != nil {
		return false, err
	}
	a, err := sign(targets, key)
	if err != nil {
		return false, err
	}
	b, err := sign(snapshot, key)
	if err != nil {
		return false, err
	}
	if err := p.store(n, targets, snapshot); err != nil {
		return false, err
	}
	s, err := p.floorStatement(n)
	if err != nil {
		return false, err
	}
	if s.RackID, err = rack.ParseUUID(want.Rack); err != nil {
		return false, err
	}
	msg, err := s.MarshalBinary()
	if err != nil {
		return false, err
	}
	c, err := p.signContainer(floorPath(uint64(n)), trust.DomainFloor, msg, key)
	if err != nil {
		return false, err
	}
	changed = a || b || c
	for _, name := range slices.Sorted(maps.Keys(want.set.Releases)) {
		d, err := p.signSlot(want.set.Releases[name], key, o)
		if err != nil {
			return false, fmt.Errorf("release %s: %w", name, err)
		}
		changed = changed || d
	}
	return changed, nil
}

// checkForm refuses to sign a proposal that says more than this program would
// have made it say: other targets, other delegations, other links.
func (p *publication) checkForm(n int64, want *draft, targets *metadata.Metadata[metadata.TargetsType], snapshot *metadata.Metadata[metadata.SnapshotType]) error {
	delegations, err := p.delegations()
	if err != nil {
		return err
	}
	a, err := json.Marshal(targets.Signed.Delegations)
	if err != nil {
		return err
	}
	b, err := json.Marshal(delegations)
	if err != nil {
		return err
	}
	link := snapshot.Signed.Meta["targets.json"]
	t, err := p.bundle().target(metadata.TARGETS, n)
	if err != nil {
		return err
	}
	s, err := p.floorStatement(n)
	if err != nil {
		return err
	}
	tree, err := t.Tree.Sum()
	if err != nil {
		return err
	}
	commit, _ := parseID(t.Commit)
	switch {
	case targets.Signed.Version != n || snapshot.Signed.Version != n,
		!goodTargets(targets.Signed.Targets, want),
		len(targets.Signed.UnrecognizedFields) != 0 || len(snapshot.Signed.UnrecognizedFields) != 0,
		!bytes.Equal(a, b),
		len(snapshot.Signed.Meta) != 1 || link == nil || link.Version != n,
		s.Sequence != uint64(n) || s.Tree != tree || s.Commit != [20]byte(commit),
		s.RootVersion != uint32(p.root.Signed.Version) || s.BootSecurity < p.lastBootSecurity():
		return fmt.Errorf("the proposal for sequence %d is not as this program makes them: ask who proposed it", n)
	}
	return nil
}

// addReleases makes targets of the release files, which lie in the signed
// tree, and of the slot manifests that can be had.
func (p *publication) addReleases(m *metadata.Metadata[metadata.TargetsType], want *draft, o SignOptions) error {
	add := func(name string, content []byte) error {
		info, err := metadata.TargetFile().FromBytes(name, content, "sha256")
		m.Signed.Targets[name] = info
		return err
	}
	for _, f := range want.files {
		if inFolder(f.Path, releasesDir) {
			if err := add(f.Path, f.Content); err != nil {
				return fmt.Errorf("target %s: %w", f.Path, err)
			}
		}
	}
	for name, release := range want.set.Releases {
		msg, err := p.slotManifest(release, o)
		if err != nil {
			return fmt.Errorf("release %s: %w", name, err)
		}
		if msg == nil {
			continue
		}
		if err := add(slotTarget(release), msg); err != nil {
			return fmt.Errorf("release %s: %w", name, err)
		}
	}
	return nil
}

// releasesDir is the folder whose files are targets each.
const releasesDir = rackDir + "/releases"

// slotTarget names the target of a release's slot manifest.
func slotTarget(r *rack.Release) string { return "slots/" + r.Spec.Boot.SlotManifest.Hex() }

// goodTargets says whether targets are rack.json, all release files of HEAD as
// they are, and slot manifests of these releases, nothing else.
func goodTargets(targets map[string]*metadata.TargetFiles, want *draft) bool {
	left := maps.Clone(targets)
	if left["rack.json"] == nil {
		return false
	}
	delete(left, "rack.json")
	for _, f := range want.files {
		if inFolder(f.Path, releasesDir) {
			if info := left[f.Path]; info == nil || info.VerifyLengthHashes(f.Content) != nil {
				return false
			}
			delete(left, f.Path)
		}
	}
	for _, r := range want.set.Releases {
		name := slotTarget(r)
		if info := left[name]; info != nil && "slots/"+info.Hashes["sha256"].String() == name {
			delete(left, name)
		}
	}
	return len(left) == 0
}

// signContainer adds a key's signature to the container in a file, which must
// hold this document.
func (p *publication) signContainer(name, domain string, msg []byte, key OwnerKey) (changed bool, err error) {
	var sigs []trust.Signature
	if old, ok := p.files[name]; ok {
		was, oldSigs, err := trust.SplitSigned(old)
		if err != nil || !bytes.Equal(was, msg) {
			return false, fmt.Errorf("%s holds something else than it should", name)
		}
		sigs = oldSigs
	}
	mine := trust.Sign(domain, key.Key, msg)
	if slices.Contains(sigs, mine) {
		return false, nil
	}
	sigs = slices.DeleteFunc(sigs, func(s trust.Signature) bool { return s.KeyID == mine.KeyID })
	sigs = append(sigs, mine)
	if len(sigs) > trust.MaxSignatures {
		return false, fmt.Errorf("%s has %d signatures already", name, trust.MaxSignatures)
	}
	slices.SortFunc(sigs, func(a, b trust.Signature) int { return bytes.Compare(a.KeyID[:], b.KeyID[:]) })
	p.files[name] = trust.AppendSigned(msg, sigs)
	return true, nil
}

// slotManifest returns a release's slot manifest, checked against the release;
// nil when it cannot be had.
func (p *publication) slotManifest(release *rack.Release, o SignOptions) ([]byte, error) {
	digest := release.Spec.Boot.SlotManifest
	var msg []byte
	if old, ok := p.files[slotPath(digest.Hex())]; ok {
		var err error
		if msg, _, err = trust.SplitSigned(old); err != nil {
			return nil, fmt.Errorf("signed slot manifest: %w", err)
		}
	} else if o.SlotManifest != nil {
		var err error
		if msg, err = o.SlotManifest(digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("slot manifest %s: %w", digest, err)
		}
	}
	if msg == nil {
		return nil, nil
	}
	if got := rack.SHA256(msg); got != digest {
		return nil, fmt.Errorf("slot manifest has digest %s, the release says %s", got, digest)
	}
	if err := slotMatches(msg, release); err != nil {
		return nil, fmt.Errorf("slot manifest: %w", err)
	}
	return msg, nil
}

// signSlot signs the slot manifest of a release when it can be had.
func (p *publication) signSlot(release *rack.Release, key OwnerKey, o SignOptions) (bool, error) {
	msg, err := p.slotManifest(release, o)
	if err != nil || msg == nil {
		return false, err
	}
	return p.signContainer(slotPath(release.Spec.Boot.SlotManifest.Hex()), trust.DomainSlot, msg, key)
}

// describe says how far a proposal is.
func (p *publication) describe(n int64) (*Proposal, error) {
	targets, snapshot, err := p.load(n)
	if err != nil {
		return nil, err
	}
	t, err := p.bundle().target(metadata.TARGETS, n)
	if err != nil {
		return nil, err
	}
	d, err := rootRole(p.root, metadata.TARGETS)
	if err != nil {
		return nil, err
	}
	out := &Proposal{
		Sequence:  uint64(n),
		Commit:    t.Commit,
		Tree:      t.Tree,
		Expires:   targets.Signed.Expires,
		Threshold: d.role.Threshold,
		Complete:  p.complete(n),
		Published: p.published() == n,
	}
	inTargets, _ := signers(d, targets)
	inSnapshot, _ := signers(d, snapshot)
	for _, id := range d.role.KeyIDs {
		name := d.name(id)
		if contains(inTargets, name) && contains(inSnapshot, name) {
			out.Signed = append(out.Signed, name)
		} else {
			out.Missing = append(out.Missing, name)
		}
	}
	for name := range p.files {
		if hex, ok := strings.CutPrefix(name, "slots/"); ok {
			out.Slots = append(out.Slots, "sha256:"+strings.TrimSuffix(hex, ".slot"))
		}
	}
	slices.Sort(out.Slots)
	return out, nil
}
