package source

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/racktest"
)

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
		// The handshake has a bound of its own, whatever the caller's.
		before := handshakeTimeout
		defer func() { handshakeTimeout = before }()
		handshakeTimeout = 50 * time.Millisecond
		var timeout net.Error
		if _, err := Fetch(ctx(t), r); !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want the connection's timeout", err)
		}
	})
}
