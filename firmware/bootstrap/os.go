package bootstrap

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// osConfig is the configuration blob of an OS artefact.
type osConfig struct {
	Version    string      `json:"version"`
	Kernel     rack.Digest `json:"kernel"`
	RootHash   string      `json:"rootHash"`
	Salt       string      `json:"salt"` // hexadecimal
	DataBlocks uint64      `json:"dataBlocks"`
	HashOffset uint64      `json:"hashOffset"` // bytes
	BlockSize  uint32      `json:"blockSize"`
}

// verity checks the configuration against what the verified release says.
func (c *osConfig) verity(r *rack.ReleaseSpec, size int64) (Verity, error) {
	v := Verity{DataBlocks: c.DataBlocks, BlockSize: c.BlockSize}
	bad := func(what string) (Verity, error) {
		return Verity{}, stop("os.manifest", "a usable dm-verity "+what, "something else", errors.New("configuration of the OS artefact"))
	}
	if c.Kernel != r.OS.Kernel {
		return Verity{}, stop("os.kernel", string(r.OS.Kernel), string(c.Kernel), errors.New("kernel named by the OS artefact"))
	}
	if c.RootHash != r.OS.RootHash {
		return Verity{}, stop("os.root", r.OS.RootHash, c.RootHash, errors.New("root hash named by the OS artefact"))
	}
	root, err := hex.DecodeString(c.RootHash)
	if err != nil || len(root) != len(v.Root) {
		return bad("root hash")
	}
	copy(v.Root[:], root)
	if v.Salt, err = hex.DecodeString(c.Salt); err != nil || len(v.Salt) > 256 {
		return bad("salt")
	}
	if c.BlockSize != 4096 {
		return bad("block size")
	}
	if c.DataBlocks == 0 || c.DataBlocks > osPartitionSize/4096 || c.HashOffset%4096 != 0 ||
		c.HashOffset < c.DataBlocks*4096 || c.HashOffset >= uint64(size) {
		return bad("layout")
	}
	v.HashStart = c.HashOffset / 4096
	return v, nil
}

// system is an operating system that is ready to be started.
type system struct {
	digest    rack.Digest
	manifest  *manifest
	verity    Verity
	partition Partition
}

// operatingSystem puts the release's root image on the data disk and opens it.
// Manifest and image that are there already are used without a mirror: the
// digest and the root hash in the verified release decide whether they are
// right, not the record that says where they are.
func (b *Boot) operatingSystem(ctx context.Context, v *source.Verified, release *rack.Release) (*system, error) {
	r := &release.Spec
	list := b.mirrors(v)
	doc, config := b.recorded(r.OS.Digest)
	fetched := doc == nil
	var err error
	if fetched {
		if doc, err = b.manifestBytes(ctx, list, r.OS.Artifact, r.OS.Digest); err != nil {
			return nil, err
		}
	}
	m, err := parseManifest(doc, r.OS.Digest, typeOS)
	if err != nil {
		return nil, err
	}
	if config == nil || digestOf(config, m.Config.Digest) != m.Config.Digest {
		if m.Config.Size > maxConfig {
			return nil, stop("os.manifest", fmt.Sprintf("at most %d bytes", maxConfig), fmt.Sprint(m.Config.Size), errors.New("size of the configuration"))
		}
		if config, err = b.blob(ctx, list, r.OS.Artifact, m.Config, "os.blob"); err != nil {
			return nil, err
		}
	}
	var c osConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, stop("os.manifest", "a configuration in JSON", "something else", err)
	}
	root, err := m.layer(typeOSRoot, osPartitionSize)
	if err != nil {
		return nil, err
	}
	sys := &system{digest: r.OS.Digest, manifest: m}
	if sys.verity, err = c.verity(r, root.Size); err != nil {
		return nil, err
	}
	if p, ok := b.partitionWith(r.OS.Digest); ok {
		if err := b.Machine.OpenRoot(p, sys.verity); err == nil {
			sys.partition = p
			b.say("root image is on %s already", p.Name)
		} else {
			f := asFailure(err, "os.verity")
			b.report(ctx, wire.StageFailed, f) // the BMC logs no failure of a stage that goes on
			b.report(ctx, b.stage, nil)
			b.explain(f, "fetching the image anew")
			b.Machine.CloseRoot()
			delete(b.record.Images, p.Name)
		}
	}
	if sys.partition.Size == 0 {
		if sys.partition, err = b.fetchRoot(ctx, list, r, root, doc, config); err != nil {
			return nil, err
		}
		if err := b.Machine.OpenRoot(sys.partition, sys.verity); err != nil {
			b.Machine.CloseRoot()
			f := asFailure(err, "os.verity")
			f.Final = true
			return nil, f
		}
	}
	if img := b.record.Images[sys.partition.Name]; img.Used != b.record.Sequence || fetched {
		img.Used = b.record.Sequence + 1
		b.record.Images[sys.partition.Name] = img
		b.save()
	}
	return sys, nil
}

