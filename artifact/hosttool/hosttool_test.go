package hosttool

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack/racktest"
)

// home gives the test a user with nothing on the search path but one directory, and nothing in the cache.
func home(t *testing.T) (path, dir string) {
	t.Helper()
	h := t.TempDir()
	t.Setenv("HOME", h)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(h, "cache"))
	path = filepath.Join(h, "bin")
	t.Setenv("PATH", path)
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dir, h) {
		t.Fatalf("the set-up's programs are in %s, not below %s", dir, h)
	}
	for _, d := range []string{path, dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path, dir
}

func program(t *testing.T, name string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

const name = "racklet-test-program"

func TestPath(t *testing.T) {
	path, dir := home(t)
	if p, err := Path(name); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("found %q before it is there: %v", p, err)
	}
	if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	if p, err := Path(name); err == nil {
		t.Errorf("a directory is a program: %s", p)
	}
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	unpacked := program(t, filepath.Join(dir, name), 0o644)
	if p, err := Path(name); err == nil {
		t.Errorf("what may not be executed is a program: %s", p)
	}
	if err := os.Chmod(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	if p, err := Path(name); err != nil || p != unpacked {
		t.Errorf("unpacked: %q, %v, want %s", p, err, unpacked)
	}
	installed := program(t, filepath.Join(path, name), 0o755)
	if p, err := Path(name); err != nil || p != installed {
		t.Errorf("installed too: %q, %v, want %s", p, err, installed)
	}
	if p, err := Path(unpacked); err != nil || p != unpacked {
		t.Errorf("by its path: %q, %v", p, err)
	}
	if p, err := Path(filepath.Join(path, "other")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that leads nowhere: %q, %v", p, err)
	}
}

// TestTestsLookInTheSamePlaces: racktest, which may not import this package, finds what Path finds.
func TestTestsLookInTheSamePlaces(t *testing.T) {
	path, dir := home(t)
	for _, where := range []string{dir, path} {
		want := program(t, filepath.Join(where, name), 0o755)
		ours, err := Path(name)
		if theirs := racktest.Tool(t, name); err != nil || ours != want || theirs != want {
			t.Errorf("Path finds %q (%v), racktest.Tool %q, want %s", ours, err, theirs, want)
		}
	}
	if _, err := os.Stat("/usr/sbin/nologin"); err == nil { // an administrator's program
		if ours, err := Path("nologin"); err != nil || ours != racktest.Tool(t, "nologin") {
			t.Errorf("Path finds %q: %v", ours, err)
		}
	}
}
