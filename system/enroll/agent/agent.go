package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/racklet/racklet/system/enroll/api"
)

/* Implementation constants */
const (
	firstPause = 250 * time.Millisecond // between two attempts, doubled each time
	lastPause  = 15 * time.Second
	askLimit   = 30 * time.Second // for one identity
	pollLimit  = 60 * time.Second // for one list of peers, which the verifier holds back
	maxAnswer  = 1 << 20
)

// handover is what this program needs of stage 1's.
type handover struct {
	Unit      string `json:"unit"`
	Enrolment *struct {
		URL     string   `json:"url"`
		TLSPins []string `json:"tlsPins"`
	} `json:"enrolment"`
}

func readHandover(file string) (*handover, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read handover: %w", err)
	}
	h := new(handover)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("decode %s: %w", file, err)
	}
	if h.Unit == "" || h.Enrolment == nil || h.Enrolment.URL == "" || len(h.Enrolment.TLSPins) == 0 {
		return nil, fmt.Errorf("%s names no unit or no verifier with pins: provision the BMC with one", file)
	}
	return h, nil
}

// An agent keeps one unit enrolled.
type agent struct {
	unit, url string
	dir       string
	bmc       *http.Client
	log       *slog.Logger
	pins      [][32]byte

	key       *ecdsa.PrivateKey
	wireguard *ecdh.PrivateKey
	anonymous *http.Client // without a certificate
	known     *http.Client // with the one of the identity
	notBefore time.Time    // of the identity, by the unit's clock
	notAfter  time.Time
	first     time.Duration // firstPause, shorter in tests
}

func newAgent(h *handover, dir string, bmc *http.Client, log *slog.Logger) (*agent, error) {
	a := &agent{unit: h.Unit, url: strings.TrimSuffix(h.Enrolment.URL, "/"), dir: dir, bmc: bmc, log: log, first: firstPause}
	for _, p := range h.Enrolment.TLSPins {
		sum, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(p, "sha256//"))
		if err != nil || len(sum) != sha256.Size || !strings.HasPrefix(p, "sha256//") {
			return nil, fmt.Errorf("pin %q: want sha256// and the base64 of a SHA-256", p)
		}
		a.pins = append(a.pins, [32]byte(sum))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := a.keys(); err != nil {
		return nil, fmt.Errorf("keys of this boot: %w", err)
	}
	a.anonymous = a.client(nil)
	return a, nil
}

// keys takes up the keys of this boot if this program ran before in it. Its
// directory is in memory, so another boot finds none.
func (a *agent) keys() error {
	if b, err := os.ReadFile(a.file(api.ClientKeyFile)); err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				a.key, _ = k.(*ecdsa.PrivateKey)
			}
		}
	}
	if b, err := os.ReadFile(a.file(api.WireGuardFile)); err == nil {
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b))); err == nil {
			a.wireguard, _ = ecdh.X25519().NewPrivateKey(raw)
		}
	}
	if a.key != nil && a.wireguard != nil {
		return nil
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if a.wireguard, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	doc := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return errors.Join(a.write(api.ClientKeyFile, doc), a.write(api.ServingKeyFile, doc),
		a.write(api.WireGuardFile, []byte(base64.StdEncoding.EncodeToString(a.wireguard.Bytes())+"\n")))
}

// run keeps the unit enrolled until ctx ends.
func (a *agent) run(ctx context.Context) error {
	for {
		if err := a.insist(ctx, "enrol", a.enrol); err != nil {
			return err
		}
		if err := a.follow(ctx); ctx.Err() != nil {
			return ctx.Err()
		} else {
			a.log.Warn("enrolling again", "because", err)
		}
	}
}

// insist does f until it succeeds or ctx ends, with growing pauses.
func (a *agent) insist(ctx context.Context, what string, f func(context.Context) error) error {
	last := ""
	for pause := a.first; ; pause = min(2*pause, lastPause) {
		err := f(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != last {
			a.log.Warn(what, "error", err)
			last = text
		}
		// A little uneven, so that the units of a rack do not ask in step.
		if !sleep(ctx, pause+mathrand.N(pause/4+1)) {
			return ctx.Err()
		}
	}
}

// enrol gets an identity and writes it down.
func (a *agent) enrol(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	spki, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		return err
	}
	digest := api.KeyRegister(spki, [32]byte(a.wireguard.PublicKey().Bytes()))
	if err := a.register(ctx, digest); err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + a.unit}}, a.key)
	if err != nil {
		return err
	}
	req := api.IdentityRequest{Unit: a.unit, CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		WireGuardKey: base64.StdEncoding.EncodeToString(a.wireguard.PublicKey().Bytes())}
	sum := sha256.Sum256(api.Statement(req.Unit, req.WireGuardKey, csr))
	if req.Signature, err = ecdsa.SignASN1(rand.Reader, a.key, sum[:]); err != nil {
		return err
	}
	var id api.Identity
	asked := time.Now()
	if err := ask(ctx, a.anonymous, http.MethodPost, a.url+api.IdentityPath, req, &id); err != nil {
		return err
	}
	return a.take(&id, asked)
}

