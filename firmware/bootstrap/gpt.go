package bootstrap

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// The partitions of the data disk, in the order they lie on it. Nothing that
// stage 1 reads from any of them is trusted before it has been checked.
const (
	PartitionOSA   = "racklet-os-a"  // one root image with its dm-verity tree, raw
	PartitionOSB   = "racklet-os-b"  // the other one
	PartitionCache = "racklet-cache" // two alternating records, see Record
	PartitionState = "racklet-state" // the rest; left to the operating system
)

// Sizes of the partitions in bytes. The state partition takes what is left.
const (
	osPartitionSize    = 256 << 20
	cachePartitionSize = 16 << 20
	minStateSize       = 1 << 20
	partitionAlign     = 1 << 20
)

// Numbers of the GUID partition table (UEFI 2.10, chapter 5).
const (
	sectorSize     = 512
	gptHeaderSize  = 92         // 5.3.2, HeaderSize
	gptEntries     = 128        // 5.3.2, NumberOfPartitionEntries
	gptEntrySize   = 128        // 5.3.2, SizeOfPartitionEntry
	gptRevision    = 0x00010000 // 5.3.2, Revision
	gptTableSector = gptEntries * gptEntrySize / sectorSize
	gptNameUnits   = 36 // 5.3.3, PartitionName, UTF-16 code units
)

var gptSignature = [8]byte{'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T'}

// partitionType is the type GUID of all partitions here: Linux file system
// data, which no firmware and no kernel acts upon by itself
// (0FC63DAF-8483-4772-8E79-3D69D8477DE4, in the byte order of appendix A).
var partitionType = [16]byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}

// Partition is a named range of the data disk.
type Partition struct {
	Name   string
	Number int   // counted from 1, as the kernel does
	Offset int64 // bytes from the start of the disk
	Size   int64 // bytes
}

// errNoTable is a disk without a partition table.
var errNoTable = errors.New("no partition table")

type gptHeader struct {
	Signature    [8]byte
	Revision     uint32
	HeaderSize   uint32
	HeaderCRC    uint32
	_            uint32
	MyLBA        uint64
	AlternateLBA uint64
	FirstUsable  uint64
	LastUsable   uint64
	Disk         [16]byte
	EntryLBA     uint64
	Entries      uint32
	EntrySize    uint32
	EntriesCRC   uint32
}

type gptEntry struct {
	Type, ID    [16]byte
	First, Last uint64
	Attributes  uint64
	Name        [gptNameUnits]uint16
}

// readPartitions returns the partitions that the table of a disk of size
// bytes names, from its backup at the end where the one at the start is
// damaged. A disk that begins with nothing but zeros gives errNoTable.
func readPartitions(r io.ReaderAt, size int64) ([]Partition, error) {
	sectors := uint64(size / sectorSize)
	if size < sectorSize*(2*(gptTableSector+1)+2) {
		return nil, fmt.Errorf("disk of %d bytes is too small for a partition table", size)
	}
	parts, err := readTable(r, 1, sectors)
	if err == nil {
		return parts, nil
	}
	if backup, berr := readTable(r, sectors-1, sectors); berr == nil {
		return backup, nil
	}
	start := make([]byte, sectorSize*(gptTableSector+2))
	if _, rerr := r.ReadAt(start, 0); rerr != nil {
		return nil, fmt.Errorf("read start of disk: %w", rerr)
	}
	if len(bytes.Trim(start, "\x00")) == 0 {
		return nil, errNoTable
	}
	return nil, err
}

func readTable(r io.ReaderAt, lba, sectors uint64) ([]Partition, error) {
	sector := make([]byte, sectorSize)
	if _, err := r.ReadAt(sector, int64(lba)*sectorSize); err != nil {
		return nil, fmt.Errorf("read partition table header: %w", err)
	}
	var h gptHeader
	if err := binary.Read(bytes.NewReader(sector), binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("decode partition table header: %w", err)
	}
	switch {
	case h.Signature != gptSignature:
		return nil, errors.New("partition table header: no EFI PART signature")
	case h.Revision != gptRevision, h.HeaderSize != gptHeaderSize, h.Entries != gptEntries, h.EntrySize != gptEntrySize:
		return nil, errors.New("partition table header: not the form that this program writes")
	case h.MyLBA != lba, h.EntryLBA >= sectors-gptTableSector:
		return nil, errors.New("partition table header: out of place")
	}
	crc := h.HeaderCRC
	binary.LittleEndian.PutUint32(sector[16:], 0)
	if got := crc32.ChecksumIEEE(sector[:gptHeaderSize]); got != crc {
		return nil, fmt.Errorf("partition table header: checksum %08x, expected %08x", got, crc)
	}
	table := make([]byte, gptEntries*gptEntrySize)
	if _, err := r.ReadAt(table, int64(h.EntryLBA)*sectorSize); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if got := crc32.ChecksumIEEE(table); got != h.EntriesCRC {
		return nil, fmt.Errorf("partition table: checksum %08x, expected %08x", got, h.EntriesCRC)
	}
	var parts []Partition
	for i := range gptEntries {
		var e gptEntry
		if err := binary.Read(bytes.NewReader(table[i*gptEntrySize:]), binary.LittleEndian, &e); err != nil {
			return nil, fmt.Errorf("decode partition %d: %w", i+1, err)
		}
		if e.Type == [16]byte{} {
			continue
		}
		if e.First < h.FirstUsable || e.Last > h.LastUsable || e.Last < e.First || e.Last >= sectors {
			return nil, fmt.Errorf("partition %d: sectors %d to %d are off the disk", i+1, e.First, e.Last)
		}
		name := e.Name[:]
		for n, u := range name {
			if u == 0 {
				name = name[:n]
				break
			}
		}
		parts = append(parts, Partition{
			Name:   string(utf16.Decode(name)),
			Number: i + 1,
			Offset: int64(e.First) * sectorSize,
			Size:   int64(e.Last-e.First+1) * sectorSize,
		})
	}
	return parts, nil
}

