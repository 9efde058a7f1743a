package githost

import (
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
	"time"
)

// The certificate's subject, and OpenSSL's hash of it, by which it finds an
// authority in a directory (openssl x509 -hash).
const (
	commonName  = "Racklet git host"
	subjectHash = "c27e9e04"
)

// Identity is how the server is known: the key in use, and the next one.
type Identity struct {
	Certificate tls.Certificate
	CAFile      string   // the certificate, for clients that want an authority: git's http.sslCAInfo
	CADir       string   // directory that holds it, for clients that take an authority from one: http.sslCAPath
	Pins        []string // of the key in use and of the next, "sha256//" and base64
}

// LoadIdentity reads the keys in dir, and makes those that are missing. Names
// and addresses are for clients that look at them; those of a rack pin keys.
func LoadIdentity(dir string, names ...string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	id := &Identity{CAFile: filepath.Join(dir, "ca.pem"), CADir: filepath.Join(dir, "ca")}
	var key *ecdsa.PrivateKey
	for _, name := range []string{"tls.key", "tls-next.key"} {
		k, err := loadKey(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		pin, err := Pin(&k.PublicKey)
		if err != nil {
			return nil, err
		}
		id.Pins = append(id.Pins, pin)
		if key == nil {
			key = k
		}
	}
	der, err := certificate(key, names)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(id.CADir, 0o700); err != nil {
		return nil, fmt.Errorf("write certificate: %w", err)
	}
	for _, name := range []string{id.CAFile, filepath.Join(id.CADir, subjectHash+".0")} {
		if err := writeFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
			return nil, fmt.Errorf("write certificate: %w", err)
		}
	}
	id.Certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return id, nil
}

// Config is what a listener needs.
func (id *Identity) Config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{id.Certificate}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
}

// Pin is the pin of a public key: SHA-256 of its SubjectPublicKeyInfo
// (RFC 7469, 2.4), as curl and git write it.
func Pin(public any) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("pin a key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

func loadKey(file string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make TLS key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("make TLS key: %w", err)
		}
		if err := writeFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
			return nil, fmt.Errorf("write TLS key: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read TLS key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("read TLS key: %s is no PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read TLS key %s: %w", file, err)
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read TLS key %s: is a %T, want ECDSA", file, key)
	}
	return k, nil
}

// certificate signs itself. It is made anew at each start, as only its key is
// ever looked at by those who pin.
func certificate(key *ecdsa.PrivateKey, names []string) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: commonName},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return der, nil
}
