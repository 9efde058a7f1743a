package sim

import (
	"io"
	"os"
	"sync"
)

// line is the serial line between management computer and RMC. Reads block;
// writes never do.
type line struct {
	toRMC *inbox

	mu     sync.Mutex
	ready  *sync.Cond
	bytes  []byte
	closed bool
}

func newLine(toRMC *inbox) *line {
	l := &line{toRMC: toRMC}
	l.ready = sync.NewCond(&l.mu)
	return l
}

// fromRMC takes what the RMC sends. What nobody reads is lost when the buffer
// is full, as on a real line.
func (l *line) fromRMC(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes = append(l.bytes, p[:min(len(p), inboxSize-len(l.bytes))]...)
	l.ready.Broadcast()
}

// Read implements io.Reader.
func (l *line) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.bytes) == 0 && !l.closed {
		l.ready.Wait()
	}
	if len(l.bytes) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.bytes)
	l.bytes = append(l.bytes[:0], l.bytes[n:]...)
	return n, nil
}

// Write implements io.Writer.
func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return 0, os.ErrClosed
	}
	l.toRMC.put(p)
	return len(p), nil
}

// Close implements io.Closer: the management computer's end is pulled out.
func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.ready.Broadcast()
	return nil
}
