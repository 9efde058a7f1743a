// Package squashfs writes a tree as a SquashFS 4.0 image, compressed by zstd: the read-only root of a
// unit's operating system.
//
// It writes only, and only what such a root needs: no fragments, no extended attributes, no export
// table, all files owned by 0:0. The same tree gives the same bytes. The format is that of the Linux
// kernel (fs/squashfs/squashfs_fs.h; Documentation/filesystems/squashfs.rst, section 3).
package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"path"
	"sort"

	"github.com/klauspost/compress/zstd"

	"github.com/racklet/racklet/artifact"
)

// Constants of the format.
const (
	magic          = 0x73717368
	compressorZstd = 6
	metaSize       = 8192
	metaRaw        = 1 << 15 // in a metadata block's header: stored uncompressed
	dataRaw        = 1 << 24 // in a data block's size: stored uncompressed
	noTable        = math.MaxUint64
	noFragment     = math.MaxUint32
	maxPerHeader   = 256 // entries after one directory header

	flagRawInodes   = 0x0001
	flagNoFragments = 0x0010
	flagNoXattrs    = 0x0200
	flagRawIDs      = 0x0800

	typeDir, typeFile, typeLink, typeBlock, typeChar = 1, 2, 3, 4, 5
)

// Version changes with every change of this package that may change what it writes.
const Version = "1"

// Our own choices.
const (
	blockLog  = 17 // data blocks of 128 KiB
	blockSize = 1 << blockLog
	padding   = 4096
)

// Write returns the image; its length is a multiple of 4096.
func Write(t *artifact.Tree) ([]byte, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false), zstd.WithWindowSize(blockSize))
	if err != nil {
		return nil, fmt.Errorf("write squashfs: %w", err)
	}
	defer z.Close()
	w := &writer{zstd: z, children: map[string][]artifact.File{}, number: map[string]uint32{}}
	w.out = make([]byte, 96) // the superblock, filled in at the end
	files := t.Files()
	for i, f := range files {
		d := path.Dir(f.Name)
		w.children[d] = append(w.children[d], f)
		w.number[f.Name] = uint32(i + 2)
	}
	w.number["."] = 1
	root, err := w.directory(artifact.File{Name: ".", Mode: fs.ModeDir | 0o755}, uint32(len(files)+2))
	if err != nil {
		return nil, fmt.Errorf("write squashfs: %w", err)
	}

	inodes := w.table(w.inodes.Bytes())
	dirs := w.table(w.dirs.Bytes())
	fragments := uint64(len(w.out))     // an empty table
	idBlock := w.table(make([]byte, 4)) // one identity: 0
	ids := uint64(len(w.out))
	w.out = binary.LittleEndian.AppendUint64(w.out, idBlock)
	if len(w.out) > math.MaxUint32 {
		return nil, fmt.Errorf("write squashfs: image of %d bytes is too long", len(w.out))
	}

	super := struct {
		Magic, Inodes, Time, BlockSize, Fragments uint32
		Compressor, BlockLog, Flags, IDs          uint16
		Major, Minor                              uint16
		Root, Used, IDTable, XattrTable           uint64
		InodeTable, DirTable, FragTable, Export   uint64
	}{
		magic, uint32(len(files) + 1), uint32(artifact.Epoch.Unix()), blockSize, 0,
		compressorZstd, blockLog, flagRawInodes | flagNoFragments | flagNoXattrs | flagRawIDs, 1,
		4, 0,
		root.ref(), uint64(len(w.out)), ids, noTable,
		inodes, dirs, fragments, noTable,
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, super)
	copy(w.out, b.Bytes())
	return append(w.out, make([]byte, (padding-len(w.out)%padding)%padding)...), nil
}

type writer struct {
	out      []byte
	inodes   bytes.Buffer // tables before they are cut into blocks
	dirs     bytes.Buffer
	zstd     *zstd.Encoder
	children map[string][]artifact.File
	number   map[string]uint32
}

// A position is where something starts in a table.
type position int

// block is the offset of the metadata block, counted in stored bytes: all blocks are stored whole.
func (p position) block() uint32  { return uint32(p / metaSize * (metaSize + 2)) }
func (p position) offset() uint16 { return uint16(p % metaSize) }
func (p position) ref() uint64    { return uint64(p.block())<<16 | uint64(p.offset()) }

// table stores a table as metadata blocks and returns where it starts.
func (w *writer) table(b []byte) uint64 {
	start := uint64(len(w.out))
	for len(b) > 0 {
		n := min(len(b), metaSize)
		w.out = binary.LittleEndian.AppendUint16(w.out, uint16(n|metaRaw))
		w.out = append(w.out, b[:n]...)
		b = b[n:]
	}
	return start
}

