package bootstrap

import (
	"bytes"
	"fmt"
	"path"
	"strings"
)

// archive is a cpio archive (newc, kernel documentation driver-api/early-userspace/buffer-format)
// with one file and the directories above it, padded so that another archive
// can follow.
func archive(name string, content []byte) []byte {
	var b bytes.Buffer
	inode := 0
	add := func(name string, mode int, data []byte) {
		inode++
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(data)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	name = strings.TrimPrefix(name, "/")
	var dirs []string
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		dirs = append([]string{d}, dirs...)
	}
	for _, d := range dirs {
		add(d, 0o040755, nil)
	}
	add(name, 0o100400, content)
	inode = -1
	add("TRAILER!!!", 0, nil)
	for b.Len()%512 != 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}
