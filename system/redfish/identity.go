package redfish

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

// Life of a certificate that the service signs itself. It is made anew, with the same key and so
// the same pin, when it nears its end.
const (
	selfSignedFor = 2 * 365 * 24 * time.Hour
	renewBefore   = 60 * 24 * time.Hour
	maxChain      = 8
)

// Files in the state directory: key and chain together, so that they always fit.
const (
	identityFile = "tls.pem"
	pendingFile  = "tls.pending.pem" // key of the newest request for a certificate
)

// identity is the service's TLS key and certificate. They can be replaced while connections
// last: new ones see the new certificate.
type identity struct {
	dir   string
	clock Clock

	mu      sync.Mutex
	current *tls.Certificate
	pending *ecdsa.PrivateKey
}

// newIdentity reads key and certificate, or makes them.
func newIdentity(dir string, hosts []string, clock Clock) (*identity, error) {
	i := &identity{dir: dir, clock: clock}
	if err := i.read(); err != nil {
		return nil, fmt.Errorf("read the TLS identity: %w", err)
	}
	var key *ecdsa.PrivateKey
	if c := i.current; c != nil {
		own := c.Leaf.CheckSignature(c.Leaf.SignatureAlgorithm, c.Leaf.RawTBSCertificate, c.Leaf.Signature) == nil
		if !own || clock.Now().Add(renewBefore).Before(c.Leaf.NotAfter) && covers(c.Leaf, hosts) {
			return i, nil
		}
		key, _ = c.PrivateKey.(*ecdsa.PrivateKey)
	}
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	der, err := selfSign(key, hosts, clock.Now())
	if err != nil {
		return nil, fmt.Errorf("make a TLS certificate: %w", err)
	}
	return i, i.install(key, [][]byte{der})
}

func covers(c *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if c.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

func selfSign(key *ecdsa.PrivateKey, hosts []string, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Racklet management API"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSignedFor), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
		if ip := net.ParseIP(h); ip == nil {
			t.DNSNames = append(t.DNSNames, h)
		} else if !ip.IsUnspecified() {
			t.IPAddresses = append(t.IPAddresses, ip)
		}
	}
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

func (i *identity) read() error {
	if i.dir == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(i.dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return err
	}
	i.current = &c
	if b, err := os.ReadFile(filepath.Join(i.dir, pendingFile)); err == nil {
		if block, _ := pem.Decode(b); block != nil {
			k, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
			i.pending, _ = k.(*ecdsa.PrivateKey)
		}
	}
	return nil
}

func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// install puts a key and its chain into force.
func (i *identity) install(key crypto.PrivateKey, chain [][]byte) error {
	b, err := keyPEM(key)
	if err != nil {
		return err
	}
	for _, der := range chain {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return err
	}
	if i.dir != "" {
		if err := access.Replace(filepath.Join(i.dir, identityFile), b); err != nil {
			return fmt.Errorf("keep the TLS identity: %w", err)
		}
	}
	i.current = &c
	return nil
}

// leaf returns the certificate in force.
func (i *identity) leaf() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.current.Leaf
}

func (i *identity) chain() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var b bytes.Buffer
	for _, der := range i.current.Certificate {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.String()
}

// pin is the form in which clients pin the service's key.
func (i *identity) pin() string { return pinOf(i.leaf()) }

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

// request makes a new key and a request for a certificate over it. The present key
// stays in force until a certificate for the new one comes.
func (i *identity) request(t *x509.CertificateRequest) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, key)
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dir != "" {
		b, err := keyPEM(key)
		if err != nil {
			return "", err
		}
		if err := access.Replace(filepath.Join(i.dir, pendingFile), b); err != nil {
			return "", fmt.Errorf("keep the key of the request: %w", err)
		}
	}
	i.pending = key
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// Reasons to refuse a certificate.
var (
	errNoCertificate = errors.New("not a chain of certificates in PEM, the service's own first")
	errOtherKey      = errors.New("the certificate is for another key than that of the service or of its newest request")
	errNotServer     = errors.New("the certificate is not valid now, or not for a TLS server")
	errChain         = errors.New("a certificate of the chain does not sign the one before it")
)

// replace puts a certificate into force that was issued for the present key or that of the newest request.
func (i *identity) replace(text string) error {
	chain, err := parseChain(text)
	if err != nil {
		return err
	}
	leaf := chain[0]
	now := i.clock.Now()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) || leaf.IsCA ||
		len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return errNotServer
	}
	for n := range chain[1:] {
		if chain[n].CheckSignatureFrom(chain[n+1]) != nil {
			return errChain
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	key, _ := i.current.PrivateKey.(*ecdsa.PrivateKey)
	for _, k := range []*ecdsa.PrivateKey{i.pending, key} {
		if k != nil && k.PublicKey.Equal(leaf.PublicKey) {
			var der [][]byte
			for _, c := range chain {
				der = append(der, c.Raw)
			}
			return i.install(k, der)
		}
	}
	return errOtherKey
}

// parseChain reads certificates in PEM and nothing else.
func parseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(chain) == maxChain {
			return nil, errNoCertificate
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errNoCertificate
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errNoCertificate
	}
	return chain, nil
}

// config is for a listener. Client certificates are asked for when some account has one; which account it is is
// looked up for each request, so that taking a certificate away works at once.
func (i *identity) config(clients func() bool, tls12 bool) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.current, nil
		},
	}
	if tls12 {
		c.MinVersion = tls.VersionTLS12
	}
	asking := c.Clone()
	asking.ClientAuth = tls.RequestClientCert
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if clients() {
			return asking, nil
		}
		return nil, nil
	}
	return c
}
