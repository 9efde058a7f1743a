package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/racklet/racklet/rack"
)

func TestNameAfter(t *testing.T) {
	for dir, want := range map[string]string{
		"my-rack":            "my-rack",
		"/some/where/Rack_7": "rack-7",
		"/x/..":              "rack",
		"/x/__":              "rack",
		"/x/repository":      "rack",
		"/x/a-very-long-name-that-goes-on-and-on": "a-very-long-name-that-goes-on-an",
	} {
		if got := nameAfter(dir); got != want || !rack.ValidName(got) {
			t.Errorf("nameAfter(%q) = %q, want %q", dir, got, want)
		}
	}
}

func TestNewUUID(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		id, err := newUUID()
		if err != nil {
			t.Fatal(err)
		}
		b, err := rack.ParseUUID(id)
		if err != nil || b[6]>>4 != 4 || b[8]>>6 != 2 || seen[id] {
			t.Fatalf("%s: %v", id, err)
		}
		seen[id] = true
	}
}

func TestWithin(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "self")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, outer string
		want       bool
	}{
		{"a", "a", true}, {"a/b", "a", true}, {"a/../a/b", "a", true}, {"a-keys", "a", false}, {"b", "a", false}, {"..", "a", false},
		{"a", "a/b", false}, {"self/a/keys", "a", true}, {"a/keys", "self/a", true}, {"a/..keys", "a", true},
	} {
		got, err := within(filepath.Join(dir, c.dir), filepath.Join(dir, c.outer))
		if err != nil || got != c.want {
			t.Errorf("within(%s, %s) = %v, %v, want %v", c.dir, c.outer, got, err, c.want)
		}
	}
}

// TestRemoveMade shows that a failed init takes back what it wrote, and no more.
func TestRemoveMade(t *testing.T) {
	there, absent := t.TempDir(), filepath.Join(t.TempDir(), "new")
	for _, dir := range []string{there, absent} {
		made, err := makeEmptyDir(dir, 0o700)
		if err != nil || made != (dir == absent) {
			t.Fatalf("%s: %v, %v", dir, made, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := makeEmptyDir(dir, 0o700); err == nil {
			t.Errorf("%s: a directory with a file counts as empty", dir)
		}
		removeMade(dir, made)
	}
	if names, err := os.ReadDir(there); err != nil || len(names) != 0 {
		t.Errorf("%v are left, %v", names, err)
	}
	if _, err := os.Stat(absent); !os.IsNotExist(err) {
		t.Errorf("the directory that was made is left: %v", err)
	}
}

func TestMemoryFS(t *testing.T) {
	fsys, err := memoryFS(map[string][]byte{"a": []byte("1"), "b/c/d": nil})
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(fsys, "a", "b/c/d"); err != nil {
		t.Error(err)
	}
	if b, err := fs.ReadFile(fsys, "a"); err != nil || string(b) != "1" {
		t.Errorf("a holds %q, %v", b, err)
	}
	info, err := fs.Stat(fsys, "a")
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 != 0 {
		t.Errorf("a has mode %v, %v", info.Mode(), err)
	}
}

func TestCount(t *testing.T) {
	for _, c := range []struct {
		n          int
		noun, want string
	}{{0, "unit", "0 units"}, {1, "unit", "1 unit"}, {2, "policy", "2 policies"}, {1, "policy", "1 policy"}} {
		if got := count(c.n, c.noun); got != c.want {
			t.Errorf("count(%d, %s) = %q, want %q", c.n, c.noun, got, c.want)
		}
	}
}
