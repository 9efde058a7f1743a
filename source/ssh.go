package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// handshakeTimeout bounds SSH's key exchange and login; tests shorten it.
var handshakeTimeout = 30 * time.Second

// sshTransport runs git-upload-pack on an SSH server (gitprotocol-pack(5),
// "SSH Transport").
type sshTransport struct {
	client  *ssh.Client
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	stop    func() bool // ends the watch on the context
}

// dialSSH connects to a server with one of the pinned host keys. No file and
// no agent of the user is consulted.
func dialSSH(ctx context.Context, u *url.URL, hostKeys []string, deployKey string) (_ transport, err error) {
	config, err := sshConfig(u, hostKeys, deployKey)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "22"
	}
	addr := net.JoinHostPort(u.Hostname(), port)
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("reach repository: %w", err)
	}
	// The context ends whatever goes over the connection from here on.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if err != nil {
			stop()
			_ = conn.Close()
			if ctx.Err() != nil {
				err = fmt.Errorf("reach repository: %w", ctx.Err())
			}
		}
	}()
	// ClientConfig.Timeout is for the dialling alone. A server that accepts and
	// says nothing ends here.
	if err = conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, fmt.Errorf("reach repository: %w", err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		return nil, sshError(err)
	}
	if err = conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("reach repository: %w", err)
	}
	t := &sshTransport{client: ssh.NewClient(c, channels, requests), stop: stop}
	if t.session, err = t.client.NewSession(); err != nil {
		return nil, fmt.Errorf("reach repository: %w", err)
	}
	if t.in, err = t.session.StdinPipe(); err != nil {
		return nil, err
	}
	if t.out, err = t.session.StdoutPipe(); err != nil {
		return nil, err
	}
	if err = t.session.Start(uploadPack + " " + shellQuote(u.Path)); err != nil {
		return nil, fmt.Errorf("start %s: %w", uploadPack, err)
	}
	return t, nil
}

func sshConfig(u *url.URL, hostKeys []string, deployKey string) (*ssh.ClientConfig, error) {
	var want []ssh.PublicKey
	config := &ssh.ClientConfig{User: "git"}
	if name := u.User.Username(); name != "" {
		config.User = name
	}
	for _, line := range hostKeys {
		key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("bad SSH host key %q: want one as in authorized_keys", line)
		}
		want = append(want, key)
		// Ask for the kinds of key that are pinned; a server has several.
		if key.Type() == ssh.KeyAlgoRSA {
			config.HostKeyAlgorithms = append(config.HostKeyAlgorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			config.HostKeyAlgorithms = append(config.HostKeyAlgorithms, key.Type())
		}
	}
	if len(want) == 0 {
		return nil, errors.New("no SSH host keys: want at least one")
	}
	config.HostKeyCallback = func(_ string, _ net.Addr, got ssh.PublicKey) error {
		expected := make([]string, len(want))
		for i, key := range want {
			if key.Type() == got.Type() && bytes.Equal(key.Marshal(), got.Marshal()) {
				return nil
			}
			expected[i] = ssh.FingerprintSHA256(key)
		}
		return &Refusal{"source.ssh-host-key", strings.Join(slices.Compact(expected), " or "), ssh.FingerprintSHA256(got)}
	}
	if deployKey != "" {
		signer, err := ssh.ParsePrivateKey([]byte(deployKey))
		if err != nil {
			return nil, fmt.Errorf("read deploy key: %w", err)
		}
		config.Auth = []ssh.AuthMethod{ssh.PublicKeys(signer)}
	}
	return config, nil
}

// sshError names the refusals among the errors of a handshake.
func sshError(err error) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	// The library has no types for these two.
	switch text := err.Error(); {
	case strings.Contains(text, "unable to authenticate"):
		return &Refusal{"source.deploy-key", "a deploy key that the server knows", "the server refused it"}
	case strings.Contains(text, "no common algorithm for host key"):
		return &Refusal{"source.ssh-host-key", "a host key of a pinned kind", "the server has none"}
	}
	return fmt.Errorf("reach repository: %w", err)
}

func (t *sshTransport) advertisement(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(t.out), nil
}

func (t *sshTransport) request(_ context.Context, message []byte) (io.ReadCloser, error) {
	if _, err := t.in.Write(message); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	return io.NopCloser(t.out), nil
}

// Close drops the connection: the pack was complete, or nobody wants the rest.
func (t *sshTransport) Close() error {
	t.stop()
	_ = t.session.Close()
	_ = t.client.Close()
	return nil
}

// shellQuote quotes a word for the shell of the server, as git(1) does.
func shellQuote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}
