package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// children are the processes that somebody waits for. PID 1 inherits all
// orphans of the system, so one place waits for everything and passes on what
// belongs to somebody.
var children = struct {
	sync.Mutex
	waiting map[int]chan<- unix.WaitStatus
}{waiting: map[int]chan<- unix.WaitStatus{}}

// reap collects every child that ends, for ever.
func reap() { reapUntil(nil) }

// Reap collects every child that ends, until stop is called: what Init does for
// PID 1, for other programs, such as tests, that run Commands.
func Reap() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		reapUntil(end)
	}()
	return func() {
		close(end)
		<-done
	}
}

func reapUntil(end <-chan struct{}) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		collect()
		select {
		case <-ended:
		case <-end:
			return
		}
	}
}

func collect() {
	children.Lock()
	defer children.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c := children.waiting[pid]; c != nil {
			c <- status
			delete(children.waiting, pid)
		}
	}
}

// A Command is a program that PID 1 starts, and how.
type Command struct {
	Path string
	Args []string // without the program's name
	Env  []string // "PATH=…" alone if nil
	// Output takes what the program writes; nil: the console.
	Output *os.File
	// Group is the directory of the control group that the program starts in, "" is PID 1's own.
	Group string
	// OOMScore is added to the program's badness when memory runs out (proc_pid_oom_score_adj(5)).
	OOMScore int
	// User is the user and group that the program runs as, with no privileges left unless it is 0.
	User uint32
	// Grace is the time between SIGTERM and SIGKILL when the program is to end; 0 is half of what services have.
	Grace time.Duration
}

// Process is a Runnable that runs a program: its output goes to the console,
// and when ctx ends it gets SIGTERM, then, after a while, SIGKILL.
func Process(path string, args ...string) Runnable {
	return Command{Path: path, Args: args}.Run
}

// Run runs the program to its end. When ctx ends it gets SIGTERM, then, after
// its grace, SIGKILL. A program that does not end well is an error, *ExitError
// if it ended by itself.
func (c Command) Run(ctx context.Context) error {
	pid, done, err := c.start()
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Path, err)
	}
	select {
	case s := <-done:
		return ended(c.Path, s)
	case <-ctx.Done():
	}
	grace := c.Grace
	if grace == 0 {
		grace = stopWait / 2
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop %s: %w", c.Path, err)
		}
		select {
		case s := <-done:
			return ended(c.Path, s)
		case <-time.After(grace):
		}
	}
	return fmt.Errorf("stop %s: it does not end", c.Path)
}

func (c Command) start() (pid int, done chan unix.WaitStatus, err error) {
	attr := &syscall.ProcAttr{Env: c.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	if c.Env == nil {
		attr.Env = []string{"PATH=" + Path}
	}
	if null, err := os.Open(os.DevNull); err == nil {
		defer null.Close()
		attr.Files[0] = null.Fd()
	}
	if c.Output != nil {
		attr.Files[1], attr.Files[2] = c.Output.Fd(), c.Output.Fd()
	}
	if c.User != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: c.User, Gid: c.User}
	}
	if c.Group != "" {
		group, err := os.Open(c.Group)
		if err != nil {
			return 0, nil, fmt.Errorf("open control group: %w", err)
		}
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	done = make(chan unix.WaitStatus, 1)
	children.Lock() // so that it cannot end before somebody waits for it
	defer children.Unlock()
	if pid, err = syscall.ForkExec(c.Path, append([]string{c.Path}, c.Args...), attr); err != nil {
		return 0, nil, err
	}
	children.waiting[pid] = done
	if c.OOMScore != 0 { // a program that is gone already needs none
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), fmt.Appendf(nil, "%d", c.OOMScore), 0)
	}
	return pid, done, nil
}

// Path is where programs of a unit are found.
const Path = "/usr/sbin:/usr/bin:/sbin:/bin"

// An ExitError is how a program ended that did not end well.
type ExitError struct {
	Path   string
	Status unix.WaitStatus
}

func (e *ExitError) Error() string {
	if e.Status.Signaled() {
		return fmt.Sprintf("%s: killed by %v", e.Path, e.Status.Signal())
	}
	return fmt.Sprintf("%s: exit status %d", e.Path, e.Status.ExitStatus())
}

func ended(path string, s unix.WaitStatus) error {
	if s.Signaled() || s.ExitStatus() != 0 {
		return &ExitError{path, s}
	}
	return nil
}
