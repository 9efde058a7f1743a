package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/hosttool"
	"github.com/racklet/racklet/artifact/parcel"
)

// Folders of a parcel and what they are for.
const (
	folderCache   = "cache"   // downloads and programs that were unpacked
	folderModules = "modules" // of Go, to build from source
	folderRelease = "release" // what units boot
	folderGo      = "go"      // the Go toolchain
)

func newCache(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "cache",
		GroupID: "rack",
		Short:   "Carry all that a rack needs to places without a network",
		Long: `Cache puts what was downloaded and built into one file, for a stick, and takes it out again on machines that have no
network: Debian packages, programs, the release, and the Go modules to build from source.`,
		Example: "  racklet cache export /media/stick/racklet.parcel\n  racklet cache import /media/stick/racklet.parcel",
	}
	c.AddCommand(newCacheExport(env), newCacheImport(env))
	return c
}

// cacheResult is what export and import print.
type cacheResult struct {
	File    string           `json:"file"`
	Digest  string           `json:"digest"` // of the index, for people to compare
	Host    string           `json:"host"`
	Files   int              `json:"files"`
	Bytes   int64            `json:"bytes"`
	Folders map[string]int64 `json:"folders"` // bytes
	Written int              `json:"written"` // files that were not there before; of an import
	Notes   []string         `json:"notes,omitempty"`
}

func result(file, digest string, x *parcel.Index) *cacheResult {
	_, sizes := x.Folders()
	return &cacheResult{File: file, Digest: digest, Host: x.Host, Files: len(x.Files), Bytes: x.Bytes(), Folders: sizes}
}

func (r *cacheResult) text(w io.Writer) error {
	fmt.Fprintf(w, "%s: %d files, %s, for %s\n", r.File, r.Files, megabytes(r.Bytes), r.Host)
	for _, f := range []struct{ name, what string }{{folderCache, "downloads and programs"}, {folderModules, "Go modules"}, {folderRelease, "release"}, {folderGo, "Go itself"}} {
		if n, ok := r.Folders[f.name]; ok {
			fmt.Fprintf(w, "  %-24s %9s\n", f.what, megabytes(n))
		}
	}
	fmt.Fprintf(w, "index sha256:%s\n", r.Digest)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func newCacheExport(env *environment) *cobra.Command {
	var source string
	var toolchain bool
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write a file with all that a rack needs",
		Long: `Export writes the user's cache, the release beside this program and, when --source is a checkout of Racklet, the Go
modules that it is built from. Build once before (make build), so that everything is there. FILE appears when it is
complete. Copy this program beside it: whoever has both can import and start a rack; whoever has Go, git, make and the
source can build, too.`,
		Example: "  racklet cache export /media/stick/racklet.parcel\n  racklet cache export --with-go class.parcel",
		Args:    exactArgs("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			return env.cacheExport(c.Context(), args[0], source, toolchain)
		},
	}
	c.Flags().StringVar(&source, "source", ".", "`directory` of the source, for its Go modules")
	c.Flags().BoolVar(&toolchain, "with-go", false, "add the Go toolchain, for machines that lack it")
	c.MarkFlagDirname("source")
	return c
}

func (env *environment) cacheExport(ctx context.Context, file, source string, toolchain bool) (err error) {
	x := &parcel.Index{Made: time.Now().UTC().Truncate(time.Second), Host: runtime.GOOS + "/" + runtime.GOARCH, Note: "racklet " + version}
	var notes []string
	user, err := cache.User()
	if err != nil {
		return err
	}
	if err := addCache(x, user); err != nil {
		return err
	}
	if dir, err := hosttool.Dir(); err == nil {
		if _, err := os.Stat(filepath.Join(dir, hosttool.QEMU)); err != nil {
			notes = append(notes, "QEMU is not in it: machines without QEMU need a network. On Debian, first: go run ./tools/setup -unpack")
		}
	}
	release, err := defaultRelease()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(release, "release.json")); err == nil {
		err = x.AddTree(folderRelease, release, nil)
		if err != nil {
			return err
		}
	} else {
		notes = append(notes, "no release is in it: make build makes one")
	}
	found, err := addModules(ctx, x, source)
	if err != nil {
		return err
	}
	if !found {
		notes = append(notes, "no Go modules are in it, so that it cannot be built from: name a checkout with --source")
	}
	if toolchain {
		root, err := goEnv(ctx, source, "GOROOT")
		if err != nil {
			return hint(fmt.Errorf("find the Go toolchain: %w", err), "install Go, or leave --with-go out")
		}
		if err := x.AddTree(folderGo, root, func(name string, d fs.DirEntry) bool { return name == "test" || name == "api" || name == "doc" }); err != nil {
			return err
		}
	}
	if len(x.Files) == 0 {
		return hint(errors.New("there is nothing to export"), "build first: make build")
	}
	part := file + ".part"
	w, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		w.Close()
		if err != nil {
			os.Remove(part)
		}
	}()
	if err := room(filepath.Dir(file), x.Bytes()); err != nil {
		return err
	}
	bar := newBar(env.stderr, "packing")
	digest, err := parcel.Pack(ctx, w, x, bar.tell)
	bar.close()
	if err != nil {
		return err
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, file); err != nil {
		return err
	}
	r := result(file, digest, x)
	r.Notes = notes
	return env.print(r, r.text)
}

