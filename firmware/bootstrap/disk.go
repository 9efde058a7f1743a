package bootstrap

import (
	"errors"
	"fmt"
	"io"
)

// Disk is the unit's data disk. The kernel's block device is one, a plain file
// (in tests) another.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Size of the disk in bytes.
	Size() int64
	// Sync returns when everything written is on the medium.
	Sync() error
	// Rescan makes the kernel read the partition table anew.
	Rescan() error
}

// partitions are those of a prepared data disk.
type partitions struct {
	os    [2]Partition
	cache Partition
	fresh bool // laid out just now
}

// prepare finds the partitions of d and lays them out when d is blank. A disk
// with anything else on it is left alone.
func prepare(d Disk) (*partitions, error) {
	found, err := readPartitions(d, d.Size())
	fresh := false
	if errors.Is(err, errNoTable) {
		if found, err = layout(d.Size()); err != nil {
			return nil, stop("os.disk", "a large enough data disk", fmt.Sprintf("%d MiB", d.Size()>>20), err)
		}
		if err := writePartitions(d, d.Size(), found); err != nil {
			return nil, retry("os.disk", "", "", err)
		}
		if err := d.Sync(); err != nil {
			return nil, retry("os.disk", "", "", err)
		}
		if err := d.Rescan(); err != nil {
			return nil, retry("os.disk", "", "", fmt.Errorf("read partition table anew: %w", err))
		}
		fresh = true
	} else if err != nil {
		return nil, stop("disk.layout", "the partitions of a Racklet data disk, or a blank disk", "something else", err)
	}
	out := &partitions{fresh: fresh}
	for name, p := range map[string]*Partition{
		PartitionOSA: &out.os[0], PartitionOSB: &out.os[1], PartitionCache: &out.cache,
	} {
		for _, f := range found {
			if f.Name == name {
				*p = f
			}
		}
		if p.Size == 0 {
			return nil, stop("disk.layout", "partition "+name, "no such partition", errors.New("the data disk belongs to something else"))
		}
	}
	if out.cache.Size != cachePartitionSize {
		return nil, stop("disk.layout", fmt.Sprint(int64(cachePartitionSize)), fmt.Sprint(out.cache.Size), errors.New("size of the cache partition"))
	}
	return out, nil
}
