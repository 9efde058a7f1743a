// Package parcel carries files from one machine to another in a single file, for places without a network: a tar archive
// (POSIX.1-2001, "pax Interchange Format") that begins with an index of all its files and their digests, and ends with a
// digest over everything before.
//
//	racklet-parcel/HEX.json   the index; HEX is its SHA-256
//	FOLDER/NAME …             the files, in the index's order
//	64 hex digits, newline    SHA-256 of all bytes before
//
// The digests guard against damage, not against whoever made the parcel: Unpack takes nothing that differs from the
// index, and says which file did. What comes out of a parcel is verified again where it is used, as any download is.
package parcel

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
)

// An Index says what is in a parcel.
type Index struct {
	Made  time.Time `json:"made"`
	Host  string    `json:"host"`  // operating system and architecture that programs in it are for, such as linux/amd64
	Note  string    `json:"note"`  // for people
	Files []File    `json:"files"` // by name
}

// A File is one file, or one symbolic link, of a parcel.
type File struct {
	Name    string `json:"name"` // FOLDER/NAME, with slashes
	Size    int64  `json:"size,omitempty"`
	SHA256  string `json:"sha256,omitempty"` // hex
	Program bool   `json:"program,omitempty"`
	Link    string `json:"link,omitempty"` // target of a symbolic link, relative, within the folder

	path string // where Pack finds it
}

/* Implementation constants */
const (
	indexFolder = "racklet-parcel/"
	maxIndex    = 64 << 20
	maxFiles    = 500_000
	trailer     = 2*sha256.Size + 1
	partSuffix  = ".parcel-part"
)

// Bytes is how much the files are, all together.
func (x *Index) Bytes() (n int64) {
	for i := range x.Files {
		n += x.Files[i].Size
	}
	return n
}

// Folders are the names of the folders, in order, with their bytes.
func (x *Index) Folders() (names []string, bytes map[string]int64) {
	bytes = map[string]int64{}
	for i := range x.Files {
		folder, _, _ := strings.Cut(x.Files[i].Name, "/")
		if _, ok := bytes[folder]; !ok {
			names = append(names, folder)
		}
		bytes[folder] += x.Files[i].Size
	}
	return names, bytes
}

// Add takes a file on this machine into the index, under a folder and a name. Links that lead out of their folder are
// refused.
func (x *Index) Add(folder, name, file string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	f := File{Name: path.Join(folder, filepath.ToSlash(name)), path: file}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if f.Link, err = os.Readlink(file); err != nil {
			return err
		}
	case info.Mode().IsRegular():
		f.Size, f.Program = info.Size(), info.Mode().Perm()&0o100 != 0
	default:
		return fmt.Errorf("pack %s: neither a file nor a link", file)
	}
	x.Files = append(x.Files, f)
	return nil
}

// AddTree takes all files below a directory, but those that skip names by their paths within it.
func (x *Index) AddTree(folder, dir string, skip func(name string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		switch {
		case err != nil:
			return err
		case name != "." && skip != nil && skip(filepath.ToSlash(name), d):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		return x.Add(folder, name, file)
	})
}

// check says what is wrong with an index.
func (x *Index) check() error {
	if len(x.Files) > maxFiles {
		return fmt.Errorf("%d files: want at most %d", len(x.Files), maxFiles)
	}
	before := ""
	for i := range x.Files {
		f := &x.Files[i]
		folder, name, _ := strings.Cut(f.Name, "/")
		if folder == "" || name == "" || path.Clean(f.Name) != f.Name || !fs.ValidPath(f.Name) || strings.ContainsAny(f.Name, "\\\x00") || f.Name <= before {
			return fmt.Errorf("file %q: no name, or not in order", f.Name)
		}
		before = f.Name
		if f.Link != "" {
			to := path.Join(path.Dir(f.Name), f.Link)
			if path.IsAbs(f.Link) || f.Size != 0 || f.SHA256 != "" || !strings.HasPrefix(to, folder+"/") {
				return fmt.Errorf("link %q leads out of its folder, to %q", f.Name, f.Link)
			}
			continue
		}
		if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != sha256.Size || f.Size < 0 {
			return fmt.Errorf("file %q: no digest", f.Name)
		}
	}
	return nil
}

