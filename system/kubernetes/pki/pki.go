// Package pki is the cluster's own certificate authority: it keeps a folder with an authority that
// replaces itself, short-lived certificates for every component and role, and the keys that sign
// service account tokens and encrypt secrets at rest.
//
// Everything is a file that its reader reads again by itself when it changes. A certificate and its
// key share one file, so that one rename replaces both. What nodes are and may do is not decided
// here: their certificates come from the verifier (system/enroll), which has an authority of its own.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Lifetimes. A certificate is renewed at half of its life.
const (
	LeafLife      = 24 * time.Hour
	AuthorityLife = 90 * 24 * time.Hour
	overlap       = 30 * 24 * time.Hour // a new authority is made this long before the old one ends
	settle        = 24 * time.Hour      // and signs once everybody has had the time to learn of it
	backdate      = 5 * time.Minute     // for clocks that run late
)

// A Leaf says whom a certificate is for.
type Leaf struct {
	Name   string // of the file, without .pem
	CN     string
	Groups []string // organisations: the groups of a Kubernetes user
	DNS    []string
	IPs    []net.IP
	Server bool   // serves TLS; without it the certificate is for a client alone
	Signer string // the authority, "" is "ca"
}

// Folder is a directory of keys and certificates.
type Folder struct {
	Dir string
	Now func() time.Time
}

// Path is the file of a leaf, or of anything else in the folder that has its own ending.
func (f Folder) Path(name string) string {
	if filepath.Ext(name) == "" {
		name += ".pem"
	}
	return filepath.Join(f.Dir, name)
}

// Ensure makes what is missing and renews what is old: the authorities that leaves name, their
// bundles (ca.crt for "ca"), and each leaf. It returns the names of the files that it wrote.
func (f Folder) Ensure(leaves ...Leaf) (written []string, err error) {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	signers := map[string]*authority{}
	for _, l := range leaves {
		name := l.signer()
		if signers[name] == nil {
			a, wrote, err := f.authority(name)
			if err != nil {
				return written, fmt.Errorf("authority %s: %w", name, err)
			}
			signers[name] = a
			written = append(written, wrote...)
		}
		wrote, err := f.leaf(l, signers[name])
		if err != nil {
			return written, fmt.Errorf("certificate %s: %w", l.Name, err)
		}
		if wrote {
			written = append(written, l.Name+".pem")
		}
	}
	return written, nil
}

func (l Leaf) signer() string {
	if l.Signer == "" {
		return "ca"
	}
	return l.Signer
}

// An authority is what signs now. Its folder entry holds one file per generation.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authority returns the one that signs, having made or replaced it, and keeps NAME.crt, the bundle
// of all that are still trusted.
func (f Folder) authority(name string) (*authority, []string, error) {
	var written []string
	now := f.Now()
	files, err := filepath.Glob(filepath.Join(f.Dir, name+"-*.pem"))
	if err != nil {
		return nil, nil, err
	}
	var valid []*authority // oldest first
	last := 0
	for _, file := range files {
		var n int
		if _, err := fmt.Sscanf(filepath.Base(file), name+"-%d.pem", &n); err != nil {
			continue
		}
		last = max(last, n)
		cert, key, err := readPair(file)
		if err != nil {
			return nil, nil, err
		}
		if now.Before(cert.NotAfter) {
			valid = append(valid, &authority{cert, key})
		} else if err := os.Remove(file); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(valid, func(a, b *authority) int { return a.cert.NotBefore.Compare(b.cert.NotBefore) })
	if len(valid) == 0 || valid[len(valid)-1].cert.NotAfter.Sub(now) < overlap {
		a, b, err := newAuthority(name, now)
		if err != nil {
			return nil, nil, err
		}
		file := fmt.Sprintf("%s-%d.pem", name, last+1)
		if err := Write(filepath.Join(f.Dir, file), b); err != nil {
			return nil, nil, err
		}
		written = append(written, file)
		valid = append(valid, a)
	}
	signer := valid[0]
	var bundle bytes.Buffer
	for i := len(valid) - 1; i >= 0; i-- {
		pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: valid[i].cert.Raw})
		if now.Sub(valid[i].cert.NotBefore) >= settle+backdate && valid[i].cert.NotBefore.After(signer.cert.NotBefore) {
			signer = valid[i]
		}
	}
	wrote, err := Replace(filepath.Join(f.Dir, name+".crt"), bundle.Bytes())
	if wrote {
		written = append(written, name+".crt")
	}
	return signer, written, err
}

