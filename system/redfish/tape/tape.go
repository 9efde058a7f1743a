// Package tape records what serial consoles print: lines of text with the time at which they began, in files with
// bounded rotation. What consoles print is hostile, and recordings end up on terminals, in pagers and in mails: nothing
// that could command one is kept as it came (Clean).
package tape

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a recording. Files rotate at FileBytes; Files are kept, the one being written included.
const (
	FileBytes = 1 << 20
	Files     = 4
	mostLine  = 1 << 10 // bytes; a longer line is continued in the next
)

// stamp is the time before each line.
const stamp = "2006-01-02T15:04:05.000Z "

// A Tape records one console. It is safe for concurrent use.
type Tape struct {
	dir, console string
	now          func() time.Time

	mu    sync.Mutex
	f     *os.File
	size  int64
	line  []byte // not ended yet
	began time.Time
	err   error // the recording has failed, and goes on when the disk does
}

// Open opens the recording of a console in a private directory; "": nothing is kept. Console is a file name.
func Open(dir, console string, now func() time.Time) (*Tape, error) {
	t := &Tape{dir: dir, console: console, now: now}
	if dir == "" {
		return t, nil
	}
	return t, t.open()
}

func (t *Tape) name(n int) string {
	if n == 0 {
		return filepath.Join(t.dir, t.console+".log")
	}
	return filepath.Join(t.dir, t.console+"."+strconv.Itoa(n)+".log")
}

func (t *Tape) open() error {
	f, err := os.OpenFile(t.name(0), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("record the console of %s: %w", t.console, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("record the console of %s: %w", t.console, err)
	}
	t.f, t.size = f, info.Size()
	return nil
}

// Print records what the console printed. The error is that of the disk; the first one after a success.
func (t *Tape) Print(data []byte) error {
	if t.dir == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.err
	for _, b := range data {
		if len(t.line) == 0 {
			t.began = t.now()
		}
		if b != '\n' {
			t.line = append(t.line, b)
		}
		if b == '\n' || len(t.line) >= mostLine {
			t.end()
		}
	}
	if before != nil {
		return nil
	}
	return t.err
}

// Note records a remark of the service, as a line of its own.
func (t *Tape) Note(text string) error {
	if t.dir == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.line) > 0 {
		t.end()
	}
	t.began, t.line = t.now(), []byte("--- "+text+" ---")
	t.end()
	return t.err
}

// end writes the line that is complete.
func (t *Tape) end() {
	text := t.began.UTC().Format(stamp) + Clean(strings.TrimSuffix(string(t.line), "\r")) + "\n"
	t.line = t.line[:0]
	t.err = t.write(text)
}

func (t *Tape) write(text string) error {
	if t.f == nil {
		if err := t.open(); err != nil {
			return err
		}
	}
	if t.size > 0 && t.size+int64(len(text)) > FileBytes {
		t.f.Close()
		t.f = nil
		for n := Files - 1; n > 0; n-- {
			if err := os.Rename(t.name(n-1), t.name(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := t.open(); err != nil {
			return err
		}
	}
	n, err := t.f.WriteString(text)
	t.size += int64(n)
	return err
}

// WriteTo writes the recording, oldest first, with the line that has not ended.
func (t *Tape) WriteTo(w io.Writer) (n int64, err error) {
	if t.dir == "" {
		return 0, nil
	}
	t.mu.Lock() // files are opened under the lock, and read without it: rotation renames them, it does not change them
	var files []*os.File
	for i := Files - 1; i >= 0; i-- {
		f, e := os.Open(t.name(i))
		if errors.Is(e, os.ErrNotExist) {
			continue
		}
		if e != nil {
			err = e
			break
		}
		files = append(files, f)
	}
	rest := ""
	if len(t.line) > 0 {
		rest = t.began.UTC().Format(stamp) + Clean(string(t.line)) + "\n"
	}
	size := t.size
	t.mu.Unlock()
	for i, f := range files {
		defer f.Close()
		if err != nil {
			continue
		}
		var from io.Reader = f
		if i == len(files)-1 {
			from = io.LimitReader(f, size) // not what comes meanwhile: the rest would come before it
		}
		var m int64
		m, err = io.Copy(w, from)
		n += m
	}
	if err == nil {
		var m int
		m, err = io.WriteString(w, rest)
		n += int64(m)
	}
	return n, err
}

// Close ends the recording.
func (t *Tape) Close() error {
	if t.dir == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.line) > 0 {
		t.end()
	}
	if t.f == nil {
		return nil
	}
	err := t.f.Close()
	t.f = nil
	return err
}

// Clean makes text of bytes that came from outside: escape sequences are left out as terminals would take them, and what
// remains of control characters, invalid UTF-8 and characters that reorder a line is written as Go would.
func Clean(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if n := escape(s); n > 0 {
			s = s[n:]
			continue
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\t' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[size:]
	}
	return b.String()
}

// escape is the length of a control sequence of colours and cursors at the start of s (ECMA-48, 5.4 "Control sequences"), 0 if there
// is none: ESC [, parameters, intermediates, one final byte.
func escape(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 0x40 && c <= 0x7e:
			return i + 1
		case c < 0x20 || c > 0x3f:
			return 0
		}
	}
	return 0
}
