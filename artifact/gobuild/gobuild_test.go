package gobuild

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"

	"github.com/racklet/racklet/artifact/cache"
)

// write makes a module with one program.
func write(t *testing.T, dir, source string) string {
	t.Helper()
	for name, text := range map[string]string{"go.mod": "module example.test/m\n\ngo 1.26\n", "main.go": source} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const hello = "package main\n\nfunc main() { println(\"hello\") }\n"

// TestBuildRepeats builds the same source in two directories, of which one would show in the result
// if anything of the machine did.
func TestBuildRepeats(t *testing.T) {
	var out [][]byte
	for _, dir := range []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "elsewhere", "deeper")} {
		t.Setenv("GOFLAGS", "-ldflags=-X=main.dir="+dir)
		f, err := Build(t.Context(), Program{Dir: write(t, dir, hello), Package: ".", GOOS: "linux", GOARCH: "arm64", Version: "1"})
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(f.Data, []byte(dir)) {
			t.Errorf("the program contains %s", dir)
		}
		if len(f.Parts) == 0 || f.Parts[0].Name != "go" || f.Parts[0].Licence != "BSD-3-Clause" {
			t.Errorf("parts %+v", f.Parts)
		}
		out = append(out, f.Data)
	}
	if !bytes.Equal(out[0], out[1]) {
		t.Error("the same source in another directory gives another program")
	}
	if _, err := Build(t.Context(), Program{Dir: write(t, t.TempDir(), "package main\n\nfunc main() { undefined() }\n"), Package: ".", GOOS: "linux", GOARCH: "arm64"}); err == nil || !strings.Contains(err.Error(), "undefined") {
		t.Errorf("a program that does not compile: %v", err)
	}
}

func TestKey(t *testing.T) {
	dir := write(t, t.TempDir(), hello)
	key := func() string {
		t.Helper()
		k, err := Key(t.Context(), Program{Dir: dir, Package: ".", GOOS: "linux", GOARCH: "arm64"})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key()
	if key() != first {
		t.Error("the key changes by itself")
	}
	os.WriteFile(filepath.Join(dir, "README"), []byte("x"), 0o644)
	if key() != first {
		t.Error("a file that is not compiled changes the key")
	}
	os.WriteFile(filepath.Join(dir, "main.go"), []byte(strings.Replace(hello, "hello", "hullo", 1)), 0o644)
	second := key()
	if second == first {
		t.Error("a changed source does not change the key")
	}
	os.WriteFile(filepath.Join(dir, "go.sum"), []byte("x v1 h1:abc=\n"), 0o644)
	if key() == second {
		t.Error("a changed go.sum does not change the key")
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Apache License\n   Version 2.0, January 2004", "Apache-2.0"},
		{"Permission is hereby granted, free of charge, to any person obtaining a copy\nof this", "MIT"},
		{"Redistributions in binary form must reproduce the above copyright notice. Neither the name of Google", "BSD-3-Clause"},
		{"Redistributions in binary form must reproduce\n the above copyright notice.", "BSD-2-Clause"},
		{"Mozilla Public License Version 2.0", "MPL-2.0"},
		{"> Redistributions in binary form must reproduce\n> the above copyright notice.", "BSD-2-Clause"},
		{"All rights reserved.", ""},
		{"GNU GENERAL PUBLIC LICENSE", ""},
	} {
		if got := strings.Join(classify(tt.text), " "); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.text, got, tt.want)
		}
	}
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("All rights reserved."), 0o644)
	if _, err := licence(dir); err == nil {
		t.Error("an unknown licence is accepted")
	}
}

// proxy serves one module from a folder, as the go command takes it (go.dev/ref/mod, "GOPROXY protocol"), and
// returns the module's hash.
func proxy(t *testing.T, path, version string, files map[string]string) string {
	t.Helper()
	src, dir := t.TempDir(), t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(dir, filepath.FromSlash(path), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	if err := zip.CreateFromDir(&z, module.Version{Path: path, Version: version}, src); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{".zip": z.Bytes(), ".mod": []byte(files["go.mod"]), ".info": []byte(`{"Version":"` + version + `"}`)} {
		if err := os.WriteFile(filepath.Join(at, version+name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := dirhash.HashZip(filepath.Join(at, version+".zip"), dirhash.Hash1)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOPROXY", "file://"+filepath.ToSlash(dir))
	t.Setenv("GONOSUMDB", path)
	t.Setenv("GOMODCACHE", filepath.Join(dir, "cache"))
	t.Cleanup(func() { // the go command leaves directories that cannot be written to
		filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(name, 0o755)
			}
			return nil
		})
	})
	return sum
}

// TestModule builds somebody else's program, only with the hash that is locked, and the second time from the cache.
func TestModule(t *testing.T) {
	sum := proxy(t, "example.test/other", "v1.2.3", map[string]string{
		"go.mod": "module example.test/other\n\ngo 1.26\n", "LICENSE": "Permission is hereby granted, free of charge, to any person obtaining a copy",
		"main.go": "package main\n\nvar version = \"none\"\n\nfunc main() { println(version) }\n",
	})
	p := Program{Module: Module{"example.test/other", "v1.2.3", sum}, Package: ".", GOOS: "linux", GOARCH: "arm64", Version: "9", Set: map[string]string{"main.version": "marked version"}}
	c := cache.Cache{Dir: t.TempDir()}
	f, err := Cached(t.Context(), c, p)
	if err != nil {
		t.Fatal(err)
	}
	if f.Origin.Name != "example.test/other" || f.Origin.Licence != "MIT" || !bytes.Contains(f.Data, []byte("marked version")) {
		t.Errorf("origin %+v", f.Origin)
	}
	bad := p
	bad.Module.Sum = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if _, err := Cached(t.Context(), c, bad); err == nil || !strings.Contains(err.Error(), "locked is h1:AAAA") {
		t.Errorf("a module with another hash: %v", err)
	}
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOMODCACHE", filepath.Join(t.TempDir(), "empty"))
	again, err := Cached(t.Context(), c, p)
	if err != nil || !bytes.Equal(again.Data, f.Data) || again.Origin != f.Origin || len(again.Parts) != len(f.Parts) {
		t.Errorf("from the cache: %v, %+v", err, again.Origin)
	}
	for name, change := range map[string]func(*Program){
		"tags": func(p *Program) { p.Tags = []string{"x"} }, "variable": func(p *Program) { p.Set = map[string]string{"main.version": "y"} },
		"platform": func(p *Program) { p.GOARCH = "amd64" }, "module": func(p *Program) { p.Module.Version = "v1.2.4" },
	} {
		other := p
		change(&other)
		a, _ := Key(t.Context(), p)
		if b, err := Key(t.Context(), other); err != nil || a == b {
			t.Errorf("%s: the same key (%v)", name, err)
		}
	}
}
