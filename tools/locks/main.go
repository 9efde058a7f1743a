// Command locks moves the repository's Debian lock files to what the archive holds now, or with
// -check says which are stale.
//
//	go run ./tools/locks [-check] [-mirror URL]… [-keyring FILE]… [LOCKFILE…]
//
// Each suite's InRelease is verified against Debian's archive keyring; the packages' hashes follow
// from it. Without lock files named, those in tools/locks are meant. With -check nothing is written
// and the exit status is 3 when a lock is stale, that is when the archive has something newer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/racklet/racklet/artifact/deb"
)

var errStale = errors.New("stale")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Stdout, os.Args[1:])
	switch {
	case errors.Is(err, errStale):
		os.Exit(3)
	case err != nil:
		fmt.Fprintln(os.Stderr, "locks: error:", err)
		os.Exit(1)
	}
}

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, out io.Writer, args []string) error {
	fs := flag.NewFlagSet("locks", flag.ContinueOnError)
	var mirrors, keyrings list
	fs.Var(&mirrors, "mirror", "base `URL` of a Debian mirror; may be repeated (default: apt's)")
	fs.Var(&keyrings, "keyring", "`file` with the archive's OpenPGP keys; may be repeated (default: Debian's own)")
	check := fs.Bool("check", false, "only say which locks are stale")
	if err := fs.Parse(args); err != nil {
		return err
	}
	names := fs.Args()
	if len(names) == 0 {
		var err error
		if names, err = filepath.Glob(filepath.Join("tools", "locks", "*.lock.json")); err != nil || len(names) == 0 {
			return fmt.Errorf("no lock files in tools/locks: run from the repository's root")
		}
	}
	m, err := deb.NamedMirrors(mirrors...)
	if err != nil {
		return err
	}
	if m.Empty() {
		m = deb.AptMirrors("/etc/apt")
	}
	if m.Empty() {
		return deb.ErrNoMirror
	}
	ring, err := deb.Keyring(keyrings...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	a := &deb.Archive{Mirrors: m, Keyring: ring}
	stale := false
	for _, name := range names {
		old, err := deb.ReadLock(name)
		if err != nil {
			return err
		}
		now, err := a.Resolve(ctx, old)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		moved := false
		for _, p := range now.Packages {
			was, _ := old.Find(p.Name)
			if was == p {
				continue
			}
			moved = true
			fmt.Fprintf(out, "%s: %s: %s %s (%s)", name, p.Name, p.Package, p.Version, p.Suite)
			if was.Version != "" {
				fmt.Fprintf(out, ", locked was %s", was.Version)
			}
			fmt.Fprintln(out)
		}
		stale = stale || moved
		if moved && !*check {
			if err := os.WriteFile(name, now.Marshal(), 0o644); err != nil {
				return fmt.Errorf("write lock: %w", err)
			}
		}
	}
	if *check && stale {
		fmt.Fprintln(out, "run `make update-locks` to move the locks")
		return errStale
	}
	return nil
}
