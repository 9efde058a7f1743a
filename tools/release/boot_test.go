package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/artifact/fat"
	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/artifact/verity"
	"github.com/racklet/racklet/firmware/bootstrap/bootimage"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/system/hypervisor/osimage"
)

const probe = "./tools/release/testdata/probe"

// locked holds the locked kernels, from the cache or a mirror, for all tests.
var locked = sync.OnceValues(func() (*kernels, error) {
	store, err := cache.User()
	return &kernels{fetcher: &deb.Fetcher{Cache: store, Mirrors: deb.AptMirrors("/etc/apt")}}, err
})

// buildIn builds a release with the probe in both places.
func buildIn(t *testing.T, dir string, edit func(*config)) *result {
	t.Helper()
	k, err := locked()
	if err != nil {
		t.Fatal(err)
	}
	c := config{
		root: filepath.Join("..", ".."), dir: dir, version: "0.1.0-test", security: 1, lock: "tools/locks/trixie-arm64.lock.json",
		bootKernel: "kernel", osKernel: "kernel", stage1: probe, init: probe, kernels: k,
	}
	if edit != nil {
		edit(&c)
	}
	r, built, err := c.build(t.Context())
	if errors.Is(err, deb.ErrNoMirror) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !built {
		t.Fatal("nothing was built in an empty directory")
	}
	return r
}

// layer reads the layer of a media type of one of the artefacts.
func layer(t *testing.T, dir string, manifest, mediaType string) []byte {
	t.Helper()
	l := oci.Layout{Dir: dir}
	m, err := l.Manifest(digest.Digest(manifest))
	if err != nil {
		t.Fatal(err)
	}
	d, err := oci.Layer(m, mediaType)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Read(d.Digest, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBoot starts what was built in an emulated unit: the kernel and initramfs as the boot ROM finds
// them in the FAT volume, then the root image, verified by the kernel. The same root with one bit
// turned must not be readable.
func TestBoot(t *testing.T) {
	qemu := racktest.Tool(t, "qemu-system-aarch64")
	dir := t.TempDir()
	r := buildIn(t, dir, nil)
	volume := layer(t, dir, string(r.spec.Boot.Digest), typeBootImage)
	v, err := fat.Open(bytes.NewReader(volume), int64(len(volume)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range []string{bootimage.KernelFile, bootimage.InitramfsFile, bootimage.CmdlineFile} {
		b, err := v.ReadFile(name, 30<<20)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(files[name], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := layer(t, dir, string(r.spec.OS.Digest), typeOSRoot)
	tree := readTree(t, dir, string(r.spec.OS.Digest))
	if fmt.Sprintf("%x", tree.Root) != r.spec.OS.RootHash {
		t.Errorf("root hash %x in the artefact, %s in the release", tree.Root, r.spec.OS.RootHash)
	}
	if err := tree.Verify(bytes.NewReader(root)); err != nil {
		t.Error(err)
	}

	boot := func(root []byte) string {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(disk, root, 0o600); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s probe=%d,%s", bootimage.Cmdline, tree.Sectors(), strings.ReplaceAll(tree.Table("/dev/vda"), " ", ","))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, qemu, "-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi", "-m", "512",
			"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", files[bootimage.KernelFile], "-initrd", files[bootimage.InitramfsFile],
			"-append", line, "-drive", "if=none,id=d,format=raw,readonly=on,file="+disk, "-device", "virtio-blk-pci,drive=d,romfile=")
		cmd.Stdin = strings.NewReader("")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("qemu: %v\n%s", err, out)
		}
		return string(out)
	}
	good := boot(root)
	for _, want := range []string{"probe: PID 1", `"version":"0.1.0-test"`, "PRETTY_NAME=\"Racklet unit 0.1.0-test\"", "probe: root "} {
		if !strings.Contains(good, want) {
			t.Errorf("console does not say %q", want)
		}
	}
	if strings.Contains(good, "probe: error") || t.Failed() {
		t.Fatalf("console:\n%s", good)
	}
	t.Logf("console:\n%s", good)

	bad := bytes.Clone(root)
	bad[len(bad)/2] ^= 1
	said := boot(bad)
	if strings.Contains(said, "probe: root ") || !strings.Contains(said, "probe: error: ") {
		t.Errorf("a root with one bit turned was read; console:\n%s", said)
	}
}

func readTree(t *testing.T, dir, manifest string) verity.Tree {
	t.Helper()
	m, err := (oci.Layout{Dir: dir}).Manifest(digest.Digest(manifest))
	if err != nil {
		t.Fatal(err)
	}
	b, err := (oci.Layout{Dir: dir}).Read(m.Config.Digest, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := osimage.ParseMeta(b)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
