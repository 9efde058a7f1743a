package source

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/racklet/racklet/firmware/trust"
)

// A publication is the metadata ref of a clone, open for changes: all root
// metadata, what is published, and what is proposed. A proposal is metadata of
// a higher version than the one that timestamp leads to.
type publication struct {
	clone *clone
	ref   string
	now   time.Time
	root  *metadata.Metadata[metadata.RootType]
	files map[string][]byte // by path
}

func openPublication(dir, ref string, now time.Time) (*publication, error) {
	c, err := openClone(dir)
	if err != nil {
		return nil, err
	}
	if ref == "" {
		ref = DefaultMetadataRef
	}
	if now.IsZero() {
		now = time.Now()
	}
	id, err := c.ref(ref)
	if err != nil {
		return nil, fmt.Errorf("the repository has no metadata: %w", err)
	}
	b, err := gatherMetadata(c.store, id)
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	p := &publication{clone: c, ref: ref, now: now.UTC(), files: b.Metadata}
	if p.root, err = newestRoot(p.files); err != nil {
		return nil, err
	}
	return p, nil
}

// newestRoot follows the chain of roots from the first. An owner's clone is
// where it comes from; units start at the root that they were given.
func newestRoot(files map[string][]byte) (*metadata.Metadata[metadata.RootType], error) {
	tuf, err := trustedmetadata.New(files[metadataPath(metadata.ROOT, 1)])
	if err != nil {
		return nil, fmt.Errorf("read 1.root.json: %w", err)
	}
	for {
		next := tuf.Root.Signed.Version + 1
		data, ok := files[metadataPath(metadata.ROOT, next)]
		if !ok {
			return tuf.Root, nil
		}
		if _, err := tuf.UpdateRoot(data); err != nil {
			return nil, fmt.Errorf("read %d.root.json: %w", next, err)
		}
	}
}

// bundle is for reading targets.
func (p *publication) bundle() *Bundle { return &Bundle{Metadata: p.files} }

// save commits the files to the metadata ref.
func (p *publication) save(message string) error {
	_, err := p.clone.commit(p.ref, asFiles(p.files), message, p.now)
	if err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	return nil
}

// versions are those of targets metadata, rising.
func (p *publication) versions() []int64 {
	var versions []int64
	for name := range p.files {
		if v, ok := version(name, metadata.TARGETS); ok {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	return versions
}

// version reads the version out of a path of versioned metadata.
func version(name, role string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, "metadata/")
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, "."+role+".json"); !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	return v, err == nil && v > 0
}

// newest is the highest version of targets, 0 when there is none.
func (p *publication) newest() int64 {
	if v := p.versions(); len(v) > 0 {
		return v[len(v)-1]
	}
	return 0
}

// newestComplete is the highest version that enough owners signed, 0 when
// there is none.
func (p *publication) newestComplete() int64 {
	for _, v := range slices.Backward(p.versions()) {
		if p.complete(v) {
			return v
		}
	}
	return 0
}

// published is the version that the timestamp leads to, 0 when there is none.
func (p *publication) published() int64 {
	v, _ := p.bundle().leadsTo(metadata.TARGETS)
	return v
}

func (p *publication) appsVersion() int64 {
	v, _ := p.bundle().leadsTo(roleApps)
	return v
}

func (p *publication) timestampVersion() int64 {
	m, err := metadata.Timestamp().FromBytes(p.files["metadata/timestamp.json"])
	if err != nil {
		return 0
	}
	return m.Signed.Version
}

// lastTarget is the newest rack.json, nil when there is none.
func (p *publication) lastTarget() *target {
	t, err := p.bundle().target(metadata.TARGETS, p.newest())
	if err != nil {
		return nil
	}
	return t
}

// lastBootSecurity is the floor for boot slots of what is published.
func (p *publication) lastBootSecurity() uint32 {
	s, err := p.floorStatement(p.published())
	if err != nil {
		return 0
	}
	return s.BootSecurity
}

func (p *publication) floorStatement(n int64) (trust.FloorStatement, error) {
	name := floorPath(uint64(n))
	msg, _, err := trust.SplitSigned(p.files[name])
	if err != nil {
		return trust.FloorStatement{}, fmt.Errorf("%s: %w", name, err)
	}
	return trust.ParseFloorStatement(msg)
}

// load reads targets and snapshot of a version.
func (p *publication) load(n int64) (*metadata.Metadata[metadata.TargetsType], *metadata.Metadata[metadata.SnapshotType], error) {
	targets, err := metadata.Targets().FromBytes(p.files[metadataPath(metadata.TARGETS, n)])
	if err != nil {
		return nil, nil, fmt.Errorf("read %d.targets.json: %w", n, err)
	}
	snapshot, err := metadata.Snapshot().FromBytes(p.files[metadataPath(metadata.SNAPSHOT, n)])
	if err != nil {
		return nil, nil, fmt.Errorf("read %d.snapshot.json: %w", n, err)
	}
	return targets, snapshot, nil
}