// Progress is told of every piece of work: bytes done of all.
type Progress func(done, all int64)

// counter tells a Progress what passes, and ends with its context.
type counter struct {
	ctx  context.Context
	tell Progress
	done int64
	all  int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	if c.tell != nil {
		c.tell(c.done, c.all)
	}
	return len(p), c.ctx.Err()
}

// Pack writes a parcel and returns the index's digest, by which people may compare. It reads each file twice.
func Pack(ctx context.Context, w io.Writer, x *Index, tell Progress) (digest string, err error) {
	slices.SortFunc(x.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	work := &counter{ctx: ctx, tell: tell, all: 2 * x.Bytes()}
	for i := range x.Files {
		f := &x.Files[i]
		if f.Link != "" {
			continue
		}
		h := sha256.New()
		if err := f.copy(io.MultiWriter(h, work)); err != nil {
			return "", err
		}
		f.SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	if err := x.check(); err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	index, err := json.Marshal(x)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(index)
	digest = hex.EncodeToString(sum[:])
	all := sha256.New()
	t := tar.NewWriter(io.MultiWriter(w, all))
	if err := t.WriteHeader(&tar.Header{Name: indexFolder + digest + ".json", Size: int64(len(index)), Mode: 0o644}); err != nil {
		return "", err
	}
	if _, err := t.Write(index); err != nil {
		return "", err
	}
	for i := range x.Files {
		f := &x.Files[i]
		if err := t.WriteHeader(f.header()); err != nil {
			return "", fmt.Errorf("pack %s: %w", f.Name, err)
		}
		if f.Link != "" {
			continue
		}
		h := sha256.New()
		if err := f.copy(io.MultiWriter(t, h, work)); err != nil {
			return "", err
		}
		if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
			return "", fmt.Errorf("pack %s: it changes while it is read", f.path)
		}
	}
	if err := t.Close(); err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(w, "%x\n", all.Sum(nil))
	return digest, err
}

func (f *File) header() *tar.Header {
	h := &tar.Header{Name: f.Name, Size: f.Size, Mode: 0o644, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
	if f.Program {
		h.Mode = 0o755
	}
	if f.Link != "" {
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	}
	return h
}

// copy writes the file's content: as much as its size says.
func (f *File) copy(w io.Writer) error {
	r, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, io.LimitReader(r, f.Size+1))
	if err == nil && n != f.Size {
		err = errors.New("its size changes while it is read")
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", f.path, err)
	}
	return nil
}

// A DamageError names what of a parcel is not as it was packed.
type DamageError struct {
	Name string // of the file; "": the parcel as a whole
	What string
}

func (e *DamageError) Error() string {
	if e.Name == "" {
		return "damaged: " + e.What
	}
	return fmt.Sprintf("%s is damaged: %s", e.Name, e.What)
}

// Open reads the index of a parcel of so many bytes. The returned Parcel reads on from there.
func Open(r io.Reader, size int64) (*Parcel, error) {
	h := sha256.New()
	p := &Parcel{end: r, sum: func() []byte { return h.Sum(nil) }}
	p.body = io.TeeReader(io.LimitReader(r, max(0, size-trailer)), h)
	p.tar = tar.NewReader(p.body)
	head, err := p.tar.Next()
	if err != nil {
		return nil, &DamageError{What: "it does not begin as a parcel does: " + err.Error()}
	}
	name, ok := strings.CutPrefix(head.Name, indexFolder)
	p.Digest, _ = strings.CutSuffix(name, ".json")
	if !ok || head.Size > maxIndex || head.Size < 0 {
		return nil, &DamageError{What: "it does not begin with an index"}
	}
	b, err := io.ReadAll(io.LimitReader(p.tar, maxIndex))
	if err != nil {
		return nil, &DamageError{"its index", err.Error()}
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != p.Digest {
		return nil, &DamageError{"its index", fmt.Sprintf("expected %s, got %x", p.Digest, sum)}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p.Index); err != nil {
		return nil, fmt.Errorf("read the index of a parcel: %w", err)
	}
	if err := p.Index.check(); err != nil {
		return nil, fmt.Errorf("read the index of a parcel: %w", err)
	}
	return p, nil
}

// A Parcel is one that is being read.
type Parcel struct {
	Index  Index
	Digest string // of the index

	end  io.Reader // behind body
	body io.Reader
	sum  func() []byte // of what was read of body
	tar  *tar.Reader
}

// Unpack puts the files into directories, one per folder; a folder without one is verified and left out. Each file is
// there whole or not at all; one that is there already is left alone, so that an Unpack that was interrupted, or stopped
// at damage, can be done again. It returns how many files it wrote.
func (p *Parcel) Unpack(ctx context.Context, dirs map[string]string, tell Progress) (written int, err error) {
	roots := map[string]*os.Root{}
	defer func() {
		for _, r := range roots {
			r.Close()
		}
	}()
	for folder, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		if roots[folder], err = os.OpenRoot(dir); err != nil {
			return 0, err
		}
	}
	work := &counter{ctx: ctx, tell: tell, all: p.Index.Bytes()}
	for i := range p.Index.Files {
		f := &p.Index.Files[i]
		h, err := p.tar.Next()
		if err != nil {
			return written, &DamageError{f.Name, "the parcel ends or is torn before it (" + err.Error() + ")"}
		}
		want := f.header()
		if h.Name != want.Name || h.Size != want.Size || h.Typeflag != want.Typeflag || h.Linkname != want.Linkname || h.Mode != want.Mode {
			return written, &DamageError{f.Name, "its head differs from the index"}
		}
		folder, name, _ := strings.Cut(f.Name, "/")
		wrote, err := p.place(f, roots[folder], filepath.FromSlash(name), work)
		if err != nil {
			return written, err
		}
		if wrote {
			written++
		}
	}
	if _, err := p.tar.Next(); err != io.EOF {
		return written, &DamageError{What: "there is more than the index says"}
	}
	if _, err := io.Copy(io.Discard, p.body); err != nil {
		return written, err
	}
	want := fmt.Sprintf("%x\n", p.sum())
	got, err := io.ReadAll(io.LimitReader(p.end, trailer+1))
	if err != nil || string(got) != want {
		return written, &DamageError{What: "its files are whole, but not what is between or behind them"}
	}
	return written, nil
}

// place reads the next file and puts it where it belongs; root is nil for one that is only verified.
func (p *Parcel) place(f *File, root *os.Root, name string, work io.Writer) (wrote bool, err error) {
	if f.Link != "" {
		if root == nil {
			return false, nil
		}
		if to, err := root.Readlink(name); err == nil && to == f.Link {
			return false, nil
		}
		return true, replaceLink(root, name, f.Link)
	}
	h := sha256.New()
	to := io.MultiWriter(h, work)
	var part *os.File
	if root != nil && !present(root, name, f) {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return false, err
		}
		if part, err = root.OpenFile(name+partSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644); err != nil {
			return false, err
		}
		defer func() {
			part.Close()
			if err != nil {
				root.Remove(name + partSuffix)
			}
		}()
		to = io.MultiWriter(h, work, part)
	}
	if _, err := io.Copy(to, p.tar); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return false, &DamageError{f.Name, "the parcel ends within it"}
		}
		return false, err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.SHA256 {
		return false, &DamageError{f.Name, fmt.Sprintf("expected sha256 %s, got %s", f.SHA256, got)}
	}
	if part == nil {
		return false, nil
	}
	if f.Program {
		err = part.Chmod(0o755)
	}
	if err := errors.Join(err, part.Sync(), part.Close()); err != nil {
		return false, err
	}
	return true, root.Rename(name+partSuffix, name)
}

// present says whether a file is there already, as the index says.
func present(root *os.Root, name string, f *File) bool {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size || f.Program != (info.Mode().Perm()&0o100 != 0) {
		return false
	}
	r, err := root.Open(name)
	if err != nil {
		return false
	}
	defer r.Close()
	h := sha256.New()
	_, err = io.Copy(h, r)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == f.SHA256
}

func replaceLink(root *os.Root, name, to string) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name + partSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(filepath.FromSlash(to), name+partSuffix); err != nil {
		return err
	}
	return root.Rename(name+partSuffix, name)
}
