package rack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest names content: "sha256:" and 64 lower-case hexadecimal digits, as OCI
// writes it (image-spec v1.1, descriptor.md, Digests). No other algorithm is
// accepted.
type Digest string

const digestPrefix = "sha256:"

// SHA256 is the digest of b.
func SHA256(b []byte) Digest { return DigestOf(sha256.Sum256(b)) }

// DigestOf writes a hash as a digest.
func DigestOf(sum [32]byte) Digest { return Digest(digestPrefix + hex.EncodeToString(sum[:])) }

// ParseDigest checks the form of a digest.
func ParseDigest(s string) (Digest, error) {
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || !isHash(digits) {
		return "", fmt.Errorf("bad digest %q: want sha256: and 64 lower-case hexadecimal digits", s)
	}
	return Digest(s), nil
}

// Sum is the hash that d writes; d must be well formed.
func (d Digest) Sum() (sum [32]byte, err error) {
	if _, err := ParseDigest(string(d)); err != nil {
		return sum, err
	}
	_, err = hex.Decode(sum[:], []byte(d.Hex()))
	return sum, err
}

// Hex is d without its algorithm.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseDigest.
func (d *Digest) UnmarshalText(b []byte) (err error) { *d, err = ParseDigest(string(b)); return err }

// isHash reports whether s is a SHA-256 in lower-case hexadecimal.
func isHash(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}
