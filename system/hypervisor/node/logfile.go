package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxLog is how long a component's log gets, in bytes; then it becomes NAME.log.1, in place of the one before.
const maxLog = 2 << 20

// A logFile takes what a component writes. It is an io.Writer that keeps the
// newest maxLog to 2×maxLog bytes in two files.
type logFile struct {
	name string
	max  int64
	file *os.File
	size int64
	last string // the last line, shortened
}

func openLog(name string, limit int64) (*logFile, error) {
	l := &logFile{name: name, max: limit}
	return l, l.open()
}

func (l *logFile) open() (err error) {
	if l.file, err = os.OpenFile(l.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	l.size, err = l.file.Seek(0, io.SeekEnd)
	return err
}

func (l *logFile) Write(p []byte) (int, error) {
	if l.size+int64(len(p)) > l.max && l.size > 0 {
		if err := errors.Join(l.file.Close(), os.Rename(l.name, l.name+".1"), l.open()); err != nil {
			return 0, fmt.Errorf("turn log over: %w", err)
		}
	}
	if text := strings.TrimSpace(string(p[max(0, len(p)-1024):])); text != "" {
		l.last = text[strings.LastIndexByte(text, '\n')+1:]
		l.last = l.last[:min(len(l.last), 300)]
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

func (l *logFile) Close() error { return l.file.Close() }

// follow copies what comes through the reading end of a pipe into a log. A log
// that cannot be written to, on a full disk for example, does not stop who
// writes: what does not fit is lost.
func follow(r io.Reader, w io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		_, _ = w.Write(buf[:n])
		if err != nil {
			return
		}
	}
}
