package deb

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/artifact/cache"
)

// mirror is an archive in memory that can be told to misbehave.
type mirror struct {
	files map[string][]byte
	cut   map[string]int // path to number of bytes after which the connection breaks, once
	asked []string
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.asked = append(m.asked, r.Header.Get("Range"))
	b, ok := m.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if n, ok := m.cut[r.URL.Path]; ok {
		delete(m.cut, r.URL.Path)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func serve(t *testing.T, files map[string][]byte) (*mirror, string) {
	t.Helper()
	m := &mirror{files: files, cut: map[string]int{}}
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return m, s.URL
}

func locked(b []byte) Package {
	s := sha256.Sum256(b)
	return Package{Name: "kernel", Package: "linux-image", Version: "6.12-1", Suite: "trixie", Path: "pool/l+1_~.deb", Size: int64(len(b)), SHA256: hex.EncodeToString(s[:])}
}

func TestFetch(t *testing.T) {
	content := bytes.Repeat([]byte("racklet "), 10_000)
	p := locked(content)
	path := "/" + p.Path
	wrong := bytes.Clone(content)
	wrong[70_000] ^= 1
	longer := append(bytes.Clone(content), "more"...)
	read := func(t *testing.T, f *Fetcher) error {
		t.Helper()
		name, err := f.Fetch(t.Context(), p)
		if err == nil {
			if got, _ := os.ReadFile(name); !bytes.Equal(got, content) {
				t.Error("content differs")
			}
		}
		return err
	}
	t.Run("cache", func(t *testing.T) {
		m, url := serve(t, map[string][]byte{path: content})
		f := &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}, Mirrors: Mirrors{Archive: []string{url}}}
		for range 2 {
			if err := read(t, f); err != nil {
				t.Fatal(err)
			}
		}
		if len(m.asked) != 1 {
			t.Errorf("mirror was asked %d times, want once", len(m.asked))
		}
		// A damaged cache is noticed and mended.
		os.WriteFile(f.Cache.Path(p.SHA256), wrong, 0o600)
		if err := read(t, f); err != nil || len(m.asked) != 2 {
			t.Errorf("after damage: %v, mirror asked %d times", err, len(m.asked))
		}
	})
	t.Run("resumes, at the next mirror too", func(t *testing.T) {
		a, urlA := serve(t, map[string][]byte{path: content})
		b, urlB := serve(t, map[string][]byte{path: content})
		a.cut[path] = 30_000
		f := &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}, Mirrors: Mirrors{Archive: []string{urlA, urlB}}}
		if err := read(t, f); err != nil {
			t.Fatal(err)
		}
		if len(b.asked) != 1 || b.asked[0] != "bytes=30000-" {
			t.Errorf("second mirror was asked for %q", b.asked)
		}
	})
	t.Run("lying mirrors", func(t *testing.T) {
		_, a := serve(t, map[string][]byte{path: wrong})
		_, b := serve(t, map[string][]byte{path: longer})
		_, c := serve(t, map[string][]byte{path: content[:100]})
		f := &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}, Mirrors: Mirrors{Archive: []string{a, b, c}}}
		if err := read(t, f); !errors.Is(err, cache.ErrHash) {
			t.Errorf("got %v, want ErrHash among the reasons", err)
		}
		if _, err := f.Cache.Lookup(p.SHA256); err == nil {
			t.Error("the cache holds what a liar sent")
		}
		_, good := serve(t, map[string][]byte{path: content})
		f.Mirrors.Archive = append(f.Mirrors.Archive, good)
		if err := read(t, f); err != nil {
			t.Errorf("with an honest mirror last: %v", err)
		}
	})
	t.Run("stalls", func(t *testing.T) {
		stuck := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:5000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		defer stuck.Close()
		// The limit also covers the way to the first byte, which a busy machine
		// makes long: the 5000 bytes must come before it.
		f := &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}, Mirrors: Mirrors{Archive: []string{stuck.URL}}, Stall: 3 * time.Second}
		if err := read(t, f); err == nil || !strings.Contains(err.Error(), "nothing came") {
			t.Errorf("a mirror that stalls alone: %v", err)
		}
		good, url := serve(t, map[string][]byte{path: content})
		f.Mirrors.Archive, f.Stall = []string{url}, 0
		if err := read(t, f); err != nil || good.asked[0] != "bytes=5000-" {
			t.Errorf("%v; the next mirror was asked for %q", err, good.asked)
		}
	})
	t.Run("gone", func(t *testing.T) {
		_, a := serve(t, nil)
		_, b := serve(t, nil)
		f := &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}, Mirrors: Mirrors{Archive: []string{a, b}}}
		err := read(t, f)
		var gone *GoneError
		if !errors.As(err, &gone) {
			t.Fatalf("got %v, want a GoneError", err)
		}
		for _, want := range []string{"linux-image", "6.12-1", "make update-locks", a, b} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	})
	t.Run("no mirror", func(t *testing.T) {
		f := &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}}
		if err := read(t, f); !errors.Is(err, ErrNoMirror) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("file mirror", func(t *testing.T) {
		dir := t.TempDir()
		os.MkdirAll(filepath.Join(dir, "pool"), 0o755)
		os.WriteFile(filepath.Join(dir, p.Path), content, 0o600)
		m, err := NamedMirrors("file://" + dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := read(t, &Fetcher{Cache: cache.Cache{Dir: t.TempDir()}, Mirrors: m}); err != nil {
			t.Error(err)
		}
	})
}
