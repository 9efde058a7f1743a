package deb

import (
	"fmt"
	"strings"
)

// A stanza is one paragraph of a control file: field names to values (deb822(5)).
type stanza map[string]string

// parseStanzas splits a control file into paragraphs. Continuation lines are joined by newlines.
// It accepts anything; what is missing shows at the reader's.
func parseStanzas(text string) []stanza {
	var all []stanza
	cur, last := stanza{}, ""
	flush := func() {
		if len(cur) > 0 {
			all = append(all, cur)
		}
		cur, last = stanza{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				cur[last] += "\n" + strings.TrimSpace(line)
			}
		default:
			k, v, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			last = k
			cur[last] = strings.TrimSpace(v)
		}
	}
	flush()
	return all
}

// CompareVersions orders two Debian versions by the rules of deb-version(7): negative when a is older.
func CompareVersions(a, b string) int {
	ea, ua, ra := splitVersion(a)
	eb, ub, rb := splitVersion(b)
	if c := compareDigits(ea, eb); c != 0 {
		return c
	}
	if c := compareRun(ua, ub); c != 0 {
		return c
	}
	return compareRun(ra, rb)
}

// splitVersion cuts [epoch:]upstream[-revision].
func splitVersion(v string) (epoch, upstream, revision string) {
	if i := strings.IndexByte(v, ':'); i >= 0 {
		epoch, v = v[:i], v[i+1:]
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// compareRun compares alternating runs of non-digits and digits.
func compareRun(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a = cutRun(a, false)
		y, b = cutRun(b, false)
		if c := compareText(x, y); c != 0 {
			return c
		}
		x, a = cutRun(a, true)
		y, b = cutRun(b, true)
		if c := compareDigits(x, y); c != 0 {
			return c
		}
	}
	return 0
}

func cutRun(s string, digits bool) (run, rest string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9') == digits {
		i++
	}
	return s[:i], s[i:]
}

// compareText orders tilde before the end, the end before letters, letters before the rest.
func compareText(a, b string) int {
	order := func(s string, i int) int {
		switch {
		case i >= len(s):
			return 0
		case s[i] == '~':
			return -1
		case s[i] >= 'A' && s[i] <= 'Z' || s[i] >= 'a' && s[i] <= 'z':
			return int(s[i])
		default:
			return int(s[i]) + 256
		}
	}
	for i := 0; i < len(a) || i < len(b); i++ {
		if c := order(a, i) - order(b, i); c != 0 {
			return c
		}
	}
	return 0
}

func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// parseHashes reads the SHA256 field of a Release file: lines of hash, size, path.
func parseHashes(field string) (map[string]hashed, error) {
	m := map[string]hashed{}
	for line := range strings.Lines(field) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var h hashed
		if len(f) != 3 || len(f[0]) != 64 {
			return nil, fmt.Errorf("SHA256 line %q is not hash, size, path", strings.TrimSpace(line))
		}
		if _, err := fmt.Sscanf(f[1], "%d", &h.size); err != nil {
			return nil, fmt.Errorf("SHA256 line %q: size: %w", strings.TrimSpace(line), err)
		}
		h.sha256 = f[0]
		m[f[2]] = h
	}
	return m, nil
}

type hashed struct {
	sha256 string
	size   int64
}
