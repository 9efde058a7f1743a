package source

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"github.com/racklet/racklet/rack"
)

// A Bundle is what a repository sent, or a cache kept: nothing in it is
// believed. Verify decides.
type Bundle struct {
	// Tip is the commit that the ref pointed to when it was fetched, for
	// reports.
	Tip string
	// Metadata are the files of the metadata ref by path.
	Metadata map[string][]byte
	// objects are the Git objects of the commits that the metadata names:
	// commits, and trees and blobs under rack/ and apps/. Commits that are
	// no ancestors of the ref are left out.
	objects objects
}

// The encoding of a bundle, all numbers big endian: "RKBN", layout 1, the tip
// (20 bytes), the number of files (4), each a path (2 + n) and content
// (4 + n), by rising path; the number of objects (4), each an identifier (20),
// kind (1), content (4 + n), by rising identifier. It is the only encoding of
// the bundle.
const bundleMagic = "RKBN\x01"

// ErrBundle is returned for bytes that are no bundle.
var ErrBundle = errors.New("malformed bundle")

// Marshal encodes the bundle for a cache.
func (b *Bundle) Marshal() []byte {
	out := []byte(bundleMagic)
	tip, _ := parseID(b.Tip)
	out = append(out, tip[:]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.Metadata)))
	for _, name := range slices.Sorted(maps.Keys(b.Metadata)) {
		out = binary.BigEndian.AppendUint16(out, uint16(len(name)))
		out = append(out, name...)
		out = appendBytes(out, b.Metadata[name])
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.objects)))
	for _, id := range slices.SortedFunc(maps.Keys(b.objects), compareID) {
		obj := b.objects[id]
		out = append(out, id[:]...)
		out = append(out, byte(obj.kind))
		out = appendBytes(out, obj.content)
	}
	return out
}

func compareID(a, b objectID) int { return bytes.Compare(a[:], b[:]) }

func appendBytes(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// ParseBundle decodes what Marshal encoded. It keeps parts of b.
func ParseBundle(b []byte) (*Bundle, error) {
	if len(b) > MaxBundle || !bytes.HasPrefix(b, []byte(bundleMagic)) {
		return nil, ErrBundle
	}
	r := reader{rest: b[len(bundleMagic):]}
	out := &Bundle{Metadata: map[string][]byte{}, objects: objects{}}
	if tip := objectID(r.take(20)); !tip.IsZero() {
		out.Tip = tip.String()
	}
	last := ""
	for n := r.uint32(); n > 0 && !r.bad; n-- {
		name := string(r.take(int(binary.BigEndian.Uint16(r.take(2)))))
		content := r.bytes()
		if name <= last || !goodPath(name) {
			return nil, ErrBundle
		}
		out.Metadata[name], last = content, name
	}
	var lastID objectID
	for n := r.uint32(); n > 0 && !r.bad; n-- {
		id := objectID(r.take(20))
		kind := plumbing.ObjectType(r.take(1)[0])
		content := r.bytes()
		if compareID(id, lastID) <= 0 || kind != plumbing.CommitObject && kind != plumbing.TreeObject && kind != plumbing.BlobObject {
			return nil, ErrBundle
		}
		out.objects[id], lastID = object{kind, content}, id
	}
	if r.bad || len(r.rest) != 0 {
		return nil, ErrBundle
	}
	return out, nil
}

func goodPath(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if !goodName(part) {
			return false
		}
	}
	return true
}

