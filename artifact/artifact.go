// Package artifact holds what the builders of boot images and operating systems share: a tree of
// files with the origin and licence of each, from which file systems, archives and bills of material
// are written.
//
// Its sub-packages each know one format or source:
//
//	deb       Debian packages by lock file        kernel    a kernel and its modules out of one
//	fat       FAT16: the unit's boot medium       squashfs  a read-only root
//	verity    dm-verity's hash tree               initramfs cpio archives for the kernel
//	oci       image layouts, and serving them     spdx      bills of material
//	gobuild   cross-compiled Go programs          cache     files by SHA-256
//	dynlink   programs with their libraries out of Debian packages
//
// Everything that they write is a function of their arguments: same input, same bytes, on any
// machine, in any directory.
package artifact

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"
)

// Epoch is the time that all files in images bear (2026-01-01, in the range of FAT).
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// An Origin says where a file comes from and under which licence.
type Origin struct {
	Name    string // package or program, such as "linux-image-6.12.117+deb13-cloud-arm64"
	Version string
	Source  string // such as a package URL (pkg:deb/debian/…, pkg:golang/…)
	Licence string // SPDX licence expression
	SHA256  string // hex hash of the package that it was taken from, "" if there is none
}

// Own is the origin of files that Racklet itself writes.
func Own(version string) Origin {
	return Origin{Name: "racklet", Version: version, Source: "pkg:golang/github.com/racklet/racklet@v" + version, Licence: "Apache-2.0"}
}

// A File is one entry of a tree. All files belong to user and group 0.
type File struct {
	Name   string      // clean, relative, slash-separated
	Mode   fs.FileMode // type (ModeDir, ModeSymlink, ModeDevice, ModeDevice|ModeCharDevice) and permissions
	Data   []byte      // of a regular file
	Target string      // of a symbolic link
	Major  uint32      // of a device
	Minor  uint32
	Origin Origin
	Parts  []Origin // what is linked into a program
}

// A Tree is a set of files under construction. The zero value is empty and ready to use.
type Tree struct{ files map[string]File }

// Add puts a file in, and the directories above it that are not there yet.
func (t *Tree) Add(f File) {
	if f.Name == "" || path.Clean("/"+f.Name) != "/"+f.Name {
		panic(fmt.Sprintf("artifact: file name %q is not clean and relative", f.Name))
	}
	if t.files == nil {
		t.files = map[string]File{}
	}
	t.files[f.Name] = f
	for d := path.Dir(f.Name); d != "."; d = path.Dir(d) {
		if _, ok := t.files[d]; !ok {
			t.files[d] = File{Name: d, Mode: fs.ModeDir | 0o755, Origin: f.Origin}
		}
	}
}

// Dir adds an empty directory.
func (t *Tree) Dir(name string, perm fs.FileMode, o Origin) {
	t.Add(File{Name: name, Mode: fs.ModeDir | perm, Origin: o})
}

// Files returns all entries, sorted by name, each directory before what is in it.
func (t *Tree) Files() []File {
	out := make([]File, 0, len(t.files))
	for _, f := range t.files {
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool { return less(out[i].Name, out[j].Name) })
	return out
}

// less orders names by path element.
func less(a, b string) bool {
	return strings.ReplaceAll(a, "/", "\x00") < strings.ReplaceAll(b, "/", "\x00")
}
