// Package dynlinktest makes small packages with programs and libraries for tests: what package dynlink
// reads of them, and no code.
package dynlinktest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// ELF is a program (with a loader) or a library that needs others, and nothing more than that.
func ELF(loader string, needs ...string) []byte {
	// A minimal 64-bit little-endian ELF: header, two or three program headers, dynamic section, strings.
	var strs bytes.Buffer
	strs.WriteByte(0)
	at := map[string]uint64{}
	for _, n := range needs {
		at[n] = uint64(strs.Len())
		strs.WriteString(n + "\x00")
	}
	const base = 64 + 4*64
	names := []byte("\x00.dynamic\x00.dynstr\x00.shstrtab\x00")
	var dyn []byte
	u64 := func(v uint64) []byte {
		b := make([]byte, 8)
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		return b
	}
	for _, n := range needs {
		dyn = append(append(dyn, u64(1)...), u64(at[n])...) // DT_NEEDED
	}
	dyn = append(dyn, make([]byte, 16)...) // DT_NULL
	body := append(append(append([]byte(nil), dyn...), strs.Bytes()...), names...)
	interpAt := base + len(body)
	body = append(body, loader+"\x00"...)
	shoff := base + len(body)

	var f bytes.Buffer
	le := func(n int, v uint64) { f.Write(u64(v)[:n]) }
	f.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	le(2, 3)   // ET_DYN
	le(2, 183) // EM_AARCH64
	le(4, 1)
	le(8, 0)
	le(8, 64)
	le(8, uint64(shoff))
	le(4, 0)
	le(2, 64)
	le(2, 56)
	phnum := uint64(0)
	if loader != "" {
		phnum = 1
	}
	le(2, phnum)
	le(2, 64)
	le(2, 4)
	le(2, 3)
	if phnum == 1 {
		le(4, 3) // PT_INTERP
		le(4, 4)
		le(8, uint64(interpAt))
		le(8, 0)
		le(8, 0)
		le(8, uint64(len(loader)+1))
		le(8, uint64(len(loader)+1))
		le(8, 1)
	}
	f.Write(make([]byte, base-f.Len()))
	f.Write(body)
	section := func(name, kind, offset, size, link, entry uint64) {
		le(4, name)
		le(4, kind)
		le(8, 0)
		le(8, 0)
		le(8, offset)
		le(8, size)
		le(4, link)
		le(4, 0)
		le(8, 1)
		le(8, entry)
	}
	section(0, 0, 0, 0, 0, 0)
	section(1, 6, base, uint64(len(dyn)), 2, 16)                    // SHT_DYNAMIC
	section(10, 3, base+uint64(len(dyn)), uint64(strs.Len()), 0, 0) // SHT_STRTAB
	section(18, 3, base+uint64(len(dyn)+strs.Len()), uint64(len(names)), 0, 0)
	return f.Bytes()
}

// Package is a Debian package with files; "-> x" is a link to x.
func Package(files map[string][]byte) []byte {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "./" + n, Mode: 0o755, Size: int64(len(files[n]))}
		if to, ok := strings.CutPrefix(string(files[n]), "-> "); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err) // nothing that is written to memory fails
		}
		if h.Size > 0 {
			if _, err := w.Write(files[n]); err != nil {
				panic(err) // nothing that is written to memory fails
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", "data.tar", 0, 0, 0, 0o100644, data.Len())
	out.Write(data.Bytes())
	return out.Bytes()
}
