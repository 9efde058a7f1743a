package machine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child that must not outlive us. Three nets: on Linux the kernel
// kills it when the thread that started it dies; it has a process group of its
// own, so that a Ctrl-C at the terminal is ours to handle; and a pid file lets
// the next simulator in the same directory end what a crash left behind.
type process struct {
	cmd    *exec.Cmd
	file   string
	result chan error
}

func pidFile(dir string) string { return filepath.Join(dir, "qemu.pid") }

func startProcess(cmd *exec.Cmd, file string) (*process, error) {
	p := &process{cmd: cmd, file: file, result: make(chan error, 1)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error)
	go func() {
		// The parent-death signal belongs to the thread that starts the child,
		// so this one stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.result <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	stamp, err := identify(cmd.Process.Pid)
	if err == nil {
		err = os.WriteFile(file, fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, stamp), 0o600)
	}
	if err != nil && !errors.Is(err, errGone) { // gone already: wait will tell why
		p.kill()
		<-p.result
		return nil, fmt.Errorf("write pid file: %w", err)
	}
	return p, nil
}

func (p *process) wait() error {
	err := <-p.result
	os.Remove(p.file)
	return err
}

func (p *process) kill() {
	// The group has the child's id (Setpgid). Until it has been waited for,
	// that id cannot be anyone else's; afterwards Process.Kill knows.
	_ = p.cmd.Process.Kill()
}

// used is the CPU time of a process that has been waited for.
func (p *process) used() time.Duration {
	s := p.cmd.ProcessState
	return s.UserTime() + s.SystemTime()
}

// errGone says that there is no process with that id.
var errGone = errors.New("no such process")

// Cleanup ends the machine that an earlier simulator left running in dir. It
// looks at the pid file alone, and touches a process only when that started at
// the very moment that the file says.
func Cleanup(dir string) error {
	file := pidFile(dir)
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	id, stamp, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	pid, err := strconv.Atoi(id)
	if err == nil && pid > 1 && stamp != "" {
		same := func() bool {
			now, err := identify(pid)
			return err == nil && now == stamp
		}
		deadline := time.Now().Add(10 * time.Second)
		for same() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("clean up: kill %d: %w", pid, err)
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("clean up: process %d does not end", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// socketPair returns a connection and the descriptor of its other end.
func socketPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	c, err := net.FileConn(near)
	if err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return c, far, nil
}

// Self returns what this process itself has used: CPU seconds and memory in
// bytes, 0 where the system does not tell.
func Self() (cpuSeconds float64, resident uint64) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		cpuSeconds = (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds()
	}
	p := &process{cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	return cpuSeconds, p.resident()
}
