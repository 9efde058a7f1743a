package source

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// memFS is a read-only file system over files in memory.
type memFS struct {
	nodes map[string]*memNode // by path, "." included
}

type memNode struct {
	name    string
	mode    fs.FileMode
	content []byte
	entries []fs.DirEntry // of a folder, by name
}

// newFS makes a file system of files whose paths are valid and different.
func newFS(files []File) *memFS {
	m := &memFS{nodes: map[string]*memNode{".": {name: ".", mode: fs.ModeDir | 0o555}}}
	for _, f := range files {
		mode := fs.FileMode(0o444)
		if f.Executable {
			mode = 0o555
		}
		m.add(f.Path, &memNode{name: path.Base(f.Path), mode: mode, content: f.Content})
	}
	for _, n := range m.nodes {
		slices.SortFunc(n.entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return m
}

func (m *memFS) add(name string, n *memNode) {
	m.nodes[name] = n
	dir := path.Dir(name)
	parent := m.nodes[dir]
	if parent == nil {
		parent = &memNode{name: path.Base(dir), mode: fs.ModeDir | 0o555}
		m.add(dir, parent)
	}
	parent.entries = append(parent.entries, fs.FileInfoToDirEntry(n))
}

// Open implements fs.FS.
func (m *memFS) Open(name string) (fs.File, error) {
	n, ok := m.nodes[name]
	if !ok || !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{node: n, Reader: bytes.NewReader(n.content)}, nil
}

func (n *memNode) Name() string       { return n.name }
func (n *memNode) Size() int64        { return int64(len(n.content)) }
func (n *memNode) Mode() fs.FileMode  { return n.mode }
func (n *memNode) ModTime() time.Time { return time.Time{} }
func (n *memNode) IsDir() bool        { return n.mode.IsDir() }
func (n *memNode) Sys() any           { return nil }

// memFile is an open file or folder.
type memFile struct {
	*bytes.Reader
	node *memNode
	next int // of a folder: entries handed out
}

func (f *memFile) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *memFile) Close() error               { return nil }

func (f *memFile) Read(p []byte) (int, error) {
	if f.node.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: f.node.name, Err: fs.ErrInvalid}
	}
	return f.Reader.Read(p)
}

// ReadDir implements fs.ReadDirFile.
func (f *memFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.node.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: f.node.name, Err: fs.ErrInvalid}
	}
	rest := f.node.entries[f.next:]
	if n > 0 {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		rest = rest[:min(n, len(rest))]
	}
	f.next += len(rest)
	return slices.Clone(rest), nil
}
