package gobuild

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/racklet/racklet/artifact"
)

// A Module is somebody else's Go module that holds a program. It is built as its authors build it,
// with its own go.mod and go.sum, so that none of its dependencies mixes with ours.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum"` // as in a go.sum file: "h1:…" over the whole module
}

// fetch returns where the module lies in the module cache, and refuses one with another hash.
func (m Module) fetch(ctx context.Context) (string, error) {
	// Outside of any module: neither our go.mod nor anybody's go.work has a say.
	dir, err := os.MkdirTemp("", "racklet-module-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	out, err := Program{Dir: dir}.run(ctx, "mod", "download", "-json", m.Path+"@"+m.Version)
	if err != nil {
		return "", err
	}
	var got struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("fetch module %s: %w", m.Path, err)
	}
	if got.Sum != m.Sum {
		return "", fmt.Errorf("module %s %s has the hash %s, locked is %s", m.Path, m.Version, got.Sum, m.Sum)
	}
	return got.Dir, nil
}

// unpack copies the module to where it can be built: the go command builds no programs from the module cache itself.
// The copy is to be given back by calling done.
func (m Module) unpack(ctx context.Context) (dir string, done func(), err error) {
	from, err := m.fetch(ctx)
	if err != nil {
		return "", nil, err
	}
	tmp, err := os.MkdirTemp("", "racklet-module-")
	if err != nil {
		return "", nil, err
	}
	done = func() { os.RemoveAll(tmp) }
	dir = filepath.Join(tmp, "module")
	err = os.CopyFS(dir, os.DirFS(from))
	if err == nil { // the cache's directories cannot be written to, nor then removed
		err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			return os.Chmod(name, 0o755)
		})
	}
	if err != nil {
		done()
		return "", nil, fmt.Errorf("copy module %s: %w", m.Path, err)
	}
	return dir, done, nil
}

func (m Module) origin(dir string) (artifact.Origin, error) {
	l, err := licence(dir)
	if err != nil {
		return artifact.Origin{}, fmt.Errorf("module %s %s: %w", m.Path, m.Version, err)
	}
	return artifact.Origin{Name: m.Path, Version: m.Version, Source: "pkg:golang/" + m.Path + "@" + m.Version, Licence: l}, nil
}
