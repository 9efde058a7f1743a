package source

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// A clone is an ordinary working clone on disk: its Git store, and the files
// beside it. It is written with Git's plumbing alone, so nothing of the user's
// configuration runs.
type clone struct {
	dir   string
	store *filesystem.Storage
}

// openClone opens the clone with its ".git" in dir, or the bare repository that
// dir is: such a one has no files to sign, but metadata to publish.
func openClone(dir string) (*clone, error) {
	git := filepath.Join(dir, ".git")
	info, err := os.Stat(git)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isBare(dir):
		git = dir
	case err != nil:
		return nil, fmt.Errorf("open repository: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("open repository: %s is a file; linked worktrees are not supported, use the main clone", git)
	}
	return &clone{dir, filesystem.NewStorage(osfs.New(git), cache.NewObjectLRUDefault())}, nil
}

// isBare looks for what Git itself looks for (gitrepository-layout(5)).
func isBare(dir string) bool {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// head returns the branch that HEAD is on and its commit.
func (c *clone) head() (branch string, id objectID, err error) {
	head, err := c.store.Reference(plumbing.HEAD)
	if err != nil {
		return "", id, fmt.Errorf("read HEAD: %w", err)
	}
	if head.Type() != plumbing.SymbolicReference {
		return "", id, errors.New("HEAD is detached: check out the branch that the rack follows")
	}
	branch = head.Target().String()
	id, err = c.ref(branch)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", id, fmt.Errorf("%s has no commit yet", branch)
	}
	return branch, id, err
}

// ref returns the commit of a ref.
func (c *clone) ref(name string) (objectID, error) {
	r, err := c.store.Reference(plumbing.ReferenceName(name))
	if err != nil {
		return objectID{}, fmt.Errorf("read %s: %w", name, err)
	}
	if r.Type() != plumbing.HashReference {
		return objectID{}, fmt.Errorf("read %s: is a symbolic ref", name)
	}
	return r.Hash(), nil
}

// commitFiles returns the files of some folders of a commit, all when there
// are none named.
func (c *clone) commitFiles(id objectID, folders ...string) ([]File, error) {
	all := objects{}
	if err := copyCommit(c.store, all, id, folders); err != nil {
		return nil, err
	}
	raw, err := all.lookup(id, plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	parsed, err := parseCommit(raw)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", id, err)
	}
	if len(folders) == 0 {
		return all.files(parsed.tree, ".")
	}
	var files []File
	for _, folder := range folders {
		_, some, err := all.digest(parsed.tree, folder)
		if err != nil {
			return nil, err
		}
		files = append(files, some...)
	}
	return files, nil
}

// diskFiles returns the files of a folder as they are on disk.
func (c *clone) diskFiles(folder string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(filepath.Join(c.dir, folder), func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && d == nil {
			return nil // the folder itself
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(c.dir, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder", rel)
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		files = append(files, File{filepath.ToSlash(rel), info.Mode()&0o100 != 0, content})
		return nil
	})
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, err
}

// ErrDirty is returned when the files on disk are not those of HEAD, so that
// an owner would sign something else than what is in front of them.
var ErrDirty = errors.New("files differ from HEAD: commit or discard the changes first")

// checkClean compares a folder on disk with a commit's files.
func (c *clone) checkClean(folder string, committed []File) error {
	disk, err := c.diskFiles(folder)
	if err != nil {
		return fmt.Errorf("compare files with HEAD: %w", err)
	}
	for _, pair := range [][2][]File{{disk, committed}, {committed, disk}} {
		for _, f := range pair[0] {
			i, ok := slices.BinarySearchFunc(pair[1], f.Path, func(f File, p string) int { return cmp.Compare(f.Path, p) })
			if !ok || !bytes.Equal(pair[1][i].Content, f.Content) || pair[1][i].Executable != f.Executable {
				return fmt.Errorf("%s: %w", f.Path, ErrDirty)
			}
		}
	}
	return nil
}

// write stores an object.
func (c *clone) write(kind plumbing.ObjectType, content []byte) (objectID, error) {
	obj := c.store.NewEncodedObject()
	obj.SetType(kind)
	obj.SetSize(int64(len(content)))
	w, err := obj.Writer()
	if err != nil {
		return objectID{}, err
	}
	_, err = io.Copy(w, bytes.NewReader(content))
	if err := errors.Join(err, w.Close()); err != nil {
		return objectID{}, fmt.Errorf("store %s: %w", kind, err)
	}
	id, err := c.store.SetEncodedObject(obj)
	if err != nil {
		return objectID{}, fmt.Errorf("store %s: %w", kind, err)
	}
	return id, nil
}

// writeTree stores files as a tree with all its folders.
func (c *clone) writeTree(files []File) (objectID, error) {
	folders := map[string][]File{}
	var entries []entry
	for _, f := range files {
		if dir, rest, ok := strings.Cut(f.Path, "/"); ok {
			folders[dir] = append(folders[dir], File{rest, f.Executable, f.Content})
			continue
		}
		id, err := c.write(plumbing.BlobObject, f.Content)
		if err != nil {
			return id, err
		}
		entries = append(entries, entry{f.mode(), f.Path, id})
	}
	for name, below := range folders {
		id, err := c.writeTree(below)
		if err != nil {
			return id, err
		}
		entries = append(entries, entry{modeFolder, name, id})
	}
	slices.SortFunc(entries, entryOrder)
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s\x00%s", e.mode, e.name, e.id[:])
	}
	return c.write(plumbing.TreeObject, b.Bytes())
}

// commit stores files as a commit on a ref. A commit with the same files as
// the ref has is not made again.
func (c *clone) commit(ref string, files []File, message string, now time.Time) (objectID, error) {
	tree, err := c.writeTree(files)
	if err != nil {
		return objectID{}, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", tree)
	old, err := c.store.Reference(plumbing.ReferenceName(ref))
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		old = nil
	case err != nil:
		return objectID{}, fmt.Errorf("read %s: %w", ref, err)
	default:
		raw, err := readObject(c.store, old.Hash(), plumbing.CommitObject)
		if err != nil {
			return objectID{}, err
		}
		if parent, err := parseCommit(raw); err == nil && parent.tree == tree {
			return old.Hash(), nil
		}
		fmt.Fprintf(&b, "parent %s\n", old.Hash())
	}
	who := fmt.Sprintf("%s %d +0000", c.author(), now.Unix())
	fmt.Fprintf(&b, "author %s\ncommitter %s\n\n%s\n", who, who, message)
	id, err := c.write(plumbing.CommitObject, b.Bytes())
	if err != nil {
		return id, err
	}
	if err := c.store.CheckAndSetReference(plumbing.NewHashReference(plumbing.ReferenceName(ref), id), old); err != nil {
		return id, fmt.Errorf("move %s: %w", ref, err)
	}
	return id, nil
}

// author is who the clone's configuration says, or nobody in particular.
func (c *clone) author() string {
	name, email := "Racklet", "racklet@localhost"
	if cfg, err := c.store.Config(); err == nil && cfg.User.Name != "" && cfg.User.Email != "" {
		name, email = cfg.User.Name, cfg.User.Email
	}
	clean := strings.NewReplacer("<", "", ">", "", "\n", " ")
	return clean.Replace(name) + " <" + clean.Replace(email) + ">"
}

// asFiles turns the files of the metadata ref into a list.
func asFiles(m map[string][]byte) []File {
	files := make([]File, 0, len(m))
	for name, content := range m {
		files = append(files, File{Path: path.Clean(name), Content: content})
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files
}
