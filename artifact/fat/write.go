// Package fat writes and reads FAT16 volumes with long names: the boot medium that a BMC exposes to
// its compute unit, and that the unit's boot ROM reads.
//
// Write is deterministic. FS reads strictly and within bounds, since a boot ROM meets media that
// nobody has vetted: any field that does not fit, any chain that is too short, too long or leaves
// the volume is an error, and no input makes it read more than the file it was asked for.
//
// The format: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03 (below: [FAT]).
// FAT16 because a 30 MiB volume with sensible clusters is too small to be FAT32 by [FAT] p14.
package fat

import (
	"encoding/binary"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/racklet/racklet/artifact"
)

// Constants of the format.
const (
	sectorSize  = 512
	entrySize   = 32
	minClusters = 4085  // [FAT] p14: fewer clusters are FAT12
	maxClusters = 65524 // [FAT] p14: more are FAT32
	endOfChain  = 0xFFFF
	lastCluster = 0xFFF8 // [FAT] p17: from here on an entry ends its chain
	badCluster  = 0xFFF7

	attrReadOnly  = 0x01
	attrVolume    = 0x08
	attrDirectory = 0x10
	attrArchive   = 0x20
	attrLongName  = 0x0F // [FAT] p28
	lastLong      = 0x40
	charsPerLong  = 13
)

// Our own choices.
const (
	clusterSectors = 4 // 2 KiB clusters: 8 to 128 MiB
	rootEntries    = 512
	fats           = 2
	maxName        = 64
)

// Options of a volume.
type Options struct {
	Label  string // at most 11 upper-case characters
	Serial uint32 // volume serial number
	Time   time.Time
	Align  int64 // size of the volume is a multiple of it, bytes; 0: one sector
}

// Write returns a volume, as small as it can be, that holds the tree. Only regular files and
// directories are possible; permissions are not kept.
func Write(t *artifact.Tree, o Options) ([]byte, error) {
	w := &writer{opt: o, dirs: map[string][]artifact.File{}}
	for _, f := range t.Files() {
		if !f.Mode.IsDir() && !f.Mode.IsRegular() {
			return nil, fmt.Errorf("write FAT: %s: only files and directories are possible", f.Name)
		}
		d := path.Dir(f.Name)
		w.dirs[d] = append(w.dirs[d], f)
	}
	if len(o.Label) > 11 || strings.ToUpper(o.Label) != o.Label {
		return nil, fmt.Errorf("write FAT: label %q is not upper case of at most 11 characters", o.Label)
	}
	root, err := w.directory(".", 0, 0)
	if err != nil {
		return nil, fmt.Errorf("write FAT: %w", err)
	}
	if len(root) > rootEntries*entrySize {
		return nil, fmt.Errorf("write FAT: root directory needs %d entries, it has %d", len(root)/entrySize, rootEntries)
	}
	clusters := max(len(w.chains), minClusters+16) // some distance from the limit, as [FAT] p15 advises
	if clusters > maxClusters-16 {
		return nil, fmt.Errorf("write FAT: needs %d clusters, at most %d", clusters, maxClusters-16)
	}
	align := max(o.Align, sectorSize)
	// The volume's size decides the size of the table, which decides how much room is left: grow until it fits.
	var total, fatSectors int64
	for {
		fatSectors = (int64(clusters+2)*2 + sectorSize - 1) / sectorSize
		total = 1 + fats*fatSectors + rootEntries*entrySize/sectorSize + int64(clusters)*clusterSectors
		size := (total*sectorSize + align - 1) / align * align
		spare := int(size/sectorSize-total) / clusterSectors
		total = size / sectorSize
		if spare == 0 || clusters+spare > maxClusters-16 || int64(clusters+spare+2)*2 > fatSectors*sectorSize {
			break
		}
		clusters += spare
	}
	img := make([]byte, total*sectorSize)
	w.bootSector(img, total, fatSectors)
	table := img[sectorSize : sectorSize+fatSectors*sectorSize]
	le := binary.LittleEndian
	le.PutUint16(table, 0xFFF8) // [FAT] p18: media byte, then the end mark with "clean, no errors"
	le.PutUint16(table[2:], 0xFFFF)
	for i, next := range w.chains {
		le.PutUint16(table[(i+2)*2:], next)
	}
	copy(img[sectorSize+fatSectors*sectorSize:], table)
	off := (1 + fats*fatSectors) * sectorSize
	copy(img[off:], root)
	copy(img[off+rootEntries*entrySize:], w.data)
	return img, nil
}

type writer struct {
	opt    Options
	dirs   map[string][]artifact.File
	chains []uint16 // table entry of cluster i+2
	data   []byte   // of cluster 2 and on
}

// bootSector fills sector 0, [FAT] p9 and p11.
func (w *writer) bootSector(b []byte, total, fatSectors int64) {
	le := binary.LittleEndian
	copy(b, []byte{0xEB, 0x3C, 0x90})
	copy(b[3:], "RACKLET ")
	le.PutUint16(b[11:], sectorSize)
	b[13] = clusterSectors
	le.PutUint16(b[14:], 1)
	b[16] = fats
	le.PutUint16(b[17:], rootEntries)
	if total < 1<<16 {
		le.PutUint16(b[19:], uint16(total))
	} else {
		le.PutUint32(b[32:], uint32(total))
	}
	b[21] = 0xF8
	le.PutUint16(b[22:], uint16(fatSectors))
	le.PutUint16(b[24:], 32)
	le.PutUint16(b[26:], 64)
	b[36], b[38] = 0x80, 0x29
	le.PutUint32(b[39:], w.opt.Serial)
	copy(b[43:], fmt.Sprintf("%-11s", w.label()))
	copy(b[54:], "FAT16   ")
	b[510], b[511] = 0x55, 0xAA
}

