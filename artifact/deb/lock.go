// Package deb fetches Debian packages that a lock file names and reads what is in them, in Go alone.
//
// A lock file is made on a developer's machine from a suite's InRelease, whose OpenPGP signature is
// verified against Debian's archive keyring (Resolve). After that nothing but SHA-256 is trusted:
// Fetcher takes a package from the cache, or from any mirror, and compares the hash that the lock
// names. The lock holds pool paths, never host names; mirrors come from a flag or from apt's
// configuration (AptMirrors).
//
//	InRelease ── signature ──▶ Packages.xz ── hash ──▶ lock file        make update-locks
//	lock file ──▶ cache │ mirror, mirror, … ── SHA-256 ──▶ .deb ──▶ ar, tar   every build
//
// The package is no package manager: it runs no maintainer scripts and writes nothing outside the
// directory that it is given. Callers are the image builders, tools/locks and tools/setup.
package deb

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
)

// Our own limits; a lock file beyond them is refused.
const (
	lockFormat      = 1
	maxLockBytes    = 1 << 20
	maxPackageBytes = 1 << 30
)

// A Lock names packages so exactly that every machine fetches the same bytes.
type Lock struct {
	Format       int    `json:"format"`       // 1
	Architecture string `json:"architecture"` // Debian architecture, such as "arm64"
	// Dates of the suites' InRelease files that the lock was made from, in UTC; it never goes behind them.
	Dates    map[string]time.Time `json:"dates,omitempty"`
	Requests []Request            `json:"requests"` // what to look for when the lock is made
	Packages []Package            `json:"packages"` // what was found
}

// A Request is what a lock shall hold: the newest package that matches, of any of the suites.
type Request struct {
	Name        string   `json:"name"`                  // role under which builders ask for it
	Package     string   `json:"package"`               // package name, path.Match pattern
	Suites      []string `json:"suites"`                // such as "trixie", "trixie-security"
	DiffersFrom string   `json:"differsFrom,omitempty"` // name of a request whose package must be another one
}

// A Package is one locked file.
type Package struct {
	Name    string `json:"name"`    // role, as in the request
	Package string `json:"package"` // Debian's package name
	Version string `json:"version"` // Debian's version
	Suite   string `json:"suite"`   // suite it was found in; decides which mirrors hold it
	Path    string `json:"path"`    // below a mirror's base, such as "pool/main/l/linux/…"
	Size    int64  `json:"size"`    // bytes
	SHA256  string `json:"sha256"`  // lower-case hex
}

// ReadLock reads and checks a lock file.
func ReadLock(name string) (*Lock, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	l, err := ParseLock(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// ParseLock decodes a lock file strictly: unknown fields, unsafe paths and malformed hashes are errors.
func ParseLock(b []byte) (*Lock, error) {
	if len(b) > maxLockBytes {
		return nil, fmt.Errorf("parse lock: %d bytes, at most %d", len(b), maxLockBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	l := new(Lock)
	if err := d.Decode(l); err != nil {
		return nil, fmt.Errorf("parse lock: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("parse lock: something follows the document")
	}
	if l.Format != lockFormat {
		return nil, fmt.Errorf("parse lock: format %d, this program knows %d", l.Format, lockFormat)
	}
	seen := map[string]bool{}
	for _, p := range l.Packages {
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("parse lock: package %q: %w", p.Name, err)
		}
		if seen[p.Name] {
			return nil, fmt.Errorf("parse lock: package %q is named twice", p.Name)
		}
		seen[p.Name] = true
	}
	return l, nil
}

func (p Package) check() error {
	switch {
	case p.Name == "" || p.Package == "" || p.Version == "" || p.Suite == "":
		return fmt.Errorf("name, package, version and suite must be given")
	case p.Size <= 0 || p.Size > maxPackageBytes:
		return fmt.Errorf("size %d, allowed 1 to %d", p.Size, maxPackageBytes)
	case path.Clean(p.Path) != p.Path || path.IsAbs(p.Path) || strings.HasPrefix(p.Path, "..") || strings.ContainsAny(p.Path, ":?#\\"):
		return fmt.Errorf("path %q is not a plain path below a mirror", p.Path)
	}
	if h, err := hex.DecodeString(p.SHA256); err != nil || len(h) != 32 || strings.ToLower(p.SHA256) != p.SHA256 {
		return fmt.Errorf("sha256 %q is not 64 lower-case hex digits", p.SHA256)
	}
	return nil
}

// Find returns the package locked for a role.
func (l *Lock) Find(name string) (Package, error) {
	var have []string
	for _, p := range l.Packages {
		if p.Name == name {
			return p, nil
		}
		have = append(have, p.Name)
	}
	return Package{}, fmt.Errorf("lock holds no package %q, it holds %s", name, strings.Join(have, ", "))
}

// Marshal returns the lock file's bytes.
func (l *Lock) Marshal() []byte {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(b, '\n')
}
