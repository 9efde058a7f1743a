package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/racklet/racklet/artifact/fat"
	"github.com/racklet/racklet/firmware/bootstrap/bootimage"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

// TestUnchecked shows the bars before a stage 1 without checks, and that the
// release which ships has nothing of it.
func TestUnchecked(t *testing.T) {
	lax := func(c *config) { real(c); c.unchecked = true }
	t.Run("only where a benchmark said so", func(t *testing.T) {
		for _, content := range []string{"", "something else"} {
			dir := t.TempDir()
			if content != "" {
				if err := os.WriteFile(filepath.Join(dir, benchmarkFile), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c := config{root: filepath.Join("..", ".."), dir: dir, lock: "tools/locks/trixie-arm64.lock.json"}
			lax(&c)
			if _, _, err := c.build(t.Context()); err == nil || !strings.Contains(err.Error(), benchmarkFile) {
				t.Errorf("a directory with %q in it: %v", content, err)
			}
		}
	})
	marked := t.TempDir()
	if err := os.WriteFile(filepath.Join(marked, benchmarkFile), []byte(benchmarkText), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("not the other way round", func(t *testing.T) {
		c := config{dir: marked}
		if err := c.permit(); err == nil {
			t.Error("a release goes into a benchmark's directory")
		}
		if err := c.marked([]byte("… "+uncheckedMark+" …"), nil); err == nil {
			t.Error("a stage 1 without checks passes unasked")
		}
		if err := c.marked(nil, []byte(uncheckedMark)); err == nil {
			t.Error("a stage 1 without checks passes as an operating system")
		}
		c.unchecked = true
		if err := c.marked([]byte("something else"), nil); err == nil {
			t.Error("a checking stage 1 passes as one that does not")
		}
	})
	t.Run("what ships", func(t *testing.T) {
		dir := t.TempDir()
		r := buildIn(t, dir, real)
		if n := bytes.Count(stage1(t, dir, r), []byte(uncheckedMark)); n != 0 {
			t.Errorf("the mark of a build without checks is in it %d times", n)
		}
	})
	t.Run("what is measured", func(t *testing.T) { // or the test before could not fail
		r := buildIn(t, marked, lax)
		if !bytes.Contains(stage1(t, marked, r), []byte(uncheckedMark)) {
			t.Error("the build without checks has no mark")
		}
		if !strings.HasSuffix(r.spec.Version, uncheckedSuffix) {
			t.Errorf("its version is %s", r.spec.Version)
		}
	})
	t.Run("nobody else asks for it", func(t *testing.T) {
		allowed := map[string]bool{"tools/release": true, "e2e": true, "docs": true, "firmware/bootstrap": true, "source": true}
		root := filepath.Join("..", "..")
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(root, name)
			if d.IsDir() && (rel == ".git" || rel == "bin") {
				return filepath.SkipDir
			}
			if !d.Type().IsRegular() || allowed[filepath.ToSlash(filepath.Dir(rel))] {
				return nil
			}
			b, err := os.ReadFile(name)
			if err == nil && (bytes.Contains(b, []byte(uncheckedTag)) || bytes.Contains(b, []byte(benchmarkFile))) {
				t.Errorf("%s speaks of the build without checks", rel)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// stage1 returns the unpacked initramfs of a release's boot image.
func stage1(t *testing.T, dir string, r *result) []byte {
	t.Helper()
	volume := layer(t, dir, string(r.spec.Boot.Digest), typeBootImage)
	if rack.SHA256(layer(t, dir, string(r.spec.Boot.Digest), typeBootManifest)) != r.spec.Boot.SlotManifest {
		t.Fatal("another slot manifest")
	}
	v, err := fat.Open(bytes.NewReader(volume), int64(len(volume)))
	if err != nil {
		t.Fatal(err)
	}
	packed, err := v.ReadFile(bootimage.InitramfsFile, trust.MaxImageSize)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	raw, err := z.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte("release.json")) {
		t.Fatal("this is no initramfs of stage 1")
	}
	return raw
}
