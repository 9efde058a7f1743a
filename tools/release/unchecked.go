package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/racklet/racklet/artifact/initramfs"
)

// To tell what trust costs, a benchmark boots a stage 1 that checks nothing
// (firmware/bootstrap/unchecked.go). These are the bars before it:
//
//   - its directory has been marked by the benchmark, with a file of a certain
//     name and content;
//   - its version ends in a word that every status and every log shows;
//   - whatever a release is built from, a program in it that carries the mark of
//     that build without being asked for is an error.
//
// And like any image it boots nowhere without the signatures of a rack's owners.
const (
	uncheckedTag    = "racklet_unchecked"
	uncheckedSuffix = "-unchecked"
	uncheckedMark   = "racklet: stage 1 WITHOUT CHECKS"

	benchmarkFile = "benchmark-only"
	benchmarkText = "What is in this directory checks nothing. It is for a benchmark, and for nothing else.\n"
)

// permit refuses to leave checks out anywhere but in a directory for that.
func (c config) permit() error {
	b, err := os.ReadFile(filepath.Join(c.dir, benchmarkFile))
	switch {
	case c.unchecked && (err != nil || string(b) != benchmarkText):
		return fmt.Errorf("a stage 1 without checks is for a benchmark alone, and %s is not its directory: no file %s with the right content", c.dir, benchmarkFile)
	case !c.unchecked && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s is a directory for stage 1 without checks: it holds a file %s", c.dir, benchmarkFile)
	}
	return nil
}

// marked refuses programs that are not what was asked for.
func (c config) marked(stage1, init []byte) error {
	if bytes.Contains(stage1, []byte(uncheckedMark)) != c.unchecked {
		return fmt.Errorf("stage 1 without checks: asked for: %v, built: %v", c.unchecked, !c.unchecked)
	}
	if bytes.Contains(init, []byte(uncheckedMark)) {
		return errors.New("the operating system's program is a stage 1 without checks")
	}
	return nil
}

// uncheckedModules are those of stage 1 but for the ones that only check.
func uncheckedModules() []string {
	return slices.DeleteFunc(slices.Clone(initramfs.Stage1Modules), func(name string) bool { return name == "dm_verity" || name == "sha2_ce" })
}
