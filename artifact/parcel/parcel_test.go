package parcel_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/artifact/parcel"
)

// pack makes a parcel of a few files, a program and a link.
func pack(t testing.TB) (b []byte, digest string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"a/one": "one", "a/b/two": strings.Repeat("two", 3000), "empty": "", "run": "#!/bin/sh\n", "skipped/x": "x"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(dir, "run"), 0o755), os.Symlink("../run", filepath.Join(dir, "a", "link"))); err != nil {
		t.Fatal(err)
	}
	x := parcel.Index{Made: time.Unix(1_700_000_000, 0).UTC(), Host: "any/any"}
	if err := x.AddTree("cache", dir, func(name string, d fs.DirEntry) bool { return name == "skipped" }); err != nil {
		t.Fatal(err)
	}
	if err := x.Add("other", "one", filepath.Join(dir, "a", "one")); err != nil {
		t.Fatal(err)
	}
	var w bytes.Buffer
	var last, all int64
	digest, err := parcel.Pack(t.Context(), &w, &x, func(d, a int64) { last, all = d, a })
	if err != nil || last != all || all == 0 {
		t.Fatalf("packed %d of %d: %v", last, all, err)
	}
	return w.Bytes(), digest
}

func unpack(t testing.TB, b []byte, dirs map[string]string) (int, error) {
	p, err := parcel.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return 0, err
	}
	return p.Unpack(t.Context(), dirs, nil)
}

func TestRoundTrip(t *testing.T) {
	b, digest := pack(t)
	p, err := parcel.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil || p.Digest != digest || len(p.Index.Files) != 6 {
		t.Fatalf("%d files, %s: %v", len(p.Index.Files), p.Digest, err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	n, err := p.Unpack(t.Context(), map[string]string{"cache": dir}, nil)
	if err != nil || n != 5 {
		t.Fatalf("%d written: %v", n, err)
	}
	for name, want := range map[string]string{"a/one": "one", "a/link": "#!/bin/sh\n", "empty": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "run")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("run: %v, %v", info, err)
	}
	// Again: nothing is written; then one file is damaged, and it alone is.
	if n, err := unpack(t, b, map[string]string{"cache": dir}); n != 0 || err != nil {
		t.Errorf("the second time %d files: %v", n, err)
	}
	os.WriteFile(filepath.Join(dir, "a", "one"), []byte("0ne"), 0o644)
	if n, err := unpack(t, b, map[string]string{"cache": dir}); n != 1 || err != nil {
		t.Errorf("the third time %d files: %v", n, err)
	}
	// Ordinary tar reads it.
	r := tar.NewReader(bytes.NewReader(b))
	for count := 0; ; count++ {
		if _, err := r.Next(); err != nil {
			if count != 7 {
				t.Errorf("tar sees %d entries", count)
			}
			break
		}
	}
}

// TestDamage flips a bit of every byte, and cuts the parcel everywhere: nothing wrong is ever put down, and what is
// damaged is named.
func TestDamage(t *testing.T) {
	b, _ := pack(t)
	good := t.TempDir()
	if _, err := unpack(t, b, map[string]string{"cache": good}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(good, "a", "b", "two"))
	if err != nil {
		t.Fatal(err)
	}
	two := bytes.Index(b, want)
	dir := t.TempDir()
	look := func(what string, err error) {
		t.Helper()
		var damage *parcel.DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%s: %v", what, err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "a", "b", "two"))
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%s: a wrong file was put down", what)
		}
		left, _ := filepath.Glob(filepath.Join(dir, "a", "b", "*part"))
		if left != nil {
			t.Fatalf("%s: %q is left", what, left)
		}
	}
	for i := 0; i < len(b); i += 1 + len(b)/700 {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		os.RemoveAll(filepath.Join(dir, "a"))
		_, err := unpack(t, bad, map[string]string{"cache": dir})
		look(fmt.Sprintf("byte %d", i), err)
		_, err = unpack(t, b[:i], map[string]string{"cache": dir})
		look(fmt.Sprintf("cut at %d", i), err)
	}
	bad := bytes.Clone(b)
	bad[two+100] ^= 1
	_, err = unpack(t, bad, map[string]string{"cache": dir})
	if err == nil || !strings.HasPrefix(err.Error(), "cache/a/b/two is damaged: expected sha256 ") {
		t.Errorf("%v", err)
	}
	_, err = unpack(t, append(bytes.Clone(b), '\n'), map[string]string{"cache": dir})
	look("a byte more", err)
}

// TestInterrupted: a parcel that was interrupted is gone on with.
func TestInterrupted(t *testing.T) {
	b, _ := pack(t)
	dir := t.TempDir()
	p, err := parcel.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, err := p.Unpack(ctx, map[string]string{"cache": dir}, func(done, _ int64) {
		if done > 9000 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	second, err := unpack(t, b, map[string]string{"cache": dir})
	if err != nil || first == 0 || second == 0 || first+second != 5 {
		t.Errorf("%d, then %d files: %v", first, second, err)
	}
}

// TestHostile: an index may be whole and still ask for what it must not.
func TestHostile(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("x")))
	for name, files := range map[string][]parcel.File{
		"above":      {{Name: "cache/../../x", Size: 1, SHA256: sum}},
		"absolute":   {{Name: "/etc/x", Size: 1, SHA256: sum}},
		"no folder":  {{Name: "x", Size: 1, SHA256: sum}},
		"link out":   {{Name: "cache/x", Link: "../../y"}},
		"link abs":   {{Name: "cache/x", Link: "/etc/passwd"}},
		"link aside": {{Name: "cache/x", Link: "../other/y"}},
		"no digest":  {{Name: "cache/x", Size: 1}},
		"negative":   {{Name: "cache/x", Size: -1, SHA256: sum}},
		"twice":      {{Name: "cache/x", Size: 1, SHA256: sum}, {Name: "cache/x", Size: 1, SHA256: sum}},
	} {
		b := forge(parcel.Index{Files: files})
		if _, err := parcel.Open(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	b := forge(parcel.Index{Files: []parcel.File{{Name: "cache/x", Size: 1, SHA256: sum}}})
	if _, err := parcel.Open(bytes.NewReader(b), int64(len(b))); err != nil {
		t.Errorf("a good one is refused: %v", err)
	}
}

// forge makes the head of a parcel with any index.
func forge(x parcel.Index) []byte {
	index, _ := json.Marshal(x)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: fmt.Sprintf("racklet-parcel/%x.json", sha256.Sum256(index)), Size: int64(len(index)), Mode: 0o644})
	w.Write(index)
	w.Close()
	return append(b.Bytes(), bytes.Repeat([]byte{'0'}, 65)...)
}

func FuzzUnpack(f *testing.F) {
	b, _ := pack(f)
	f.Add(b)
	f.Add(forge(parcel.Index{Files: []parcel.File{{Name: "cache/x", Link: "y"}}}))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parcel.Open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = p.Unpack(t.Context(), map[string]string{"cache": filepath.Join(dir, "in")}, nil)
		}
		if names, _ := os.ReadDir(dir); len(names) > 1 {
			t.Fatalf("wrote outside: %v", names)
		}
		_ = err
	})
}