// recorded returns manifest and configuration of a release out of the record,
// nil unless the manifest has the right digest.
func (b *Boot) recorded(d rack.Digest) (manifest, config []byte) {
	for _, img := range b.record.Images {
		if img.Digest == d && digestOf(img.Manifest, d) == d {
			return img.Manifest, img.Config
		}
	}
	return nil, nil
}

// partitionWith finds the partition that is said to hold all of a release.
func (b *Boot) partitionWith(d rack.Digest) (Partition, bool) {
	for _, p := range b.parts.os {
		if img, ok := b.record.Images[p.Name]; ok && img.Digest == d && img.Complete {
			return p, true
		}
	}
	return Partition{}, false
}

// fetchRoot writes the root image to a partition, hashing what it writes.
func (b *Boot) fetchRoot(ctx context.Context, list []rack.Mirror, r *rack.ReleaseSpec, root descriptor, doc, config []byte) (Partition, error) {
	p := b.victim(r.OS.Digest)
	img := b.record.Images[p.Name]
	t := newTransfer(root)
	if img.Digest == r.OS.Digest && !img.Complete {
		if err := t.resume(b.disk, p, img.Written); err != nil {
			return p, stop("os.disk", "", "", fmt.Errorf("read %s: %w", p.Name, err))
		}
		if t.offset > 0 {
			b.say("going on behind %d KiB of an earlier boot", t.offset>>10)
		}
	}
	img = Image{Digest: r.OS.Digest, Manifest: doc, Config: config, Written: t.offset}
	b.record.Images[p.Name] = img
	b.save()
	mark := t.offset
	progress := func(n int64) {
		if n-mark >= 32<<20 { // a long download goes on after a power cut
			mark = n
			if b.disk.Sync() == nil {
				img.Written = n
				b.record.Images[p.Name] = img
				b.save()
			}
		}
	}
	err := b.fromMirrors(ctx, list, "os.root", root.Digest, func(ctx context.Context, m Mirror) error {
		return t.run(ctx, m, r.OS.Artifact, b.disk, p, progress)
	})
	if err != nil {
		return p, err
	}
	if err := b.disk.Sync(); err != nil {
		return p, stop("disk.full", "", "", fmt.Errorf("write %s: %w", p.Name, err))
	}
	img.Complete, img.Written = true, 0
	b.record.Images[p.Name] = img
	b.say("root image of %d KiB fetched to %s", root.Size>>10, p.Name)
	return p, nil
}

// victim is the partition to overwrite: one that holds a part of the same
// image, else an empty one, else the one used longer ago.
func (b *Boot) victim(d rack.Digest) Partition {
	best := b.parts.os[0]
	for i, p := range b.parts.os {
		img, ok := b.record.Images[p.Name]
		if ok && img.Digest == d {
			return p
		}
		if i > 0 && (!ok || img.Used < b.record.Images[best.Name].Used) {
			if _, taken := b.record.Images[best.Name]; taken {
				best = p
			}
		}
	}
	return best
}
