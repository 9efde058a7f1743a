package source

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

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
		Path: filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"),
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

// TestPinnedChain pins an issuer, and shows that its certificate alone, sent
// along by somebody else, opens nothing.
func TestPinnedChain(t *testing.T) {
	f := newFixture(t)
	caKey, ca := newCertificate(t, nil, nil, true)
	leafKey, leaf := newCertificate(t, ca, caKey, false)
	strangerKey, stranger := newCertificate(t, nil, nil, false)
	pin := TLSPin(ca)

	good := serveHTTPS(t, filepath.Dir(f.dir), leafKey, leaf.Raw, ca.Raw)
	if _, err := Fetch(ctx(t), httpsRepository(good, pin, spare)); err != nil {
		t.Errorf("issued by the pinned key: %v", err)
	}
	bad := serveHTTPS(t, filepath.Dir(f.dir), strangerKey, stranger.Raw, ca.Raw)
	_, err := Fetch(ctx(t), httpsRepository(bad, pin, spare))
	wantRefusal(t, err, "source.tls-pin")

	// A leaf that is pinned by someone else's chain is no issuer either.
	subKey, sub := newCertificate(t, leaf, leafKey, false)
	notCA := serveHTTPS(t, filepath.Dir(f.dir), subKey, sub.Raw, leaf.Raw)
	_, err = Fetch(ctx(t), httpsRepository(notCA, TLSPin(leaf), spare))
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
	testGit(t, t.TempDir(), "init", "-q", "--bare", remote)
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

	// A second owner's clone carries on from there.
	other := filepath.Join(t.TempDir(), "clone")
	testGit(t, t.TempDir(), "clone", "-q", "-b", "main", remote, other)
	testGit(t, other, "branch", "-q", "racklet-metadata", "origin/racklet-metadata")
	p, err := Sign(other, f.keys.Owners[2], f.options())
	if err != nil || !p.Changed || p.Sequence != 2 {
		t.Errorf("third signature in another clone: %+v, %v", p, err)
	}
	b, err := ReadBundle(other, f.anchor.Repository)
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

// sshServer is a server with some host keys that runs git-upload-pack.
type sshServer struct {
	addr    string
	hostKey ssh.PublicKey
}

// serveSSH lets one deploy key read the repositories on this machine.
func serveSSH(t *testing.T, deploy ssh.PublicKey, hostKeys ...ssh.Signer) sshServer {
	t.Helper()
	git := racktest.Tool(t, "git")
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "git" || !bytes.Equal(key.Marshal(), deploy.Marshal()) {
			return nil, errors.New("not this key")
		}
		return nil, nil
	}}
	for _, key := range hostKeys {
		config.AddHostKey(key)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, channels, requests, err := ssh.NewServerConn(conn, config)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for nc := range channels {
					ch, requests, err := nc.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { runUploadPack(git, ch, requests) })
				}
			})
		}
	})
	return sshServer{l.Addr().String(), hostKeys[0].PublicKey()}
}

func runUploadPack(git string, ch ssh.Channel, requests <-chan *ssh.Request) {
	defer ch.Close()
	for req := range requests {
		var payload struct{ Command string }
		if req.Type != "exec" || ssh.Unmarshal(req.Payload, &payload) != nil {
			_ = req.Reply(false, nil)
			continue
		}
		path, ok := strings.CutPrefix(payload.Command, "git-upload-pack '")
		_ = req.Reply(ok, nil)
		if !ok {
			return
		}
		cmd := exec.Command(git, "upload-pack", strings.TrimSuffix(path, "'"))
		cmd.Stdout = ch
		in, err := cmd.StdinPipe()
		if err != nil || cmd.Start() != nil {
			return
		}
		go func() { _, _ = io.Copy(in, ch); _ = in.Close() }()
		_ = cmd.Wait()
		_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
		return
	}
}

func newSSHKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(pem.EncodeToMemory(block))
}

func TestFetchSSH(t *testing.T) {
	f := newFixture(t)
	deploy, deployPEM := newSSHKey(t)
	host, _ := newSSHKey(t)
	spareHost, _ := newSSHKey(t)
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherKind, err := ssh.NewSignerFromKey(ecdsaKey)
	if err != nil {
		t.Fatal(err)
	}
	// The server also has a host key of a kind that clients like better.
	s := serveSSH(t, deploy.PublicKey(), host, otherKind)
	line := func(k ssh.Signer) string { return string(ssh.MarshalAuthorizedKey(k.PublicKey())) }
	repo := rack.Repository{
		URL: (&url.URL{Scheme: "ssh", User: url.User("git"), Host: s.addr, Path: f.dir}).String(),
		Ref: defaultRef, MetadataRef: DefaultMetadataRef,
		SSHHostKeys: []string{line(spareHost), line(host)}, DeployKey: deployPEM,
	}
	b, err := Fetch(ctx(t), repo)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := f.verify(b); err != nil || v.Sequence != 1 {
		t.Fatalf("verify what was fetched: %v", err)
	}
	if !bytes.Equal(b.Marshal(), f.bundle(t).Marshal()) {
		t.Error("fetched bundle differs from the clone's")
	}
	for range 3 { // history that needs a second and a third connection
		f.commit(t, unitFile(time.Now().String()))
	}
	if b, err = Fetch(ctx(t), repo); err != nil {
		t.Fatal(err)
	}
	if _, err := f.verify(b); err != nil {
		t.Error(err)
	}

	t.Run("wrong host key", func(t *testing.T) {
		r := repo
		r.SSHHostKeys = []string{line(spareHost)}
		_, err := Fetch(ctx(t), r)
		refusal := wantRefusal(t, err, "source.ssh-host-key")
		if refusal.Seen != ssh.FingerprintSHA256(host.PublicKey()) {
			t.Errorf("refusal %+v", refusal)
		}
	})
	t.Run("host key of another kind", func(t *testing.T) {
		only := serveSSH(t, deploy.PublicKey(), otherKind)
		r := repo
		r.URL = "ssh://git@" + only.addr + f.dir
		_, err := Fetch(ctx(t), r)
		wantRefusal(t, err, "source.ssh-host-key")
	})
	t.Run("no host keys", func(t *testing.T) {
		r := repo
		r.SSHHostKeys = nil
		if _, err := Fetch(ctx(t), r); err == nil {
			t.Error("fetched without host keys")
		}
	})
	t.Run("wrong deploy key", func(t *testing.T) {
		r := repo
		_, r.DeployKey = newSSHKey(t)
		_, err := Fetch(ctx(t), r)
		wantRefusal(t, err, "source.deploy-key")
	})
	t.Run("no deploy key", func(t *testing.T) {
		r := repo
		r.DeployKey = ""
		_, err := Fetch(ctx(t), r)
		wantRefusal(t, err, "source.deploy-key")
	})
	t.Run("missing repository", func(t *testing.T) {
		r := repo
		r.URL += "-not"
		if _, err := Fetch(ctx(t), r); err == nil {
			t.Error("fetched from nowhere")
		}
	})
	t.Run("silent server", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		r := repo
		r.URL = "ssh://git@" + l.Addr().String() + f.dir
		if _, err := Fetch(c, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
	})
}
