package source

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/rack"
)

// InitOptions say what a new rack repository holds.
type InitOptions struct {
	// Files of the first commit: rack/, apps/, README.md. Those under rack/
	// must be valid.
	Files fs.FS
	// Repository is where units will find it.
	Repository rack.Repository
	// KeysDir is a new or empty folder outside of the repository for the
	// private keys. "" keeps them in memory: Keys holds them.
	KeysDir string
	// Owners and Threshold; 0 are the defaults, two of three.
	Owners, Threshold int
	// Rand is where the seeds of keys come from, 32 bytes each; nil is
	// crypto/rand.
	Rand io.Reader
	// Sign are the options of the first signatures. Online is the new key.
	Sign SignOptions
}

// Defaults of InitOptions.
const (
	defaultOwners    = 3
	defaultThreshold = 2
)

// Keys are the private keys of a new rack, and what its BMCs are to be
// provisioned with.
type Keys struct {
	Owners   []OwnerKey // owner-1, owner-2, …
	Operator OwnerKey   // signs apps/
	Online   OwnerKey   // signs timestamps
	Root     []byte     // 1.root.json
}

// InitRepository makes a Git repository with a rack's files in dir, new keys,
// and metadata signed by as many owners as it takes. All keys are made in one
// place, which is for learning: real owners make theirs on machines of their
// own.
func InitRepository(dir string, o InitOptions) (*Keys, error) {
	if o.Owners == 0 {
		o.Owners = defaultOwners
	}
	if o.Threshold == 0 {
		o.Threshold = min(defaultThreshold, o.Owners)
	}
	if o.Threshold < 1 || o.Threshold > o.Owners {
		return nil, fmt.Errorf("threshold of %d with %d owners: want 1 to %d", o.Threshold, o.Owners, o.Owners)
	}
	if o.Repository.Ref == "" {
		o.Repository.Ref = defaultRef
	}
	if o.Repository.MetadataRef == "" {
		o.Repository.MetadataRef = DefaultMetadataRef
	}
	if o.Sign.Now.IsZero() {
		o.Sign.Now = time.Now()
	}
	if o.KeysDir != "" {
		if inside, err := isInside(o.KeysDir, dir); err != nil {
			return nil, fmt.Errorf("folder for keys: %w", err)
		} else if inside {
			return nil, fmt.Errorf("folder for keys: %s is inside the repository: a push would publish them", o.KeysDir)
		}
	}
	files, err := readFS(o.Files)
	if err != nil {
		return nil, fmt.Errorf("read files of the new repository: %w", err)
	}
	c, err := initClone(dir, o.Repository.Ref, files, o.Sign.Now)
	if err != nil {
		return nil, err
	}
	keys, err := newKeys(o)
	if err != nil {
		return nil, err
	}
	root, err := firstRoot(keys, o)
	if err != nil {
		return nil, err
	}
	p := &publication{clone: c, ref: o.Repository.MetadataRef, now: o.Sign.Now.UTC(), root: root, files: map[string][]byte{}}
	if err := put(p, metadataPath(metadata.ROOT, 1), root); err != nil {
		return nil, err
	}
	keys.Root = p.files[metadataPath(metadata.ROOT, 1)]
	if err := p.save("root 1"); err != nil {
		return nil, err
	}
	if o.KeysDir != "" {
		if err := keys.save(o.KeysDir); err != nil {
			return nil, err
		}
	}
	s := o.Sign
	s.MetadataRef, s.Repository, s.Ref, s.Online = o.Repository.MetadataRef, o.Repository.URL, o.Repository.Ref, &keys.Online
	for _, key := range keys.Owners[:o.Threshold] {
		if _, err := Sign(dir, key, s); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(files, func(f File) bool { return inFolder(f.Path, appsDir) }) {
		if err := SignApps(dir, keys.Operator, s); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// isInside says whether a path is a folder or below it.
func isInside(name, folder string) (bool, error) {
	a, err := filepath.Abs(name)
	if err != nil {
		return false, err
	}
	b, err := filepath.Abs(folder)
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(b, a)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)), nil
}

func newKeys(o InitOptions) (*Keys, error) {
	keys := &Keys{}
	random := o.Rand
	if random == nil {
		random = rand.Reader
	}
	make := func(name string) (OwnerKey, error) {
		var seed [ed25519.SeedSize]byte
		if _, err := io.ReadFull(random, seed[:]); err != nil {
			return OwnerKey{}, fmt.Errorf("make key %s: %w", name, err)
		}
		return OwnerKey{name, ed25519.NewKeyFromSeed(seed[:])}, nil
	}
	for i := range o.Owners {
		key, err := make(fmt.Sprintf("owner-%d", i+1))
		if err != nil {
			return nil, err
		}
		keys.Owners = append(keys.Owners, key)
	}
	var err error
	if keys.Operator, err = make("operator"); err != nil {
		return nil, err
	}
	keys.Online, err = make("online")
	return keys, err
}

func (k *Keys) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder for keys: %w", err)
	}
	for _, key := range append(slices.Clone(k.Owners), k.Operator, k.Online) {
		if _, err := key.Save(dir); err != nil {
			return err
		}
	}
	return nil
}

