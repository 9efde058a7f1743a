// Package kernel takes a Linux kernel and the modules that a unit needs out of a Debian package.
//
// Debian's packages carry no modules.dep (depmod runs when they are installed), so that the order of
// loading follows from what each module says about itself in its section .modinfo.
package kernel

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/deb"
)

const (
	maxImage  = 128 << 20 // our own limits, in bytes
	maxModule = 64 << 20
)

// A Kernel is what a package holds.
type Kernel struct {
	Release string          // such as "6.12.117+deb13-cloud-arm64", what uname -r says
	Image   []byte          // uncompressed arm64 Image
	Origin  artifact.Origin // the package
	modules map[string]packed
	builtin map[string]bool
}

// packed is a module as it lies in the package.
type packed struct {
	ext  string // ".ko", ".ko.xz" or ".ko.zst"
	data []byte
}

// A Module is one loadable module, decompressed; its appended signature is intact.
type Module struct {
	Name string // as the kernel writes it, with underscores
	Data []byte
}

// Open reads the kernel out of the package file that lock entry p names.
func Open(file string, p deb.Package) (*Kernel, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open kernel package: %w", err)
	}
	defer f.Close()
	k, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("kernel package %s %s: %w", p.Package, p.Version, err)
	}
	k.Origin = artifact.Origin{
		Name: p.Package, Version: p.Version, SHA256: p.SHA256, Licence: "GPL-2.0-only WITH Linux-syscall-note",
		Source: "pkg:deb/debian/" + strings.ReplaceAll(p.Package, "+", "%2B") + "@" + strings.ReplaceAll(p.Version, "+", "%2B") + "?arch=arm64",
	}
	return k, nil
}

// Read reads the kernel out of a Debian package.
func Read(r io.Reader) (*Kernel, error) {
	k := &Kernel{modules: map[string]packed{}, builtin: map[string]bool{}}
	err := deb.Walk(r, func(h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		dir, base := path.Split(h.Name)
		name, ext := cutModule(base)
		switch {
		case dir == "boot/" && strings.HasPrefix(base, "vmlinuz-"):
			b, err := readAll(r, maxImage)
			if err != nil {
				return fmt.Errorf("read %s: %w", h.Name, err)
			}
			k.Release = strings.TrimPrefix(base, "vmlinuz-")
			k.Image = b
		case ext != "":
			b, err := readAll(r, maxModule)
			if err != nil {
				return fmt.Errorf("read %s: %w", h.Name, err)
			}
			k.modules[name] = packed{ext, b}
		case base == "modules.builtin":
			b, err := readAll(r, maxModule)
			if err != nil {
				return fmt.Errorf("read %s: %w", h.Name, err)
			}
			for line := range strings.Lines(string(b)) {
				name, _ := cutModule(path.Base(strings.TrimSpace(line)))
				k.builtin[name] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if k.Image == nil {
		return nil, fmt.Errorf("holds no boot/vmlinuz-*")
	}
	if bytes.HasPrefix(k.Image, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(k.Image))
		if err != nil {
			return nil, fmt.Errorf("decompress kernel: %w", err)
		}
		if k.Image, err = readAll(z, maxImage); err != nil {
			return nil, fmt.Errorf("decompress kernel: %w", err)
		}
	}
	// Magic of the arm64 Image header (Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image").
	if len(k.Image) < 64 || binary.LittleEndian.Uint32(k.Image[56:]) != 0x644d5241 {
		return nil, fmt.Errorf("boot/vmlinuz-%s is not an arm64 Image", k.Release)
	}
	return k, nil
}

// Gzip returns the image as boot loaders take it.
func (k *Kernel) Gzip() []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	z.ModTime = time.Unix(0, 0) // written as "not known"
	z.Write(k.Image)
	z.Close()
	return b.Bytes()
}

// Modules returns the named modules and all that they depend on, in an order in which each can be
// loaded. Modules that are built into the kernel are left out; an unknown name is an error.
func (k *Kernel) Modules(names ...string) ([]Module, error) {
	var out []Module
	state := map[string]int{} // 1: on the way, 2: done
	var visit func(name string, optional bool) error
	visit = func(name string, optional bool) error {
		name = strings.ReplaceAll(name, "-", "_")
		if state[name] != 0 || k.builtin[name] {
			return nil
		}
		p, ok := k.modules[name]
		if !ok {
			if optional {
				return nil
			}
			return fmt.Errorf("kernel %s has no module %q", k.Release, name)
		}
		state[name] = 1
		data, err := p.unpack()
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		info, err := modinfo(data)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range strings.FieldsFunc(info["depends"], func(r rune) bool { return r == ',' }) {
			if err := visit(d, false); err != nil {
				return err
			}
		}
		// "pre: a b post: c" (modprobe.d(5)); what is not there is an algorithm's alias and no loss.
		pre, _, _ := strings.Cut(strings.TrimPrefix(info["softdep"], "pre:"), "post:")
		if strings.HasPrefix(info["softdep"], "pre:") {
			for _, d := range strings.Fields(pre) {
				if err := visit(d, true); err != nil {
					return err
				}
			}
		}
		state[name] = 2
		out = append(out, Module{name, data})
		return nil
	}
	for _, n := range names {
		if err := visit(n, false); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Has reports whether a module of that name can be loaded or is built in.
func (k *Kernel) Has(name string) bool {
	name = strings.ReplaceAll(name, "-", "_")
	_, ok := k.modules[name]
	return ok || k.builtin[name]
}

// Names returns the names of all loadable modules, sorted.
func (k *Kernel) Names() []string {
	var out []string
	for n := range k.modules {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

func (p packed) unpack() ([]byte, error) {
	switch p.ext {
	case ".ko":
		return p.data, nil
	case ".ko.xz":
		return deb.ReadXZ(p.data, maxModule)
	case ".ko.zst":
		z, err := zstd.NewReader(bytes.NewReader(p.data), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return readAll(z, maxModule)
	}
	return nil, fmt.Errorf("compression %q is not known", p.ext)
}

// modinfo reads the key=value strings of a module's section .modinfo. Of keys that occur more than
// once the values are joined by blanks.
func modinfo(ko []byte) (map[string]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("has no section .modinfo")
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, kv := range strings.Split(string(b), "\x00") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		if have := m[k]; have != "" {
			v = have + " " + v
		}
		m[k] = v
	}
	return m, nil
}

func cutModule(base string) (name, ext string) {
	if i := strings.Index(base, ".ko"); i > 0 {
		switch ext := base[i:]; ext {
		case ".ko", ".ko.xz", ".ko.zst":
			return strings.ReplaceAll(base[:i], "-", "_"), ext
		}
	}
	return "", ""
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return b, err
}