// header writes what all inodes begin with.
func (w *writer) header(kind uint16, f artifact.File) position {
	at := position(w.inodes.Len())
	put(&w.inodes, kind, unixPerm(f.Mode), uint16(0), uint16(0), uint32(artifact.Epoch.Unix()), w.number[f.Name])
	return at
}

func unixPerm(m fs.FileMode) uint16 {
	p := uint16(m.Perm())
	for bit, mode := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&mode != 0 {
			p |= bit
		}
	}
	return p
}

// directory writes what is in a directory, then its listing and its inode.
func (w *writer) directory(f artifact.File, parent uint32) (position, error) {
	kids := w.children[f.Name]
	sort.Slice(kids, func(i, j int) bool { return path.Base(kids[i].Name) < path.Base(kids[j].Name) })
	type entry struct {
		name   string
		kind   uint16
		number uint32
		at     position
	}
	var list []entry
	subdirs := 0
	for _, k := range kids {
		e := entry{name: path.Base(k.Name), number: w.number[k.Name]}
		if len(e.name) > 256 {
			return 0, fmt.Errorf("%s: name is too long", k.Name)
		}
		var err error
		switch k.Mode.Type() {
		case fs.ModeDir:
			subdirs++
			e.kind = typeDir
			e.at, err = w.directory(k, w.number[f.Name])
		case 0:
			e.kind = typeFile
			e.at, err = w.file(k)
		case fs.ModeSymlink:
			e.kind = typeLink
			e.at = w.header(typeLink, k)
			put(&w.inodes, uint32(1), uint32(len(k.Target)))
			w.inodes.WriteString(k.Target)
		case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
			e.kind = typeBlock
			if k.Mode&fs.ModeCharDevice != 0 {
				e.kind = typeChar
			}
			e.at = w.header(e.kind, k)
			put(&w.inodes, uint32(1), k.Minor&0xff|k.Major<<8|(k.Minor&^0xff)<<12) // Linux, new_encode_dev
		default:
			err = fmt.Errorf("%s: type %v is not possible", k.Name, k.Mode.Type())
		}
		if err != nil {
			return 0, err
		}
		list = append(list, e)
	}

	start := position(w.dirs.Len())
	for len(list) > 0 {
		first := list[0]
		n := 0
		for n < len(list) && n < maxPerHeader && list[n].at.block() == first.at.block() && inReach(first.number, list[n].number) {
			n++
		}
		put(&w.dirs, uint32(n-1), first.at.block(), first.number)
		for _, e := range list[:n] {
			put(&w.dirs, e.at.offset(), int16(int64(e.number)-int64(first.number)), e.kind, uint16(len(e.name)-1))
			w.dirs.WriteString(e.name)
		}
		list = list[n:]
	}
	size := w.dirs.Len() - int(start) + 3 // counts "." and ".." by this convention
	if size > math.MaxUint16 {
		return 0, fmt.Errorf("%s: directory of %d entries is too long", f.Name, len(kids))
	}
	at := w.header(typeDir, f)
	put(&w.inodes, start.block(), uint32(2+subdirs), uint16(size), start.offset(), parent)
	return at, nil
}

// inReach reports whether an entry can give its number as a difference to its header's.
func inReach(base, n uint32) bool {
	d := int64(n) - int64(base)
	return d >= math.MinInt16 && d <= math.MaxInt16
}

// file stores a file's blocks and writes its inode.
func (w *writer) file(f artifact.File) (position, error) {
	if int64(len(f.Data)) > math.MaxUint32 {
		return 0, fmt.Errorf("%s: too long", f.Name)
	}
	start := uint32(len(w.out))
	var sizes []uint32
	for b := f.Data; len(b) > 0; {
		n := min(len(b), blockSize)
		z := w.zstd.EncodeAll(b[:n], nil)
		if len(z) < n {
			sizes = append(sizes, uint32(len(z)))
			w.out = append(w.out, z...)
		} else {
			sizes = append(sizes, uint32(n|dataRaw))
			w.out = append(w.out, b[:n]...)
		}
		b = b[n:]
	}
	at := w.header(typeFile, f)
	put(&w.inodes, start, uint32(noFragment), uint32(0), uint32(len(f.Data)))
	put(&w.inodes, sizes)
	return at, nil
}

// put appends fixed-size values in little-endian order.
func put(b *bytes.Buffer, values ...any) {
	for _, v := range values {
		if err := binary.Write(b, binary.LittleEndian, v); err != nil {
			panic(err) // only for a type without a fixed size
		}
	}
}
