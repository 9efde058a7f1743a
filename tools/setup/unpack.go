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

// unpack puts QEMU and those of its libraries that are not installed into the user's cache, and a
// small script that starts it. It returns the script's path.
func unpack(ctx context.Context, out io.Writer, status string, mirrors []string) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("find out which Debian this is: %w", err)
	}
	r := osRelease(string(release))
	codename := r["VERSION_CODENAME"]
	if r["ID"] != "debian" || codename == "" {
		return "", fmt.Errorf("unpacking QEMU without root is possible on Debian releases, not on %s %s", r["ID"], codename)
	}
	m, err := deb.NamedMirrors(mirrors...)
	if err != nil {
		return "", err
	}
	if m.Empty() {
		m = deb.AptMirrors("/etc/apt")
	}
	ring, err := deb.Keyring()
	if err != nil {
		return "", err
	}
	store, err := cache.User()
	if err != nil {
		return "", err
	}
	client := deb.NewClient()
	archive := &deb.Archive{Mirrors: m, Keyring: ring, Client: client}
	indexes := map[string][]map[string]string{}
	for _, suite := range []string{codename, codename + "-updates", codename + "-security"} {
		idx, err := archive.Index(ctx, suite, debArch())
		if err != nil {
			if suite == codename {
				return "", err
			}
			fmt.Fprintf(out, "setup: going on without %s: %v\n", suite, err)
			continue
		}
		indexes[suite] = idx
	}
	installed := deb.Installed(status)
	for name := range installed {
		if strings.HasPrefix(name, "qemu-") { // whatever is installed of it did not do
			delete(installed, name)
		}
	}
	pkgs, err := deb.Closure(indexes, installed, "qemu-system-arm")
	if err != nil {
		return "", err
	}
	var size int64
	id := sha256.New()
	for _, p := range pkgs {
		size += p.Size
		fmt.Fprintln(id, p.SHA256)
	}
	dir := filepath.Join(store.Dir, "qemu", fmt.Sprintf("%x", id.Sum(nil)[:8]))
	fmt.Fprintf(out, "setup: fetching %d packages, %.0f MB\n", len(pkgs), float64(size)/1e6)
	f := &deb.Fetcher{Cache: store, Mirrors: m, Client: client}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", err
	}
	for _, p := range pkgs {
		if err := unpackOne(ctx, f, p, tmp); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	script, err := writeScript(dir)
	if err != nil {
		return "", err
	}
	return script, checkQEMU(script)
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
	text := fmt.Sprintf(`#!/bin/sh
# Written by tools/setup: QEMU from packages unpacked for this user.
root=%s
LD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
QEMU_MODULE_DIR=$root/usr/lib/%s/qemu
export LD_LIBRARY_PATH QEMU_MODULE_DIR
exec "$root/usr/bin/qemu-system-aarch64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
`, quote(dir), quote(strings.Join(libs, ":")), triplet())
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
