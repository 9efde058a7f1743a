package artifact

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func names(t *Tree) (all []string) {
	for _, f := range t.Files() {
		all = append(all, f.Name)
	}
	return all
}

func TestTreeMakesDirectories(t *testing.T) {
	var tree Tree
	o := Own("1.2.3")
	tree.Add(File{Name: "lib/modules/a.ko", Mode: 0o644, Origin: o})
	tree.Add(File{Name: "init", Mode: 0o755, Origin: o})
	if got, want := names(&tree), []string{"init", "lib", "lib/modules", "lib/modules/a.ko"}; !slices.Equal(got, want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	for _, f := range tree.Files() {
		if dir := f.Name == "lib" || f.Name == "lib/modules"; f.Mode.IsDir() != dir || dir && f.Mode.Perm() != 0o755 {
			t.Errorf("%s has mode %v", f.Name, f.Mode)
		}
		if f.Origin != o {
			t.Errorf("%s is from %+v", f.Name, f.Origin)
		}
	}
	// A directory that was added with its own mode keeps it, whichever comes first.
	tree.Dir("root", 0o700, o)
	tree.Add(File{Name: "root/key", Mode: 0o600})
	tree.Dir("lib", 0o711, o)
	for _, f := range tree.Files() {
		if want, ok := map[string]fs.FileMode{"root": 0o700, "lib": 0o711}[f.Name]; ok && f.Mode != fs.ModeDir|want {
			t.Errorf("%s has mode %v, want %v", f.Name, f.Mode, want)
		}
	}
	// What is added twice is there once, as it was last.
	tree.Add(File{Name: "init", Mode: 0o755, Data: []byte("new")})
	n := 0
	for _, f := range tree.Files() {
		if f.Name == "init" {
			if n++; string(f.Data) != "new" {
				t.Errorf("init holds %q", f.Data)
			}
		}
	}
	if n != 1 {
		t.Errorf("init is there %d times", n)
	}
}

// TestOrder: by path element, so that each directory stands before what is in it and its files together, whatever
// bytes sort before a slash.
func TestOrder(t *testing.T) {
	var tree Tree
	for _, n := range []string{"a.d/x", "a/z", "a-b", "a/b/c", "a0"} {
		tree.Add(File{Name: n})
	}
	got := names(&tree)
	if want := []string{"a", "a/b", "a/b/c", "a/z", "a-b", "a.d", "a.d/x", "a0"}; !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
	if slices.IsSorted(got) {
		t.Error("names that do not tell the order of paths from that of bytes")
	}
}

func TestAddRefuses(t *testing.T) {
	add := func(name string) (says any) {
		defer func() { says = recover() }()
		new(Tree).Add(File{Name: name})
		return nil
	}
	for _, name := range []string{"", "/etc/passwd", "a/../../b", "./a", "a/", "a//b", ".."} {
		if says, _ := add(name).(string); !strings.Contains(says, "not clean") {
			t.Errorf("%q: %q", name, says)
		}
	}
	for _, name := range []string{"a", "a/b", ".config/x", "..."} {
		if says := add(name); says != nil {
			t.Errorf("good %q: %v", name, says)
		}
	}
}

func TestEmptyTree(t *testing.T) {
	if f := new(Tree).Files(); len(f) != 0 {
		t.Errorf("an empty tree has %v", f)
	}
}

func TestOwn(t *testing.T) {
	o := Own("0.1.0")
	if o.Version != "0.1.0" || !strings.HasSuffix(o.Source, "@v0.1.0") || o.Licence != "Apache-2.0" || o.SHA256 != "" {
		t.Errorf("%+v", o)
	}
}
