// Package dynlink takes programs out of Debian packages, with the shared libraries that they are
// linked to and nothing else of the packages: no documentation, no scripts, no shells.
//
// Which libraries those are, each program says itself (ELF, "Dynamic Section", DT_NEEDED; the loader
// in PT_INTERP), and which package holds them is found by name. What a program opens at run time
// (dlopen) is not found this way and has to be named.
package dynlink

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/deb"
)

// maxFile is the longest file of a package that is read, in bytes.
const maxFile = 256 << 20

// Packages are the programs and libraries of opened packages, by their path.
type Packages struct {
	files map[string]artifact.File // regular files and links
	names map[string]bool
}

// wanted says whether a file is where Debian keeps programs and shared libraries (Debian policy, 9.1.1).
func wanted(name string) bool {
	dir := path.Dir(name)
	return dir == "usr/bin" || dir == "usr/sbin" || dir == "usr/lib" || dir == "bin" || dir == "sbin" || dir == "lib" ||
		strings.HasPrefix(dir, "usr/lib/") && strings.Contains(dir, "-linux-gnu") || strings.HasPrefix(dir, "lib/") && strings.Contains(dir, "-linux-gnu")
}

// Open adds the programs and libraries of the package in file, which p locks. licence is the SPDX expression
// for them, and architecture Debian's.
func (k *Packages) Open(file string, p deb.Package, architecture, licence string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open package: %w", err)
	}
	defer f.Close()
	escape := strings.NewReplacer("+", "%2B", ":", "%3A")
	if err := k.Read(f, artifact.Origin{
		Name: p.Package, Version: p.Version, SHA256: p.SHA256, Licence: licence,
		Source: "pkg:deb/debian/" + escape.Replace(p.Package) + "@" + escape.Replace(p.Version) + "?arch=" + architecture,
	}); err != nil {
		return fmt.Errorf("package %s %s: %w", p.Package, p.Version, err)
	}
	return nil
}

// Read adds the programs and libraries of a package.
func (k *Packages) Read(r io.Reader, origin artifact.Origin) error {
	if k.files == nil {
		k.files, k.names = map[string]artifact.File{}, map[string]bool{}
	}
	k.names[origin.Name] = true
	return deb.Walk(r, func(h *tar.Header, r io.Reader) error {
		if !wanted(h.Name) {
			return nil
		}
		f := artifact.File{Name: h.Name, Origin: origin}
		switch h.Typeflag {
		case tar.TypeReg:
			b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
			if err != nil || len(b) > maxFile {
				return errors.Join(err, fmt.Errorf("read %s: at most %d bytes", h.Name, maxFile))
			}
			f.Data, f.Mode = b, 0o644|fs.FileMode(h.Mode&0o111)
		case tar.TypeSymlink:
			f.Target, f.Mode = h.Linkname, fs.ModeSymlink|0o777
		case tar.TypeLink:
			old, ok := k.files[strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")]
			if !ok {
				return nil
			}
			f.Data, f.Target, f.Mode = old.Data, old.Target, old.Mode
		default:
			return nil
		}
		k.files[h.Name] = f
		return nil
	})
}

// Add puts programs, named by their path in a package ("usr/bin/crun"), and the libraries that they need into a tree.
// Libraries keep the path that the loader finds them at.
func (k *Packages) Add(t *artifact.Tree, programs ...string) error {
	done := map[string]bool{}
	for _, p := range programs {
		if err := k.add(t, p, "the image", done); err != nil {
			return fmt.Errorf("add programs: %w", err)
		}
	}
	return nil
}

func (k *Packages) add(t *artifact.Tree, name, why string, done map[string]bool) error {
	if done[name] {
		return nil
	}
	done[name] = true
	f, err := k.follow(name)
	if err != nil {
		return fmt.Errorf("%w, which %s needs", err, why)
	}
	f.Name = name
	f.Mode &^= fs.ModeSetuid | fs.ModeSetgid
	t.Add(f)
	needs, loader, err := needed(f.Data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, lib := range needs {
		at, err := k.find(lib)
		if err != nil {
			return fmt.Errorf("%w, which %s needs", err, name)
		}
		if err := k.add(t, at, name, done); err != nil {
			return err
		}
	}
	if loader != "" {
		at, err := k.find(path.Base(loader))
		if err != nil {
			return fmt.Errorf("%w, the loader of %s", err, name)
		}
		if err := k.add(t, at, name, done); err != nil {
			return err
		}
		if want := strings.TrimPrefix(loader, "/"); want != at { // the kernel opens the path that the program names
			t.Add(artifact.File{Name: want, Mode: fs.ModeSymlink | 0o777, Target: "/" + at, Origin: f.Origin})
		}
	}
	return nil
}

// follow returns the file at a path, through symbolic links.
func (k *Packages) follow(name string) (artifact.File, error) {
	for range 8 {
		f, ok := k.files[name]
		if !ok {
			return f, fmt.Errorf("no file %s in the packages %s", name, strings.Join(k.list(), ", "))
		}
		if f.Mode.IsRegular() {
			return f, nil
		}
		if path.IsAbs(f.Target) {
			name = strings.TrimPrefix(path.Clean(f.Target), "/")
		} else {
			name = path.Join(path.Dir(name), f.Target)
		}
	}
	return artifact.File{}, fmt.Errorf("%s is a link to a link to a link", name)
}

// find returns the path of a library.
func (k *Packages) find(lib string) (string, error) {
	var at []string
	for name := range k.files {
		if path.Base(name) == lib && strings.Contains(name, "lib/") {
			at = append(at, name)
		}
	}
	if len(at) == 0 {
		return "", fmt.Errorf("no library %s in the packages %s", lib, strings.Join(k.list(), ", "))
	}
	sort.Strings(at) // one in the architecture's own folder may have a link beside it
	for _, name := range at {
		if strings.Contains(name, "-linux-gnu/") {
			return name, nil
		}
	}
	return at[0], nil
}

func (k *Packages) list() []string {
	var out []string
	for n := range k.names {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// needed reads which libraries and which loader a program or library asks for.
func needed(b []byte) (libraries []string, loader string, err error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, "", err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			if err != nil {
				return nil, "", err
			}
			loader = strings.TrimRight(string(text), "\x00")
		}
	}
	libraries, err = f.ImportedLibraries()
	return libraries, loader, err
}
