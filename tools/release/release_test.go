package main

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	squashfs "github.com/diskfs/go-diskfs/filesystem/squashfs"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/fat"
	"github.com/racklet/racklet/artifact/spdx"
	"github.com/racklet/racklet/firmware/bootstrap/bootimage"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

// real puts the programs that ship into the release.
func real(c *config) {
	c.stage1, c.init = "./firmware/bootstrap/init", "./system/hypervisor/init"
}

// TestRelease builds the release that ships, twice, from two copies of the sources in different
// places; looks at its size; and finds every file in it in its bill of materials.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	r := buildIn(t, dir, real)

	t.Run("size", func(t *testing.T) {
		const aim = 22 << 20 // bytes; the limit is trust.MaxImageSize, 30 MiB
		t.Logf("boot image %.1f MiB, OS root %.1f MiB", mib(r.volume), mib(r.root))
		if r.volume > trust.MaxImageSize {
			t.Errorf("boot image of %d bytes does not fit a slot of %d", r.volume, trust.MaxImageSize)
		} else if r.volume > aim {
			t.Logf("boot image is beyond the aim of %d bytes", aim)
		}
	})
	t.Run("says what it is", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(dir, releaseFile))
		if err != nil {
			t.Fatal(err)
		}
		var spec rack.ReleaseSpec
		if err := json.Unmarshal(b, &spec); err != nil || spec != r.spec {
			t.Errorf("release.json says %+v (%v), the build %+v", spec, err, r.spec)
		}
		manifest := layer(t, dir, string(spec.Boot.Digest), typeBootManifest)
		if rack.SHA256(manifest) != spec.Boot.SlotManifest {
			t.Error("slot manifest is not the one named")
		}
	})
	t.Run("unchanged", func(t *testing.T) {
		c := config{root: filepath.Join("..", ".."), dir: dir, version: "0.1.0-test", security: 1, lock: "tools/locks/trixie-arm64.lock.json", bootKernel: "kernel", osKernel: "kernel"}
		real(&c)
		if _, built, err := c.build(t.Context()); err != nil || built {
			t.Errorf("built again (%v) though nothing changed: %v", built, err)
		}
		c.version = "0.1.1-test"
		if key, err := os.ReadFile(filepath.Join(dir, keyFile)); err != nil || c.present(strings.TrimSpace(string(key))+"x") {
			t.Errorf("another key passes for this one (%v)", err)
		}
	})
	t.Run("bill of materials", func(t *testing.T) { bills(t, dir, r) })
	t.Run("reproducible", func(t *testing.T) {
		root := copySources(t)
		t.Setenv("TMPDIR", t.TempDir())
		again := buildIn(t, t.TempDir(), func(c *config) { real(c); c.root = root })
		if again.spec != r.spec {
			t.Errorf("built elsewhere the release is\n%+v\nand here\n%+v", again.spec, r.spec)
		}
	})
}

// bills unpacks what was built with other readers than the writers, where there are any.
func bills(t *testing.T, dir string, r *result) {
	boot, err := spdx.Parse(layer(t, dir, string(r.spec.Boot.Digest), typeSBOM))
	if err != nil {
		t.Fatal(err)
	}
	volume := layer(t, dir, string(r.spec.Boot.Digest), typeBootImage)
	v, err := fat.Open(bytes.NewReader(volume), int64(len(volume)))
	if err != nil {
		t.Fatal(err)
	}
	var files []artifact.File
	list, err := v.List(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		b, err := v.ReadFile(e.Name, trust.MaxImageSize)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, artifact.File{Name: e.Name, Data: b})
		if e.Name == bootimage.InitramfsFile {
			files = append(files, unpack(t, "initramfs/", b)...)
		}
	}
	if err := boot.Check(files); err != nil {
		t.Errorf("boot image: %v", err)
	}
	if len(files) != len(boot.Files) {
		t.Errorf("boot image has %d files, its bill %d", len(files), len(boot.Files))
	}
	if err := boot.Check(append(files, artifact.File{Name: "initramfs/stowaway"})); err == nil {
		t.Error("a file that is not listed passes")
	}

	osBill, err := spdx.Parse(layer(t, dir, string(r.spec.OS.Digest), typeSBOM))
	if err != nil {
		t.Fatal(err)
	}
	files = []artifact.File{
		{Name: "kernel", Data: layer(t, dir, string(r.spec.OS.Digest), typeOSKernel)},
		{Name: "initramfs", Data: layer(t, dir, string(r.spec.OS.Digest), typeOSInitramfs)},
	}
	files = append(files, unpack(t, "initramfs/", files[1].Data)...)
	files = append(files, mount(t, "root/", layer(t, dir, string(r.spec.OS.Digest), typeOSRoot))...)
	if err := osBill.Check(files); err != nil {
		t.Errorf("operating system: %v", err)
	}
	if len(files) != len(osBill.Files) {
		t.Errorf("operating system has %d files, its bill %d", len(files), len(osBill.Files))
	}
}

// unpack lists the regular files of an initramfs.
func unpack(t *testing.T, prefix string, b []byte) []artifact.File {
	t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	raw, err := z.DecodeAll(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	var out []artifact.File
	for _, r := range records {
		if r.Mode&cpio.S_IFMT != cpio.S_IFREG {
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, artifact.File{Name: prefix + r.Name, Data: data})
	}
	return out
}

// mount lists the regular files of a squashfs image.
func mount(t *testing.T, prefix string, img []byte) []artifact.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(name, img, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := squashfs.Read(file.New(f, true), int64(len(img)), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []artifact.File
	var walk func(dir string)
	walk = func(dir string) {
		list, err := v.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			name := dir + e.Name()
			switch {
			case e.IsDir():
				walk(name + "/")
			case e.Mode().IsRegular():
				g, err := v.OpenFile(name, os.O_RDONLY)
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(g)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, artifact.File{Name: prefix + strings.TrimPrefix(name, "/"), Data: data})
			}
		}
	}
	walk("/")
	return out
}

// copySources copies what is compiled, and the locks, to another place.
func copySources(t *testing.T) string {
	t.Helper()
	from, to := filepath.Join("..", ".."), filepath.Join(t.TempDir(), "somewhere", "else")
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == ".git" || base == "bin" || base == "node_modules" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestOtherKernel builds a release whose operating system runs under another kernel than the boot
// image, as stage 1 needs it to show that it can hand over by kexec.
func TestOtherKernel(t *testing.T) {
	dir := t.TempDir()
	r := buildIn(t, dir, func(c *config) { c.osKernel = "kernel-other" })
	if r.spec.Boot.Kernel == r.spec.OS.Kernel {
		t.Error("both kernels are the same")
	}
	if rack.SHA256(layer(t, dir, string(r.spec.OS.Digest), typeOSKernel)) != r.spec.OS.Kernel {
		t.Error("the OS artefact's kernel is not the one named")
	}
}
