package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Times of supervision.
const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 15 * time.Second
	steady       = time.Minute      // a component that ran this long starts over with the first backoff
	stopGrace    = 15 * time.Second // between asking a component to end and killing it
	probeEvery   = 2 * time.Second  // of a component that is ready
	probeSoon    = 50 * time.Millisecond
	logLimit     = 8 << 20 // bytes of a component's log before it is renamed to .1
)

// ComponentStatus is what the supervisor knows of one component.
type ComponentStatus struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // waiting, starting, ready, unhealthy, stopped
	PID       int       `json:"pid,omitempty"`
	Restarts  int       `json:"restarts"`
	Since     time.Time `json:"since"` // of the state
	LastError string    `json:"lastError,omitempty"`
}

// A component is one process that shall run.
type component struct {
	name  string
	after []*component                    // must be ready before it starts
	args  func() ([]string, error)        // asked at each start
	probe func(ctx context.Context) error // nil: ready when started

	mu     sync.Mutex
	status ComponentStatus
	ready  chan struct{} // closed while ready
	stop   context.CancelFunc
	kick   context.CancelFunc // ends the process that runs now
	done   chan struct{}
}

func newComponent(name string, after ...*component) *component {
	return &component{name: name, after: after, ready: make(chan struct{}), done: make(chan struct{}), status: ComponentStatus{Name: name, State: "waiting", Since: time.Now()}}
}

func (c *component) set(state string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != c.status.State {
		if c.status.State == "ready" {
			c.ready = make(chan struct{})
		}
		if state == "ready" {
			close(c.ready)
		}
		c.status.State, c.status.Since = state, time.Now()
	}
	if err != nil {
		c.status.LastError = err.Error()
	}
}

func (c *component) snapshot() ComponentStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// awaitReady waits until the component is ready.
func (c *component) awaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		ready := c.ready
		c.mu.Unlock()
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", c.name, ctx.Err())
		}
	}
}

// restart ends the component's process, if it has one; supervision starts it again.
func (c *component) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kick != nil {
		c.kick()
	}
}

// A supervisor starts components from one program, each in a process of its own that ends when this
// process does, and again whenever one has ended.
type supervisor struct {
	program string
	logs    string // directory
	log     io.Writer
}

// run keeps one component going until ctx ends, and then waits for its process.
func (s *supervisor) run(ctx context.Context, c *component) {
	defer close(c.done)
	backoff := firstBackoff
	for {
		for _, other := range c.after {
			if other.awaitReady(ctx) != nil {
				c.set("stopped", nil)
				return
			}
		}
		start := time.Now()
		err := s.once(ctx, c)
		if ctx.Err() != nil {
			c.set("stopped", nil)
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		c.set("waiting", err)
		c.mu.Lock()
		c.status.Restarts++
		c.status.PID = 0
		c.mu.Unlock()
		fmt.Fprintf(s.log, "racklet-kube: %s: %v; starting it again in %v\n", c.name, err, backoff)
		if time.Since(start) > steady {
			backoff = firstBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// once runs the component's process to its end.
func (s *supervisor) once(ctx context.Context, c *component) error {
	args, err := c.args()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.kick = cancel
	c.mu.Unlock()
	cmd := exec.CommandContext(ctx, s.program, append([]string{"attached", c.name}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	// The component ends when this pipe does, however this process ends.
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	out, err := openLog(filepath.Join(s.logs, c.name+".log"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	c.set("starting", nil)
	c.mu.Lock()
	c.status.PID = cmd.Process.Pid
	c.mu.Unlock()
	var probing sync.WaitGroup
	probing.Go(func() { c.watch(ctx) })
	err = cmd.Wait()
	cancel()
	probing.Wait()
	if err != nil {
		return fmt.Errorf("%w (see %s)", err, out.name)
	}
	return nil
}

// watch probes the component for as long as its process runs.
func (c *component) watch(ctx context.Context) {
	for ctx.Err() == nil {
		wait := probeEvery
		var err error
		if c.probe != nil {
			p, cancel := context.WithTimeout(ctx, 5*time.Second)
			err = c.probe(p)
			cancel()
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.set("ready", nil)
		case c.snapshot().State == "starting":
			wait = probeSoon
		default:
			c.set("unhealthy", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// A logFile is a log of bounded size: the part before the newest is kept as NAME.1.
type logFile struct {
	name string
	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(name string) (*logFile, error) {
	l := &logFile{name: name}
	return l, l.open()
}

func (l *logFile) open() (err error) {
	if l.file, err = os.OpenFile(l.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	l.size, err = l.file.Seek(0, io.SeekEnd)
	return err
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > logLimit {
		l.file.Close()
		if err := os.Rename(l.name, l.name+".1"); err != nil {
			return 0, err
		}
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

func (l *logFile) Close() error { return l.file.Close() }
