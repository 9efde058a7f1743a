package e2e

import (
	"bytes"
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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/racklet/racklet/source"
)

// gitHosts are Git hosts of an operator's own: ordinary git behind SSH and
// behind HTTPS, on loopback. They serve the bare repositories in one directory,
// for reading.
type gitHosts struct {
	dir    string
	deploy ssh.PublicKey // the one key that may read
	host   atomic.Pointer[ssh.ServerConfig]
	cert   atomic.Pointer[tls.Certificate]

	hostKey string // as in known_hosts, without the host

	mu   sync.Mutex
	open map[string]net.Listener
	port map[string]string
	done sync.WaitGroup
}

// hostsKey finds a script's gitHosts.
type hostsKey struct{}

func newGitHosts(dir string) *gitHosts {
	return &gitHosts{dir: dir, open: map[string]net.Listener{}, port: map[string]string{}}
}

func (g *gitHosts) close() {
	for _, kind := range []string{"ssh", "https"} {
		g.stop(kind)
	}
	g.done.Wait()
}

// gitHost starts and stops a Git host, and gives it another key:
//
//	githost ssh start      sets $SSH_URL, $SSH_HOST_KEY and $DEPLOY_KEY, a file
//	githost https start    sets $HTTPS_URL and $TLS_PIN
//	githost https stop
//	githost ssh rekey      another host key; the variable keeps the old one
func gitHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || args[0] != "ssh" && args[0] != "https" {
		ts.Fatalf("usage: githost ssh|https start|stop|rekey")
	}
	g := ts.Value(hostsKey{}).(*gitHosts)
	kind := args[0]
	var err error
	switch args[1] {
	case "start":
		if g.port[kind] == "" {
			err = errors.Join(g.newKey(kind), g.newDeployKey(ts.MkAbs("deploy-key")))
		}
		ts.Check(err)
		ts.Check(g.start(kind))
		if kind == "ssh" {
			ts.Setenv("SSH_URL", "ssh://git@localhost:"+g.port[kind]+"/rack.git")
			ts.Setenv("SSH_HOST_KEY", g.hostKey)
			ts.Setenv("DEPLOY_KEY", ts.MkAbs("deploy-key"))
		} else {
			ts.Setenv("HTTPS_URL", "https://localhost:"+g.port[kind]+"/rack.git")
			ts.Setenv("TLS_PIN", source.TLSPin(g.cert.Load().Leaf))
		}
	case "stop":
		g.stop(kind)
	case "rekey":
		ts.Check(g.newKey(kind))
	default:
		ts.Fatalf("githost: %q", args[1])
	}
}

// start listens, on the port that it had before if any.
func (g *gitHosts) start(kind string) error {
	port := g.port[kind]
	if port == "" {
		port = "0"
	}
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	_, g.port[kind], _ = net.SplitHostPort(l.Addr().String())
	g.mu.Lock()
	g.open[kind] = l
	g.mu.Unlock()
	if kind == "ssh" {
		g.done.Go(func() { g.serveSSH(l) })
		return nil
	}
	h, err := g.handler()
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.cert.Load(), nil }}}
	g.done.Go(func() { s.ServeTLS(l, "", "") })
	return nil
}

func (g *gitHosts) stop(kind string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.open[kind]; l != nil {
		l.Close()
	}
	delete(g.open, kind)
}

// newKey gives a host a key, from the next connection on.
func (g *gitHosts) newKey(kind string) error {
	if kind == "https" {
		cert, err := certificate()
		g.cert.Store(cert)
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() == "git" && bytes.Equal(key.Marshal(), g.deploy.Marshal()) {
			return nil, nil
		}
		return nil, errors.New("unknown key")
	}}
	config.AddHostKey(signer)
	g.host.Store(config)
	g.hostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return nil
}

// newDeployKey makes the key that may read, and beside it another one that may
// not.
func (g *gitHosts) newDeployKey(file string) error {
	if _, err := writeDeployKey(file + "-wrong"); err != nil {
		return err
	}
	var err error
	g.deploy, err = writeDeployKey(file)
	return err
}

// writeDeployKey makes a key and writes it as ssh-keygen does.
func writeDeployKey(file string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "deploy")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}

func certificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// handler is git http-backend by CGI, for reading.
func (g *gitHosts) handler() (http.Handler, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, err
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), Dir: g.dir,
		Env:    []string{"GIT_PROJECT_ROOT=" + g.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + g.dir},
		Stderr: io.Discard,
	}, nil
}

func (g *gitHosts) serveSSH(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go g.connection(c)
	}
}

func (g *gitHosts) connection(c net.Conn) {
	defer c.Close()
	_, channels, requests, err := ssh.NewServerConn(c, g.host.Load())
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		if nc.ChannelType() != "session" {
			_ = nc.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		ch, requests, err := nc.Accept()
		if err != nil {
			return
		}
		go g.session(ch, requests)
	}
}

// session runs git-upload-pack on the repository and nothing else.
func (g *gitHosts) session(ch ssh.Channel, requests <-chan *ssh.Request) {
	defer ch.Close()
	for r := range requests {
		var exe struct{ Command string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &exe) != nil || exe.Command != "git-upload-pack '/rack.git'" {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		cmd := exec.Command("git", "upload-pack", filepath.Join(g.dir, "rack.git"))
		cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
		in, err := cmd.StdinPipe() // what the client may still send is nothing to wait for
		if err != nil {
			return
		}
		go func() { io.Copy(in, ch); in.Close() }()
		var status struct{ Code uint32 }
		if err := cmd.Run(); err != nil {
			status.Code = 1
			fmt.Fprintln(ch.Stderr(), err)
		}
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(status))
		return
	}
}
