package deb

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

// Closure returns the packages that roots need to run, themselves included, without those that are
// installed already. It takes of each dependency the first alternative that is installed or to be
// had, in its newest version; it does not compare version constraints, which hold within a suite.
// The packages are named after themselves, sorted.
func Closure(indexes map[string][]map[string]string, installed map[string]bool, roots ...string) ([]Package, error) {
	type candidate struct {
		stanza map[string]string
		suite  string
	}
	best := map[string]candidate{}
	provides := map[string]string{} // virtual package to a provider
	suites := make([]string, 0, len(indexes))
	for s := range indexes {
		suites = append(suites, s)
	}
	sort.Strings(suites)
	for _, suite := range suites {
		for _, s := range indexes[suite] {
			name := s["Package"]
			if old, ok := best[name]; !ok || CompareVersions(s["Version"], old.stanza["Version"]) > 0 {
				best[name] = candidate{s, suite}
			}
			for _, p := range relations(s["Provides"]) {
				if old, ok := provides[p[0]]; !ok || name < old {
					provides[p[0]] = name
				}
			}
		}
	}
	have := map[string]bool{}
	var out []Package
	var visit func(name, why string) error
	visit = func(name, why string) error {
		if have[name] || installed[name] {
			return nil
		}
		c, ok := best[name]
		if !ok {
			if p := provides[name]; p != "" {
				return visit(p, why)
			}
			return fmt.Errorf("no package %q, needed by %s", name, why)
		}
		have[name] = true
		p, err := lockable(c.stanza, name, c.suite)
		if err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		out = append(out, p)
		for _, alternatives := range append(relations(c.stanza["Pre-Depends"]), relations(c.stanza["Depends"])...) {
			pick := ""
			for _, a := range alternatives {
				if _, ok := best[a]; installed[a] || have[a] {
					pick = a
					break
				} else if pick == "" && (ok || provides[a] != "") {
					pick = a
				}
			}
			if pick == "" {
				return fmt.Errorf("package %s needs %s, which is not to be had", name, strings.Join(alternatives, " or "))
			}
			if err := visit(pick, name); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range roots {
		if err := visit(r, "the caller"); err != nil {
			return nil, fmt.Errorf("resolve dependencies: %w", err)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// relations reads a dependency field: a list of alternatives, names only (Debian policy, 7.1).
func relations(field string) [][]string {
	var out [][]string
	for _, group := range strings.Split(field, ",") {
		var names []string
		for _, a := range strings.Split(group, "|") {
			name, _, _ := strings.Cut(strings.TrimSpace(a), " ")
			name, _, _ = strings.Cut(name, "(")
			name, _, _ = strings.Cut(name, ":")
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			out = append(out, names)
		}
	}
	return out
}

// Installed reads which packages are installed from dpkg's status file ("/var/lib/dpkg/status"),
// with the virtual packages that they provide. A machine without dpkg has none.
func Installed(status string) map[string]bool {
	out := map[string]bool{}
	b, err := os.ReadFile(status)
	if err != nil {
		return out
	}
	for _, s := range parseStanzas(string(b)) {
		if !strings.HasSuffix(s["Status"], " installed") {
			continue
		}
		out[s["Package"]] = true
		for _, p := range relations(s["Provides"]) {
			out[p[0]] = true
		}
	}
	return out
}
