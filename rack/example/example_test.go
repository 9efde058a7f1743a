package example

import (
	"bytes"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack"
)

var update = flag.Bool("update", false, "write the files anew")

// zeros is a release that no build made.
func zeros() rack.ReleaseSpec {
	zero := rack.Digest("sha256:" + strings.Repeat("0", 64))
	return rack.ReleaseSpec{
		Version: "0.1.0", SecurityVersion: 1,
		Boot: rack.ReleaseBoot{Artifact: "racklet/boot", Digest: zero, SlotManifest: zero, Kernel: zero},
		OS:   rack.ReleaseOS{Artifact: "racklet/os", Digest: zero, Kernel: zero, RootHash: strings.Repeat("0", 64)},
	}
}

func options() Options {
	return Options{Name: "example", ID: "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a", Units: 4, Release: zeros()}
}

// TestFresh compares the files beside this one with what is written now.
func TestFresh(t *testing.T) {
	files, err := Files(options())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for name, want := range files {
		if *update && !strings.HasPrefix(name, "schema/") {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go test ./rack/example -update", name)
		}
		seen[name] = true
	}
	for _, dir := range []string{"rack", "apps"} {
		err := fs.WalkDir(os.DirFS("."), dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !seen[name] {
				t.Errorf("%s is not among the files written", name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestSchemaReference shows that each YAML file names a schema that is there.
func TestSchemaReference(t *testing.T) {
	files, err := Files(options())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		line, _, _ := strings.Cut(string(files[name]), "\n")
		ref, ok := strings.CutPrefix(line, "# yaml-language-server: $schema=")
		if !ok {
			t.Errorf("%s: no schema on the first line", name)
			continue
		}
		if to := filepath.ToSlash(filepath.Join(filepath.Dir(name), ref)); files[to] == nil {
			t.Errorf("%s: %s is no file of the repository", name, to)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no units":      func(o *Options) { o.Units = 0 },
		"ten units":     func(o *Options) { o.Units = 10 },
		"name":          func(o *Options) { o.Name = "My Rack" },
		"empty release": func(o *Options) { o.Release = rack.ReleaseSpec{} },
	} {
		o := options()
		change(&o)
		if _, err := Files(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReleaseName(t *testing.T) {
	for version, want := range map[string]string{
		"0.1.0":                        "v0-1-0",
		"v2":                           "v2",
		"2026.11.1+A_b.":               "v2026-11-1-a-b",
		strings.Repeat("1.", 16):       "v1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1",
		strings.Repeat("1", 32):        "v" + strings.Repeat("1", 31),
		"0-" + strings.Repeat("-", 30): "v0",
	} {
		if got := releaseName(version); got != want || !rack.ValidName(got) {
			t.Errorf("releaseName(%q) = %q, want %q", version, got, want)
		}
	}
}
