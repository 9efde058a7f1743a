package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strconv"
)

// ErrKeyring is returned for a keyring that cannot decide anything: no key, a
// key of the wrong size, two keys with one identifier, a threshold out of
// range. It accepts nothing.
var ErrKeyring = errors.New("keyring: unusable")

// A ThresholdError says how many distinct keys of a keyring signed, and how
// many must.
type ThresholdError struct {
	Got, Want int
}

func (e *ThresholdError) Error() string {
	return "signatures: got " + strconv.Itoa(e.Got) + ", want " + strconv.Itoa(e.Want)
}

// A KeyID names a public key: the first eight bytes of its SHA-256.
// It is a hint for finding the key, never a proof.
type KeyID [8]byte

// IDOf returns the identifier of a public key.
func IDOf(key ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(key)
	return KeyID(sum[:8])
}

// A Signature is one key's word for one document in one domain.
type Signature struct {
	KeyID KeyID
	Sig   [64]byte
}

// Sign signs a document in a domain. Signing twice gives the same bytes.
func Sign(domain string, key ed25519.PrivateKey, msg []byte) Signature {
	return SignDigest(domain, key, sha256.Sum256(msg))
}

// SignDigest is Sign for a document whose SHA-256 is known.
func SignDigest(domain string, key ed25519.PrivateKey, digest [32]byte) Signature {
	var buf [preimageMax]byte
	pub := key[ed25519.PrivateKeySize-ed25519.PublicKeySize:]
	return Signature{
		KeyID: IDOf(ed25519.PublicKey(pub)),
		Sig:   [64]byte(ed25519.Sign(key, preimage(&buf, domain, &digest))),
	}
}

// A Keyring is a set of public keys of which a threshold must sign.
// The zero Keyring accepts nothing.
type Keyring struct {
	Keys      []ed25519.PublicKey // at most MaxKeys, all different
	Threshold int                 // 1 up to the number of keys
}

// Check returns ErrKeyring unless the keyring is usable.
func (k *Keyring) Check() error {
	if k == nil || len(k.Keys) == 0 || len(k.Keys) > MaxKeys || k.Threshold < 1 || k.Threshold > len(k.Keys) {
		return ErrKeyring
	}
	var ids [MaxKeys]KeyID
	for i, key := range k.Keys {
		if len(key) != ed25519.PublicKeySize {
			return ErrKeyring
		}
		ids[i] = IDOf(key)
		for j := 0; j < i; j++ {
			if ids[j] == ids[i] {
				return ErrKeyring
			}
		}
	}
	return nil
}

// Verify returns nil when at least Threshold distinct keys of the keyring
// signed the document in the domain. Each key counts once, however often its
// signature is repeated; signatures of strangers and damaged signatures count
// nothing and spoil nothing. The error is ErrKeyring or a *ThresholdError.
func (k *Keyring) Verify(domain string, msg []byte, sigs []Signature) error {
	return k.VerifyDigest(domain, sha256.Sum256(msg), sigs)
}

// VerifyDigest is Verify for a document whose SHA-256 the caller has computed,
// for instance while reading it from flash.
func (k *Keyring) VerifyDigest(domain string, digest [32]byte, sigs []Signature) error {
	if err := k.Check(); err != nil {
		return err
	}
	if len(sigs) > MaxSignatures {
		return &FormatError{"container", "signature count"}
	}
	if got := k.count(domain, digest, sigs, nil); got < k.Threshold {
		return &ThresholdError{Got: got, Want: k.Threshold}
	}
	return nil
}

// Signers returns, for each key of the keyring, whether it signed. It is for
// reports; Verify decides. It allocates its result.
func (k *Keyring) Signers(domain string, msg []byte, sigs []Signature) []bool {
	signed := make([]bool, len(k.Keys))
	if k.Check() == nil && len(sigs) <= MaxSignatures {
		k.count(domain, sha256.Sum256(msg), sigs, signed)
	}
	return signed
}

// count returns the number of distinct keys with a good signature, stopping at
// the threshold when nobody wants to know which (signed is nil).
func (k *Keyring) count(domain string, digest [32]byte, sigs []Signature, signed []bool) int {
	var buf [preimageMax]byte
	msg := preimage(&buf, domain, &digest)
	got := 0
	for i, key := range k.Keys {
		id := IDOf(key)
		for j := range sigs {
			if sigs[j].KeyID == id && ed25519.Verify(key, msg, sigs[j].Sig[:]) {
				got++
				if signed != nil {
					signed[i] = true
				}
				break
			}
		}
		if signed == nil && got >= k.Threshold {
			return got
		}
	}
	return got
}

// preimageMax holds the longest domain, the zero byte and a digest.
const preimageMax = 64

// preimage lays out what Ed25519 signs. A domain that does not fit is a
// mistake of the caller's source code, not of its input.
func preimage(buf *[preimageMax]byte, domain string, digest *[32]byte) []byte {
	if len(domain) > preimageMax-1-len(digest) {
		panic("trust: domain too long")
	}
	n := copy(buf[:], domain)
	buf[n] = 0
	n++
	n += copy(buf[n:], digest[:])
	return buf[:n]
}
