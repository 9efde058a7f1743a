package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/artifact/hosttool"
)

// archive is the Debian that this machine runs, by its signed indexes.
type archive struct {
	indexes map[string][]map[string]string // by suite
	fetcher *deb.Fetcher
	store   cache.Cache
}

// openArchive reads the indexes of this machine's Debian, verified back to Debian's archive keys.
func openArchive(ctx context.Context, out io.Writer, mirrors []string) (*archive, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("find out which Debian this is: %w", err)
	}
	r := osRelease(string(release))
	codename := r["VERSION_CODENAME"]
	if r["ID"] != "debian" || codename == "" {
		return nil, fmt.Errorf("unpacking without root is possible on Debian releases, not on %s %s", r["ID"], codename)
	}
	m, err := deb.NamedMirrors(mirrors...)
	if err != nil {
		return nil, err
	}
	if m.Empty() {
		m = deb.AptMirrors("/etc/apt")
	}
	ring, err := deb.Keyring()
	if err != nil {
		return nil, err
	}
	store, err := cache.User()
	if err != nil {
		return nil, err
	}
	client := deb.NewClient()
	signed := &deb.Archive{Mirrors: m, Keyring: ring, Client: client}
	a := &archive{map[string][]map[string]string{}, &deb.Fetcher{Cache: store, Mirrors: m, Client: client}, store}
	for _, suite := range []string{codename, codename + "-updates", codename + "-security"} {
		idx, err := signed.Index(ctx, suite, debArch())
		if err != nil {
			if suite == codename {
				return nil, err
			}
			fmt.Fprintf(out, "setup: going on without %s: %v\n", suite, err)
			continue
		}
		a.indexes[suite] = idx
	}
	return a, nil
}

// unpack puts packages into a directory of the user's cache that is named after them, whole or not at all.
func (a *archive) unpack(ctx context.Context, out io.Writer, name string, pkgs []deb.Package) (string, error) {
	var size int64
	id := sha256.New()
	for _, p := range pkgs {
		size += p.Size
		fmt.Fprintln(id, p.SHA256)
	}
	dir := filepath.Join(a.store.Dir, name, fmt.Sprintf("%x", id.Sum(nil)[:8]))
	fmt.Fprintf(out, "setup: fetching %d packages, %.0f MB\n", len(pkgs), float64(size)/1e6)
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", err
	}
	for _, p := range pkgs {
		if err := unpackOne(ctx, a.fetcher, p, tmp); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// unpack puts QEMU and those of its libraries that are not installed into the user's cache, and a
// small script that starts it. It returns the script's path.
func unpack(ctx context.Context, out io.Writer, status string, mirrors []string) (string, error) {
	a, err := openArchive(ctx, out, mirrors)
	if err != nil {
		return "", err
	}
	installed := deb.Installed(status)
	for name := range installed {
		if strings.HasPrefix(name, "qemu-") { // whatever is installed of it did not do
			delete(installed, name)
		}
	}
	pkgs, err := deb.Closure(a.indexes, installed, "qemu-system-arm")
	if err != nil {
		return "", err
	}
	dir, err := a.unpack(ctx, out, "qemu", pkgs)
	if err != nil {
		return "", err
	}
	script, err := writeScript(dir)
	if err != nil {
		return "", err
	}
	return script, checkQEMU(script)
}

// unpackPrograms puts programs out of one package, without those that it depends on, into the user's cache. Prometheus is
// had in this way even by root: installed, it would run as a daemon and bring libraries for browsers.
func unpackPrograms(ctx context.Context, out io.Writer, mirrors []string, pkg string, programs ...string) error {
	a, err := openArchive(ctx, out, mirrors)
	if err != nil {
		return err
	}
	others := map[string]bool{}
	for _, stanzas := range a.indexes {
		for _, s := range stanzas {
			others[s["Package"]] = s["Package"] != pkg
			for _, virtual := range strings.Split(s["Provides"], ",") {
				name, _, _ := strings.Cut(strings.TrimSpace(virtual), " ")
				others[name] = name != pkg
			}
		}
	}
	pkgs, err := deb.Closure(a.indexes, others, pkg)
	if err != nil {
		return err
	}
	dir, err := a.unpack(ctx, out, pkg, pkgs)
	if err != nil {
		return err
	}
	return linkPrograms(dir, programs...)
}

// linkPrograms lets hosttool.Path find programs that were unpacked.
func linkPrograms(dir string, programs ...string) error {
	bin, err := hosttool.Dir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, name := range programs {
		tmp := filepath.Join(bin, name+".new")
		if err := os.Remove(tmp); err != nil && !os.IsNotExist(err) {
			return err
		}
		// Relative, so that the cache may be carried elsewhere (racklet cache).
		to, err := filepath.Rel(bin, filepath.Join(dir, "usr", "bin", name))
		if err != nil {
			return err
		}
		if err := os.Symlink(to, tmp); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

func unpackOne(ctx context.Context, f *deb.Fetcher, p deb.Package, dir string) error {
	name, err := f.Fetch(ctx, p)
	if err != nil {
		return err
	}
	r, err := os.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := deb.Unpack(r, dir); err != nil {
		return fmt.Errorf("package %s: %w", p.Package, err)
	}
	return nil
}

// writeScript writes the program that the rest of Racklet finds by hosttool.Path. It replaces itself
// by QEMU, so that signals and the process number are QEMU's.
func writeScript(dir string) (string, error) {
	bin, err := hosttool.Dir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	var libs []string
	for _, d := range []string{"usr/lib/" + triplet(), "lib/" + triplet(), "usr/lib"} {
		if _, err := os.Stat(filepath.Join(dir, d)); err == nil {
			libs = append(libs, filepath.Join(dir, d))
		}
		// Some libraries lie one directory further down (pulseaudio, and others that use a run path).
		sub, _ := filepath.Glob(filepath.Join(dir, d, "*", "*.so*"))
		for _, s := range sub {
			if p := filepath.Dir(s); !strings.Contains(p, "/qemu") && !contains(libs, p) {
				libs = append(libs, p)
			}
		}
	}
	// Relative to itself, so that the cache may be carried elsewhere (racklet cache).
	root, err := filepath.Rel(bin, dir)
	if err != nil {
		return "", err
	}
	for i := range libs {
		if libs[i], err = filepath.Rel(dir, libs[i]); err != nil {
			return "", err
		}
		libs[i] = `"$root"/` + quote(libs[i])
	}
	text := fmt.Sprintf(`#!/bin/sh
# Written by tools/setup: QEMU from packages unpacked for this user.
root=$(cd -- "${0%%/*}"/%s && pwd) || exit
LD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
QEMU_MODULE_DIR=$root/usr/lib/%s/qemu
export LD_LIBRARY_PATH QEMU_MODULE_DIR
exec "$root/usr/bin/qemu-system-aarch64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
`, quote(root), strings.Join(libs, ":"), triplet())
	name := filepath.Join(bin, "qemu-system-aarch64")
	tmp := name + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o755); err != nil {
		return "", err
	}
	return name, os.Rename(tmp, name)
}

// quote makes a shell word of any string.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func debArch() string {
	if runtime.GOARCH == "arm" {
		return "armhf"
	}
	return runtime.GOARCH
}

// triplet is Debian's name for the directory of this machine's libraries.
func triplet() string {
	switch runtime.GOARCH {
	case "arm64":
		return "aarch64-linux-gnu"
	case "amd64":
		return "x86_64-linux-gnu"
	}
	return runtime.GOARCH + "-linux-gnu"
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
