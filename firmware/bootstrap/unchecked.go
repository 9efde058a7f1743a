//go:build racklet_unchecked

package bootstrap

import (
	"fmt"
	"os"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// This build of stage 1 checks nothing. It exists to be measured: the cost of
// trust is what the other one takes beyond it (docs/benchmarks.md). It fetches
// the same repository and the same artefact in the same way, writes them to the
// same places and hands over by the same switch_root. What is left out: the
// verification of metadata, floor statement, tree and slot manifests; all
// digests; the comparison with the boot slot; the measurements; dm-verity.
//
// Only e2e/bench_test.go has it built, by tools/release -unchecked, which
// refuses to put it anywhere but into a directory marked for a benchmark, and
// refuses any other release with a program in it that contains the following
// words. Its image boots nowhere but under keys that the benchmark made up.
const uncheckedMark = "racklet: stage 1 WITHOUT CHECKS: for a benchmark, and for nothing else"

const checks = false

func init() { fmt.Fprintln(os.Stdout, uncheckedMark) }

func decide(b *source.Bundle, _ source.Anchor, _ time.Time) (*source.Verified, error) {
	return source.Unchecked(b)
}

func digestOf(_ []byte, claimed rack.Digest) rack.Digest { return claimed }

type summer struct{ claimed rack.Digest }

func newSummer(d rack.Digest) summer { return summer{d} }

func (s summer) Write(p []byte) (int, error) { return len(p), nil }

func (s summer) digest() rack.Digest { return s.claimed }
