package main

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/example"
	"github.com/racklet/racklet/source"
)

// builtinRepository is the address of a rack's repository on the built-in Git
// host, as units see it.
const builtinRepository = "https://git.rack.internal/rack.git"

// initOptions say which rack repository to make.
type initOptions struct {
	dir     string // of the repository
	keys    string // directory of the keys; "" beside the repository
	release string // directory of a release; "" beside this program
	name    string // of the rack; "" after the directory
	url     string // that units will fetch the repository from
	units   int
}

// initResult is what `racklet init` made; its JSON is documented and stable.
type initResult struct {
	Directory  string `json:"directory"`
	Keys       string `json:"keys"`
	Name       string `json:"name"`
	ID         string `json:"id"`
	Units      int    `json:"units"`
	Release    string `json:"release"`
	Repository string `json:"repository"`
	Commit     string `json:"commit"`
	Sequence   uint64 `json:"sequence"`
	Owners     int    `json:"owners"`
	Threshold  int    `json:"threshold"`
}

func newInit(env *environment) *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use:     "init DIR",
		GroupID: "repository",
		Short:   "Make a rack repository and its keys",
		Long: `Init makes a Git repository in DIR that says what a rack of virtual units shall be: the
rack, its units, the release they boot, policies; with JSON Schema, so that editors
complete the fields. It makes three owners' keys, of which any two sign for the rack, a
key for workloads (operator.pem) and one for timestamps (online.pem), and publishes
the first version, signed, on the branch racklet-metadata.

Keys are written beside DIR, never into it, readable by you alone. Three owners' keys on
one disk are for learning: whoever reads that disk is all owners at once.`,
		Example: `  racklet init my-rack
  racklet init my-rack --units 2 --keys ~/secret/my-rack
  racklet init my-rack --repo ssh://git@git.example/rack.git`,
		Args: exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.dir = args[0]
			r, err := makeRepository(o)
			if err != nil {
				return err
			}
			return env.print(r, r.text)
		},
	}
	f := c.Flags()
	f.StringVar(&o.keys, "keys", "", "`directory` for the keys, outside of DIR (default: DIR-keys)")
	f.StringVar(&o.release, "release", "", "`directory` of the release to boot (default: release, beside this program)")
	f.StringVar(&o.name, "name", "", "`name` of the rack (default: after DIR)")
	f.StringVar(&o.url, "repo", builtinRepository, "`URL` that units fetch the repository from, https:// or ssh://")
	f.IntVar(&o.units, "units", 4, fmt.Sprintf("`number` of compute units, 1 to %d", example.MaxUnits))
	c.MarkFlagDirname("keys")
	c.MarkFlagDirname("release")
	return c
}

func (r *initResult) text(w io.Writer) error {
	next := "racklet validate " + r.Directory
	if r.Repository != builtinRepository {
		next = fmt.Sprintf("git -C %s remote add origin %s\n      git -C %[1]s push -u origin main racklet-metadata", r.Directory, r.Repository)
	}
	_, err := fmt.Fprintf(w, `%s: a repository for rack %s: %s, release %s
%s: its keys
  owner-1.pem … owner-%d.pem  owners: any %d of them sign what the rack shall be
  operator.pem               signs the workloads in apps/
  online.pem                 signs timestamps, so that a frozen repository is noticed
  root.json                  what units trust from the start: the owners' public keys

%d owners' keys on one disk are for learning: whoever reads this disk is all owners at once.
Before you rely on them, move each to a device of its own.

Next: %s
`, r.Directory, r.Name, count(r.Units, "unit"), r.Release, r.Keys, r.Owners, r.Threshold, r.Owners, next)
	return err
}

