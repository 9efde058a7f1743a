package source

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

// Modes of Git's tree entries (git-fast-import(1), "filemodify"; Git also
// writes folders without the leading zero).
const (
	modeFile       = "100644"
	modeExecutable = "100755"
	modeFolder     = "40000"
)

// maxDepth is the number of folders below each other.
const maxDepth = 16

// objectID names a Git object: SHA-1 over its kind, size and content. The
// library's implementation detects collisions; what the owners sign besides is
// SHA-256.
type objectID = plumbing.Hash

// An object is one Git object as it was stored or sent. Only lookup checks
// that the content has the identifier.
type object struct {
	kind    plumbing.ObjectType
	content []byte
}

// objects is a set of Git objects by their claimed identifier.
type objects map[objectID]object

// errMissing is returned for objects that are not there.
var errMissing = errors.New("missing")

// lookup returns the content of an object after hashing it.
func (o objects) lookup(id objectID, kind plumbing.ObjectType) ([]byte, error) {
	obj, ok := o[id]
	if !ok {
		return nil, fmt.Errorf("%s %s: %w", kind, id, errMissing)
	}
	if obj.kind != kind {
		return nil, fmt.Errorf("%s %s: is a %s", kind, id, obj.kind)
	}
	if got := plumbing.ComputeHash(kind, obj.content); got != id {
		return nil, fmt.Errorf("%s %s: content has the identifier %s", kind, id, got)
	}
	return obj.content, nil
}

// A commit is what matters of a commit object.
type commit struct {
	tree    objectID
	parents []objectID
}

// parseCommit reads the headers of a commit (gitformat-signature(5) shows the
// form; git-hash-object(1) checks the same order).
func parseCommit(b []byte) (commit, error) {
	var c commit
	bad := errors.New("malformed commit")
	line := func() (name, value string, ok bool) {
		l, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			return "", "", false
		}
		name, value, ok = strings.Cut(string(l), " ")
		if ok {
			b = rest
		}
		return name, value, ok
	}
	name, value, ok := line()
	if !ok || name != "tree" {
		return c, bad
	}
	if c.tree, ok = parseID(value); !ok {
		return c, bad
	}
	for bytes.HasPrefix(b, []byte("parent ")) {
		_, value, ok := line()
		if !ok {
			return c, bad
		}
		parent, ok := parseID(value)
		if !ok {
			return c, bad
		}
		c.parents = append(c.parents, parent)
	}
	if name, _, ok := line(); !ok || name != "author" {
		return c, bad
	}
	if name, _, ok := line(); !ok || name != "committer" {
		return c, bad
	}
	return c, nil
}

// parseID reads 40 lower-case hexadecimal digits.
func parseID(s string) (objectID, bool) {
	if len(s) != 40 || strings.ToLower(s) != s {
		return objectID{}, false
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return objectID{}, false
	}
	return objectID(b), true
}

// An entry is one line of a tree object.
type entry struct {
	mode string
	name string
	id   objectID
}

// parseTree reads a tree object: mode, space, name, zero, 20 bytes, repeated.
// Names that could mean something else than a file of that name are refused,
// and so are names out of Git's order or used twice.
func parseTree(b []byte) ([]entry, error) {
	var entries []entry
	names := map[string]bool{} // in order, "a", "a-b", "a/" can have a file and a folder a apart
	for len(b) > 0 {
		space := bytes.IndexByte(b, ' ')
		zero := bytes.IndexByte(b, 0)
		if space < 1 || zero < space || len(b) < zero+21 {
			return nil, errors.New("malformed tree")
		}
		e := entry{mode: string(b[:space]), name: string(b[space+1 : zero]), id: objectID(b[zero+1 : zero+21])}
		if !goodName(e.name) {
			return nil, fmt.Errorf("tree: bad name %q", e.name)
		}
		if n := len(entries); n > 0 && entryOrder(entries[n-1], e) >= 0 {
			return nil, fmt.Errorf("tree: %q out of order", e.name)
		}
		if names[e.name] {
			return nil, fmt.Errorf("tree: %q twice", e.name)
		}
		names[e.name] = true
		entries = append(entries, e)
		b = b[zero+21:]
	}
	return entries, nil
}

// entryOrder is Git's: folders sort as if their name ended in a slash.
func entryOrder(a, b entry) int { return cmp.Compare(a.sortKey(), b.sortKey()) }

func (e entry) sortKey() string {
	if e.mode == modeFolder {
		return e.name + "/"
	}
	return e.name
}

func goodName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.EqualFold(name, ".git") &&
		len(name) <= 255 && utf8.ValidString(name) && !strings.ContainsAny(name, "/\\\x00\n\r")
}

// folder returns the identifier of a folder of the root tree, false when
// there is none.
func (o objects) folder(root objectID, name string) (objectID, bool, error) {
	b, err := o.lookup(root, plumbing.TreeObject)
	if err != nil {
		return objectID{}, false, err
	}
	entries, err := parseTree(b)
	if err != nil {
		return objectID{}, false, fmt.Errorf("tree %s: %w", root, err)
	}
	for _, e := range entries {
		if e.name == name {
			if e.mode != modeFolder {
				return objectID{}, false, fmt.Errorf("%s has mode %s, want a folder", name, e.mode)
			}
			return e.id, true, nil
		}
	}
	return objectID{}, false, nil
}

// files returns all files below a folder in order of their path.
func (o objects) files(id objectID, at string) ([]File, error) {
	var files []File
	size := 0
	var walk func(id objectID, at string, depth int) error
	walk = func(id objectID, at string, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("%s: more than %d folders deep", at, maxDepth)
		}
		b, err := o.lookup(id, plumbing.TreeObject)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		entries, err := parseTree(b)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		for _, e := range entries {
			name := path.Join(at, e.name) // without the "." of the root
			switch e.mode {
			case modeFolder:
				if err := walk(e.id, name, depth+1); err != nil {
					return err
				}
			case modeFile, modeExecutable:
				content, err := o.lookup(e.id, plumbing.BlobObject)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if size += len(name) + len(content); size > MaxBundle {
					return fmt.Errorf("%s: files of more than %d bytes together", at, MaxBundle)
				}
				files = append(files, File{Path: name, Executable: e.mode == modeExecutable, Content: content})
			default:
				return fmt.Errorf("%s has mode %s, want a file or a folder", name, e.mode)
			}
		}
		return nil
	}
	if err := walk(id, at, 1); err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}
