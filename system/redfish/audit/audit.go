// Package audit keeps the log of who changed what through the management API: a
// log of JSON lines (package lines). An entry that Append has returned is on the disk.
//
// The files are private to the user of the process. They are evidence against users of the API,
// not against whoever can write the state directory.
package audit

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/racklet/racklet/system/redfish/lines"
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
	mu     sync.Mutex
	lines  *lines.Log // nil: in memory only
	last   uint64
	recent []Entry
}

// Open opens the log of a directory; "" makes one that is kept in memory only.
func Open(dir string) (*Log, error) { return open(dir, FileBytes) }

func open(dir string, size int64) (l *Log, err error) {
	l = new(Log)
	if dir == "" {
		return l, nil
	}
	l.lines, err = lines.Open(lines.Options{Dir: dir, Name: "audit", Bytes: size, Files: Files, Line: 2 * mostLine}, func(b []byte) bool {
		var e Entry
		if json.Unmarshal(b, &e) != nil || e.Sequence <= l.last {
			return false
		}
		l.keep(e)
		return true
	})
	return l, err
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
	if l.lines != nil {
		b, err := json.Marshal(e)
		if err != nil {
			return e, err
		}
		if err := l.lines.Append(b); err != nil {
			return e, err
		}
	}
	l.keep(e)
	return e, nil
}

// Entries returns the newest entries, oldest first, at most Recent.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.recent)
}

// Err is what kept the newest entry from being written, or nil.
func (l *Log) Err() error {
	if l.lines == nil {
		return nil
	}
	return l.lines.Err()
}

// Close closes the file.
func (l *Log) Close() error {
	if l.lines == nil {
		return nil
	}
	return l.lines.Close()
}