// addCache takes the user's cache but for what is under way. A cached download that is damaged stays behind.
func addCache(x *parcel.Index, user cache.Cache) error {
	if _, err := os.Stat(user.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return x.AddTree(folderCache, user.Dir, func(name string, d fs.DirEntry) bool {
		if path.Dir(name) == "sha256" {
			sum, _, err := cache.HashFile(user.Path(path.Base(name)))
			return err != nil || sum != path.Base(name)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(filepath.Join(user.Dir, name))
			return err != nil || filepath.IsAbs(to) || !filepath.IsLocal(filepath.Join(path.Dir(name), to))
		}
		top, _, _ := strings.Cut(name, "/")
		return top == "partial" || top == folderRelease || top == folderGo || strings.HasSuffix(name, ".new") || !d.IsDir() && !d.Type().IsRegular()
	})
}

// goEnv asks the go command.
func goEnv(ctx context.Context, dir, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", name)
	cmd.Dir = dir
	out, err := cmd.Output()
	if text := strings.TrimSpace(string(out)); err == nil && text != "" {
		return text, nil
	}
	return "", fmt.Errorf("go env %s: %w", name, err)
}

// moduleCache is where Go keeps its modules, also where there is no Go yet (go help environment, GOMODCACHE).
func moduleCache(ctx context.Context) (string, error) {
	if dir, err := goEnv(ctx, ".", "GOMODCACHE"); err == nil {
		return dir, nil
	}
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		return dir, nil
	}
	if dir, _, _ := strings.Cut(os.Getenv("GOPATH"), string(os.PathListSeparator)); dir != "" {
		return filepath.Join(dir, "pkg", "mod"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, "go", "pkg", "mod"), err
}

// addModules takes the modules that a checkout names in go.sum, as far as they are in Go's cache.
func addModules(ctx context.Context, x *parcel.Index, source string) (found bool, err error) {
	sums, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	modules, err := moduleCache(ctx)
	if err != nil {
		return false, err
	}
	nested, err := filepath.Glob(filepath.Join(source, "*", "*", "go.sum")) // modules of their own
	if err != nil {
		return false, err
	}
	for _, name := range nested {
		more, err := os.ReadFile(name)
		if err != nil {
			return false, err
		}
		sums = append(sums, more...)
	}
	download := filepath.Join(modules, "cache", "download")
	seen := map[string]bool{}
	for line := range bytes.Lines(sums) {
		f := strings.Fields(string(line))
		if len(f) != 3 {
			continue
		}
		at := path.Join(escapeModule(f[0]), "@v", escapeModule(strings.TrimSuffix(f[1], "/go.mod")))
		if seen[at] {
			continue
		}
		seen[at] = true
		for _, ext := range []string{".info", ".mod", ".zip", ".ziphash"} {
			switch err := x.Add(folderModules, at+ext, filepath.Join(download, filepath.FromSlash(at+ext))); {
			case err == nil:
				found = true
			case !errors.Is(err, fs.ErrNotExist):
				return false, err
			}
		}
	}
	return found, nil
}

// escapeModule writes capitals as the module cache does (Go Modules Reference, "GOPROXY protocol").
func escapeModule(s string) string {
	var b strings.Builder
	for _, r := range s {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('!')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func newCacheImport(env *environment) *cobra.Command {
	var digest string
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take such a file in: afterwards no network is needed",
		Long: `Import puts what export packed where it belongs: into the user's cache, and Go's modules into Go's. Every file is compared
with its digest; a damaged one is named and refused. What is there already is left alone, so that an import that was
interrupted is simply started again. It is the cache's content that is trusted here, not who made it: import what comes
from somebody you trust, and compare the digest that export printed with --digest.`,
		Example: "  racklet cache import /media/stick/racklet.parcel\n  racklet cache import racklet.parcel --digest sha256:0a1b...",
		Args:    exactArgs("FILE"),
		RunE:    func(c *cobra.Command, args []string) error { return env.cacheImport(c.Context(), args[0], digest) },
	}
	c.Flags().StringVar(&digest, "digest", "", "the `digest` that export printed; another one is refused")
	return c
}

func (env *environment) cacheImport(ctx context.Context, file, digest string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	again := func(err error) error {
		var damage *parcel.DamageError
		if errors.As(err, &damage) {
			return hint(fmt.Errorf("%s: %w", file, err), "copy or export it again; what was taken in before that is whole, and stays")
		}
		return fmt.Errorf("%s: %w", file, err)
	}
	p, err := parcel.Open(f, info.Size())
	if err != nil {
		return again(err)
	}
	if digest != "" && strings.TrimPrefix(digest, "sha256:") != p.Digest {
		return fmt.Errorf("%s: its index is sha256:%s, not what --digest says", file, p.Digest)
	}
	user, err := cache.User()
	if err != nil {
		return err
	}
	modules, err := moduleCache(ctx)
	if err != nil {
		return err
	}
	dirs := map[string]string{
		folderCache: user.Dir, folderRelease: filepath.Join(user.Dir, folderRelease), folderGo: filepath.Join(user.Dir, folderGo),
		folderModules: filepath.Join(modules, "cache", "download"),
	}
	if err := os.MkdirAll(user.Dir, 0o755); err != nil {
		return err
	}
	if err := room(user.Dir, p.Index.Bytes()); err != nil {
		return err
	}
	bar := newBar(env.stderr, "importing")
	written, err := p.Unpack(ctx, dirs, bar.tell)
	bar.close()
	if err != nil {
		return again(err)
	}
	r := result(file, p.Digest, &p.Index)
	r.Written = written
	if here := runtime.GOOS + "/" + runtime.GOARCH; p.Index.Host != here {
		r.Notes = append(r.Notes, fmt.Sprintf("its programs are for %s, and this is %s", p.Index.Host, here))
	}
	if _, err := hosttool.Path(hosttool.QEMU); err != nil {
		r.Notes = append(r.Notes, "QEMU is neither installed nor in it; install it")
	}
	if _, ok := r.Folders[folderGo]; ok {
		r.Notes = append(r.Notes, "to build with the Go in it: make up GO="+filepath.Join(user.Dir, folderGo, "bin", "go"))
	}
	return env.print(r, r.text)
}

// room refuses to begin what cannot fit.
func room(dir string, bytes int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look for room in %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < bytes {
		return fmt.Errorf("%s has %s free, and %s are to be written", dir, megabytes(free), megabytes(bytes))
	}
	return nil
}

// A bar tells how far some work is, and how long it will take: on a terminal in place, elsewhere every few seconds.
type bar struct {
	out   io.Writer
	what  string
	live  bool
	begin time.Time
	last  time.Time
}

func newBar(out io.Writer, what string) *bar {
	f, ok := out.(*os.File)
	return &bar{out: out, what: what, live: ok && term.IsTerminal(int(f.Fd())), begin: time.Now(), last: time.Now()}
}

func (b *bar) tell(done, all int64) {
	every := 5 * time.Second
	if b.live {
		every = 200 * time.Millisecond
	}
	if time.Since(b.last) < every || all == 0 {
		return
	}
	b.last = time.Now()
	left := time.Duration(float64(time.Since(b.begin)) * float64(all-done) / float64(max(done, 1)))
	line := fmt.Sprintf("racklet: %s: %d %%, %v left", b.what, 100*done/all, left.Round(time.Second))
	if b.live {
		fmt.Fprintf(b.out, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(b.out, line)
	}
}

func (b *bar) close() {
	if b.live {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
