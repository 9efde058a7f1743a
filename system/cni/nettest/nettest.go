//go:build linux

// Package nettest gives tests networks of their own: namespaces of the kernel,
// made as root or, for everybody else, inside a user namespace.
package nettest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const inside = "RACKLET_NETTEST"

// Main runs the tests where they may make networks: here, or again in a user
// namespace. Call it from TestMain.
func Main(m *testing.M) {
	if os.Geteuid() != 0 && os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		if err := cmd.Start(); err == nil {
			if err := cmd.Wait(); err != nil {
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// A Space is a network namespace with its loopback up.
type Space struct {
	f    *os.File
	work chan func()
}

// New makes a namespace, or skips the test; in CI it fails.
func New(t testing.TB) *Space {
	t.Helper()
	s := &Space{work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.f, err = os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()))
		}
		made <- err
		if err != nil {
			return
		}
		for f := range s.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no network namespaces: %v", err)
		}
		t.Skipf("no network namespaces: %v", err)
	}
	t.Cleanup(func() { close(s.work); s.f.Close() })
	return s
}

// Path names the namespace for others of this process.
func (s *Space) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.f.Fd()) }

// Fd is its file descriptor.
func (s *Space) Fd() int { return int(s.f.Fd()) }

// Do runs f inside.
func (s *Space) Do(f func() error) error {
	done := make(chan error)
	s.work <- func() { done <- f() }
	return <-done
}

// Echo serves TCP inside; what it reads it writes, after its name.
func (s *Space) Echo(t testing.TB, address, name string) {
	t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.WriteString(c, name+"\n"); io.Copy(c, c) }()
		}
	}()
}

// Dial connects from inside and returns the name of who answered.
func (s *Space) Dial(address string, limit time.Duration) (who string, err error) {
	var c net.Conn
	err = s.Do(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	b := make([]byte, 100)
	n, err := c.Read(b)
	if n > 0 {
		n--
	}
	return string(b[:n]), err
}
