package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// ErrFormat says that a volume is not a FAT16 volume that this package takes.
var ErrFormat = errors.New("not a sound FAT16 volume")

// ErrNotFound says that the volume has no such file.
var ErrNotFound = errors.New("no such file")

// An FS is a volume opened for reading. It keeps the table, at most 128 KiB, in memory.
type FS struct {
	r       io.ReaderAt
	table   []byte
	cluster int64 // bytes
	root    int64 // offset, bytes
	rootLen int64
	data    int64 // offset of cluster 2
	count   int   // of clusters
}

// An Entry is one name in a directory.
type Entry struct {
	Name    string
	Dir     bool
	Size    int64 // bytes
	cluster uint16
}

// Open reads the boot sector and the table of a volume of size bytes.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	b := make([]byte, sectorSize)
	if size < sectorSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, size)
	}
	if err := readAt(r, b, 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	le := binary.LittleEndian
	var (
		perCluster = int64(b[13])
		reserved   = int64(le.Uint16(b[14:]))
		tables     = int64(b[16])
		entries    = int64(le.Uint16(b[17:]))
		total      = int64(le.Uint16(b[19:]))
		fatSectors = int64(le.Uint16(b[22:]))
	)
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	switch {
	case b[510] != 0x55 || b[511] != 0xAA:
		return nil, fmt.Errorf("%w: no signature", ErrFormat)
	case le.Uint16(b[11:]) != sectorSize:
		return nil, fmt.Errorf("%w: sectors of %d bytes", ErrFormat, le.Uint16(b[11:]))
	case perCluster == 0 || perCluster&(perCluster-1) != 0:
		return nil, fmt.Errorf("%w: clusters of %d sectors", ErrFormat, perCluster)
	case reserved == 0 || tables < 1 || tables > 2 || fatSectors == 0:
		return nil, fmt.Errorf("%w: %d reserved sectors, %d tables of %d sectors", ErrFormat, reserved, tables, fatSectors)
	case entries == 0 || entries%(sectorSize/entrySize) != 0:
		return nil, fmt.Errorf("%w: %d root entries", ErrFormat, entries)
	case total > size/sectorSize:
		return nil, fmt.Errorf("%w: %d sectors on a medium of %d", ErrFormat, total, size/sectorSize)
	}
	f := &FS{r: r, cluster: perCluster * sectorSize}
	f.root = (reserved + tables*fatSectors) * sectorSize
	f.rootLen = entries * entrySize
	f.data = f.root + f.rootLen
	count := (total*sectorSize - f.data) / f.cluster
	if total*sectorSize < f.data || count < minClusters || count > maxClusters {
		return nil, fmt.Errorf("%w: %d clusters, FAT16 has %d to %d", ErrFormat, count, minClusters, maxClusters)
	}
	f.count = int(count)
	if fatSectors*sectorSize < (count+2)*2 {
		return nil, fmt.Errorf("%w: table of %d sectors is too small for %d clusters", ErrFormat, fatSectors, count)
	}
	f.table = make([]byte, (count+2)*2)
	if err := readAt(r, f.table, reserved*sectorSize); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return f, nil
}

// next returns the cluster after c, and false at the end of the chain.
func (f *FS) next(c uint16) (uint16, bool, error) {
	n := binary.LittleEndian.Uint16(f.table[int(c)*2:])
	if n >= lastCluster {
		return 0, false, nil
	}
	if !f.valid(n) {
		return 0, false, fmt.Errorf("%w: chain goes from cluster %d to %#x", ErrFormat, c, n)
	}
	return n, true, nil
}

func (f *FS) valid(c uint16) bool { return c >= 2 && int(c) < f.count+2 }

// chain reads up to limit bytes of the chain that starts at c. exact says that the chain must have
// just as many clusters as limit needs.
func (f *FS) chain(c uint16, limit int64, exact bool) ([]byte, error) {
	if limit == 0 && c == 0 {
		return nil, nil
	}
	if !f.valid(c) {
		return nil, fmt.Errorf("%w: first cluster is %#x", ErrFormat, c)
	}
	// No honest chain is longer than the volume; so the loop ends, and memory stays below the volume's size.
	if limit > int64(f.count)*f.cluster {
		if exact {
			return nil, fmt.Errorf("%w: file of %d bytes is longer than the volume", ErrFormat, limit)
		}
		limit = int64(f.count) * f.cluster
	}
	var out []byte
	for {
		n := min(f.cluster, limit-int64(len(out)))
		if n <= 0 {
			if exact {
				return nil, fmt.Errorf("%w: chain is longer than the file", ErrFormat)
			}
			return nil, fmt.Errorf("%w: directory is longer than %d bytes", ErrFormat, limit)
		}
		at := len(out)
		out = append(out, make([]byte, n)...)
		if err := readAt(f.r, out[at:], f.data+int64(c-2)*f.cluster); err != nil {
			return nil, fmt.Errorf("read cluster %d: %w", c, err)
		}
		next, more, err := f.next(c)
		if err != nil {
			return nil, err
		}
		if !more {
			if exact && int64(len(out)) != limit {
				return nil, fmt.Errorf("%w: chain ends after %d of %d bytes", ErrFormat, len(out), limit)
			}
			return out, nil
		}
		c = next
	}
}

