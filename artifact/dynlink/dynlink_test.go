package dynlink

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/dynlink/dynlinktest"
)

func packages(t *testing.T) *Packages {
	t.Helper()
	const loader = "/lib/ld-linux-aarch64.so.1"
	k := new(Packages)
	for name, files := range map[string]map[string][]byte{
		"tool": {
			"usr/bin/tool": dynlinktest.ELF(loader, "libone.so.1", "libc.so.6"), "usr/bin/other": dynlinktest.ELF(loader, "libgone.so.3"),
			"usr/share/doc/tool/README": []byte("not for the image"), "usr/bin/script": []byte("#!/bin/sh\n"),
		},
		"one": {"usr/lib/aarch64-linux-gnu/libone.so.1": []byte("-> libone.so.1.2"), "usr/lib/aarch64-linux-gnu/libone.so.1.2": dynlinktest.ELF("", "libc.so.6"),
			"usr/lib/aarch64-linux-gnu/libunused.so.1": dynlinktest.ELF("")},
		"c": {"usr/lib/aarch64-linux-gnu/libc.so.6": dynlinktest.ELF("", "ld-linux-aarch64.so.1"), "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1": dynlinktest.ELF(""),
			"usr/lib/ld-linux-aarch64.so.1": []byte("-> aarch64-linux-gnu/ld-linux-aarch64.so.1")},
	} {
		o := artifact.Origin{Name: name, Version: "1", Source: "pkg:deb/debian/" + name, Licence: "MIT"}
		if err := k.Read(bytes.NewReader(dynlinktest.Package(files)), o); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func TestAdd(t *testing.T) {
	tree := new(artifact.Tree)
	if err := packages(t).Add(tree, "usr/bin/tool"); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range tree.Files() {
		if f.Mode.Type() != fs.ModeDir {
			got[f.Name] = f.Origin.Name
			if f.Mode.IsRegular() && len(f.Data) == 0 {
				t.Errorf("%s is empty", f.Name)
			}
		}
	}
	want := map[string]string{
		"usr/bin/tool": "tool", "usr/lib/aarch64-linux-gnu/libone.so.1": "one", "usr/lib/aarch64-linux-gnu/libc.so.6": "c",
		"usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1": "c", "lib/ld-linux-aarch64.so.1": "tool",
	}
	if len(got) != len(want) {
		t.Errorf("in the tree: %v", got)
	}
	for name, from := range want {
		if got[name] != from {
			t.Errorf("%s is from %q, want %q", name, got[name], from)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	for program, want := range map[string]string{
		"usr/bin/none":   "no file usr/bin/none",
		"usr/bin/other":  "no library libgone.so.3",
		"usr/bin/script": "usr/bin/script",
	} {
		if err := packages(t).Add(new(artifact.Tree), program); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", program, err)
		}
	}
}

// TestNeeded reads what a linker wrote, where there is such a program at hand.
func TestNeeded(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no dynamically linked program at hand")
	}
	if sh, err = filepath.EvalSymlinks(sh); err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(sh)
	if err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) {
		t.Skip("no dynamically linked program at hand")
	}
	if _, loader, err := needed(b); err != nil || loader == "" {
		t.Skipf("%s has the loader %q: %v", sh, loader, err)
	}
	if libs, _, err := needed(b); err != nil || len(libs) == 0 {
		t.Errorf("%s needs %v: %v", sh, libs, err)
	}
}

func FuzzNeeded(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _ = needed(b) })
}
