//go:build !racklet_unchecked

package bootstrap

import (
	"crypto/sha256"
	"hash"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// What follows are the checks of stage 1 that a benchmark needs a build
// without, to tell what they cost: unchecked.go is that build. Here is the
// stage 1 that ships; it cannot be told to do without them.
const checks = true

// decide is source.Verify: it says whether a bundle is what the owners signed.
func decide(b *source.Bundle, a source.Anchor, now time.Time) (*source.Verified, error) {
	return source.Verify(b, a, now)
}

// digestOf returns the digest of content that was claimed to have another one,
// or the same.
func digestOf(content []byte, _ rack.Digest) rack.Digest { return rack.SHA256(content) }

// A summer sums up content that is claimed to have a digest.
type summer struct{ hash hash.Hash }

func newSummer(rack.Digest) summer { return summer{sha256.New()} }

func (s summer) Write(p []byte) (int, error) { return s.hash.Write(p) }

func (s summer) digest() rack.Digest { return rack.DigestOf([32]byte(s.hash.Sum(nil))) }
