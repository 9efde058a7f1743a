package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// Mirror is a server of OCI artefacts, which nobody trusts.
type Mirror interface {
	// Manifest returns what the mirror calls the manifest of this digest.
	Manifest(ctx context.Context, repository string, d rack.Digest) ([]byte, error)
	// Blob opens what it calls the blob of this digest, from offset on.
	Blob(ctx context.Context, repository string, d rack.Digest, offset int64) (io.ReadCloser, error)
}

// Media types of the artefacts and their layers.
const (
	typeBoot         = "application/vnd.racklet.boot.v1"
	typeBootImage    = "application/vnd.racklet.boot.image.v1"
	typeBootManifest = "application/vnd.racklet.boot.manifest.v1"
	typeOS           = "application/vnd.racklet.os.v1"
	typeOSRoot       = "application/vnd.racklet.os.root.v1"
	typeOSKernel     = "application/vnd.racklet.os.kernel.v1"
	typeOSInitramfs  = "application/vnd.racklet.os.initramfs.v1"
)

// Limits in bytes. A mirror cannot make stage 1 hold or write more.
const (
	maxManifest  = 1 << 20
	maxConfig    = 64 << 10
	maxKernel    = 64 << 20
	maxInitramfs = 64 << 20
	maxImage     = 128 << 20 // a kernel, unpacked
	maxBootImage = 30 << 20
)

