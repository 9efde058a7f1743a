// Package oci writes, reads and serves artefacts in the formats of the Open Container Initiative:
// image layouts on disk (image-spec v1.1, image-layout.md) and, for mirrors, the pull half of the
// distribution API (distribution-spec v1.1).
//
// Mirrors are not trusted, and this package does not make them so: everything begins with the digest
// of a manifest out of a verified release. Stage 1 fetches with a client of its own, which verifies
// while it streams (firmware/bootstrap).
//
// oras-go, whose layouts carry the time and order of their making, reads and pulls what is written
// and served here in the tests.
package oci

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest bounds a manifest or an index, in bytes (distribution-spec, "Pushing Manifests").
const MaxManifest = 4 << 20

// A Blob is a layer or a configuration that is about to be written.
type Blob struct {
	MediaType   string
	Data        []byte
	Annotations map[string]string
}

// An Artifact is what a manifest points to. An empty Config means the empty JSON object
// (image-spec, "Guidelines for Artifact Usage").
type Artifact struct {
	Repository string // such as "racklet/boot": where a mirror serves it
	Tag        string // such as the version
	Type       string // artifactType
	Config     Blob
	Layers     []Blob
}

// AnnotationRepository names, in the index of a layout, the repository of a manifest.
const AnnotationRepository = "io.racklet.repository"

// Layout is a directory in the OCI image layout.
type Layout struct{ Dir string }

// Write adds artefacts to a layout in directory dir, replacing its index, and returns the
// manifests' descriptors in the artefacts' order. The same artefacts give the same bytes.
func Write(dir string, artifacts ...Artifact) ([]v1.Descriptor, error) {
	l := Layout{dir}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, fmt.Errorf("write layout: %w", err)
	}
	if err := writeFile(filepath.Join(dir, v1.ImageLayoutFile), layoutFile); err != nil {
		return nil, fmt.Errorf("write layout: %w", err)
	}
	var list []v1.Descriptor
	for _, a := range artifacts {
		d, err := l.add(a)
		if err != nil {
			return nil, fmt.Errorf("write artefact %s: %w", a.Repository, err)
		}
		list = append(list, d)
	}
	index, err := indexOf(list)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, v1.ImageIndexFile), index); err != nil {
		return nil, fmt.Errorf("write layout: %w", err)
	}
	return list, nil
}

func (l Layout) add(a Artifact) (v1.Descriptor, error) {
	doc, err := a.manifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, b := range append([]Blob{a.config(), {MediaType: v1.MediaTypeImageManifest, Data: doc}}, a.Layers...) {
		if err := writeFile(l.Path(b.descriptor().Digest), b.Data); err != nil {
			return v1.Descriptor{}, err
		}
	}
	return a.descriptor(doc), nil
}

func (a Artifact) config() Blob {
	if a.Config.MediaType == "" {
		return Blob{MediaType: v1.MediaTypeEmptyJSON, Data: []byte("{}")}
	}
	return a.Config
}

func (a Artifact) manifest() ([]byte, error) {
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: a.Type, Config: a.config().descriptor()}
	for _, b := range a.Layers {
		m.Layers = append(m.Layers, b.descriptor())
	}
	return json.Marshal(m)
}

// descriptor is how an index names the artefact whose manifest is doc.
func (a Artifact) descriptor(doc []byte) v1.Descriptor {
	d := Blob{MediaType: v1.MediaTypeImageManifest, Data: doc}.descriptor()
	d.ArtifactType = a.Type
	d.Annotations = map[string]string{AnnotationRepository: a.Repository}
	if a.Tag != "" {
		d.Annotations[v1.AnnotationRefName] = a.Tag
	}
	return d
}

func (b Blob) descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: b.MediaType, Digest: digest.NewDigestFromBytes(digest.SHA256, sum(b.Data)), Size: int64(len(b.Data)), Annotations: b.Annotations}
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// Path is where the blob with a digest lies; the digest must be well formed.
func (l Layout) Path(d digest.Digest) string {
	return filepath.Join(l.Dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// ErrDigest says that content is not what its digest promises.
var ErrDigest = errors.New("digest differs")

// Index reads index.json.
func (l Layout) Index() (*v1.Index, error) {
	b, err := readFile(filepath.Join(l.Dir, v1.ImageIndexFile), MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	idx := new(v1.Index)
	if err := json.Unmarshal(b, idx); err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	return idx, nil
}

// Read returns the blob with a digest, of at most limit bytes, verified.
func (l Layout) Read(d digest.Digest, limit int64) ([]byte, error) {
	if err := checkDigest(d); err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	b, err := readFile(l.Path(d), limit)
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	if got := digest.NewDigestFromBytes(digest.SHA256, sum(b)); got != d {
		return nil, fmt.Errorf("read blob: %w: expected %s, got %s", ErrDigest, d, got)
	}
	return b, nil
}

// Manifest returns the manifest with a digest, verified.
func (l Layout) Manifest(d digest.Digest) (*v1.Manifest, error) {
	b, err := l.Read(d, MaxManifest)
	if err != nil {
		return nil, err
	}
	return ParseManifest(b)
}

// ParseManifest decodes an image manifest whose digest was verified before.
func ParseManifest(b []byte) (*v1.Manifest, error) {
	m := new(v1.Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("parse manifest: schema version %d, want 2", m.SchemaVersion)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := checkDigest(d.Digest); err != nil || d.Size < 0 {
			return nil, fmt.Errorf("parse manifest: descriptor %s of %d bytes: %w", d.Digest, d.Size, errors.Join(err, errors.New("malformed")))
		}
	}
	return m, nil
}

// Layer returns the one layer of a media type.
func Layer(m *v1.Manifest, mediaType string) (v1.Descriptor, error) {
	var found []v1.Descriptor
	for _, d := range m.Layers {
		if d.MediaType == mediaType {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return v1.Descriptor{}, fmt.Errorf("manifest has %d layers of type %s, want one", len(found), mediaType)
	}
	return found[0], nil
}

// Prune removes blobs that the index does not reach.
func (l Layout) Prune() error {
	idx, err := l.Index()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, d := range idx.Manifests {
		keep[d.Digest.Encoded()] = true
		m, err := l.Manifest(d.Digest)
		if err != nil {
			return err
		}
		for _, d := range append(m.Layers, m.Config) {
			keep[d.Digest.Encoded()] = true
		}
	}
	dir := filepath.Join(l.Dir, "blobs", "sha256")
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("prune layout: %w", err)
	}
	for _, e := range list {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("prune layout: %w", err)
			}
		}
	}
	return nil
}

// Repositories lists the repositories of a layout, sorted.
func (l Layout) Repositories() ([]string, error) {
	idx, err := l.Index()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var out []string
	for _, d := range idx.Manifests {
		if r := d.Annotations[AnnotationRepository]; r != "" && !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	sort.Strings(out)
	return out, nil
}

// checkDigest accepts SHA-256 in lower-case hex and nothing else; so a digest is a safe file name.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q is not sha256:HEX", string(d))
	}
	return nil
}

// writeFile replaces a file in one step, unless it holds these bytes already.
func writeFile(name string, b []byte) error {
	if st, err := os.Stat(name); err == nil && st.Size() == int64(len(b)) {
		if have, err := os.ReadFile(name); err == nil && string(have) == string(b) {
			return nil
		}
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func readFile(name string, limit int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", filepath.Base(name), st.Size(), limit)
	}
	return os.ReadFile(name)
}
