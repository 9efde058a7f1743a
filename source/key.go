package source

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// An OwnerKey is a private key with a name for people: an owner's, the
// operator's or the online key of the timestamp.
type OwnerKey struct {
	Name string // "owner-1", "operator", "online"
	Key  ed25519.PrivateKey
}

// LoadKey reads a key in a PEM file of kind PKCS #8 (RFC 5958). Its name is
// the file's without ".pem". A file that others may read is refused.
func LoadKey(file string) (OwnerKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return OwnerKey{}, fmt.Errorf("read key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return OwnerKey{}, fmt.Errorf("read key: %s may be read by others (mode %04o): want 0600", file, info.Mode().Perm())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return OwnerKey{}, fmt.Errorf("read key: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return OwnerKey{}, fmt.Errorf("read key: %s is no PEM file of one private key (PKCS #8)", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return OwnerKey{}, fmt.Errorf("read key %s: %w", file, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return OwnerKey{}, fmt.Errorf("read key: %s is of kind %T, want Ed25519", file, parsed)
	}
	return OwnerKey{strings.TrimSuffix(filepath.Base(file), ".pem"), key}, nil
}

// Save writes the key to a new file NAME.pem, mode 0600, in a folder.
func (k OwnerKey) Save(dir string) (file string, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.Key)
	if err != nil {
		return "", fmt.Errorf("encode key %s: %w", k.Name, err)
	}
	file = filepath.Join(dir, k.Name+".pem")
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write key: %w", err)
	}
	return file, nil
}

// Public is the public half.
func (k OwnerKey) Public() ed25519.PublicKey { return k.Key.Public().(ed25519.PublicKey) }

// tufKey is the public half as metadata holds it, with its identifier.
func (k OwnerKey) tufKey() (*metadata.Key, string, error) {
	key, err := metadata.KeyFromPublicKey(k.Public())
	if err != nil {
		return nil, "", fmt.Errorf("key %s: %w", k.Name, err)
	}
	id, err := key.ID()
	if err != nil {
		return nil, "", fmt.Errorf("key %s: %w", k.Name, err)
	}
	return key, id, nil
}

// sign adds a key's signature to metadata unless a good one is there. It
// reports whether it did.
func sign[T metadata.Roles](m *metadata.Metadata[T], k OwnerKey) (bool, error) {
	key, id, err := k.tufKey()
	if err != nil {
		return false, err
	}
	d := delegator{
		keys: map[string]*metadata.Key{id: key},
		role: metadata.Role{KeyIDs: []string{id}, Threshold: 1},
	}
	if good, _ := signers(d, m); len(good) > 0 {
		return false, nil
	}
	for i, sig := range m.Signatures {
		if sig.KeyID == id {
			m.Signatures = append(m.Signatures[:i], m.Signatures[i+1:]...)
			break
		}
	}
	signer, err := signature.LoadSigner(k.Key, crypto.Hash(0))
	if err != nil {
		return false, fmt.Errorf("key %s: %w", k.Name, err)
	}
	if _, err := m.Sign(signer); err != nil {
		return false, fmt.Errorf("sign with %s: %w", k.Name, err)
	}
	return true, nil
}
