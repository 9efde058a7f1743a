package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/artifact/gobuild"
	"github.com/racklet/racklet/artifact/kernel"
	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/firmware/bootstrap/bootimage"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/hypervisor/osimage"
)

// Repositories under which a mirror serves the artefacts.
const (
	bootRepository = "racklet/boot"
	osRepository   = "racklet/os"
)

// Media types of the artefacts and their layers.
const (
	typeBoot         = "application/vnd.racklet.boot.v1"
	typeBootImage    = "application/vnd.racklet.boot.image.v1"
	typeBootManifest = "application/vnd.racklet.boot.manifest.v1"
	typeOS           = "application/vnd.racklet.os.v1"
	typeOSConfig     = "application/vnd.racklet.os.config.v1+json"
	typeOSRoot       = "application/vnd.racklet.os.root.v1"
	typeOSKernel     = "application/vnd.racklet.os.kernel.v1"
	typeOSInitramfs  = "application/vnd.racklet.os.initramfs.v1"
	typeSBOM         = "application/spdx+json"
)

// Files beside the layout's own.
const (
	releaseFile = "release.json" // rack.ReleaseSpec
	keyFile     = ".key"         // what the directory was built from
)

type config struct {
	root                 string // of the repository, "" is the working directory
	dir, version, lock   string
	security             uint32
	bootKernel, osKernel string // roles in the lock
	flavour              string // of the operating system, one of rack.Flavour…
	stage1, init         string // Go packages; init "" is that of the flavour
	force                bool
	unchecked            bool // stage 1 without its checks, see unchecked.go
	kernels              *kernels
}

// kernels holds the kernels that were read, by the SHA-256 of their packages: reading one takes
// seconds of processor time.
type kernels struct {
	fetcher *deb.Fetcher
	mu      sync.Mutex
	read    map[string]*loaded
}

// A loaded kernel comes with its compressed image.
type loaded struct {
	*kernel.Kernel
	gzip []byte
}

func (k *kernels) load(ctx context.Context, p deb.Package) (*loaded, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.read[p.SHA256]; l != nil {
		return l, nil
	}
	name, err := k.fetcher.Fetch(ctx, p)
	if err != nil {
		return nil, err
	}
	one, err := kernel.Open(name, p)
	if err != nil {
		return nil, err
	}
	if k.read == nil {
		k.read = map[string]*loaded{}
	}
	k.read[p.SHA256] = &loaded{one, one.Gzip()}
	return k.read[p.SHA256], nil
}

// result is what build has to tell, sizes in bytes.
type result struct {
	volume, root int64
	spec         rack.ReleaseSpec
}

// build writes the layout, unless it is there already (false).
func (c config) build(ctx context.Context) (*result, bool, error) {
	if err := c.permit(); err != nil {
		return nil, false, err
	}
	stage1 := gobuild.Program{Dir: c.root, Package: c.stage1, GOOS: "linux", GOARCH: "arm64", Version: c.version}
	var modules []string // of stage 1; nil: the usual ones
	if c.unchecked {
		c.version += uncheckedSuffix
		stage1.Version, stage1.Tags, modules = c.version, []string{uncheckedTag}, uncheckedModules()
	}
	init := gobuild.Program{Dir: c.root, Package: c.initPackage(), GOOS: "linux", GOARCH: "arm64", Version: c.version}
	parts, err := c.nodeParts()
	if err != nil {
		return nil, false, err
	}
	self := gobuild.Program{Dir: c.root, Package: "./tools/release", GOOS: runtime.GOOS, GOARCH: runtime.GOARCH}
	lockBytes, err := os.ReadFile(filepath.Join(c.root, c.lock))
	if err != nil {
		return nil, false, fmt.Errorf("read lock: %w", err)
	}
	sources, err := gobuild.Key(ctx, append([]gobuild.Program{stage1, init, self}, parts.programs()...)...)
	if err != nil {
		return nil, false, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%x\n%q %d %q %q %q\n", sources, sha256.Sum256(lockBytes), c.version, c.security, c.bootKernel, c.osKernel, c.flavour))
	key := hex.EncodeToString(sum[:])
	if !c.force && c.present(key) {
		return nil, false, nil
	}
	lock, err := deb.ParseLock(lockBytes)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", c.lock, err)
	}

	var (
		stage1File, initFile artifact.File
		bootK, osK           *loaded
		node                 *osimage.Node
	)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if stage1File, err = gobuild.Build(gctx, stage1); err != nil {
			return err
		}
		initFile, err = gobuild.Build(gctx, init)
		return err
	})
	g.Go(func() (err error) {
		if bootK, err = c.kernel(gctx, lock, c.bootKernel); err != nil {
			return err
		}
		osK, err = c.kernel(gctx, lock, c.osKernel)
		return err
	})
	g.Go(func() (err error) {
		node, err = c.node(gctx, lock, parts)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, false, err
	}
	if err := c.marked(stage1File.Data, initFile.Data); err != nil {
		return nil, false, err
	}

	var (
		boot *bootimage.Image
		osi  *osimage.Image
	)
	g, _ = errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		boot, err = bootimage.Build(bootimage.Config{Version: c.version, SecurityVersion: c.security, Kernel: bootK.Kernel, KernelFile: bootK.gzip, Init: stage1File, Modules: modules})
		return err
	})
	g.Go(func() (err error) {
		osi, err = osimage.Build(osimage.Config{Version: c.version, SecurityVersion: c.security, Kernel: osK.Kernel, KernelFile: osK.gzip, Init: initFile, Stage1: stage1File, Node: node, Cache: &c.kernels.fetcher.Cache})
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, false, err
	}
	spec, err := c.write(boot, osi)
	if err != nil {
		return nil, false, err
	}
	if err := os.WriteFile(filepath.Join(c.dir, keyFile), []byte(key+"\n"), 0o644); err != nil {
		return nil, false, err
	}
	return &result{int64(len(boot.Volume)), int64(len(osi.Root)), *spec}, true, nil
}

