package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/racklet/racklet/system/hypervisor"
)

// stateName is the partition that stage 1 leaves to the system: all that a
// unit writes and keeps is there.
const stateName = "racklet-state"

// Programs that make and check its file system (mke2fs(8), e2fsck(8)).
const (
	mke2fs = "/usr/sbin/mke2fs"
	e2fsck = "/usr/sbin/e2fsck"
)

// Where ext2, 3 and 4 keep their superblock and its magic number (Linux,
// Documentation/filesystems/ext4/super.rst), in bytes.
const (
	superAt   = 1024
	magicAt   = 0x38
	extMagic  = 0xef53
	headBytes = 4096 // the first block: what is before the superblock, and itself
)

// content is what a partition holds.
type content int

const (
	blank   content = iota // nothing: to be formatted
	extends                // a file system of ours: to be checked
	foreign                // something else: to be left alone
)

// look tells what a partition holds. mke2fs writes the superblock last, so
// that one which was interrupted leaves a blank one.
func look(r io.ReaderAt) (content, error) {
	head := make([]byte, headBytes)
	if _, err := r.ReadAt(head, 0); err != nil {
		return foreign, fmt.Errorf("read superblock: %w", err)
	}
	switch {
	case binary.LittleEndian.Uint16(head[superAt+magicAt:]) == extMagic:
		return extends, nil
	case len(bytes.Trim(head, "\x00")) == 0:
		return blank, nil
	}
	return foreign, nil
}

// runner runs a program to its end and returns its exit status.
type runner func(path string, args ...string) (int, error)

// prepareState makes the file system on a device, or checks the one that is
// there and mends what can be mended without losing anything (e2fsck -p).
func prepareState(device string, run runner, log *slog.Logger) error {
	f, err := os.Open(device)
	if err != nil {
		return damaged(err)
	}
	what, err := look(f)
	f.Close()
	if err != nil {
		return damaged(err)
	}
	switch what {
	case blank:
		log.Info("the state partition is made", "device", device)
		status, err := run(mke2fs, "-q", "-t", "ext4", "-L", stateName, "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1", device)
		if err != nil || status != 0 {
			return damaged(fmt.Errorf("make file system: status %d: %w", status, errors.Join(err, errProgram)))
		}
	case extends:
		status, err := run(e2fsck, "-p", device)
		// 1: errors were mended, 2: and the machine should be restarted if it was mounted, which it is not (e2fsck(8), "EXIT CODE").
		if err != nil || status&^3 != 0 {
			return damaged(fmt.Errorf("check file system: status %d: %w", status, errors.Join(err, errProgram)))
		}
		if status != 0 {
			log.Warn("the state partition was mended", "device", device)
		}
	default:
		return damaged(errors.New("it holds something else"))
	}
	return nil
}

var errProgram = errors.New("its program says that it failed")

func damaged(err error) error {
	return &hypervisor.Refusal{Reason: "state.damaged", Expected: "a blank partition, or a whole ext4 file system", Err: fmt.Errorf("partition %s: %w", stateName, err)}
}

// findPartition returns the device of the partition with a name, from what the
// kernel says below sys.
func findPartition(sys, name string) (string, error) {
	list, err := filepath.Glob(filepath.Join(sys, "class", "block", "*", "uevent"))
	if err != nil {
		return "", err
	}
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) == "PARTNAME="+name {
				return "/dev/" + filepath.Base(filepath.Dir(file)), nil
			}
		}
	}
	return "", fmt.Errorf("no partition %s", name)
}