// makeRepository writes a repository and its keys, or leaves nothing behind.
func makeRepository(o initOptions) (_ *initResult, err error) {
	if o.keys == "" {
		o.keys = strings.TrimRight(filepath.Clean(o.dir), string(filepath.Separator)) + "-keys"
	}
	if o.name == "" {
		o.name = nameAfter(o.dir)
	}
	if o.units < 1 || o.units > example.MaxUnits {
		return nil, &usageError{fmt.Errorf("--units %d: want 1 to %d", o.units, example.MaxUnits)}
	}
	if !rack.ValidName(o.name) {
		return nil, &usageError{fmt.Errorf("--name %q: want 1 to %d lower-case letters, digits and inner hyphens", o.name, rack.MaxName)}
	}
	address := rack.Repository{URL: o.url, Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef}
	for _, f := range rack.Fields(address.Validate()) {
		if f.Path == "url" {
			return nil, &usageError{fmt.Errorf("--repo: %s", f.Text)}
		}
	}
	inside, err := within(o.keys, o.dir)
	if err != nil {
		return nil, err
	}
	if inside {
		return nil, hint(fmt.Errorf("keys in %s would lie inside the repository", o.keys), "name another directory with --keys: a repository is pushed, keys never are")
	}
	release, err := readRelease(o.release)
	if err != nil {
		return nil, err
	}
	id, err := newUUID()
	if err != nil {
		return nil, err
	}
	files, err := example.Files(example.Options{Name: o.name, ID: id, Units: o.units, Release: release.spec, Kubernetes: release.spec.OS.Flavour == rack.FlavourNode})
	if err != nil {
		return nil, err
	}
	fsys, err := memoryFS(files)
	if err != nil {
		return nil, err
	}
	for _, dir := range []struct {
		name string
		mode fs.FileMode
	}{{o.dir, 0o755}, {o.keys, 0o700}} {
		made, e := makeEmptyDir(dir.name, dir.mode)
		if e != nil {
			return nil, e
		}
		defer func() {
			if err != nil {
				removeMade(dir.name, made)
			}
		}()
	}
	keys, err := source.InitRepository(o.dir, source.InitOptions{
		Files:      fsys,
		Repository: address,
		KeysDir:    o.keys,
		Sign:       source.SignOptions{SlotManifest: release.manifest},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(o.keys, "root.json"), keys.Root, 0o644); err != nil {
		return nil, err
	}
	p, err := source.ReadProposal(o.dir, "")
	if err != nil {
		return nil, err
	}
	return &initResult{
		Directory: o.dir, Keys: o.keys, Name: o.name, ID: id, Units: o.units, Release: release.spec.Version,
		Repository: o.url, Commit: p.Commit, Sequence: p.Sequence, Owners: len(keys.Owners), Threshold: p.Threshold,
	}, nil
}

// memoryFS is a file system of files by path. A zip archive is the standard
// library's way to have one.
func memoryFS(files map[string][]byte) (fs.FS, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
}

// A builtRelease is what a build left for the owners to sign.
type builtRelease struct {
	spec         rack.ReleaseSpec
	slotManifest []byte
}

// manifest returns the slot manifest if it has the digest; see source.SignOptions.
func (r *builtRelease) manifest(d rack.Digest) ([]byte, error) {
	if r == nil || d != r.spec.Boot.SlotManifest {
		return nil, fs.ErrNotExist
	}
	return r.slotManifest, nil
}

// readRelease reads a release directory; "" means the one beside this program.
func readRelease(dir string) (*builtRelease, error) {
	if dir == "" {
		var err error
		if dir, err = defaultRelease(); err != nil {
			return nil, err
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint(fmt.Errorf("no release in %s", dir), "build one with: make build; or name one with --release")
	}
	if err != nil {
		return nil, err
	}
	spec, err := rack.ParseReleaseSpec(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "release.json"), err)
	}
	// The directory is an OCI image layout: blobs lie under their digests.
	name := filepath.Join(dir, "blobs", "sha256", spec.Boot.SlotManifest.Hex())
	m, err := os.ReadFile(name)
	if err != nil {
		return nil, hint(fmt.Errorf("read the slot manifest: %w", err), "the release is incomplete: build it again")
	}
	slot, err := trust.ParseSlotManifest(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, c := range []struct {
		what              string
		manifest, release any
	}{
		{"digest", rack.SHA256(m), spec.Boot.SlotManifest},
		{"version", slot.Version, spec.Version},
		{"security version", slot.SecurityVersion, spec.SecurityVersion},
		{"kernel", rack.DigestOf(slot.Kernel), spec.Boot.Kernel},
	} {
		if c.manifest != c.release {
			return nil, hint(fmt.Errorf("release %s: the slot manifest has %s %v, release.json says %v", dir, c.what, c.manifest, c.release), "do not sign it; build the release again")
		}
	}
	return &builtRelease{*spec, m}, nil
}

// defaultRelease is the directory "release" beside this program, links resolved; where there is none, what
// "racklet cache import" brought.
func defaultRelease() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(self), "release")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if user, err := cache.User(); err == nil {
			if imported := filepath.Join(user.Dir, folderRelease); exists(imported) {
				return imported, nil
			}
		}
	}
	return dir, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// nameAfter makes a rack's name from a directory's.
func nameAfter(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "rack"
	}
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", r) {
			return r
		}
		return '-'
	}, strings.ToLower(filepath.Base(abs)))
	name = strings.Trim(name[:min(len(name), rack.MaxName)], "-")
	if name == "" || name == "repository" {
		return "rack"
	}
	return name
}

// within reports whether dir is outer or lies in it, links resolved as far as
// the directories exist.
func within(dir, outer string) (bool, error) {
	dir, err := realPath(dir)
	if err != nil {
		return false, err
	}
	outer, err = realPath(outer)
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(outer, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)), nil
}

func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	rest := ""
	for at := dir; ; at = filepath.Dir(at) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return "", err
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// makeEmptyDir makes a directory, or takes one that is there and empty.
func makeEmptyDir(dir string, mode fs.FileMode) (made bool, err error) {
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, os.MkdirAll(dir, mode)
	case err != nil:
		return false, err
	case len(names) > 0:
		return false, hint(fmt.Errorf("%s is not empty", dir), "name a new directory; nothing is ever overwritten")
	}
	return false, os.Chmod(dir, mode)
}

// removeMade undoes makeEmptyDir and whatever was written since.
func removeMade(dir string, made bool) {
	if made {
		os.RemoveAll(dir)
		return
	}
	names, _ := os.ReadDir(dir) // what stays is for the user to see
	for _, n := range names {
		os.RemoveAll(filepath.Join(dir, n.Name()))
	}
}

// newUUID makes a random UUID (RFC 9562, 5.4).
func newUUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