// store writes targets and snapshot of a version.
func (p *publication) store(n int64, targets *metadata.Metadata[metadata.TargetsType], snapshot *metadata.Metadata[metadata.SnapshotType]) error {
	if err := put(p, metadataPath(metadata.TARGETS, n), targets); err != nil {
		return err
	}
	return put(p, metadataPath(metadata.SNAPSHOT, n), snapshot)
}

// put writes metadata with its signatures in order of their keys, so that the
// order of signing leaves no trace.
func put[T metadata.Roles](p *publication, name string, m *metadata.Metadata[T]) error {
	slices.SortFunc(m.Signatures, func(a, b metadata.Signature) int { return strings.Compare(a.KeyID, b.KeyID) })
	data, err := m.ToBytes(true)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	p.files[name] = append(data, '\n')
	return nil
}

// addTarget writes a target's file and names it in targets metadata.
func (p *publication) addTarget(m *metadata.Metadata[metadata.TargetsType], name string, content []byte) error {
	info, err := metadata.TargetFile().FromBytes(name, content, "sha256")
	if err != nil {
		return fmt.Errorf("target %s: %w", name, err)
	}
	m.Signed.Targets[name] = info
	p.files[targetPath(name, info.Hashes["sha256"].String())] = content
	return nil
}

// complete says whether enough owners signed targets, snapshot and floor
// statement of a version.
func (p *publication) complete(n int64) bool {
	targets, snapshot, err := p.load(n)
	if err != nil || p.root.VerifyDelegate(metadata.TARGETS, targets) != nil || p.root.VerifyDelegate(metadata.SNAPSHOT, snapshot) != nil {
		return false
	}
	owners, err := keyring(p.root)
	if err != nil {
		return false
	}
	_, err = owners.Open(trust.DomainFloor, p.files[floorPath(uint64(n))])
	return err == nil
}

// timestamp writes a timestamp that leads to a version of the snapshot and, if
// not 0, of the operator's metadata.
func (p *publication) timestamp(online OwnerKey, snapshot, apps int64) error {
	_, id, err := online.tufKey()
	if err != nil {
		return err
	}
	d, err := rootRole(p.root, metadata.TIMESTAMP)
	if err != nil {
		return err
	}
	if !contains(d.role.KeyIDs, id) {
		return fmt.Errorf("%s is not the online key of root.json", online.Name)
	}
	m := metadata.Timestamp(p.now.Add(TimestampLifetime).Truncate(time.Second))
	m.Signed.Version = p.timestampVersion() + 1
	m.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": metadata.MetaFile(snapshot)}
	if apps > 0 {
		m.Signed.Meta["apps.json"] = metadata.MetaFile(apps)
	}
	if _, err := sign(m, online); err != nil {
		return err
	}
	return put(p, "metadata/timestamp.json", m)
}

// operatorField is the field of root.json that holds the operator's key, from
// which each proposal takes its delegation.
const operatorField = "x-racklet-operator"

// delegations gives apps.json to the operator's key, if there is one.
func (p *publication) delegations() (*metadata.Delegations, error) {
	public, ok := p.root.Signed.UnrecognizedFields[operatorField].(string)
	if !ok {
		return nil, nil
	}
	key := &metadata.Key{Type: metadata.KeyTypeEd25519, Scheme: metadata.KeySchemeEd25519, Value: metadata.KeyVal{PublicKey: public}}
	id, err := key.ID()
	if err != nil {
		return nil, fmt.Errorf("operator's key: %w", err)
	}
	return &metadata.Delegations{
		Keys: map[string]*metadata.Key{id: key},
		Roles: []metadata.DelegatedRole{{
			Name: roleApps, KeyIDs: []string{id}, Threshold: 1, Terminating: true, Paths: []string{"apps.json"},
		}},
	}, nil
}

// prune drops what neither the published version nor a proposal needs. The
// history of the ref keeps it.
func (p *publication) prune() {
	keep := map[string]bool{"metadata/timestamp.json": true}
	b := p.bundle()
	add := func(role string, v int64) {
		name := metadataPath(role, v)
		keep[name] = true
		signed, err := metadata.Targets().FromBytes(b.Metadata[name])
		if err != nil {
			return
		}
		for target, info := range signed.Signed.Targets { // those without a file here are in the tree
			keep[targetPath(target, info.Hashes["sha256"].String())] = true
			if hex, ok := strings.CutPrefix(target, "slots/"); ok {
				keep[slotPath(hex)] = true
			}
		}
	}
	for _, v := range []int64{p.published(), p.newestComplete(), p.newest()} {
		add(metadata.TARGETS, v)
		keep[metadataPath(metadata.SNAPSHOT, v)] = true
		keep[floorPath(uint64(v))] = true
	}
	add(roleApps, p.appsVersion())
	add(roleApps, p.newestApps())
	for name := range p.files {
		if _, isRoot := version(name, metadata.ROOT); !isRoot && !keep[name] && !strings.HasPrefix(name, "proposal/") {
			delete(p.files, name)
		}
	}
}

// errNoOperator is returned when nobody may sign apps/.
var errNoOperator = errors.New("root.json names no operator")
