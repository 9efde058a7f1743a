//go:build racklet_unchecked

package source

import (
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/racklet/racklet/rack/manifest"
)

// Unchecked returns the state that a bundle claims to hold, and believes all of
// it. It exists in a build of stage 1 that is made for a benchmark alone, to
// tell what Verify costs; see firmware/bootstrap/unchecked.go. What Git itself
// looks at, an object's identifier, is looked at here too.
func Unchecked(b *Bundle) (*Verified, error) {
	version, ok := b.leadsTo("targets")
	if !ok {
		return nil, fmt.Errorf("read bundle: the metadata lead to no targets")
	}
	t, err := b.target("targets", version)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	id, _ := parseID(t.Commit)
	raw, err := b.objects.lookup(id, plumbing.CommitObject)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	c, err := parseCommit(raw)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	folder, ok, err := b.objects.folder(c.tree, rackDir)
	if err != nil || !ok {
		return nil, fmt.Errorf("read bundle: folder %s: %v", rackDir, err)
	}
	files, err := b.objects.files(folder, rackDir)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	set, err := manifest.Load(newFS(files))
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return &Verified{Commit: t.Commit, Sequence: t.Sequence, Set: set, FS: newFS(files)}, nil
}