// maxDirectory bounds a sub-directory: 65536 entries, [FAT] p24.
const maxDirectory = 65536 * entrySize

// List returns the entries of a directory, "." being the root.
func (f *FS) List(dir string) ([]Entry, error) {
	cur := Entry{Dir: true}
	root := true
	for _, name := range strings.Split(dir, "/") {
		if name == "." || name == "" {
			continue
		}
		list, err := f.list(cur, root)
		if err != nil {
			return nil, err
		}
		e, err := lookup(list, name)
		if err != nil || !e.Dir {
			return nil, fmt.Errorf("list %s: %w", dir, errors.Join(err, notDir(e)))
		}
		cur, root = e, false
	}
	return f.list(cur, root)
}

func notDir(e Entry) error {
	if e.Name != "" && !e.Dir {
		return fmt.Errorf("%s is no directory", e.Name)
	}
	return nil
}

func (f *FS) list(dir Entry, root bool) ([]Entry, error) {
	if root {
		b := make([]byte, f.rootLen)
		if err := readAt(f.r, b, f.root); err != nil {
			return nil, fmt.Errorf("read root directory: %w", err)
		}
		return parseDir(b)
	}
	b, err := f.chain(dir.cluster, maxDirectory, false)
	if err != nil {
		return nil, fmt.Errorf("read directory %s: %w", dir.Name, err)
	}
	return parseDir(b)
}

// ReadFile returns a file of at most limit bytes. Names are compared without regard to case, as FAT
// does.
func (f *FS) ReadFile(name string, limit int64) ([]byte, error) {
	dir, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i], name[i+1:]
	}
	list, err := f.List(dir)
	if err != nil {
		return nil, err
	}
	e, err := lookup(list, base)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if e.Dir {
		return nil, fmt.Errorf("read %s: is a directory", name)
	}
	if e.Size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d", name, e.Size, limit)
	}
	b, err := f.chain(e.cluster, e.Size, true)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

func lookup(list []Entry, name string) (Entry, error) {
	for _, e := range list {
		if strings.EqualFold(e.Name, name) {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%w: %s", ErrNotFound, name)
}

// parseDir reads directory entries up to the end mark. Long entries that do not belong to the short
// entry after them are an error, not a guess.
func parseDir(b []byte) ([]Entry, error) {
	var (
		out  []Entry
		long []uint16 // of the name so far, from its end
		want byte     // ordinal of the next long entry; 0: none is due
		sum  byte
		seen = map[string]bool{}
	)
	for ; len(b) >= entrySize; b = b[entrySize:] {
		e := b[:entrySize]
		switch {
		case e[0] == 0:
			if want != 0 || long != nil {
				return nil, fmt.Errorf("%w: long name without its file", ErrFormat)
			}
			return out, nil
		case e[0] == 0xE5:
			long, want = nil, 0
			continue
		case e[11]&0x3F == attrLongName:
			ord := e[0] &^ lastLong
			if e[0]&lastLong != 0 {
				if ord == 0 || ord > 20 {
					return nil, fmt.Errorf("%w: long name of %d parts", ErrFormat, ord)
				}
				long, want, sum = nil, ord, e[13]
			}
			if want == 0 || ord != want || e[13] != sum {
				return nil, fmt.Errorf("%w: parts of a long name are out of order", ErrFormat)
			}
			part := make([]uint16, charsPerLong)
			for i := range part {
				part[i] = binary.LittleEndian.Uint16(e[longOffset(i):])
			}
			long = append(part, long...)
			want--
			continue
		case e[11]&attrVolume != 0:
			long, want = nil, 0
			continue
		}
		name := aliasName(e)
		if long != nil {
			if want != 0 || checksum(e) != sum {
				return nil, fmt.Errorf("%w: long name does not belong to %q", ErrFormat, name)
			}
			var err error
			if name, err = longName(long); err != nil {
				return nil, err
			}
			long = nil
		}
		if name == "." || name == ".." {
			continue
		}
		if key := strings.ToLower(name); seen[key] {
			return nil, fmt.Errorf("%w: two files are named %q", ErrFormat, name)
		} else {
			seen[key] = true
		}
		out = append(out, Entry{
			Name:    name,
			Dir:     e[11]&attrDirectory != 0,
			Size:    int64(binary.LittleEndian.Uint32(e[28:])),
			cluster: binary.LittleEndian.Uint16(e[26:]),
		})
	}
	return out, nil
}

// aliasName returns the 8.3 name. Bits 3 and 4 of byte 12 mean a lower-case name and extension.
func aliasName(e []byte) string {
	base := strings.TrimRight(string(e[:8]), " ")
	ext := strings.TrimRight(string(e[8:11]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		return base + "." + ext
	}
	return base
}

func longName(u []uint16) (string, error) {
	for i, c := range u {
		if c != 0 {
			continue
		}
		for _, pad := range u[i+1:] {
			if pad != 0xFFFF {
				return "", fmt.Errorf("%w: something follows the end of a long name", ErrFormat)
			}
		}
		u = u[:i]
		break
	}
	s := string(utf16.Decode(u))
	if s == "" || strings.ContainsAny(s, "/\\\x00") {
		return "", fmt.Errorf("%w: long name %q", ErrFormat, s)
	}
	return s, nil
}

// readAt fills b or says why not.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
