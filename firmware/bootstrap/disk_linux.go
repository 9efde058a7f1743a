package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// diskSerial is the serial number of a virtual unit's data disk.
const diskSerial = "racklet-data"

// blockDisk is a block device of the running kernel.
type blockDisk struct {
	*os.File
	name string // in /sys/block
	size int64
}

var _ Disk = (*blockDisk)(nil)

func (d *blockDisk) Size() int64 { return d.size }

func (d *blockDisk) Rescan() error { return unix.IoctlSetInt(int(d.Fd()), unix.BLKRRPART, 0) }

// findDisk finds the data disk: by its serial number on a virtual unit, by the
// word racklet.disk= of the slot's signed command line on a board.
func findDisk(commandLine string) (*blockDisk, error) {
	var name string
	for _, word := range strings.Fields(commandLine) {
		if path, ok := strings.CutPrefix(word, "racklet.disk=/dev/"); ok {
			name = path
		}
	}
	if name == "" {
		serials, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return nil, err
		}
		for _, file := range serials {
			if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == diskSerial {
				name = filepath.Base(filepath.Dir(file))
			}
		}
	}
	if name == "" {
		return nil, retry("os.disk", "a disk with serial number "+diskSerial, "none", errors.New("find data disk"))
	}
	f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
	if err != nil {
		return nil, retry("os.disk", "", "", fmt.Errorf("open data disk: %w", err))
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		f.Close()
		return nil, retry("os.disk", "", "", fmt.Errorf("size of data disk: %w", err))
	}
	return &blockDisk{File: f, name: filepath.Base(name), size: size}, nil
}

// device is the kernel's device of a partition, which must lie where the table
// that stage 1 read says it lies.
func (d *blockDisk) device(p Partition) (string, error) {
	numbers, err := filepath.Glob("/sys/block/" + d.name + "/*/partition")
	if err != nil {
		return "", err
	}
	for _, file := range numbers {
		dir := filepath.Dir(file)
		if sysNumber(file) != int64(p.Number) {
			continue
		}
		start, size := sysNumber(dir+"/start")*sectorSize, sysNumber(dir+"/size")*sectorSize
		if start != p.Offset || size != p.Size {
			return "", fmt.Errorf("partition %s: the kernel has it at %d with %d bytes, the table at %d with %d", p.Name, start, size, p.Offset, p.Size)
		}
		return "/dev/" + filepath.Base(dir), nil
	}
	return "", fmt.Errorf("partition %s: the kernel does not know it", p.Name)
}

func sysNumber(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
