package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ulikunitz/xz"
)

// Our own limits on what an archive may make us read.
const (
	maxRelease  = 4 << 20
	maxPackages = 512 << 20
)

// ErrSignature says that no key of the keyring signed an InRelease file.
var ErrSignature = errors.New("InRelease is not signed by the keyring")

// An Archive reads the indexes of Debian suites, each verified back to the archive's keyring.
type Archive struct {
	Mirrors Mirrors
	Keyring openpgp.EntityList
	Client  *http.Client     // nil: NewClient()
	Now     func() time.Time // nil: time.Now; Valid-Until is checked against it
}

// Keyring reads OpenPGP public keys, binary or armoured, from files, or from the places where Debian
// keeps its archive keys when no file is named.
func Keyring(files ...string) (openpgp.EntityList, error) {
	named := len(files) > 0
	if !named {
		for _, g := range []string{"/usr/share/keyrings/debian-archive-*.gpg", "/usr/share/keyrings/debian-archive-*.pgp",
			"/etc/apt/trusted.gpg.d/debian-archive-*.gpg", "/etc/apt/trusted.gpg.d/debian-archive-*.asc"} {
			m, _ := filepath.Glob(g)
			files = append(files, m...)
		}
	}
	var ring openpgp.EntityList
	for _, name := range files {
		if strings.Contains(filepath.Base(name), "-removed-") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
		el, err := openpgp.ReadKeyRing(bytes.NewReader(b))
		if err != nil {
			el, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
		}
		if err != nil {
			if named {
				return nil, fmt.Errorf("read keyring %s: %w", name, err)
			}
			continue
		}
		ring = append(ring, el...)
	}
	if len(ring) == 0 {
		return nil, errors.New("no Debian archive keyring found: install the package debian-archive-keyring or name a file with --keyring")
	}
	return ring, nil
}

// Release reads a suite's InRelease, verifies its signature, and returns its fields.
func (a *Archive) Release(ctx context.Context, mirror, suite string) (map[string]string, error) {
	b, err := a.get(ctx, mirror+"/dists/"+suite+"/InRelease", maxRelease)
	if err != nil {
		return nil, err
	}
	text, err := VerifyInRelease(b, a.Keyring)
	if err != nil {
		return nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, err)
	}
	st := parseStanzas(string(text))
	if len(st) != 1 {
		return nil, fmt.Errorf("suite %s of %s: InRelease has %d paragraphs", suite, mirror, len(st))
	}
	r := st[0]
	if r["Suite"] != suite && r["Codename"] != suite {
		return nil, fmt.Errorf("suite %s of %s: InRelease is that of %s (%s)", suite, mirror, r["Codename"], r["Suite"])
	}
	if v := r["Valid-Until"]; v != "" {
		t, err := parseDate(v)
		if err != nil {
			return nil, fmt.Errorf("suite %s of %s: Valid-Until: %w", suite, mirror, err)
		}
		now := time.Now
		if a.Now != nil {
			now = a.Now
		}
		if now().After(t) {
			return nil, fmt.Errorf("suite %s of %s: InRelease expired at %s: the mirror is stale, or this machine's clock is wrong", suite, mirror, v)
		}
	}
	return r, nil
}

// parseDate reads a date of an InRelease file, which is in UTC (Debian Wiki, DebianRepository/Format, "Date, Valid-Until").
func parseDate(v string) (time.Time, error) {
	t, err := time.Parse("Mon, 02 Jan 2006 15:04:05 MST", v)
	return t.UTC(), err
}

// VerifyInRelease returns the text of a clear-signed file (RFC 9580, section 7) when a key of the
// ring signed it. Nothing may stand before or after the signed message.
func VerifyInRelease(b []byte, ring openpgp.EntityList) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, fmt.Errorf("%w: no signed message", ErrSignature)
	}
	block, rest := clearsign.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: malformed message", ErrSignature)
	}
	if _, err := openpgp.CheckDetachedSignature(ring, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, nil); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSignature, err)
	}
	return block.Plaintext, nil
}

// Index returns the packages of one suite and architecture, from the first mirror that serves them intact.
func (a *Archive) Index(ctx context.Context, suite, arch string) ([]map[string]string, error) {
	idx, _, err := a.indexSince(ctx, suite, arch, time.Time{})
	return idx, err
}

// indexSince refuses what is older than since, and returns the date of the index.
func (a *Archive) indexSince(ctx context.Context, suite, arch string, since time.Time) ([]map[string]string, time.Time, error) {
	mirrors := a.Mirrors.For(suite)
	if len(mirrors) == 0 {
		return nil, time.Time{}, ErrNoMirror
	}
	var failures []error
	for _, m := range mirrors {
		idx, date, err := a.index(ctx, m, suite, arch, since)
		if err == nil {
			return idx, date, nil
		}
		failures = append(failures, err)
	}
	return nil, time.Time{}, fmt.Errorf("read index of suite %s: %w", suite, errors.Join(failures...))
}