func (w *writer) label() string {
	if w.opt.Label == "" {
		return "NO NAME"
	}
	return w.opt.Label
}

// alloc stores data in consecutive clusters and returns the first; 0 for no data.
func (w *writer) alloc(data []byte) uint16 {
	if len(data) == 0 {
		return 0
	}
	const size = clusterSectors * sectorSize
	first := len(w.chains) + 2
	n := (len(data) + size - 1) / size
	for i := range n {
		next := uint16(min(first+i+1, endOfChain))
		if i == n-1 {
			next = endOfChain
		}
		w.chains = append(w.chains, next)
	}
	w.data = append(w.data, data...)
	w.data = append(w.data, make([]byte, n*size-len(data))...)
	return uint16(min(first, endOfChain))
}

// directory returns the entries of a directory, after storing what it holds. A sub-directory must
// know its own first cluster, so that its size is reserved before its entries are made.
func (w *writer) directory(dir string, self, parent uint16) ([]byte, error) {
	var out []byte
	if dir == "." {
		if w.opt.Label != "" {
			out = w.entry(out, fmt.Sprintf("%-11s", w.opt.Label), attrVolume, 0, 0)
		}
	} else {
		out = w.entry(out, ".          ", attrDirectory, self, 0)
		out = w.entry(out, "..         ", attrDirectory, parent, 0)
	}
	short := map[string]bool{}
	for _, f := range w.dirs[dir] {
		name := path.Base(f.Name)
		if len(name) > maxName || strings.ContainsAny(name, `"*/:<>?\|`) || !ascii(name) {
			return nil, fmt.Errorf("%s: name is not possible", f.Name)
		}
		s, plain := shortName(name, short)
		var first uint16
		attr := byte(attrArchive)
		if f.Mode.IsDir() {
			attr = attrDirectory
			size := len(w.dirs[f.Name])*entrySize*(2+maxName/charsPerLong+1) + 2*entrySize
			first = w.alloc(make([]byte, size))
			sub, err := w.directory(f.Name, first, self)
			if err != nil {
				return nil, err
			}
			copy(w.data[int(first-2)*clusterSectors*sectorSize:], sub)
		} else {
			if int64(len(f.Data)) > 1<<31 {
				return nil, fmt.Errorf("%s: too long", f.Name)
			}
			first = w.alloc(f.Data)
		}
		if len(w.chains) > maxClusters {
			return nil, fmt.Errorf("%s does not fit", f.Name)
		}
		if !plain {
			out = longEntries(out, name, s)
		}
		out = w.entry(out, s, attr, first, uint32(len(f.Data)))
	}
	return out, nil
}

// entry appends one short entry, [FAT] p23.
func (w *writer) entry(out []byte, name string, attr byte, cluster uint16, size uint32) []byte {
	e := make([]byte, entrySize)
	copy(e, name)
	e[11] = attr
	t := w.opt.Time.UTC()
	if t.Year() < 1980 || t.Year() > 2107 {
		t = artifact.Epoch
	}
	date := uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day())
	clock := uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2)
	le := binary.LittleEndian
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date)
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], date)
	le.PutUint16(e[26:], cluster)
	if attr&attrDirectory == 0 {
		le.PutUint32(e[28:], size)
	}
	return append(out, e...)
}

// shortName makes the 8.3 alias of a name, unique in its directory ([FAT] p31), and reports whether
// the alias says it all, so that no long entries are needed.
func shortName(name string, used map[string]bool) (alias string, plain bool) {
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z':
				return r - 'a' + 'A'
			case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("$%'-_@~`!(){}^#&", r):
				return r
			case r == ' ', r == '.':
				return -1
			}
			return '_'
		}, s)
	}
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i+1:]
	}
	b, e := clean(base), clean(ext)
	if len(b) <= 8 && len(e) <= 3 && b != "" {
		alias = fmt.Sprintf("%-8s%-3s", b, e)
		want := b
		if e != "" {
			want += "." + e
		}
		if !used[alias] {
			used[alias] = true
			return alias, want == name
		}
	}
	for n := 1; ; n++ {
		tail := fmt.Sprintf("~%d", n)
		alias = fmt.Sprintf("%-8s%-3s", b[:min(len(b), 8-len(tail))]+tail, e[:min(len(e), 3)])
		if !used[alias] {
			used[alias] = true
			return alias, false
		}
	}
}

// longEntries appends the entries of a long name, last part first, [FAT] p28.
func longEntries(out []byte, name, alias string) []byte {
	u := utf16.Encode([]rune(name))
	sum := checksum([]byte(alias))
	parts := (len(u) + charsPerLong - 1) / charsPerLong
	for p := parts; p >= 1; p-- {
		e := make([]byte, entrySize)
		e[0] = byte(p)
		if p == parts {
			e[0] |= lastLong
		}
		e[11], e[13] = attrLongName, sum
		for i := range charsPerLong {
			c := uint16(0xFFFF)
			switch at := (p-1)*charsPerLong + i; {
			case at < len(u):
				c = u[at]
			case at == len(u):
				c = 0
			}
			binary.LittleEndian.PutUint16(e[longOffset(i):], c)
		}
		out = append(out, e...)
	}
	return out
}

// longOffset is where character i stands in a long entry.
func longOffset(i int) int {
	switch {
	case i < 5:
		return 1 + 2*i
	case i < 11:
		return 14 + 2*(i-5)
	}
	return 28 + 2*(i-11)
}

// checksum ties long entries to their short one, [FAT] p28.
func checksum(alias []byte) byte {
	var s byte
	for _, c := range alias[:11] {
		s = s>>1 | s<<7
		s += c
	}
	return s
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
