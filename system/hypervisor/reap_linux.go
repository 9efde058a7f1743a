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
func reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		collect()
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

// Process is a Runnable that runs a program: its output goes to the console,
// and when ctx ends it gets SIGTERM, then, after a while, SIGKILL.
func Process(path string, args ...string) Runnable {
	return func(ctx context.Context) error {
		done := make(chan unix.WaitStatus, 1)
		children.Lock() // so that it cannot end before somebody waits for it
		pid, err := syscall.ForkExec(path, append([]string{path}, args...), &syscall.ProcAttr{
			Env: []string{"PATH=/bin:/sbin"}, Files: []uintptr{0, 1, 2},
			Sys: &syscall.SysProcAttr{Setsid: true},
		})
		if err == nil {
			children.waiting[pid] = done
		}
		children.Unlock()
		if err != nil {
			return fmt.Errorf("start %s: %w", path, err)
		}
		select {
		case s := <-done:
			return ended(path, s)
		case <-ctx.Done():
		}
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop %s: %w", path, err)
			}
			select {
			case s := <-done:
				return ended(path, s)
			case <-time.After(stopWait / 2):
			}
		}
		return fmt.Errorf("stop %s: it does not end", path)
	}
}

func ended(path string, s unix.WaitStatus) error {
	switch {
	case s.Signaled():
		return fmt.Errorf("%s: killed by %v", path, s.Signal())
	case s.ExitStatus() != 0:
		return fmt.Errorf("%s: exit status %d", path, s.ExitStatus())
	}
	return nil
}
