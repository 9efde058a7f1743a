// Package kerneltest makes small kernel packages for tests: what package kernel reads, without a
// kernel in it.
package kerneltest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
	"strings"

	"github.com/ulikunitz/xz"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/kernel"
)

// Release is the kernel release of the packages.
const Release = "6.12.0-test"

// Image is the kernel image: a header and nothing to run.
func Image() []byte {
	b := bytes.Repeat([]byte("kernel "), 1000)
	binary.LittleEndian.PutUint32(b[56:], 0x644d5241) // magic of arm64's Image
	return b
}

// Package returns a Debian package. modules maps the name of each module to its .modinfo strings,
// separated by blanks, such as "depends=a,b"; builtin names modules that are part of the kernel.
func Package(modules map[string]string, builtin ...string) []byte {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	add := func(name string, content []byte) {
		must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: 0o644, Size: int64(len(content))}))
		_, err := w.Write(content)
		must(err)
	}
	add("boot/vmlinuz-"+Release, Image())
	names := make([]string, 0, len(modules))
	for n := range modules {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		add("usr/lib/modules/"+Release+"/kernel/"+n+".ko.xz", compress(Module(modules[n])))
	}
	var list strings.Builder
	for _, n := range builtin {
		fmt.Fprintf(&list, "kernel/%s.ko\n", n)
	}
	add("usr/lib/modules/"+Release+"/modules.builtin", []byte(list.String()))
	must(w.Close())

	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"data.tar.xz", compress(data.Bytes())}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

// Module returns an ELF file with nothing but a section .modinfo.
func Module(info string) []byte {
	modinfo := []byte(strings.ReplaceAll(info, " ", "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put := func(v ...any) {
		for _, x := range v {
			must(binary.Write(&b, binary.LittleEndian, x))
		}
	}
	const header = 64
	sections := uint64(header + len(modinfo) + len(names))
	put(uint16(1), uint16(183), uint32(1), uint64(0), uint64(0), sections, uint32(0), uint16(header), uint16(0), uint16(0), uint16(64), uint16(3), uint16(2))
	b.Write(modinfo)
	b.Write(names)
	section := func(name, kind uint32, at, size uint64) {
		put(name, kind, uint64(0), uint64(0), at, size, uint32(0), uint32(0), uint64(1), uint64(0))
	}
	section(0, 0, 0, 0)
	section(1, 1, header, uint64(len(modinfo)))
	section(10, 3, uint64(header+len(modinfo)), uint64(len(names)))
	return b.Bytes()
}

// Kernel returns a kernel with all modules that images ask for, each on its own.
func Kernel(modules ...string) *kernel.Kernel {
	m := map[string]string{}
	for _, n := range modules {
		m[n] = "name=" + n + " depends="
	}
	k, err := kernel.Read(bytes.NewReader(Package(m)))
	must(err)
	k.Origin = artifact.Origin{Name: "linux-image-test", Version: "6.12-1", Source: "pkg:deb/debian/linux-image-test@6.12-1", Licence: "GPL-2.0-only", SHA256: strings.Repeat("0", 64)}
	return k
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	must(err)
	_, err = w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err) // writing to memory
	}
}