func (a *Archive) index(ctx context.Context, mirror, suite, arch string, since time.Time) (out []map[string]string, date time.Time, err error) {
	r, err := a.Release(ctx, mirror, suite)
	if err != nil {
		return nil, date, err
	}
	if v := r["Date"]; v != "" {
		if date, err = parseDate(v); err != nil {
			return nil, date, fmt.Errorf("suite %s of %s: Date: %w", suite, mirror, err)
		}
	}
	if date.Before(since) {
		return nil, date, fmt.Errorf("suite %s of %s: InRelease is of %s, the lock was made from that of %s: the mirror is stale, or holds back updates",
			suite, mirror, date.Format(time.RFC3339), since.Format(time.RFC3339))
	}
	hashes, err := parseHashes(r["SHA256"])
	if err != nil {
		return nil, date, err
	}
	name := "main/binary-" + arch + "/Packages.xz"
	h, ok := hashes[name]
	if !ok {
		return nil, date, fmt.Errorf("suite %s of %s lists no %s", suite, mirror, name)
	}
	// By hash where the mirror offers it: an update between our two reads then does no harm.
	url := mirror + "/dists/" + suite + "/" + name
	if strings.EqualFold(r["Acquire-By-Hash"], "yes") {
		url = mirror + "/dists/" + suite + "/main/binary-" + arch + "/by-hash/SHA256/" + h.sha256
	}
	b, err := a.get(ctx, url, h.size)
	if err != nil {
		return nil, date, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != h.sha256 || int64(len(b)) != h.size {
		return nil, date, fmt.Errorf("%s: hash differs from what InRelease says", url)
	}
	x, err := xz.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, date, fmt.Errorf("%s: %w", url, err)
	}
	text, err := io.ReadAll(io.LimitReader(x, maxPackages))
	if err != nil {
		return nil, date, fmt.Errorf("%s: %w", url, err)
	}
	for _, s := range parseStanzas(string(text)) {
		out = append(out, s)
	}
	return out, date, nil
}

func (a *Archive) get(ctx context.Context, url string, limit int64) ([]byte, error) {
	if a.Client == nil {
		a.Client = NewClient()
	}
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	res, err := a.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("get %s: longer than %d bytes", url, limit)
	}
	return b, nil
}

// Resolve answers the requests of a lock: for each the newest package that matches in any of its
// suites. The returned lock has the same requests; its packages are in the requests' order. Signatures
// do not age, and not every suite says until when it is valid: an index that is older than the one that
// l was made from is refused, so that nobody takes updates back.
func (a *Archive) Resolve(ctx context.Context, l *Lock) (*Lock, error) {
	out := &Lock{Format: lockFormat, Architecture: l.Architecture, Dates: map[string]time.Time{}, Requests: l.Requests}
	indexes := map[string][]map[string]string{}
	for _, r := range l.Requests {
		var found []Package
		for _, suite := range r.Suites {
			idx, ok := indexes[suite]
			if !ok {
				var date time.Time
				var err error
				if idx, date, err = a.indexSince(ctx, suite, l.Architecture, l.Dates[suite]); err != nil {
					return nil, err
				}
				if !date.IsZero() {
					out.Dates[suite] = date
				}
				indexes[suite] = idx
			}
			for _, s := range idx {
				if ok, err := path.Match(r.Package, s["Package"]); err != nil {
					return nil, fmt.Errorf("request %q: %w", r.Name, err)
				} else if ok {
					p, err := lockable(s, r.Name, suite)
					if err != nil {
						return nil, fmt.Errorf("request %q: package %s: %w", r.Name, s["Package"], err)
					}
					found = append(found, p)
				}
			}
		}
		sort.SliceStable(found, func(i, j int) bool { return CompareVersions(found[i].Version, found[j].Version) > 0 })
		best := -1
		for i, p := range found {
			other, err := out.Find(r.DiffersFrom)
			if r.DiffersFrom != "" && err != nil {
				return nil, fmt.Errorf("request %q: differsFrom: %w", r.Name, err)
			}
			if r.DiffersFrom == "" || p.Package != other.Package {
				best = i
				break
			}
		}
		if best < 0 {
			return nil, fmt.Errorf("request %q: no package matches %s in %s", r.Name, r.Package, strings.Join(r.Suites, ", "))
		}
		out.Packages = append(out.Packages, found[best])
	}
	return out, nil
}

func lockable(s map[string]string, name, suite string) (Package, error) {
	size, err := strconv.ParseInt(s["Size"], 10, 64)
	if err != nil {
		return Package{}, fmt.Errorf("size: %w", err)
	}
	p := Package{Name: name, Package: s["Package"], Version: s["Version"], Suite: suite, Path: s["Filename"], Size: size, SHA256: s["SHA256"]}
	return p, p.check()
}
