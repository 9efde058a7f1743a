// Package lines keeps append-only logs of lines in files with bounded rotation. What Append has returned for is on the
// disk; a line that a power cut tore is dropped when the log is opened again, and nothing before it.
//
// What a line means is its owner's business: packages audit and redfish keep JSON objects. Lines hold no line breaks.
package lines

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Options of a log.
type Options struct {
	Dir   string // private to the user of the process
	Name  string // of the files: NAME.jsonl is written, NAME.1.jsonl and so on are older
	Bytes int64  // of a file, from which on the next one is begun
	Files int    // that are kept, the one being written included
	Line  int    // bytes of the longest line
}

// A Log is safe for concurrent use.
type Log struct {
	o Options

	mu     sync.Mutex
	f      *os.File
	size   int64
	broken error
}

func (l *Log) name(n int) string {
	if n == 0 {
		return filepath.Join(l.o.Dir, l.o.Name+".jsonl")
	}
	return filepath.Join(l.o.Dir, fmt.Sprintf("%s.%d.jsonl", l.o.Name, n))
}

// Open opens a log and hands its lines to take, oldest first, without their line breaks. A line that take refuses, and
// everything behind it in its file, is left out; at the end of the newest file it is cut off.
func Open(o Options, take func(line []byte) bool) (*Log, error) {
	l := &Log{o: o}
	for n := o.Files - 1; n >= 0; n-- {
		if err := l.read(n, take); err != nil {
			return nil, fmt.Errorf("read the %s log: %w", o.Name, err)
		}
	}
	return l, l.open()
}

// open opens the file that is written.
func (l *Log) open() error {
	f, err := os.OpenFile(l.name(0), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the %s log: %w", l.o.Name, err)
	}
	info, err := f.Stat()
	if err == nil {
		err = syncDir(l.o.Dir)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open the %s log: %w", l.o.Name, err)
	}
	l.f, l.size = f, info.Size()
	return nil
}

func (l *Log) read(n int, take func([]byte) bool) error {
	f, err := os.OpenFile(l.name(n), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, l.o.Line+1)
	var good int64
	for {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil || !take(line[:len(line)-1]) {
			break
		}
		good += int64(len(line))
	}
	if n > 0 {
		return nil // nothing is written there
	}
	if err := f.Truncate(good); err != nil {
		return err
	}
	return f.Sync()
}

// Append writes lines, all or none. When it returns without an error, they are on the disk.
func (l *Log) Append(lines ...[]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = l.append(lines)
	return l.broken
}

func (l *Log) append(lines [][]byte) error {
	var b []byte
	for _, line := range lines {
		if len(line) > l.o.Line {
			return fmt.Errorf("write the %s log: a line of %d bytes", l.o.Name, len(line))
		}
		b = append(append(b, line...), '\n')
	}
	if l.f != nil && l.size > 0 && l.size+int64(len(b)) > l.o.Bytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	_, err := l.f.Write(b)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		// Part of the lines may be there: take it away, and begin with a new file handle.
		l.f.Truncate(l.size)
		l.f.Close()
		l.f = nil
		return fmt.Errorf("write the %s log: %w", l.o.Name, err)
	}
	l.size += int64(len(b))
	return nil
}

// rotate moves each file one on and drops the oldest. Wherever it is cut, all lines but those of the oldest
// file are still there, in order.
func (l *Log) rotate() error {
	l.f.Close()
	l.f = nil
	for n := l.o.Files - 2; n >= 0; n-- {
		if err := os.Rename(l.name(n), l.name(n+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate the %s log: %w", l.o.Name, err)
		}
	}
	return nil
}

// Err is what kept the newest lines from being written, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
