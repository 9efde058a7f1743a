// Package audit keeps the log of who changed what through the management API: an
// append-only file of JSON lines with bounded rotation. An entry that Append has returned is on
// the disk; a line that a power cut tore is dropped when the log is opened again, and nothing
// before it.
//
// The files are private to the user of the process. They are evidence against users of the API,
// not against whoever can write the state directory.
package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Bounds of a log. Files rotate at FileBytes; Files are kept, the one being written included.
const (
	FileBytes = 1 << 20
	Files     = 4
	Recent    = 1000 // entries in memory
	mostLine  = 8 << 10
)

// An Entry says who changed what, from where, and with which result.
type Entry struct {
	Sequence uint64    `json:"seq"` // rises by one, over restarts too
	Time     time.Time `json:"time"`
	Who      string    `json:"who"`            // account, or the owner's name in the operating system
	Role     string    `json:"role,omitempty"` // empty: not logged in
	How      string    `json:"how"`            // local, session, basic, certificate, none
	From     string    `json:"from"`           // address of the client
	Method   string    `json:"method"`
	Target   string    `json:"target"`           // URI
	What     string    `json:"what,omitempty"`   // the request's body, without secrets, shortened
	Status   int       `json:"status"`           // of the answer (HTTP)
	Result   string    `json:"result,omitempty"` // message ID of a refusal
}

// A Log is safe for concurrent use.
type Log struct {
	dir   string
	bytes int64 // of a file

	mu     sync.Mutex
	f      *os.File
	size   int64
	last   uint64
	recent []Entry
	broken error
}

func (l *Log) name(n int) string {
	if n == 0 {
		return filepath.Join(l.dir, "audit.jsonl")
	}
	return filepath.Join(l.dir, fmt.Sprintf("audit.%d.jsonl", n))
}

// Open opens the log of a directory; "" makes one that is kept in memory only.
func Open(dir string) (*Log, error) {
	l := &Log{dir: dir, bytes: FileBytes}
	if dir == "" {
		return l, nil
	}
	for n := Files - 1; n >= 0; n-- {
		if err := l.read(n); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
	}
	return l, l.open()
}

// open opens the file that is written.
func (l *Log) open() error {
	f, err := os.OpenFile(l.name(0), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		err = syncDir(l.dir)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open the audit log: %w", err)
	}
	l.f, l.size = f, info.Size()
	return nil
}

// read takes a file's entries into memory. A torn last line of the newest file is cut off.
func (l *Log) read(n int) error {
	f, err := os.OpenFile(l.name(n), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 2*mostLine)
	var good int64
	for {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		var e Entry
		if err != nil || json.Unmarshal(line, &e) != nil || e.Sequence <= l.last {
			break
		}
		good += int64(len(line))
		l.keep(e)
	}
	if n > 0 {
		return nil // nothing is written there
	}
	if err := f.Truncate(good); err != nil {
		return err
	}
	return f.Sync()
}

func (l *Log) keep(e Entry) {
	l.last = e.Sequence
	l.recent = append(l.recent, e)
	if over := len(l.recent) - Recent; over > 0 {
		l.recent = append(l.recent[:0:0], l.recent[over:]...)
	}
}

// Append numbers an entry and writes it. When it returns without an error, the entry is on the disk.
func (l *Log) Append(e Entry) (Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Sequence = l.last + 1
	if len(e.What) > mostLine/8 {
		e.What = string(bytes.ToValidUTF8([]byte(e.What[:mostLine/8]), nil)) + "…"
	}
	if len(e.Target) > mostLine/8 {
		e.Target = string(bytes.ToValidUTF8([]byte(e.Target[:mostLine/8]), nil)) + "…"
	}
	err := l.write(&e)
	l.broken = err
	if err == nil || l.dir == "" {
		l.keep(e)
	}
	return e, err
}

func (l *Log) write(e *Entry) error {
	if l.dir == "" {
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if l.f != nil && l.size > 0 && l.size+int64(len(b)) > l.bytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	_, err = l.f.Write(b)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		// Part of the line may be there: take it away, and begin with a new file handle.
		l.f.Truncate(l.size)
		l.f.Close()
		l.f = nil
		return fmt.Errorf("write the audit log: %w", err)
	}
	l.size += int64(len(b))
	return nil
}

// rotate moves each file one on and drops the oldest. Wherever it is cut, all entries but
// those of the oldest file are still there, in order.
func (l *Log) rotate() error {
	l.f.Close()
	l.f = nil
	for n := Files - 2; n >= 0; n-- {
		if err := os.Rename(l.name(n), l.name(n+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate the audit log: %w", err)
		}
	}
	return nil
}

// Entries returns the newest entries, oldest first, at most Recent.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.recent)
}

// Err is what kept the newest entry from being written, or nil.
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