// manifest is the part of an OCI image manifest that matters here (image-spec
// v1.1, manifest.md).
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	ArtifactType  string       `json:"artifactType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type descriptor struct {
	MediaType string      `json:"mediaType"`
	Digest    rack.Digest `json:"digest"`
	Size      int64       `json:"size"`
}

// parseManifest checks the bytes against the digest that they go by, before
// anything in them is looked at.
func parseManifest(doc []byte, want rack.Digest, artifactType string) (*manifest, error) {
	if got := digestOf(doc, want); got != want {
		return nil, stop("os.manifest", string(want), string(got), errors.New("digest of the manifest"))
	}
	m := new(manifest)
	if err := json.Unmarshal(doc, m); err != nil {
		return nil, stop("os.manifest", "an OCI manifest", "something else", err)
	}
	if m.SchemaVersion != 2 || m.ArtifactType != artifactType {
		return nil, stop("os.manifest", artifactType, m.ArtifactType, errors.New("type of the artefact"))
	}
	return m, nil
}

// layer finds the one layer of a type and checks its size against a limit.
func (m *manifest) layer(mediaType string, limit int64) (descriptor, error) {
	var found []descriptor
	for _, l := range m.Layers {
		if l.MediaType == mediaType {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		return descriptor{}, stop("os.manifest", "one layer "+mediaType, fmt.Sprintf("%d", len(found)), nil)
	}
	if found[0].Size <= 0 || found[0].Size > limit {
		return descriptor{}, stop("os.manifest", fmt.Sprintf("at most %d bytes", limit), fmt.Sprintf("%d", found[0].Size), errors.New("size of layer "+mediaType))
	}
	return found[0], nil
}

// mirrors are those of the rack, then those of the place that the rack stands
// in, else the repository's own host.
func (b *Boot) mirrors(v *source.Verified) []rack.Mirror {
	list := slices.Concat(v.Set.Rack.Spec.Mirrors, b.config.Mirrors)
	if u, err := url.Parse(b.config.Repository.URL); len(list) == 0 && err == nil && u.Scheme == "https" {
		list = []rack.Mirror{{URL: "https://" + u.Host, TLSPins: b.config.Repository.TLSPins}}
	}
	return list
}

// errWrong is content that is not what its digest says.
type errWrong struct{ got rack.Digest }

func (e *errWrong) Error() string { return "digest is " + string(e.got) }

// fromMirrors tries get on every mirror in order, and all of them again after
// a while, until one delivers. When every mirror delivers something wrong,
// that is final, under the name given.
func (b *Boot) fromMirrors(ctx context.Context, list []rack.Mirror, wrong string, want rack.Digest, get func(context.Context, Mirror) error) error {
	if len(list) == 0 {
		return stop("os.unreachable", "a mirror in the rack's list", "none", nil)
	}
	told := false
	// A mirror that lied has not stopped the boot, and gets into the BMC's log, once.
	tell := func(bad *errWrong) {
		if bad != nil && !told {
			told = true
			b.report(ctx, wire.StageFailed, stop(wrong, string(want), string(bad.got), nil))
			b.report(ctx, b.stage, nil)
		}
	}
	return b.persist(ctx, "os.unreachable", func(ctx context.Context) error {
		var errs []error
		var bad *errWrong
		liars := 0
		for _, where := range list {
			m, err := b.Open(where)
			if err == nil {
				if err = get(ctx, m); err == nil {
					tell(bad)
					return nil
				}
			}
			var w *errWrong
			if errors.As(err, &w) {
				bad = w
				liars++
				b.say("mirror %s: %v, expected %s", where.URL, err, want)
			}
			if f := (*Failure)(nil); errors.As(err, &f) && f.Final {
				return err // it is not the mirror's: no other one helps
			}
			errs = append(errs, fmt.Errorf("mirror %s: %w", where.URL, err))
		}
		if liars == len(list) {
			return stop(wrong, string(want), string(bad.got), errors.Join(errs...))
		}
		tell(bad)
		return retry("os.unreachable", "", "", errors.Join(errs...))
	})
}

// manifestBytes fetches a manifest and checks its digest.
func (b *Boot) manifestBytes(ctx context.Context, list []rack.Mirror, repository string, d rack.Digest) ([]byte, error) {
	var doc []byte
	err := b.fromMirrors(ctx, list, "os.manifest", d, func(ctx context.Context, m Mirror) error {
		ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
		defer cancel()
		got, err := m.Manifest(ctx, repository, d)
		if err != nil {
			return err
		}
		if sum := digestOf(got, d); sum != d {
			return &errWrong{sum}
		}
		doc = got
		return nil
	})
	return doc, err
}

// blob fetches a blob into memory and checks its digest.
func (b *Boot) blob(ctx context.Context, list []rack.Mirror, repository string, d descriptor, wrong string) ([]byte, error) {
	var out []byte
	err := b.fromMirrors(ctx, list, wrong, d.Digest, func(ctx context.Context, m Mirror) error {
		body, err := m.Blob(ctx, repository, d.Digest, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		buf := bytes.NewBuffer(make([]byte, 0, d.Size))
		if _, err := io.Copy(buf, io.LimitReader(body, d.Size+1)); err != nil {
			return err
		}
		if sum := digestOf(buf.Bytes(), d.Digest); sum != d.Digest {
			return &errWrong{sum}
		}
		out = buf.Bytes()
		return nil
	})
	return out, err
}

// transfer is one blob on its way to a partition. It survives broken
// connections and a change of mirror.
type transfer struct {
	blob   descriptor
	sum    summer
	offset int64
	from   map[string]bool // mirrors that contributed
}

func newTransfer(d descriptor) *transfer {
	return &transfer{blob: d, sum: newSummer(d.Digest), from: map[string]bool{}}
}

// resume takes over the first n bytes that lie in the partition already. They
// go through the hash as if they had just arrived, so it does not matter who
// put them there.
func (t *transfer) resume(d Disk, p Partition, n int64) error {
	if n <= 0 || n > t.blob.Size {
		return nil
	}
	if _, err := io.Copy(t.sum, io.NewSectionReader(d, p.Offset, n)); err != nil {
		return err
	}
	t.offset = n
	t.from["earlier boot"] = true
	return nil
}

// run fetches what is missing from one mirror and writes it to the partition.
// When the whole has the wrong digest, and its parts came from several places,
// nobody knows whose bytes were wrong: then all of it comes from this mirror.
func (t *transfer) run(ctx context.Context, m Mirror, repository string, d Disk, p Partition, progress func(int64)) error {
	for {
		if err := t.fill(ctx, m, repository, d, p, progress); err != nil {
			return err
		}
		got := t.sum.digest()
		if got == t.blob.Digest {
			return nil
		}
		alone := !t.from["earlier boot"] && len(t.from) == 1
		*t = *newTransfer(t.blob)
		if alone {
			return &errWrong{got}
		}
	}
}

func (t *transfer) fill(ctx context.Context, m Mirror, repository string, d Disk, p Partition, progress func(int64)) error {
	if t.offset == t.blob.Size {
		return nil
	}
	body, err := m.Blob(ctx, repository, t.blob.Digest, t.offset)
	if err != nil {
		return err
	}
	defer body.Close()
	t.from[fmt.Sprintf("%p", m)] = true
	buf := make([]byte, 1<<20)
	for t.offset < t.blob.Size {
		n, err := io.ReadFull(body, buf[:min(int64(len(buf)), t.blob.Size-t.offset)])
		if n > 0 {
			if _, werr := d.WriteAt(buf[:n], p.Offset+t.offset); werr != nil {
				return stop("disk.full", "", "", fmt.Errorf("write %s: %w", p.Name, werr))
			}
			t.sum.Write(buf[:n])
			t.offset += int64(n)
			progress(t.offset)
		}
		if err != nil && t.offset < t.blob.Size {
			return fmt.Errorf("%d of %d bytes: %w", t.offset, t.blob.Size, err)
		}
	}
	return nil
}
