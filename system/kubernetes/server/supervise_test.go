package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestMain lets this program play a component: it writes a line and waits for the end of its input
// or a signal.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "attached" {
		fmt.Println(os.Args[2:])
		if os.Args[2] == "broken" {
			os.Exit(3)
		}
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		select {}
	}
	os.Exit(m.Run())
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("%s: not within a minute", what)
}

func start(t *testing.T, log io.Writer, list ...*component) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &supervisor{program: self, logs: t.TempDir(), log: log}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, c := range list {
		all.Go(func() { s.run(ctx, c) })
	}
	t.Cleanup(func() { stop(); all.Wait() })
}

func TestSupervise(t *testing.T) {
	var up atomic.Bool
	first := newComponent("first")
	first.args = func() ([]string, error) { return []string{"--flag"}, nil }
	first.probe = func(context.Context) error {
		if up.Load() {
			return nil
		}
		return errors.New("not yet")
	}
	second := newComponent("second", first)
	second.args = func() ([]string, error) { return nil, nil }
	start(t, io.Discard, first, second)

	eventually(t, "first starts", func() bool { return first.snapshot().State == "starting" })
	if s := second.snapshot(); s.State != "waiting" || s.PID != 0 {
		t.Errorf("second does not wait: %+v", s)
	}
	up.Store(true)
	eventually(t, "second is ready", func() bool { return second.snapshot().State == "ready" })
	was := first.snapshot()
	if was.State != "ready" || was.Restarts != 0 {
		t.Errorf("first is %+v", was)
	}
	if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "first is back", func() bool { s := first.snapshot(); return s.State == "ready" && s.PID != was.PID })
	if s := first.snapshot(); s.Restarts != 1 || !strings.Contains(s.LastError, "killed") {
		t.Errorf("after a kill: %+v", s)
	}
	if s := second.snapshot(); s.Restarts != 0 || s.State != "ready" {
		t.Errorf("second fell with first: %+v", s)
	}
	up.Store(false)
	eventually(t, "first is unhealthy", func() bool { return first.snapshot().State == "unhealthy" })
}

func TestSuperviseBroken(t *testing.T) {
	var log bytes.Buffer
	broken := newComponent("broken")
	broken.args = func() ([]string, error) { return nil, nil }
	broken.probe = func(context.Context) error { return errors.New("never") }
	pr, pw := io.Pipe()
	start(t, pw, broken)
	t.Cleanup(func() { go io.Copy(io.Discard, pr) })
	b := make([]byte, 512)
	n, err := pr.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	log.Write(b[:n])
	if !strings.Contains(log.String(), "broken: exit status 3 (see ") || !strings.Contains(log.String(), "starting it again in 250ms") {
		t.Errorf("log: %s", log.String())
	}
	go io.Copy(io.Discard, pr)
	eventually(t, "it is tried again", func() bool { return broken.snapshot().Restarts >= 2 })
}

func TestLogFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.log")
	l, err := openLog(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.size = logLimit + 1
	l.Write([]byte("new\n"))
	if b, _ := os.ReadFile(name); string(b) != "new\n" {
		t.Errorf("log holds %q", b)
	}
	if _, err := os.Stat(name + ".1"); err != nil {
		t.Error(err)
	}
}
