package source

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/racktest"
)

// serveHTTPS serves the repositories below a folder by the real git
// http-backend over TLS.
func serveHTTPS(t *testing.T, root string, chain ...[]byte) *httptest.Server {
	t.Helper()
	git := racktest.Tool(t, "git")
	execPath, err := exec.Command(git, "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(&cgi.Handler{
		Path:   filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"),
		Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if chain != nil {
		key, err := x509.ParsePKCS8PrivateKey(chain[0])
		if err != nil {
			t.Fatal(err)
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: chain[1:], PrivateKey: key}}}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// testGit runs git in a fixture's clone.
func testGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(racktest.Tool(t, "git"), append([]string{"-C", dir, "-c", "user.name=Test", "-c", "user.email=test@localhost"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// spare is the pin of a key that is kept for the next change of keys.
const spare = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func httpsRepository(s *httptest.Server, pins ...string) rack.Repository {
	return rack.Repository{URL: s.URL + "/rack/.git", Ref: defaultRef, MetadataRef: DefaultMetadataRef, TLSPins: pins}
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

// verify verifies without remembering.
func (f *fixture) verify(b *Bundle) (*Verified, error) { return Verify(b, f.anchor, testNow) }

func TestFetchHTTPS(t *testing.T) {
	f := newFixture(t)
	s := serveHTTPS(t, filepath.Dir(f.dir))
	pin := TLSPin(s.Certificate())

	b, err := Fetch(ctx(t), httpsRepository(s, spare, pin))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := f.verify(b); err != nil || v.Sequence != 1 {
		t.Fatalf("verify what was fetched: %v", err)
	}
	if !bytes.Equal(b.Marshal(), f.bundle(t).Marshal()) {
		t.Error("fetched bundle differs from the clone's")
	}

	t.Run("wrong pin", func(t *testing.T) {
		_, err := Fetch(ctx(t), httpsRepository(s, spare))
		r := wantRefusal(t, err, "source.tls-pin")
		if r.Expected != spare || r.Seen != pin {
			t.Errorf("refusal %+v", r)
		}
	})
	t.Run("no pins", func(t *testing.T) {
		if _, err := Fetch(ctx(t), httpsRepository(s)); err == nil {
			t.Error("fetched without pins")
		}
	})
	t.Run("missing ref", func(t *testing.T) {
		repo := httpsRepository(s, pin)
		repo.Ref = "refs/heads/other"
		_, err := Fetch(ctx(t), repo)
		wantRefusal(t, err, "source.ref")
	})
	t.Run("empty repository", func(t *testing.T) {
		testGit(t, filepath.Dir(f.dir), "init", "-q", "--bare", "empty")
		repo := httpsRepository(s, pin)
		repo.URL = s.URL + "/empty"
		_, err := Fetch(ctx(t), repo)
		wantRefusal(t, err, "source.ref")
	})
	t.Run("missing repository", func(t *testing.T) {
		repo := httpsRepository(s, pin)
		repo.URL = s.URL + "/other/.git"
		var r *Refusal
		if _, err := Fetch(ctx(t), repo); err == nil || errors.As(err, &r) {
			t.Errorf("err = %v, want one that is no refusal", err)
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		repo := httpsRepository(s, pin)
		repo.URL = "http" + strings.TrimPrefix(repo.URL, "https")
		if _, err := Fetch(ctx(t), repo); err == nil {
			t.Error("fetched without TLS")
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		old := httptest.NewUnstartedServer(http.NotFoundHandler())
		old.Config.ErrorLog = log.New(io.Discard, "", 0)
		old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
		old.StartTLS()
		defer old.Close()
		if _, err := Fetch(ctx(t), httpsRepository(old, TLSPin(old.Certificate()))); err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("err = %v, want one about the version", err)
		}
	})
	t.Run("redirect", func(t *testing.T) {
		elsewhere := httptest.NewUnstartedServer(http.RedirectHandler(s.URL, http.StatusFound))
		elsewhere.StartTLS()
		defer elsewhere.Close()
		if _, err := Fetch(ctx(t), httpsRepository(elsewhere, TLSPin(elsewhere.Certificate()), pin)); err == nil {
			t.Error("followed a redirect")
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		gone := httptest.NewTLSServer(http.NotFoundHandler())
		gone.Close()
		var r *Refusal
		if _, err := Fetch(ctx(t), httpsRepository(gone, pin)); err == nil || errors.As(err, &r) {
			t.Errorf("err = %v, want one that is no refusal", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		c, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := Fetch(c, httpsRepository(s, pin)); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
	})
}

// TestManyRefs meets a server that lists refs without end.
func TestManyRefs(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		line := func(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
		io.WriteString(w, line("# service=git-upload-pack\n")+"0000")
		id := strings.Repeat("1", 40)
		if _, err := io.WriteString(w, line(id+" HEAD\x00shallow\n")); err != nil {
			return
		}
		for n := 0; n < maxRefs/50; n++ {
			if _, err := io.WriteString(w, line(fmt.Sprintf("%s refs/heads/%09d\n", id, n))); err != nil {
				return
			}
		}
		io.WriteString(w, "0000")
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, err := Fetch(ctx(t), httpsRepository(s, TLSPin(s.Certificate())))
	wantRefusal(t, err, "source.bundle")
}

// TestPinnedChain pins the host's own key. An issuer's opens nothing, whether
// it issued the certificate, for whatever host, or was only sent along.
func TestPinnedChain(t *testing.T) {
	f := newFixture(t)
	caKey, ca := newCertificate(t, nil, nil, true)
	leafKey, leaf := newCertificate(t, ca, caKey, false)
	strangerKey, stranger := newCertificate(t, nil, nil, false)

	issued := serveHTTPS(t, filepath.Dir(f.dir), leafKey, leaf.Raw, ca.Raw)
	if _, err := Fetch(ctx(t), httpsRepository(issued, TLSPin(leaf), spare)); err != nil {
		t.Errorf("the host's key: %v", err)
	}
	_, err := Fetch(ctx(t), httpsRepository(issued, TLSPin(ca), spare))
	if r := wantRefusal(t, err, "source.tls-pin"); r.Seen != TLSPin(leaf) {
		t.Errorf("refusal %+v", r)
	}
	sent := serveHTTPS(t, filepath.Dir(f.dir), strangerKey, stranger.Raw, ca.Raw)
	_, err = Fetch(ctx(t), httpsRepository(sent, TLSPin(ca), spare))
	wantRefusal(t, err, "source.tls-pin")
}

// newCertificate returns a key in PKCS #8 and a certificate, long expired and
// for no name: neither matters.
func newCertificate(t *testing.T, parent *x509.Certificate, parentKey []byte, ca bool) ([]byte, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Unix(1, 0),
		BasicConstraintsValid: true, IsCA: ca, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if ca {
		template.KeyUsage |= x509.KeyUsageCertSign
	}
	signer := any(key)
	if parent == nil {
		parent = template
	} else if signer, err = x509.ParsePKCS8PrivateKey(parentKey); err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der, cert
}

// TestFetchHistory lets commits that nobody signed grow on top of the signed
// one, further than the first depth reaches, and further than the second.
func TestFetchHistory(t *testing.T) {
	f := newFixture(t)
	s := serveHTTPS(t, filepath.Dir(f.dir))
	repo := httpsRepository(s, TLSPin(s.Certificate()), spare)
	total := 0
	for _, n := range []int{1, 5, 70} {
		for range n {
			total++
			f.commit(t, map[string]string{"rack/units/unit-1.yaml": fmt.Sprintf("not even valid: %d\n", total)})
		}
		b, err := Fetch(ctx(t), repo)
		if err != nil {
			t.Fatal(err)
		}
		v, err := f.verify(b)
		if err != nil {
			t.Fatalf("%d unsigned commits on top: %v", total, err)
		}
		if v.Sequence != 1 || b.Tip == v.Commit {
			t.Fatalf("%d unsigned commits on top: %+v", total, v)
		}
	}
	// Moved back before the signed commit, the ref does not have it.
	testGit(t, f.dir, "checkout", "-q", "--orphan", "other")
	testGit(t, f.dir, "commit", "-q", "-m", "elsewhere")
	testGit(t, f.dir, "update-ref", defaultRef, "HEAD")
	b, err := Fetch(ctx(t), repo)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.verify(b)
	wantRefusal(t, err, "rack.commit")
}

// TestOrdinaryGit looks at a new repository with git itself, and pushes.
func TestOrdinaryGit(t *testing.T) {
	f := newFixture(t)
	if out := testGit(t, f.dir, "status", "--porcelain"); out != "" {
		t.Errorf("git status: %s", out)
	}
	testGit(t, f.dir, "fsck", "--strict", "--full")
	remote := filepath.Join(t.TempDir(), "remote.git")
	testGit(t, t.TempDir(), "init", "-q", "--bare", "-b", "main", remote)
	testGit(t, f.dir, "push", "-q", remote, "main", "racklet-metadata")

	for name, content := range unitFile("by git") {
		if err := writeFile(f.dir, name, content); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Sign(f.dir, f.keys.Owners[0], f.options()); !errors.Is(err, ErrDirty) {
		t.Errorf("signing with uncommitted changes: %v", err)
	}
	testGit(t, f.dir, "commit", "-q", "-a", "-m", "change")
	testGit(t, f.dir, "gc", "-q") // packs objects and refs
	f.sign(t, 1, 2)
	testGit(t, f.dir, "push", "-q", remote, "main", "racklet-metadata")
	testGit(t, f.dir, "fsck", "--strict", "--full")

	// The service with the online key works on the bare repository.
	b, err := ReadBundle(remote, f.anchor.Repository)
	if err != nil {
		t.Fatal(err)
	}
	f.accept(t, b)
	if err := RefreshTimestamp(remote, f.keys.Online, testNow.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if b, err = ReadBundle(remote, f.anchor.Repository); err != nil {
		t.Fatal(err)
	}
	if v := f.accept(t, b); !v.Expires.Equal(testNow.Add(time.Hour + TimestampLifetime)) {
		t.Errorf("expires %s after a fresh timestamp", v.Expires)
	}
	if _, err := Sign(remote, f.keys.Owners[2], f.options()); !errors.Is(err, ErrDirty) {
		t.Errorf("signed without files to look at: %v", err)
	}

	// A second owner's clone carries on from there.
	other := filepath.Join(t.TempDir(), "clone")
	testGit(t, t.TempDir(), "clone", "-q", "-b", "main", remote, other)
	testGit(t, other, "branch", "-q", "racklet-metadata", "origin/racklet-metadata")
	p, err := Sign(other, f.keys.Owners[2], f.options())
	if err != nil || !p.Changed || p.Sequence != 2 {
		t.Errorf("third signature in another clone: %+v, %v", p, err)
	}
	b, err = ReadBundle(other, f.anchor.Repository)
	if err != nil {
		t.Fatal(err)
	}
	if v := f.accept(t, b); v.Sequence != 2 || len(v.Signers) != 3 {
		t.Errorf("verified %+v", v)
	}
}

// TestConcurrentPins fetches from two servers with different pins at once:
// each fetch must go by its own.
func TestConcurrentPins(t *testing.T) {
	f := newFixture(t)
	keyA, certA := newCertificate(t, nil, nil, false)
	keyB, certB := newCertificate(t, nil, nil, false)
	a := serveHTTPS(t, filepath.Dir(f.dir), keyA, certA.Raw)
	b := serveHTTPS(t, filepath.Dir(f.dir), keyB, certB.Raw)
	c := ctx(t)
	var wg sync.WaitGroup
	for range 4 {
		for _, tt := range []struct {
			s    *httptest.Server
			pin  string
			good bool
		}{{a, TLSPin(certA), true}, {b, TLSPin(certB), true}, {a, TLSPin(certB), false}, {b, TLSPin(certA), false}} {
			wg.Go(func() {
				_, err := Fetch(c, httpsRepository(tt.s, tt.pin))
				var r *Refusal
				if tt.good && err != nil || !tt.good && (!errors.As(err, &r) || r.Check != "source.tls-pin") {
					t.Errorf("good %v: %v", tt.good, err)
				}
			})
		}
	}
	wg.Wait()
}
