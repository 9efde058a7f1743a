package tape

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func clock() func() time.Time {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	return func() time.Time { return at }
}

func text(t *testing.T, tape *Tape) string {
	t.Helper()
	var b strings.Builder
	if n, err := tape.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes: %v", n, b.Len(), err)
	}
	return b.String()
}

func TestTape(t *testing.T) {
	dir := t.TempDir()
	tape, err := Open(dir, "unit-1", clock())
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range []string{"boo", "ting\r\n", "\x1b[1;32mgreen\x1b[0m\n\x1b]0;title\x07", "\xff\u202e\nlogin: "} {
		if err := tape.Print([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	const at = "2026-11-23T10:00:00.000Z "
	want := at + "booting\n" + at + "green\n" + at + `\x1b]0;title\a\xff\u202e` + "\n" + at + "login: \n"
	if got := text(t, tape); got != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if err := tape.Close(); err != nil {
		t.Fatal(err)
	}
	if tape, err = Open(dir, "unit-1", clock()); err != nil { // goes on where it was
		t.Fatal(err)
	}
	defer tape.Close()
	if err := tape.Note("the service started"); err != nil {
		t.Fatal(err)
	}
	if got := text(t, tape); got != want+at+"--- the service started ---\n" {
		t.Errorf("recorded %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "unit-1.log"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// TestBounds: a console that prints for ever takes no more room than it may, and the newest stays.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	tape, err := Open(dir, "unit-1", clock())
	if err != nil {
		t.Fatal(err)
	}
	defer tape.Close()
	long := strings.Repeat("x", 3*mostLine)
	for i := range 2000 {
		if err := tape.Print(fmt.Appendf(nil, "%s %d\n", long, i)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != Files {
		t.Fatalf("%v: %v", files, err)
	}
	for _, f := range files {
		if info, _ := f.Info(); info.Size() > FileBytes {
			t.Errorf("%s: %d bytes", f.Name(), info.Size())
		}
	}
	got := text(t, tape)
	if len(got) > Files*FileBytes || len(got) < (Files-1)*FileBytes/2 || !strings.HasSuffix(got, " 1999\n") {
		t.Errorf("%d bytes end with %q", len(got), got[max(len(got)-80, 0):])
	}
}

// TestDiskComesBack: an error is told once, and the recording goes on when it can.
func TestDiskComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tape, err := Open(dir, "unit-1", clock())
	if err != nil {
		t.Fatal(err)
	}
	defer tape.Close()
	tape.f.Close()
	if err := tape.Print([]byte("lost\n")); err == nil {
		t.Error("no error")
	}
	if err := tape.Print([]byte("lost\n")); err != nil {
		t.Errorf("again: %v", err)
	}
	tape.f = nil
	if err := tape.Print([]byte("kept\n")); err != nil || !strings.HasSuffix(text(t, tape), "kept\n") {
		t.Errorf("after it: %v %q", err, text(t, tape))
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[31mred\x1b[0m", "\x1b[31", "\x1b]0;t\x07", "\xff\xfe", "\u202e\u2066", "a\rb\tc\n", "\x9b31m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Clean(s) {
			if r != '\t' && !unicode.IsPrint(r) || r == utf8.RuneError && !strings.ContainsRune(s, utf8.RuneError) {
				t.Fatalf("%q becomes %q", s, Clean(s))
			}
		}
	})
}
