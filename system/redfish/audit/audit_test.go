package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func opened(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func fill(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(Entry{Time: time.Unix(int64(i), 0).UTC(), Who: "ada", Method: "PATCH", Target: "/x", What: strings.Repeat("w", 200), Status: 200}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCut cuts the file at every byte of the last two lines: all whole lines stay, and the log goes on.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir)
	fill(t, l, 3)
	l.Close()
	whole, err := os.ReadFile(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	first := strings.IndexByte(string(whole), '\n') + 1
	for cut := first; cut <= len(whole); cut++ {
		for _, tail := range []string{"", "\x00\x00\x00", "{\"seq\":1}\n"} { // torn, zeroed, stale blocks
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "audit.jsonl"), append(whole[:cut:cut], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			l := opened(t, dir)
			want := strings.Count(string(whole[:cut]), "\n")
			if got := l.Entries(); len(got) != want {
				t.Fatalf("cut at %d of %d, tail %q: %d entries, want %d", cut, len(whole), tail, len(got), want)
			}
			e, err := l.Append(Entry{Who: "after"})
			if err != nil || e.Sequence != uint64(want+1) {
				t.Fatalf("cut at %d: sequence %d: %v", cut, e.Sequence, err)
			}
			l.Close()
			if got := opened(t, dir).Entries(); len(got) != want+1 || got[want].Who != "after" {
				t.Fatalf("cut at %d: after the restart %d entries", cut, len(got))
			}
		}
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	const n, size = 2500, 150_000
	l, err := open(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, n)
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != Files {
		t.Errorf("%v", files)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.Size() > size || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f, info)
		}
	}
	l.Close()
	got := opened(t, dir).Entries()
	if len(got) != Recent || got[Recent-1].Sequence != n || got[0].Sequence != n-Recent+1 {
		t.Errorf("%d entries, last %d", len(got), got[len(got)-1].Sequence)
	}
	// A rotation that was cut between two renames loses nothing.
	os.Rename(filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "audit.1.jsonl"))
	if e, err := opened(t, dir).Append(Entry{}); err != nil || e.Sequence != n+1 {
		t.Errorf("after a cut rotation: %d %v", e.Sequence, err)
	}
}

// TestFailure: an entry that cannot be written is an error, not a log line.
func TestFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := open(dir, 1) // a new file for each entry
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(Entry{}); err == nil || l.Err() == nil {
		t.Error("written to a directory that is not there")
	}
	if n := len(l.Entries()); n != 1 {
		t.Errorf("%d entries", n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Append(Entry{}); err != nil || e.Sequence != 2 || l.Err() != nil {
		t.Errorf("it does not come back: %d %v", e.Sequence, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"seq":1,"who":"a"}` + "\n" + `{"seq":2}` + "\n"))
	f.Add([]byte("{\"seq\":18446744073709551615}\n"))
	f.Add([]byte(strings.Repeat("x", 3*mostLine)))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "audit.jsonl"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := len(l.Entries())
		if _, err := l.Append(Entry{Who: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	})
}