// A reader takes bytes from the front; past the end it is bad and gives zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return make([]byte, min(n, 20))
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *reader) bytes() []byte {
	n := r.uint32()
	if n > MaxFile {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// namedCommits returns the commits that the metadata names, with the folders
// that it names them for, without believing any of it.
func (b *Bundle) namedCommits() map[objectID][]string {
	commits := map[objectID][]string{}
	for role, folder := range map[string]string{"targets": rackDir, roleApps: appsDir} {
		version, ok := b.leadsTo(role)
		if !ok {
			continue
		}
		target, err := b.target(role, version)
		if err != nil {
			continue
		}
		if id, ok := parseID(target.Commit); ok {
			commits[id] = append(commits[id], folder)
		}
	}
	return commits
}

// leadsTo returns the version of the targets or apps metadata that timestamp
// and snapshot name.
func (b *Bundle) leadsTo(role string) (int64, bool) {
	type metas struct {
		Signed struct {
			Meta map[string]struct {
				Version int64 `json:"version"`
			} `json:"meta"`
		} `json:"signed"`
	}
	var timestamp, snapshot metas
	if json.Unmarshal(b.Metadata["metadata/timestamp.json"], &timestamp) != nil {
		return 0, false
	}
	if role == roleApps {
		v := timestamp.Signed.Meta["apps.json"].Version
		return v, v > 0
	}
	v := timestamp.Signed.Meta["snapshot.json"].Version
	if json.Unmarshal(b.Metadata[metadataPath("snapshot", v)], &snapshot) != nil {
		return 0, false
	}
	v = snapshot.Signed.Meta["targets.json"].Version
	return v, v > 0
}

// Rack returns the UUID of the rack that the bundle says it is for. It is not
// verified: only one who provisions, and so chooses the rack, asks for it.
func (b *Bundle) Rack() (string, error) {
	version, ok := b.leadsTo("targets")
	if !ok {
		return "", errors.New("find the rack's UUID: the metadata lead to no targets")
	}
	t, err := b.target("targets", version)
	if err != nil {
		return "", fmt.Errorf("find the rack's UUID in rack.json: %w", err)
	}
	return t.Rack, nil
}

// Published returns the sequence and the commit that the bundle claims. They are not verified: Verify decides.
func (b *Bundle) Published() (sequence uint64, commit string, err error) {
	version, ok := b.leadsTo("targets")
	if !ok {
		return 0, "", errors.New("find what is published: the metadata lead to no targets")
	}
	t, err := b.target("targets", version)
	if err != nil {
		return 0, "", fmt.Errorf("find what is published in rack.json: %w", err)
	}
	return t.Sequence, t.Commit, nil
}

// A target is what rack.json and apps.json say.
type target struct {
	Rack         string      `json:"rack"`                   // UUID
	Repository   string      `json:"repository"`             // URL
	Alternatives []string    `json:"alternatives,omitempty"` // other URLs of the same repository
	Ref          string      `json:"ref"`
	Commit       string      `json:"commit"`
	Sequence     uint64      `json:"sequence"`
	Tree         rack.Digest `json:"tree"`
}

// target reads rack.json or apps.json of a version of its role, as far as it
// can be read.
func (b *Bundle) target(role string, version int64) (*target, error) {
	var signed struct {
		Signed struct {
			Targets map[string]struct {
				Hashes map[string]string `json:"hashes"`
			} `json:"targets"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(b.Metadata[metadataPath(role, version)], &signed); err != nil {
		return nil, err
	}
	name := targetName(role)
	return parseTarget(b.Metadata[targetPath(name, signed.Signed.Targets[name].Hashes["sha256"])])
}

func parseTarget(b []byte) (*target, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	t := new(target)
	if err := d.Decode(t); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("bytes after the end")
	}
	return t, nil
}

func targetName(role string) string {
	if role == roleApps {
		return "apps.json"
	}
	return "rack.json"
}

// Paths on the metadata ref.
func metadataPath(role string, version int64) string {
	return fmt.Sprintf("metadata/%d.%s.json", version, role)
}

func targetPath(name, sha256 string) string { return "targets/" + sha256 + "." + name }

func floorPath(sequence uint64) string { return fmt.Sprintf("floors/%d.floor", sequence) }

func slotPath(hex string) string { return "slots/" + hex + ".slot" }

// gatherMetadata makes a bundle of the files of a metadata commit.
func gatherMetadata(s storer.EncodedObjectStorer, metadata objectID) (*Bundle, error) {
	b := &Bundle{Metadata: map[string][]byte{}, objects: objects{}}
	all := objects{}
	if err := copyCommit(s, all, metadata, nil); err != nil {
		return nil, err
	}
	raw, err := all.lookup(metadata, plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return nil, err
	}
	files, err := all.files(c.tree, ".")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b.Metadata[f.Path] = f.Content
	}
	return b, nil
}

// gatherCommits adds the commits that the metadata names, as far as they are
// tip or ancestors of it. complete is false when it did not find one: with all
// history in the store, there is no such commit on the ref.
func (b *Bundle) gatherCommits(s storer.EncodedObjectStorer, tip objectID) (complete bool, err error) {
	b.Tip = tip.String()
	missing := b.namedCommits()
	queue, seen := []objectID{tip}, map[objectID]bool{tip: true}
	for len(queue) > 0 && len(missing) > 0 && len(seen) <= maxHistory {
		id := queue[0]
		queue = queue[1:]
		raw, err := readObject(s, id, plumbing.CommitObject)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue // a shallow history ends here
		}
		if err != nil {
			return false, err
		}
		if folders, ok := missing[id]; ok {
			delete(missing, id)
			if err := copyCommit(s, b.objects, id, folders); err != nil {
				return false, err
			}
		}
		c, err := parseCommit(raw)
		if err != nil {
			continue
		}
		for _, p := range c.parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return len(missing) == 0, nil
}

// readObject reads an object of bounded size.
func readObject(s storer.EncodedObjectStorer, id objectID, kind plumbing.ObjectType) ([]byte, error) {
	obj, err := s.EncodedObject(kind, id)
	if err != nil {
		return nil, err
	}
	if obj.Size() > MaxFile {
		return nil, &Refusal{"source.bundle", fmt.Sprintf("%s of at most %d bytes", kind, MaxFile), fmt.Sprintf("%s has %d", id, obj.Size())}
	}
	r, err := obj.Reader()
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	content, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	return content, nil
}

// copyCommit copies a commit with the trees and blobs in the given folders of
// its root, all of it when folders is nil. What is missing in the store is
// left out: Verify finds out.
func copyCommit(s storer.EncodedObjectStorer, to objects, id objectID, folders []string) error {
	raw, ok, err := copyObject(s, to, id, plumbing.CommitObject)
	if err != nil || !ok {
		return err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return nil
	}
	budget := MaxBundle
	var walk func(id objectID, depth int) error
	walk = func(id objectID, depth int) error {
		raw, ok, err := copyObject(s, to, id, plumbing.TreeObject)
		if err != nil || !ok || depth > maxDepth {
			return err
		}
		entries, err := parseTree(raw)
		if err != nil {
			return nil
		}
		for _, e := range entries {
			if depth == 0 && folders != nil && (e.mode != modeFolder || !slices.Contains(folders, e.name)) {
				continue
			}
			switch e.mode {
			case modeFolder:
				err = walk(e.id, depth+1)
			case modeFile, modeExecutable:
				var content []byte
				content, _, err = copyObject(s, to, e.id, plumbing.BlobObject)
				budget -= len(content)
			}
			if err != nil {
				return err
			}
			if budget < 0 {
				return &Refusal{"source.bundle", fmt.Sprintf("at most %d bytes of files", MaxBundle), "more"}
			}
		}
		return nil
	}
	return walk(c.tree, 0)
}

// copyObject copies one object; ok is false when the store lacks it.
func copyObject(s storer.EncodedObjectStorer, to objects, id objectID, kind plumbing.ObjectType) (content []byte, ok bool, err error) {
	if obj, ok := to[id]; ok {
		return obj.content, true, nil
	}
	content, err = readObject(s, id, kind)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	to[id] = object{kind, content}
	return content, true, nil
}

// ReadBundle makes the bundle of a clone on disk that Fetch would bring from
// it, without any server, to verify a repository offline.
func ReadBundle(dir string, repo rack.Repository) (*Bundle, error) {
	c, err := openClone(dir)
	if err != nil {
		return nil, err
	}
	tip, err := c.ref(repo.Ref)
	if err != nil {
		return nil, err
	}
	metadata, err := c.ref(repo.MetadataRef)
	if err != nil {
		return nil, err
	}
	b, err := gatherMetadata(c.store, metadata)
	if err != nil {
		return nil, err
	}
	_, err = b.gatherCommits(c.store, tip)
	return b, err
}