// firstRoot makes root.json, signed by the threshold of owners.
func firstRoot(keys *Keys, o InitOptions) (*metadata.Metadata[metadata.RootType], error) {
	root := metadata.Root(o.Sign.Now.UTC().Add(RootLifetime).Truncate(time.Second))
	names := map[string]any{}
	add := func(k OwnerKey, roles ...string) error {
		key, id, err := k.tufKey()
		if err != nil {
			return err
		}
		names[id] = k.Name
		for _, role := range roles {
			if err := root.Signed.AddKey(key, role); err != nil {
				return fmt.Errorf("root.json: %w", err)
			}
		}
		return nil
	}
	for _, owner := range keys.Owners {
		if err := add(owner, metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT); err != nil {
			return nil, err
		}
	}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT} {
		root.Signed.Roles[role].Threshold = o.Threshold
	}
	if err := add(keys.Online, metadata.TIMESTAMP); err != nil {
		return nil, err
	}
	if err := add(keys.Operator); err != nil {
		return nil, err
	}
	root.Signed.UnrecognizedFields = map[string]any{
		nameField:     names,
		operatorField: hex.EncodeToString(keys.Operator.Public()),
	}
	for _, owner := range keys.Owners[:o.Threshold] {
		if _, err := sign(root, owner); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func inFolder(name, folder string) bool {
	return len(name) > len(folder) && name[:len(folder)] == folder && name[len(folder)] == '/'
}

// readFS reads all regular files.
func readFS(fsys fs.FS) ([]File, error) {
	if fsys == nil {
		return nil, errors.New("none given")
	}
	var files []File
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		files = append(files, File{name, info.Mode()&0o100 != 0, content})
		return nil
	})
	return files, err
}

// initClone writes files to an empty folder and makes it a repository with one
// commit.
func initClone(dir, ref string, files []File, now time.Time) (*clone, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	if entries, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	} else if len(entries) > 0 {
		return nil, fmt.Errorf("make repository: %s is not empty", dir)
	}
	c := &clone{dir, filesystem.NewStorage(osfs.New(filepath.Join(dir, ".git")), cache.NewObjectLRUDefault())}
	if err := c.store.Init(); err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	if err := c.store.SetConfig(config.NewConfig()); err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	head := plumbing.NewSymbolicReference(plumbing.HEAD, plumbing.ReferenceName(ref))
	if err := c.store.SetReference(head); err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	idx := &index.Index{Version: 2}
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, fmt.Errorf("write files: %w", err)
		}
		mode, perm := filemode.Regular, fs.FileMode(0o644)
		if f.Executable {
			mode, perm = filemode.Executable, 0o755
		}
		if err := os.WriteFile(name, f.Content, perm); err != nil {
			return nil, fmt.Errorf("write files: %w", err)
		}
		idx.Entries = append(idx.Entries, &index.Entry{
			Hash: plumbing.ComputeHash(plumbing.BlobObject, f.Content),
			Name: f.Path, Mode: mode, Size: uint32(len(f.Content)),
		})
	}
	if err := c.store.SetIndex(idx); err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	if _, err := c.commit(ref, files, "Begin: a rack", now); err != nil {
		return nil, fmt.Errorf("first commit: %w", err)
	}
	return c, nil
}
