// Package gobuild compiles Go programs for images: static, stripped, and the same bytes wherever and
// by whomever they are built with the same toolchain, and says which modules are in them.
package gobuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"

	"golang.org/x/mod/module"

	"github.com/racklet/racklet/artifact"
)

// A Program says what to compile.
type Program struct {
	Dir     string // of the module, "" is the working directory
	Module  Module // somebody else's module that holds the program; then Dir is not heeded
	Package string // such as "./firmware/bootstrap/init"
	GOOS    string
	GOARCH  string
	Tags    []string
	Set     map[string]string // string variables, by package path and name, to set at link time
	Version string            // of Racklet, for the bill of materials
}

// flags leave out whatever differs between machines: paths and version control.
var flags = []string{"-trimpath", "-buildvcs=false"}

// linking leaves out symbols and the build identity, which differ between machines too.
func (p Program) linking() string {
	flag := "-ldflags=-s -w -buildid="
	names := make([]string, 0, len(p.Set))
	for n := range p.Set {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		flag += fmt.Sprintf(" -X '%s=%s'", n, p.Set[n])
	}
	return flag
}

// Build compiles the program. The file's name is left for the caller to set, its mode is 0755.
func Build(ctx context.Context, p Program) (artifact.File, error) {
	origin := artifact.Own(p.Version)
	if p.Module != (Module{}) {
		dir, done, err := p.Module.unpack(ctx)
		if err != nil {
			return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
		}
		defer done()
		p.Dir = dir
		if origin, err = p.Module.origin(dir); err != nil {
			return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
		}
	}
	dir, err := os.MkdirTemp("", "racklet-build-")
	if err != nil {
		return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	args := append(append([]string{"build"}, flags...), p.linking())
	if len(p.Tags) > 0 {
		args = append(args, "-tags="+strings.Join(p.Tags, ","))
	}
	if _, err := p.run(ctx, append(args, "-o", out, p.Package)...); err != nil {
		return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
	}
	parts, err := p.parts(ctx, b)
	if err != nil {
		return artifact.File{}, fmt.Errorf("build %s: %w", p.Package, err)
	}
	return artifact.File{Mode: 0o755, Data: b, Origin: origin, Parts: parts}, nil
}

// run starts the go command in an environment where nothing of the user's changes the result.
func (p Program) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = p.Dir
	cmd.Env = append(cleanEnv(), "GOOS="+p.GOOS, "GOARCH="+p.GOARCH, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch k, _, _ := strings.Cut(kv, "="); k {
		case "GOOS", "GOARCH", "CGO_ENABLED", "GOWORK", "GOFLAGS", "GOEXPERIMENT", "GOARM64", "GOAMD64", "GODEBUG", "GOFIPS140":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// parts lists the modules that a binary says it is made of, and the standard library.
func (p Program) parts(ctx context.Context, b []byte) ([]artifact.Origin, error) {
	info, err := buildinfo.Read(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	env, err := p.run(ctx, "env", "GOMODCACHE", "GOROOT")
	if err != nil {
		return nil, err
	}
	cacheDir, root, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	std, err := licence(root)
	if err != nil {
		return nil, fmt.Errorf("standard library: %w", err)
	}
	version := strings.TrimPrefix(info.GoVersion, "go")
	out := []artifact.Origin{{Name: "go", Version: version, Source: "pkg:golang/std@" + version, Licence: std}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version == "" || m.Version == "(devel)" { // another module of ours, by its folder
			out = append(out, artifact.Own(p.Version))
			continue
		}
		esc, err := module.EscapePath(m.Path)
		if err != nil {
			return nil, err
		}
		ver, err := module.EscapeVersion(m.Version)
		if err != nil {
			return nil, err
		}
		l, err := licence(filepath.Join(cacheDir, filepath.FromSlash(esc)+"@"+ver))
		if err != nil {
			return nil, fmt.Errorf("module %s %s: %w", m.Path, m.Version, err)
		}
		out = append(out, artifact.Origin{Name: m.Path, Version: m.Version, Source: "pkg:golang/" + m.Path + "@" + m.Version, Licence: l})
	}
	return out, nil
}

// marks are phrases that tell licences apart, in lower case with single blanks.
var marks = []struct{ licence, phrase, without string }{
	{"Apache-2.0", "apache license version 2.0", ""},
	{"Apache-2.0", "licensed under the apache license, version 2.0", ""},
	{"MPL-2.0", "mozilla public license version 2.0", ""},
	{"MPL-2.0", "mozilla public license, version 2.0", ""},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy", ""},
	{"BSD-3-Clause", "neither the name of", ""},
	{"BSD-3-Clause", "the names of its contributors may not be used to endorse", ""},
	{"BSD-2-Clause", "redistributions in binary form must reproduce the above copyright notice", "neither the name of"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose", ""},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose", ""},
	{"CC0-1.0", "cc0 1.0 universal", ""},
	{"Unlicense", "this is free and unencumbered software released into the public domain", ""},
}

// licence reads a module's licence files and names what it recognises. A module whose licence it
// does not recognise must not get into an image unseen, so that is an error.
func licence(dir string) (string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("find licence: %w", err)
	}
	found := map[string]bool{}
	for _, e := range list {
		n := strings.ToUpper(e.Name())
		if e.IsDir() || !(strings.HasPrefix(n, "LICEN") || strings.HasPrefix(n, "COPYING")) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", fmt.Errorf("read licence: %w", err)
		}
		for _, l := range classify(string(b)) {
			found[l] = true
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no licence that this program recognises in %s", filepath.Base(dir))
	}
	var out []string
	for l := range found {
		out = append(out, l)
	}
	sort.Strings(out)
	return strings.Join(out, " AND "), nil
}

func classify(text string) []string {
	words := slices.DeleteFunc(strings.Fields(text), func(w string) bool { return w == ">" || w == "*" || w == "//" }) // marks of quotes and comments
	text = strings.ToLower(strings.Join(words, " "))
	var out []string
	for _, m := range marks {
		if strings.Contains(text, m.phrase) && (m.without == "" || !strings.Contains(text, m.without)) {
			out = append(out, m.licence)
		}
	}
	return out
}

// Key is a hash over everything that decides what Build returns for these programs: the toolchain,
// the flags, the locked versions of other modules (go.sum), and each of our own source and embedded
// files. It takes a fraction of a second.
func Key(ctx context.Context, programs ...Program) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %q\n", runtime.Version(), flags)
	type target struct{ dir, goos, goarch, tags, file string }
	groups := map[target][]string{}
	var order []target
	for _, p := range programs {
		fmt.Fprintln(h, p.linking())
		if p.Module != (Module{}) { // its hash stands for all that is in it, and for its go.sum
			fmt.Fprintf(h, "%v %s %s %s %q\n", p.Module, p.Package, p.GOOS, p.GOARCH, p.Tags)
			continue
		}
		t := target{dir: p.Dir, goos: p.GOOS, goarch: p.GOARCH, tags: strings.Join(p.Tags, ",")}
		if strings.HasSuffix(p.Package, ".go") { // the go command does not mix files and packages
			t.file = p.Package
		}
		if groups[t] == nil {
			order = append(order, t)
		}
		if !slices.Contains(groups[t], p.Package) {
			groups[t] = append(groups[t], p.Package)
		}
	}
	for _, t := range order {
		fmt.Fprintf(h, "%s %s %s %q\n", t.goos, t.goarch, t.tags, groups[t])
		p := Program{Dir: t.dir, GOOS: t.goos, GOARCH: t.goarch}
		args := []string{"list", "-deps", "-json=ImportPath,Dir,Module,GoFiles,EmbedFiles,SFiles"}
		if t.tags != "" {
			args = append(args, "-tags="+t.tags)
		}
		out, err := p.run(ctx, append(args, groups[t]...)...)
		if err != nil {
			return "", fmt.Errorf("list sources: %w", err)
		}
		if err := hashSources(h, out); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashSources(h interface{ Write([]byte) (int, error) }, list []byte) error {
	d := json.NewDecoder(bytes.NewReader(list))
	mods := map[string]bool{}
	for d.More() {
		var p struct {
			ImportPath, Dir string
			Module          *struct {
				Main    bool
				GoMod   string
				Replace *struct{ Version string }
			}
			GoFiles, EmbedFiles, SFiles []string
		}
		if err := d.Decode(&p); err != nil {
			return fmt.Errorf("list sources: %w", err)
		}
		ours := p.Module != nil && (p.Module.Main || p.Module.Replace != nil && p.Module.Replace.Version == "")
		if !ours {
			fmt.Fprintln(h, p.ImportPath)
			continue
		}
		files := append(append(p.GoFiles, p.EmbedFiles...), p.SFiles...)
		if !mods[p.Module.GoMod] {
			mods[p.Module.GoMod] = true
			for _, name := range []string{p.Module.GoMod, strings.TrimSuffix(p.Module.GoMod, ".mod") + ".sum"} {
				b, err := os.ReadFile(name)
				if err != nil && !os.IsNotExist(err) {
					return fmt.Errorf("hash sources: %w", err)
				}
				fmt.Fprintf(h, "%s %x\n", filepath.Base(name), sha256.Sum256(b))
			}
		}
		for _, name := range files {
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return fmt.Errorf("hash sources: %w", err)
			}
			fmt.Fprintf(h, "%s/%s %x\n", p.ImportPath, name, sha256.Sum256(b))
		}
	}
	return nil
}