func newAuthority(name string, now time.Time) (*authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "racklet kubernetes " + name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(AuthorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	b, err := sign(t, t, key, key)
	if err != nil {
		return nil, nil, err
	}
	cert, _, err := parsePair(b)
	return &authority{cert, key}, b, err
}

// leaf makes or renews one certificate, with a new key each time.
func (f Folder) leaf(l Leaf, a *authority) (bool, error) {
	file := f.Path(l.Name)
	cert, _, err := readPair(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil && l.serves(cert) && cert.CheckSignatureFrom(a.cert) == nil && f.Now().Before(cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore)/2)) {
		return false, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return false, err
	}
	now := f.Now()
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: l.CN, Organization: l.Groups}, NotBefore: now.Add(-backdate), NotAfter: now.Add(LeafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: l.DNS, IPAddresses: l.IPs,
	}
	if l.Server {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	b, err := sign(t, a.cert, key, a.key)
	if err != nil {
		return false, err
	}
	return true, Write(file, b)
}

// serves reports whether a certificate says what the leaf wants.
func (l Leaf) serves(c *x509.Certificate) bool {
	usage := x509.ExtKeyUsageClientAuth
	if l.Server {
		usage = x509.ExtKeyUsageServerAuth
	}
	return c.Subject.CommonName == l.CN && slices.Equal(c.Subject.Organization, l.Groups) && slices.Equal(c.DNSNames, l.DNS) &&
		slices.EqualFunc(c.IPAddresses, l.IPs, net.IP.Equal) && slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{usage})
}

// sign returns certificate and key as one PEM file.
func sign(t, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) ([]byte, error) {
	var err error
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})...), nil
}

func readPair(file string) (*x509.Certificate, crypto.Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	cert, key, err := parsePair(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w (remove it to have a new one made)", file, err)
	}
	return cert, key, nil
}

func parsePair(b []byte) (cert *x509.Certificate, key crypto.Signer, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			if cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, nil, err
			}
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			key, _ = k.(crypto.Signer)
		}
	}
	if cert == nil || key == nil {
		return nil, nil, errors.New("no certificate with its key")
	}
	return cert, key, nil
}

// SigningKey makes the key that signs service account tokens, once, and its public half beside it.
func (f Folder) SigningKey() error {
	if _, err := os.Stat(f.Path("service-account.pem")); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := Write(f.Path("service-account.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})); err != nil {
		return err
	}
	return Write(f.Path("service-account.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// SecretKey returns the base64 of the key that encrypts secrets at rest, made once.
func (f Folder) SecretKey() (string, error) {
	name := f.Path("secrets.key")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return "", err
		}
		b = []byte(base64.StdEncoding.EncodeToString(key))
		return string(b), Write(name, b)
	}
	if err != nil {
		return "", err
	}
	if key, err := base64.StdEncoding.DecodeString(string(b)); err != nil || len(key) != 32 {
		return "", fmt.Errorf("%s: not the base64 of 32 bytes; without this key the cluster's secrets cannot be read", name)
	}
	return string(b), nil
}

// Write replaces a file of the owner's alone by b, whole or not at all.
func Write(name string, b []byte) error {
	t, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = t.Write(b)
	if err == nil {
		err = t.Sync()
	}
	if e := t.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(t.Name(), name)
	}
	if err != nil {
		os.Remove(t.Name())
	}
	return err
}

// Replace is Write for a file that may hold b already; it reports whether it did not.
func Replace(name string, b []byte) (bool, error) {
	if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, b) {
		return false, nil
	}
	return true, Write(name, b)
}
