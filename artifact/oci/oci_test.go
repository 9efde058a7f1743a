package oci

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

var big = func() []byte {
	b := make([]byte, 300_000)
	rand.NewChaCha8([32]byte{3}).Read(b)
	return b
}()

func sample(t *testing.T) (string, []v1.Descriptor) {
	t.Helper()
	dir := t.TempDir()
	d, err := Write(dir,
		Artifact{Repository: "racklet/boot", Tag: "1", Type: "application/vnd.example.a", Layers: []Blob{{MediaType: "application/vnd.example.big", Data: big}}},
		Artifact{Repository: "racklet/os", Tag: "1", Type: "application/vnd.example.b", Config: Blob{MediaType: "application/json", Data: []byte(`{"a":1}`)}, Layers: []Blob{{MediaType: "text/plain", Data: []byte("os")}}})
	if err != nil {
		t.Fatal(err)
	}
	return dir, d
}

// TestOrasReadsLayout has the layout read, and verified, by somebody else's code.
func TestOrasReadsLayout(t *testing.T) {
	dir, d := sample(t)
	store, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := content.FetchAll(t.Context(), store, d[0])
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(doc)
	if err != nil {
		t.Fatal(err)
	}
	got, err := content.FetchAll(t.Context(), store, m.Layers[0])
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("layer: %d bytes, %v", len(got), err)
	}
}

// TestOrasPulls has a registry client of others pull from our handler.
func TestOrasPulls(t *testing.T) {
	dir, d := sample(t)
	srv := httptest.NewServer(Handler(t.TempDir(), dir))
	defer srv.Close()
	repo, err := remote.NewRepository(srv.Listener.Addr().String() + "/racklet/boot")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	for _, ref := range []string{string(d[0].Digest), "1"} {
		desc, err := repo.Resolve(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if desc.Digest != d[0].Digest || desc.Size != d[0].Size {
			t.Errorf("%s resolves to %+v", ref, desc)
		}
	}
	doc, err := content.FetchAll(t.Context(), repo, d[0])
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(doc)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := content.FetchAll(t.Context(), repo, m.Layers[0]); err != nil || !bytes.Equal(got, big) {
		t.Errorf("layer: %d bytes, %v", len(got), err)
	}
}

func TestHandler(t *testing.T) {
	dir, d := sample(t)
	os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600)
	h := Handler(dir)
	bigDigest := string(digest.FromBytes(big))
	osDigest := string(digest.FromBytes([]byte("os")))
	for _, tt := range []struct {
		method, path, ranges string
		status, length       int
	}{
		{"GET", "/v2/", "", 200, 3},
		{"GET", "/v2/racklet/boot/manifests/" + string(d[0].Digest), "", 200, int(d[0].Size)},
		{"HEAD", "/v2/racklet/boot/blobs/" + bigDigest, "", 200, 0},
		{"GET", "/v2/racklet/boot/blobs/" + bigDigest, "bytes=1000-", 206, len(big) - 1000},
		{"GET", "/v2/racklet/boot/blobs/" + bigDigest, "bytes=300000-", 416, -1},
		{"GET", "/v2/racklet/boot/blobs/" + osDigest, "", 404, -1},              // of another repository
		{"GET", "/v2/racklet/os/manifests/" + string(d[0].Digest), "", 404, -1}, // likewise
		{"GET", "/v2/racklet/boot/manifests/2", "", 404, -1},                    // no such tag
		{"GET", "/v2/racklet/boot/blobs/sha256:..%2f..%2fsecret", "", 404, -1},  // not a digest
		{"GET", "/v2/../secret/blobs/" + bigDigest, "", 400, -1},                // not a name
		{"GET", "/secret", "", 404, -1},
		{"GET", "/v2/racklet/boot/tags/list", "", 404, -1},
		{"PUT", "/v2/racklet/boot/manifests/1", "", 405, -1},
		{"POST", "/v2/racklet/boot/blobs/uploads/", "", 405, -1},
	} {
		r := httptest.NewRequest(tt.method, "http://mirror"+tt.path, nil)
		if tt.ranges != "" {
			r.Header.Set("Range", tt.ranges)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		n, _ := io.Copy(io.Discard, w.Result().Body)
		if w.Code != tt.status || tt.length >= 0 && int(n) != tt.length {
			t.Errorf("%s %s %s: status %d, %d bytes; want %d, %d", tt.method, tt.path, tt.ranges, w.Code, n, tt.status, tt.length)
		}
	}
}

func TestLayoutIsReproducibleAndPruned(t *testing.T) {
	a, da := sample(t)
	b, db := sample(t)
	for _, name := range []string{"index.json", "oci-layout"} {
		x, _ := os.ReadFile(filepath.Join(a, name))
		y, _ := os.ReadFile(filepath.Join(b, name))
		if len(x) == 0 || !bytes.Equal(x, y) {
			t.Errorf("%s differs: %s and %s", name, x, y)
		}
	}
	if da[0].Digest != db[0].Digest {
		t.Error("manifests differ")
	}
	l := Layout{a}
	if _, err := Write(a, Artifact{Repository: "racklet/os", Type: "application/vnd.example.b", Layers: []Blob{{MediaType: "text/plain", Data: []byte("newer")}}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Prune(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(digest.FromBytes(big), 1<<20); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("blob of an artefact that is gone: %v", err)
	}
	if _, err := l.Read(digest.FromBytes([]byte("newer")), 1<<20); err != nil {
		t.Error(err)
	}
}

func TestReadRefuses(t *testing.T) {
	dir, d := sample(t)
	l := Layout{dir}
	if _, err := l.Read(d[0].Digest, d[0].Size-1); err == nil {
		t.Error("a blob beyond the limit is returned")
	}
	name := l.Path(d[0].Digest)
	b, _ := os.ReadFile(name)
	b[10] ^= 1
	os.WriteFile(name, b, 0o644)
	if _, err := l.Read(d[0].Digest, MaxManifest); !errors.Is(err, ErrDigest) {
		t.Errorf("a changed blob: %v", err)
	}
	if _, err := l.Read("sha256:../../index.json", MaxManifest); err == nil {
		t.Error("a path passes for a digest")
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:` + string(bytes.Repeat([]byte("0"), 64)) + `","size":2},"layers":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"digest":"sha512:00"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, d := range append(m.Layers, m.Config) {
			if checkDigest(d.Digest) != nil || d.Size < 0 {
				t.Errorf("descriptor %+v passes", d)
			}
		}
	})
}

var _ http.Handler = (*handler)(nil)