func (c config) kernel(ctx context.Context, lock *deb.Lock, role string) (*loaded, error) {
	p, err := lock.Find(role)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.lock, err)
	}
	return c.kernels.load(ctx, p)
}

// write stores the artefacts and release.json.
func (c config) write(boot *bootimage.Image, osi *osimage.Image) (*rack.ReleaseSpec, error) {
	os.Remove(filepath.Join(c.dir, keyFile)) // from here on the directory is neither old nor new
	d, err := oci.Write(c.dir,
		oci.Artifact{Repository: bootRepository, Tag: c.version, Type: typeBoot, Layers: []oci.Blob{
			{MediaType: typeBootImage, Data: boot.Volume},
			{MediaType: typeBootManifest, Data: boot.Manifest},
			{MediaType: typeSBOM, Data: boot.SBOM},
		}},
		oci.Artifact{Repository: osRepository, Tag: c.version, Type: typeOS, Config: oci.Blob{MediaType: typeOSConfig, Data: osi.Config}, Layers: []oci.Blob{
			{MediaType: typeOSRoot, Data: osi.Root},
			{MediaType: typeOSKernel, Data: osi.Kernel},
			{MediaType: typeOSInitramfs, Data: osi.Initramfs},
			{MediaType: typeSBOM, Data: osi.SBOM},
		}})
	if err != nil {
		return nil, err
	}
	if err := (oci.Layout{Dir: c.dir}).Prune(); err != nil {
		return nil, err
	}
	spec := &rack.ReleaseSpec{
		Version: c.version, SecurityVersion: c.security,
		Boot: rack.ReleaseBoot{Artifact: bootRepository, Digest: rack.Digest(d[0].Digest), SlotManifest: boot.ManifestDigest, Kernel: boot.Kernel, CommandLine: boot.CommandLine},
		OS:   rack.ReleaseOS{Artifact: osRepository, Digest: rack.Digest(d[1].Digest), Kernel: osi.Meta.Kernel, RootHash: osi.Meta.RootHash, Initramfs: rack.SHA256(osi.Initramfs)},
	}
	if c.flavour != rack.FlavourMinimal {
		spec.OS.Flavour = c.flavour
	}
	b, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, err
	}
	return spec, os.WriteFile(filepath.Join(c.dir, releaseFile), append(b, '\n'), 0o644)
}

// present reports whether the directory was built from key and is complete.
func (c config) present(key string) bool {
	b, err := os.ReadFile(filepath.Join(c.dir, keyFile))
	if err != nil || string(b) != key+"\n" {
		return false
	}
	if _, err := os.Stat(filepath.Join(c.dir, releaseFile)); err != nil {
		return false
	}
	l := oci.Layout{Dir: c.dir}
	idx, err := l.Index()
	if err != nil {
		return false
	}
	for _, d := range idx.Manifests {
		m, err := l.Manifest(d.Digest)
		if err != nil {
			return false
		}
		for _, d := range append(m.Layers, m.Config) {
			if st, err := os.Stat(l.Path(d.Digest)); err != nil || st.Size() != d.Size {
				return false
			}
		}
	}
	return true
}
