// Package initramfs writes a tree as the compressed cpio archive that Linux unpacks as its first
// root (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
package initramfs

import (
	"bytes"
	"fmt"
	"io/fs"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/racklet/racklet/artifact"
)

// File types of a cpio header (buffer-format.rst, as in inode(7)).
const (
	typeDir  = 0o040000
	typeReg  = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
	typeBlk  = 0o060000
)

// Write returns the tree as a cpio archive in the "newc" format, compressed by zstd.
func Write(t *artifact.Tree) ([]byte, error) {
	raw, err := Archive(t)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	// One goroutine: the bytes must not depend on the number of processors. The kernel accepts
	// windows of at most 8 MiB (Linux, lib/decompress_unzstd.c).
	z, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	return out.Bytes(), nil
}

// Archive returns the tree as an uncompressed cpio archive.
func Archive(t *artifact.Tree) ([]byte, error) {
	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	for i, f := range t.Files() {
		info := cpio.Info{
			Ino: uint64(i + 1), Name: f.Name, NLink: 1,
			Mode: uint64(f.Mode.Perm()), MTime: uint64(artifact.Epoch.Unix()),
		}
		var rec cpio.Record
		switch f.Mode.Type() {
		case 0:
			info.Mode |= typeReg
			rec = cpio.StaticRecord(f.Data, info)
		case fs.ModeDir:
			info.Mode |= typeDir
			info.NLink = 2
			rec = cpio.Record{Info: info}
		case fs.ModeSymlink:
			info.Mode |= typeLink
			rec = cpio.StaticRecord([]byte(f.Target), info)
		case fs.ModeDevice | fs.ModeCharDevice:
			info.Mode |= typeChar
			info.Rmajor, info.Rminor = uint64(f.Major), uint64(f.Minor)
			rec = cpio.Record{Info: info}
		case fs.ModeDevice:
			info.Mode |= typeBlk
			info.Rmajor, info.Rminor = uint64(f.Major), uint64(f.Minor)
			rec = cpio.Record{Info: info}
		default:
			return nil, fmt.Errorf("write initramfs: %s: type %v is not possible", f.Name, f.Mode.Type())
		}
		if err := w.WriteRecord(rec); err != nil {
			return nil, fmt.Errorf("write initramfs: %s: %w", f.Name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	return out.Bytes(), nil
}
