package enroll

import (
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
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Files of the verifier.
const (
	caCertFile     = "ca.crt"
	caKeyFile      = "ca.key"
	tlsKeyFile     = "tls.key"
	tlsNextKeyFile = "tls-next.key" // the spare, so that pins come in pairs
)

const (
	caLifetime = 90 * 24 * time.Hour // made anew at each start, for the same key
	// backdate allows for units whose clock is a little behind.
	backdate = 5 * time.Minute
)

// authority signs the certificates of nodes. It can sign for nothing else: no
// further authority, no name that is not a unit's, no address outside the
// tunnel.
type authority struct {
	key  crypto.Signer
	cert *x509.Certificate
	pem  []byte
}

// openAuthority loads the key or makes it, and makes the certificate anew, so
// that its constraints are those of today's units.
func openAuthority(dir string, names []string, tunnel netip.Prefix, now time.Time) (*authority, error) {
	key, err := loadKey(filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, err
	}
	mask := net.CIDRMask(tunnel.Bits(), tunnel.Addr().BitLen())
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "racklet node authority"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: names,
		PermittedIPRanges: []*net.IPNet{
			{IP: tunnel.Masked().Addr().AsSlice(), Mask: mask},
			{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(32, 32)},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make node authority: %w", err)
	}
	a := &authority{key: key, pem: pemOf("CERTIFICATE", der)}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make node authority: %w", err)
	}
	return a, replaceFile(filepath.Join(dir, caCertFile), a.pem)
}

// issue signs a node's client and serving certificates.
func (a *authority) issue(unit string, address netip.Addr, key *ecdsa.PublicKey, notBefore, notAfter time.Time) (client, serving []byte, err error) {
	one := func(t *x509.Certificate) ([]byte, error) {
		t.SerialNumber, t.NotBefore, t.NotAfter = serial(), notBefore.Add(-backdate), notAfter
		t.KeyUsage, t.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
		der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key, a.key)
		if err != nil {
			return nil, fmt.Errorf("issue certificate to %s: %w", unit, err)
		}
		return pemOf("CERTIFICATE", der), nil
	}
	subject := pkix.Name{CommonName: nodeUser(unit), Organization: []string{"system:nodes"}}
	if client, err = one(&x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, nil, err
	}
	serving, err = one(&x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{unit}, IPAddresses: []net.IP{address.AsSlice(), net.IPv4(127, 0, 0, 1)}})
	return client, serving, err
}

// nodeUser is the user name of a unit's node.
func nodeUser(unit string) string { return "system:node:" + unit }

// ServingPins returns the pins of the verifier's TLS key and of its spare, both
// made if need be, for the boot configuration of units.
func ServingPins(dir string) ([]string, error) {
	var pins []string
	for _, name := range []string{tlsKeyFile, tlsNextKeyFile} {
		key, err := loadKey(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(spki)
		pins = append(pins, "sha256//"+base64.StdEncoding.EncodeToString(sum[:]))
	}
	return pins, nil
}

// servingCertificate is the verifier's own, for a key that units have pinned.
func servingCertificate(dir string, now time.Time) (tls.Certificate, error) {
	key, err := loadKey(filepath.Join(dir, tlsKeyFile))
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "racklet verifier"}, DNSNames: []string{"verifier"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(10 * 365 * 24 * time.Hour), // the pin is what counts
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the verifier's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// loadKey reads a P-256 key, or makes it.
func loadKey(file string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		return key, replaceFile(file, pemOf("PRIVATE KEY", der))
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || len(rest) != 0 {
		return nil, fmt.Errorf("read key: %s is not one PEM block", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read key %s: want P-256", file)
	}
	return key, nil
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7F
	return new(big.Int).SetBytes(b[:])
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// replaceFile writes a private file whole or not at all.
func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
