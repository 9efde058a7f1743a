package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestBus(t *testing.T) {
	a, b, c := newInbox(), newInbox(), newInbox()
	hello, other := bytes.Repeat([]byte("hello"), 60), bytes.Repeat([]byte("other"), 60)
	for _, tt := range []struct {
		name    string
		do      func(*bus)
		good    bool // b hears hello as it was
		clashes uint64
	}{
		{"one speaks", func(x *bus) { x.send(a, hello) }, true, 0},
		{"in pieces", func(x *bus) { x.send(a, hello[:100]); x.send(a, hello[100:]) }, true, 0},
		{"two at once", func(x *bus) { x.send(a, hello); x.send(c, other) }, false, 1},
		{"one after the other", func(x *bus) { x.send(c, other); time.Sleep(10 * time.Millisecond); b.take(nil); x.send(a, hello) }, true, 0},
		{"jammed", func(x *bus) { x.jam(true); x.send(a, hello) }, false, 0},
		{"freed", func(x *bus) { x.jam(true); x.jam(false); x.send(a, hello) }, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newBus()
				for _, i := range []**inbox{&a, &b, &c} {
					*i = newInbox()
					x.connect(*i)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); x.run(ctx) }()
				tt.do(x)
				synctest.Wait()
				if tt.name == "one speaks" && len(b.take(nil)) != 0 {
					t.Error("heard before it was said")
				}
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				got := b.take(nil)
				if good := bytes.Equal(got, hello); good != tt.good || len(got) < len(hello) {
					t.Errorf("heard %d bytes, good %v, want %v", len(got), good, tt.good)
				}
				if len(a.take(nil)) != 0 && tt.clashes == 0 && tt.name != "one after the other" {
					t.Error("the sender hears itself")
				}
				if s := x.statistics(); s.Collisions != tt.clashes {
					t.Errorf("%d collisions, want %d", s.Collisions, tt.clashes)
				}
				cancel()
				<-done
			})
		})
	}
}

func TestInboxIsBounded(t *testing.T) {
	i := newInbox()
	for range 3 {
		i.put(make([]byte, inboxSize/2+1))
	}
	if n := len(i.take(nil)); n != inboxSize {
		t.Errorf("holds %d bytes, want %d", n, inboxSize)
	}
	if n := len(i.take(nil)); n != 0 {
		t.Errorf("%d bytes twice", n)
	}
}

func TestLine(t *testing.T) {
	rmc := newInbox()
	l := newLine(rmc)
	if n, err := l.Write([]byte("ask")); n != 3 || err != nil || string(rmc.take(nil)) != "ask" {
		t.Errorf("write: %d, %v", n, err)
	}
	l.fromRMC([]byte("answer"))
	buf := make([]byte, 4)
	for _, want := range []string{"answ", "er"} {
		if n, err := l.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("read %q, %v, want %q", buf[:n], err, want)
		}
	}
	l.fromRMC(make([]byte, 2*inboxSize)) // nobody reads: no harm
	l.Close()
	if b, err := io.ReadAll(l); err != nil || len(b) != inboxSize {
		t.Errorf("after the end: %d bytes, %v", len(b), err)
	}
	if _, err := l.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after the end: %v", err)
	}
}

// TestLoopback keeps the operator's port over restarts, and moves when it is taken.
func TestLoopback(t *testing.T) {
	file := filepath.Join(t.TempDir(), "port")
	a, err := loopback(file)
	if err != nil {
		t.Fatal(err)
	}
	first := a.Addr().String()
	b, err := loopback(file) // taken: by a
	if err != nil {
		t.Fatal(err)
	}
	second := b.Addr().String()
	a.Close()
	b.Close()
	c, err := loopback(file)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if first == second || c.Addr().String() != second {
		t.Errorf("ports %s, %s, %s: want another, then the same", first, second, c.Addr())
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	f, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("second simulator: %v", err)
	}
	f.Close()
	if f, err = lockDir(dir); err != nil {
		t.Errorf("after the first has ended: %v", err)
	} else {
		f.Close()
	}
}
