package lines

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T, o Options) (*Log, []string) {
	t.Helper()
	var all []string
	l, err := Open(o, func(b []byte) bool {
		if !bytes.HasPrefix(b, []byte("line ")) {
			return false
		}
		all = append(all, string(b))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, all
}

func options(dir string) Options {
	return Options{Dir: dir, Name: "some", Bytes: 1000, Files: 3, Line: 100}
}

// TestPowerCut cuts the file at every byte of what was appended last, and puts behind it what a disk may leave there.
func TestPowerCut(t *testing.T) {
	o := options(t.TempDir())
	l, _ := open(t, o)
	if err := l.Append([]byte("line 1")); err != nil {
		t.Fatal(err)
	}
	if err := l.Append([]byte("line 2"), []byte("line 3")); err != nil {
		t.Fatal(err)
	}
	l.Close()
	whole, err := os.ReadFile(filepath.Join(o.Dir, "some.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := 7; cut <= len(whole); cut++ {
		for _, tail := range []string{"", "\x00\x00\x00", "stale\n"} {
			o := options(t.TempDir())
			if err := os.WriteFile(filepath.Join(o.Dir, "some.jsonl"), append(whole[:cut:cut], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			l, all := open(t, o)
			if want := strings.Count(string(whole[:cut]), "\n"); len(all) != want && !(tail == "stale\n" && cut%7 != 0 && len(all) == want+1) {
				t.Fatalf("cut at %d, tail %q: %q", cut, tail, all)
			}
			if err := l.Append([]byte("line new")); err != nil {
				t.Fatal(err)
			}
			l.Close()
			if _, again := open(t, o); len(again) != len(all)+1 || again[len(all)] != "line new" {
				t.Fatalf("cut at %d, tail %q: %q", cut, tail, again)
			}
		}
	}
}

func TestRotation(t *testing.T) {
	o := options(t.TempDir())
	l, _ := open(t, o)
	const n = 500
	for i := range n {
		if err := l.Append(fmt.Appendf(nil, "line %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	if files, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(files) != o.Files {
		t.Errorf("%v", files)
	}
	_, all := open(t, o)
	if len(all) < 200 || len(all) > 300 || all[len(all)-1] != "line 499" {
		t.Fatalf("%d lines", len(all))
	}
	for i, line := range all {
		if line != fmt.Sprintf("line %d", n-len(all)+i) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	// A rotation that was cut between two renames loses nothing.
	os.Rename(filepath.Join(o.Dir, "some.jsonl"), filepath.Join(o.Dir, "some.1.jsonl"))
	l, some := open(t, o)
	if len(some) == 0 || some[len(some)-1] != "line 499" || l.Append([]byte("line more")) != nil {
		t.Errorf("%d lines", len(some))
	}
}

// TestFailure: what cannot be written is an error, and the log comes back.
func TestFailure(t *testing.T) {
	o := options(t.TempDir())
	l, _ := open(t, o)
	l.f.Close()
	if err := l.Append([]byte("line 1")); err == nil || l.Err() == nil {
		t.Error("written to a closed file")
	}
	if err := l.Append([]byte("line 2")); err != nil || l.Err() != nil {
		t.Error(err)
	}
	if err := l.Append(bytes.Repeat([]byte("x"), 101)); err == nil {
		t.Error("a line that is too long")
	}
	l.Close()
	if _, all := open(t, o); len(all) != 1 || all[0] != "line 2" {
		t.Errorf("%q", all)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("line 1\nline 2\n"))
	f.Add([]byte("line 1\n\x00\nline 2"))
	f.Add(bytes.Repeat([]byte("line"), 60))
	f.Fuzz(func(t *testing.T, b []byte) {
		o := options(t.TempDir())
		if err := os.WriteFile(filepath.Join(o.Dir, "some.jsonl"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, all := open(t, o)
		if err := l.Append([]byte("line last")); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, again := open(t, o); len(again) != len(all)+1 {
			t.Fatalf("%d lines, then %d", len(all), len(again))
		}
	})
}