// layout is where the partitions of a disk of size bytes go.
func layout(size int64) ([]Partition, error) {
	offset := int64(partitionAlign)
	end := size - sectorSize*(gptTableSector+1) // backup table and header
	parts := []Partition{
		{Name: PartitionOSA, Size: osPartitionSize},
		{Name: PartitionOSB, Size: osPartitionSize},
		{Name: PartitionCache, Size: cachePartitionSize},
		{Name: PartitionState},
	}
	for i := range parts {
		p := &parts[i]
		p.Number, p.Offset = i+1, offset
		if p.Size == 0 {
			p.Size = (end - offset) / partitionAlign * partitionAlign
			if p.Size < minStateSize {
				return nil, fmt.Errorf("data disk of %d MiB is too small: at least %d MiB needed",
					size>>20, (offset+minStateSize+2*partitionAlign)>>20)
			}
		}
		offset += p.Size
	}
	return parts, nil
}

// writePartitions lays out the disk: the backup first, then the table at the
// start, so that a power cut leaves a disk that reads as empty or as laid out.
func writePartitions(w io.WriterAt, size int64, parts []Partition) error {
	sectors := uint64(size / sectorSize)
	table := new(bytes.Buffer)
	var disk [16]byte
	if err := newGUID(&disk); err != nil {
		return err
	}
	for _, p := range parts {
		e := gptEntry{
			Type:  partitionType,
			First: uint64(p.Offset / sectorSize),
			Last:  uint64((p.Offset+p.Size)/sectorSize) - 1,
		}
		if err := newGUID(&e.ID); err != nil {
			return err
		}
		copy(e.Name[:], utf16.Encode([]rune(p.Name)))
		if err := binary.Write(table, binary.LittleEndian, &e); err != nil {
			return err
		}
	}
	table.Write(make([]byte, gptEntries*gptEntrySize-table.Len()))

	header := func(my, other, entries uint64) []byte {
		h := gptHeader{
			Signature: gptSignature, Revision: gptRevision, HeaderSize: gptHeaderSize,
			MyLBA: my, AlternateLBA: other,
			FirstUsable: gptTableSector + 2, LastUsable: sectors - gptTableSector - 2,
			Disk: disk, EntryLBA: entries, Entries: gptEntries, EntrySize: gptEntrySize,
			EntriesCRC: crc32.ChecksumIEEE(table.Bytes()),
		}
		b, _ := binary.Append(nil, binary.LittleEndian, &h)
		binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b))
		return append(b, make([]byte, sectorSize-len(b))...)
	}
	last := sectors - 1
	for _, step := range []struct {
		lba  uint64
		data []byte
	}{
		{last - gptTableSector, table.Bytes()},
		{last, header(last, 1, last-gptTableSector)},
		{0, protectiveMBR(sectors)},
		{2, table.Bytes()},
		{1, header(1, last, 2)},
	} {
		if _, err := w.WriteAt(step.data, int64(step.lba)*sectorSize); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}

// protectiveMBR is sector 0 of a disk with a GUID partition table (5.2.3).
func protectiveMBR(sectors uint64) []byte {
	b := make([]byte, sectorSize)
	p := b[446:]
	copy(p, []byte{0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(p[8:], 1)
	binary.LittleEndian.PutUint32(p[12:], uint32(min(sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func newGUID(g *[16]byte) error {
	if _, err := rand.Read(g[:]); err != nil {
		return fmt.Errorf("make partition identifier: %w", err)
	}
	g[7] = g[7]&0x0f | 0x40 // version 4, random (RFC 9562, 5.4), mixed byte order
	g[8] = g[8]&0x3f | 0x80
	return nil
}
