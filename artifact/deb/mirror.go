package deb

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// Mirrors are base addresses, in the order in which they are tried. Debian keeps security updates
// in an archive of their own, hence two lists.
type Mirrors struct {
	Archive  []string // hold dists/trixie, dists/trixie-updates, …
	Security []string // hold dists/trixie-security
}

// For returns the mirrors that carry a suite.
func (m Mirrors) For(suite string) []string {
	if isSecurity(suite) {
		return m.Security
	}
	return m.Archive
}

// Empty reports whether no mirror at all is known.
func (m Mirrors) Empty() bool { return len(m.Archive)+len(m.Security) == 0 }

// Then returns m with another's mirrors to fall back to.
func (m Mirrors) Then(o Mirrors) Mirrors {
	return Mirrors{Archive: union(m.Archive, o.Archive), Security: union(m.Security, o.Security)}
}

// NamedMirrors turns the addresses that a user gave into mirrors. By Debian's convention the
// security archive lies beside the archive: BASE and BASE-security.
func NamedMirrors(bases ...string) (Mirrors, error) {
	var m Mirrors
	for _, b := range bases {
		b = strings.TrimSuffix(strings.TrimSpace(b), "/")
		if b == "" {
			continue
		}
		u, err := url.Parse(b)
		if err != nil || !supported(u.Scheme) || (u.Host == "" && u.Scheme != "file") {
			return m, fmt.Errorf("mirror %q: want http://HOST/PATH, https://HOST/PATH or file:///PATH", b)
		}
		if base, ok := strings.CutSuffix(b, "-security"); ok {
			m.Security, m.Archive = union(m.Security, []string{b}), union(m.Archive, []string{base})
			continue
		}
		m.Archive, m.Security = union(m.Archive, []string{b}), union(m.Security, []string{b + "-security"})
	}
	return m, nil
}

// AptMirrors reads the mirrors that this machine's apt uses for Debian, below etc ("/etc/apt"):
// sources.list and sources.list.d, in the one-line and the deb822 form (sources.list(5)).
// A machine without apt has none; that is no error.
func AptMirrors(etc string) Mirrors {
	var m Mirrors
	files, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	sort.Strings(files)
	for _, name := range append([]string{filepath.Join(etc, "sources.list")}, files...) {
		b, err := os.ReadFile(name)
		if err != nil || len(b) > maxLockBytes {
			continue
		}
		switch filepath.Ext(name) {
		case ".list":
			m = m.Then(parseOneLine(string(b)))
		case ".sources":
			m = m.Then(parseSources(string(b)))
		}
	}
	// A machine that has only one of the two archives configured most likely reaches the other beside it.
	if named, err := NamedMirrors(append(m.Archive, m.Security...)...); err == nil {
		m = m.Then(named)
	}
	return m
}

// parseOneLine reads lines "deb [option=value …] URI SUITE COMPONENT…".
func parseOneLine(text string) Mirrors {
	var m Mirrors
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "deb" {
			continue
		}
		f = f[1:]
		if strings.HasPrefix(f[0], "[") {
			for len(f) > 0 && !strings.HasSuffix(f[0], "]") {
				f = f[1:]
			}
			if len(f) > 0 {
				f = f[1:]
			}
		}
		if len(f) >= 2 {
			m.add(f[0], f[1])
		}
	}
	return m
}

// parseSources reads deb822 stanzas (sources.list(5), "DEB822-STYLE FORMAT").
func parseSources(text string) Mirrors {
	var m Mirrors
	for _, s := range parseStanzas(text) {
		if !contains(strings.Fields(s["Types"]), "deb") || strings.EqualFold(s["Enabled"], "no") {
			continue
		}
		for _, uri := range strings.Fields(s["URIs"]) {
			for _, suite := range strings.Fields(s["Suites"]) {
				m.add(uri, suite)
			}
		}
	}
	return m
}

// debian lists the names that Debian's own suites start with; other vendors' archives in apt's
// configuration do not carry Debian's packages.
var debian = []string{"stable", "oldstable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky", "duke"}

func (m *Mirrors) add(uri, suite string) {
	u, err := url.Parse(uri)
	if err != nil || !supported(u.Scheme) {
		return
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(suite, "/updates"), "-")
	if !contains(debian, name) {
		return
	}
	base := strings.TrimSuffix(uri, "/")
	if isSecurity(suite) {
		m.Security = union(m.Security, []string{base})
	} else {
		m.Archive = union(m.Archive, []string{base})
	}
}

func supported(scheme string) bool { return scheme == "http" || scheme == "https" || scheme == "file" }

func isSecurity(suite string) bool {
	return strings.HasSuffix(suite, "-security") || strings.HasSuffix(suite, "/updates")
}

// AptProxy asks apt-config for the proxy of plain HTTP, or returns "".
func AptProxy() string {
	out, err := exec.Command("apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy").Output()
	if err != nil {
		return ""
	}
	p := strings.TrimSpace(string(out))
	if p == "DIRECT" || strings.ContainsAny(p, "\n") {
		return ""
	}
	return p
}

func union(a, b []string) []string {
	out := append([]string(nil), a...)
	for _, s := range b {
		if !contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
