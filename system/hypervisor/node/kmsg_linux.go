package node

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sendKernelLog writes the kernel's messages so far, one per line, with seconds since it started (Linux,
// Documentation/ABI/testing/dev-kmsg: one record per read).
func sendKernelLog(w io.Writer, kmsg string) error {
	fd, err := unix.Open(kmsg, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open kernel log: %w", err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EPIPE): // overwritten while we read: the next one is there
			continue
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read kernel log: %w", err)
		}
		if _, err := io.WriteString(w, formatRecord(string(buf[:n]))); err != nil {
			return nil // the client is gone
		}
	}
}

// formatRecord makes a line of a record "priority,sequence,microseconds,…;message\n KEY=value\n…".
func formatRecord(record string) string {
	head, text, ok := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return ""
	}
	text, _, _ = strings.Cut(text, "\n")
	micros, err := strconv.ParseUint(fields[2], 10, 64)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("[%5d.%06d] %s\n", micros/1e6, micros%1e6, text)
}
