package bootstrap

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPartitions(t *testing.T) {
	d := newDisk(t, diskSize)
	if _, err := readPartitions(d, d.Size()); !errors.Is(err, errNoTable) {
		t.Fatalf("blank disk: %v", err)
	}
	parts, err := prepare(d)
	if err != nil || !parts.fresh {
		t.Fatalf("prepare: %+v, %v", parts, err)
	}
	list, err := readPartitions(d, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	var end int64
	for i, p := range list {
		if p.Number != i+1 || p.Offset < end || p.Offset%partitionAlign != 0 || p.Offset+p.Size > d.Size() {
			t.Errorf("partition %+v", p)
		}
		end = p.Offset + p.Size
	}
	if names := []string{list[0].Name, list[1].Name, list[2].Name, list[3].Name}; !slices.Equal(names, []string{PartitionOSA, PartitionOSB, PartitionCache, PartitionState}) {
		t.Errorf("partitions %v", names)
	}
	// Each sector of the first table can go: the second one takes over.
	for _, at := range []int64{sectorSize, sectorSize + 20, 2 * sectorSize, 2*sectorSize + 100} {
		d.flip(t, at)
		again, err := prepare(d)
		if err != nil || again.fresh || again.os != parts.os || again.cache != parts.cache {
			t.Errorf("first table damaged at %d: %+v, %v", at, again, err)
		}
		// Both damaged: hands off.
		d.flip(t, d.Size()-sectorSize)
		if _, err := prepare(d); asFailure(err, "").Reason != "disk.layout" {
			t.Errorf("both tables damaged: %v", err)
		}
		d.flip(t, d.Size()-sectorSize)
		d.flip(t, at)
	}
}

// TestLayoutPowerCut cuts the power after every sector of the first layout:
// the next boot finds a disk that it can lay out, or one that is laid out.
func TestLayoutPowerCut(t *testing.T) {
	whole := newDisk(t, diskSize)
	if _, err := prepare(whole); err != nil {
		t.Fatal(err)
	}
	for cut := int64(0); cut < whole.wrote; cut += sectorSize {
		d := newDisk(t, diskSize)
		d.budget = cut
		if _, err := prepare(d); err == nil {
			t.Fatalf("cut at %d: no error", cut)
		}
		d.budget = -1
		if _, err := prepare(d); err != nil {
			t.Fatalf("after a cut at %d: %v", cut, err)
		}
		d.Close()
	}
}

// TestRecordPowerCut cuts the power at each point of a write: the next boot
// reads the record of before, or the new one.
func TestRecordPowerCut(t *testing.T) {
	d := newDisk(t, diskSize)
	parts, err := prepare(d)
	if err != nil {
		t.Fatal(err)
	}
	rec := readRecord(d, parts.cache)
	if rec.Sequence != 0 || len(rec.Bundle) != 0 || rec.Images == nil {
		t.Fatalf("record of a blank disk %+v", rec)
	}
	rec.Bundle = random(1, 3000)
	if err := writeRecord(d, parts.cache, rec); err != nil {
		t.Fatal(err)
	}
	for cut := int64(0); cut < 3200; cut += 7 {
		before := readRecord(d, parts.cache)
		next := readRecord(d, parts.cache)
		next.Bundle = random(uint64(cut)+2, 3000)
		d.budget = cut
		err := writeRecord(d, parts.cache, next)
		d.budget = -1
		got := readRecord(d, parts.cache)
		want := before
		if err == nil {
			want = next
		}
		if got.Sequence != want.Sequence || !bytes.Equal(got.Bundle, want.Bundle) {
			t.Fatalf("cut at %d (%v): record %d, want %d", cut, err, got.Sequence, want.Sequence)
		}
	}
	rec.Bundle = make([]byte, cachePartitionSize/2)
	if err := writeRecord(d, parts.cache, rec); err == nil {
		t.Error("a record that does not fit was written")
	}
}

// TestRecordForgedSequence: whoever wrote to the disk chose numbers that cannot
// be counted on from. What is written after that is read all the same.
func TestRecordForgedSequence(t *testing.T) {
	for _, forged := range [][2]uint64{{math.MaxUint64, math.MaxUint64}, {math.MaxUint64 - 1, math.MaxUint64}, {0, math.MaxUint64}, {math.MaxUint64 - 2, math.MaxUint64 - 1}} {
		d := memDisk(make([]byte, 128<<10))
		p := Partition{Size: int64(len(d))}
		for half, seq := range forged {
			one := memDisk(make([]byte, 128<<10))
			if err := writeRecord(one, p, &Record{Sequence: seq - 1, Bundle: []byte("forged")}); err != nil {
				t.Fatal(err)
			}
			from := int(seq%2) * len(one) / 2
			copy(d[half*len(d)/2:(half+1)*len(d)/2], one[from:from+len(one)/2])
		}
		for attempt := 1; attempt < 6; attempt++ {
			rec := readRecord(d, p)
			rec.Bundle, rec.Staging.Attempts = []byte("ours"), attempt
			if err := writeRecord(d, p, rec); err != nil {
				t.Fatal(err)
			}
			if got := readRecord(d, p); string(got.Bundle) != "ours" || got.Staging.Attempts != attempt {
				t.Errorf("%d: after attempt %d the disk says %q, %d", forged, attempt, got.Bundle, got.Staging.Attempts)
			}
		}
	}
}

func FuzzReadPartitions(f *testing.F) {
	file, err := os.Create(filepath.Join(f.TempDir(), "disk"))
	if err != nil {
		f.Fatal(err)
	}
	d := &fileDisk{File: file, size: diskSize, budget: -1}
	parts, err := layout(diskSize)
	if err != nil {
		f.Fatal(err)
	}
	if err := writePartitions(d, diskSize, parts); err != nil {
		f.Fatal(err)
	}
	head := make([]byte, sectorSize*(gptTableSector+2))
	if _, err := d.ReadAt(head, 0); err != nil {
		f.Fatal(err)
	}
	file.Close()
	f.Add(head)
	f.Add(make([]byte, len(head)))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(b, make([]byte, max(0, 64<<10-len(b)))...)
		parts, err := readPartitions(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, p := range parts {
			if p.Offset < 0 || p.Size <= 0 || p.Offset+p.Size > int64(len(b)) {
				t.Errorf("partition %+v of a disk of %d bytes", p, len(b))
			}
		}
	})
}

func FuzzReadRecord(f *testing.F) {
	d := memDisk(make([]byte, 128<<10))
	p := Partition{Size: int64(len(d))}
	if err := writeRecord(d, p, &Record{Bundle: []byte("bundle"), Images: map[string]Image{PartitionOSA: {Complete: true}}}); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(d[64<<10 : 64<<10+512]))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(b, make([]byte, max(0, 4096-len(b)))...)
		rec := readRecord(bytes.NewReader(b), Partition{Size: int64(len(b))})
		if rec == nil || rec.Images == nil {
			t.Error("no record at all")
		}
	})
}

// memDisk is a disk in memory, for fuzzing.
type memDisk []byte

func (d memDisk) ReadAt(b []byte, at int64) (int, error)  { return bytes.NewReader(d).ReadAt(b, at) }
func (d memDisk) WriteAt(b []byte, at int64) (int, error) { return copy(d[at:], b), nil }
func (d memDisk) Size() int64                             { return int64(len(d)) }
func (d memDisk) Sync() error                             { return nil }
func (d memDisk) Rescan() error                           { return nil }