// register has PID 1 put the digest of this boot's keys into the BMC.
func (a *agent) register(ctx context.Context, digest [32]byte) error {
	body := map[string]string{"digest": fmt.Sprintf("sha256:%x", digest)}
	if err := ask(ctx, a.bmc, http.MethodPut, "http://pid1/v1/key-register", body, nil); err != nil {
		return fmt.Errorf("set the BMC's key register: %w", err)
	}
	return nil
}

// take writes an identity down. The description of the cluster comes last: who
// finds that finds everything.
func (a *agent) take(id *api.Identity, asked time.Time) error {
	cert, err := tls.X509KeyPair([]byte(id.ClientCert), keyPEM(a.key))
	if err != nil {
		return fmt.Errorf("the verifier's certificate is not for this key: %w", err)
	}
	cluster, err := json.Marshal(&id.Cluster)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{api.CAFile, []byte(id.CA)}, {api.ServingFile, []byte(id.ServingCert)}, {api.ClientCertFile, []byte(id.ClientCert)}, {api.ClusterFile, cluster}} {
		if err := a.write(f.name, f.data); err != nil {
			return err
		}
	}
	a.notBefore, a.notAfter = asked, id.NotAfter
	if a.known != nil {
		a.known.CloseIdleConnections()
	}
	a.known = a.client(&cert)
	a.log.Info("enrolled", "unit", a.unit, "until", id.NotAfter)
	return nil
}

// follow keeps peers.json current and renews the identity. It returns when
// the verifier says that this unit is out, or the identity has run out.
func (a *agent) follow(ctx context.Context) error {
	after := uint64(0)
	failures := 0
	for {
		half := a.notBefore.Add(a.notAfter.Sub(a.notBefore) / 2)
		if wait := time.Until(half); wait <= 0 {
			if err := a.enrol(ctx); err != nil {
				var r *api.Refusal
				if errors.As(err, &r) && r.Check != "enroll.silent" || time.Now().After(a.notAfter) {
					return err
				}
				a.log.Warn("renew", "error", err)
				if !sleep(ctx, min(lastPause, max(time.Second, time.Until(a.notAfter)/20))) {
					return ctx.Err()
				}
			}
			continue
		} else if err := a.peers(ctx, &after, min(wait, pollLimit)); err != nil {
			var r *api.Refusal
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.As(err, &r):
				return r
			case time.Now().After(half): // the poll was cut short to renew
				continue
			}
			// Without the verifier the peers live until their own end.
			if failures++; failures == 1 {
				a.log.Warn("follow peers", "error", err)
			}
			if !sleep(ctx, min(a.first<<min(failures, 6), 5*time.Second)) {
				return ctx.Err()
			}
			continue
		}
		failures = 0
	}
}

// peers waits for a list newer than after and writes it down.
func (a *agent) peers(ctx context.Context, after *uint64, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var p api.Peers
	if err := ask(ctx, a.known, http.MethodGet, fmt.Sprintf("%s%s?after=%d", a.url, api.PeersPath, *after), nil, &p); err != nil {
		return err
	}
	if p.Version == *after {
		return nil
	}
	doc, err := json.Marshal(&p)
	if err != nil {
		return err
	}
	if err := a.write(api.PeersFile, doc); err != nil {
		return err
	}
	*after = p.Version
	return nil
}

// client speaks TLS 1.3 with the verifier whose key is pinned, and no other.
func (a *agent) client(cert *tls.Certificate) *http.Client {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: "verifier",
		InsecureSkipVerify: true, // the pins of the boot configuration decide, below
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo); !slices.Contains(a.pins, got) {
				return fmt.Errorf("the verifier's key %x is none of the pinned ones", got[:8])
			}
			return nil
		},
	}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}).DialContext,
	}}
}

// overSocket returns a client of a service on a Unix socket.
func overSocket(socket string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

// ask makes one request. An answer that refuses is an *api.Refusal.
func ask(ctx context.Context, c *http.Client, method, url string, body, into any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		r := new(api.Refusal)
		if json.Unmarshal(b, r) == nil && r.Check != "" {
			return r
		}
		return fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	return nil
}

func (a *agent) file(name string) string { return filepath.Join(a.dir, name) }

// write replaces a file, whole or not at all.
func (a *agent) write(name string, b []byte) error {
	tmp := a.file("." + name)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, a.file(name))
}

func keyPEM(k *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
