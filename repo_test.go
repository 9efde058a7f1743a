// Package racklet holds no code of its own, only the rules of the repository
// as tests: which folder may import which, how packages are named and
// documented, what no file may contain. docs/architecture.md tells why.
package racklet

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/racklet/racklet"

// A layer says what a folder and everything below it may import. It may
// always import itself and the standard library.
type layer struct {
	may []string // our folders with all below them; "=x": package x alone; "*": all but the ends
	std bool     // nothing from other people (tests: only testLibraries)
}

var (
	// machine is what a state machine of the firmware sees of the world.
	machine = []string{"firmware/wire", "firmware/trust", "firmware/store", "=firmware/driver"}
	// system is what a component of layer 4 may use, its siblings not among it.
	system = []string{"rack", "reconcile", "source", "artifact", "firmware/wire", "firmware/trust"}
	// user is the same for layer 5: hardware is out of its reach.
	user = []string{"rack", "reconcile", "source", "artifact"}
)

// layers is the architecture. The longest folder that holds a package decides;
// a package that none holds is an error, so that a new component begins here.
var layers = map[string]layer{
	"rack":          {std: true},             // the nouns: everybody's, so nobody's dependencies
	"rack/manifest": {may: []string{"rack"}}, // YAML, kept away from the nouns
	"reconcile":     {std: true},             // one engine for any nouns
	"source":        {may: []string{"rack", "firmware/trust"}},
	"artifact":      {may: []string{"=rack", "firmware/trust"}},

	"structural": {may: []string{"rack"}},
	"electrical": {may: []string{"rack"}},

	// These must also build for a microcontroller.
	"firmware/wire":   {std: true},
	"firmware/trust":  {std: true},
	"firmware/driver": {std: true},                                    // interfaces; below it one folder per chip
	"firmware/store":  {may: []string{"=firmware/driver"}, std: true}, // journals in NOR flash
	"firmware/bmc":    {may: machine, std: true},
	"firmware/rmc":    {may: machine, std: true},
	"firmware/board":  {may: append([]string{"firmware/bmc", "firmware/rmc", "firmware/driver"}, machine...)},

	"firmware/conformance": {may: []string{"firmware/wire", "firmware/trust"}}, // sees a serial line, not an implementation
	"firmware/bootstrap":   {may: []string{"rack", "source", "artifact", "firmware/wire", "firmware/trust"}},

	"system/hypervisor": {may: system},
	"system/kubernetes": {may: system},
	"system/cni":        {may: append([]string{"system/enroll/api"}, system...)},
	"system/gitops":     {may: system},
	"system/redfish":    {may: system},
	"system/enroll":     {may: append([]string{"system/enroll/api"}, system...)},
	"system/enroll/api": {std: true}, // words, shared with those who read what an enrolled unit keeps

	"user/vm":        {may: user},
	"user/cluster":   {may: user},
	"user/dashboard": {may: user},

	"sim":   {may: []string{"*"}},
	"cmd":   {may: []string{"*", "sim"}},
	"e2e":   {may: []string{"*", "sim"}},
	"tools": {may: []string{"*"}},
}

// ends are the folders that "*" does not reach.
var ends = []string{"cmd", "e2e", "tools", "sim", "system/kubernetes"}

// testLibraries may be used by the tests of every package.
var testLibraries = []string{
	module + "/rack/racktest",
	"pgregory.net/rapid",
	"github.com/rogpeppe/go-internal/testscript",
	"github.com/rogpeppe/go-internal/txtar",
}

// refuse says why a package in folder from may not import path, or nil.
func refuse(from, path string, test bool) error {
	home := homeOf(from)
	l, ok := layers[home]
	to, ours := strings.CutPrefix(path, module+"/")
	switch {
	case !ok:
		return fmt.Errorf("%s belongs to no layer: give it a line in repo_test.go", from)
	case path == "C":
		return fmt.Errorf("no cgo in our own code")
	case test && slices.Contains(testLibraries, path):
		return nil
	case path == module:
		return fmt.Errorf("the root holds tests only")
	case ours && homeOf(to) != home && !slices.ContainsFunc(l.may, func(m string) bool { return reaches(m, to) }):
		return fmt.Errorf("%s may not import %s", home, to)
	case !ours && l.std && foreign(path):
		return fmt.Errorf("%s imports the standard library alone, not %s", home, path)
	case below(path, "k8s.io/kubernetes") && home != "system/kubernetes":
		return fmt.Errorf("%s is for system/kubernetes alone", path)
	}
	return nil
}

// foreign reports whether an import path is outside the standard library.
func foreign(path string) bool {
	host, _, _ := strings.Cut(path, "/")
	return strings.Contains(host, ".")
}

// reaches reports whether an entry of may covers the folder to.
func reaches(entry, to string) bool {
	if entry == "*" {
		return !slices.ContainsFunc(ends, func(end string) bool { return below(to, end) })
	}
	if alone, ok := strings.CutPrefix(entry, "="); ok {
		return to == alone
	}
	return below(to, entry)
}

// homeOf is the longest folder of layers that holds dir, or "".
func homeOf(dir string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := layers[dir]; ok {
			return dir
		}
	}
	return ""
}

func below(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// walk calls f for each file of the repository that is kept in it, by
// slash-separated name.
func walk(t *testing.T, f func(name string, d fs.DirEntry)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == ".racklet" || name == "bin"):
			return fs.SkipDir
		case name == ".git": // a file in a linked work tree
		case d.Type().IsRegular() || d.IsDir():
			f(name, d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A source is one parsed Go file.
type source struct {
	name, dir string
	test      bool
	data      []byte
	file      *ast.File
	fset      *token.FileSet
}

// sources are all Go files but those in testdata, whatever their build tags
// and whichever module they belong to.
func sources(t *testing.T) (all []source) {
	t.Helper()
	fset := token.NewFileSet()
	walk(t, func(name string, d fs.DirEntry) {
		if d.IsDir() || path.Ext(name) != ".go" || slices.Contains(strings.Split(name, "/"), "testdata") {
			return
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(fset, name, b, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		all = append(all, source{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), b, f, fset})
	})
	if len(all) < 50 {
		t.Fatalf("only %d Go files found", len(all))
	}
	return all
}

// TestImports keeps the layers apart, tests included.
func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.dir == "." {
			continue
		}
		for _, spec := range s.file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err == nil {
				err = refuse(s.dir, to, s.test)
			}
			if err != nil {
				t.Errorf("%s: %v", s.fset.Position(spec.Pos()), err)
			}
		}
	}
}

// TestImportRule tells the rule by examples.
func TestImportRule(t *testing.T) {
	const ours = module + "/"
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"rack", "time", true},
		{"rack", "go.yaml.in/yaml/v3", false},
		{"rack", ours + "rack/manifest", false},
		{"rack", ours + "reconcile", false},
		{"rack/example", ours + "rack", true},
		{"rack/manifest", ours + "rack", true},
		{"rack/manifest", "go.yaml.in/yaml/v3", true},
		{"rack/manifest", ours + "source", false},
		{"reconcile", ours + "rack", false},
		{"source", ours + "rack/manifest", true},
		{"source", ours + "firmware/trust", true},
		{"source", ours + "firmware/wire", false},
		{"source", ours + "artifact", false},
		{"artifact/oci", ours + "rack", true},
		{"artifact/oci", ours + "artifact", true},
		{"artifact/oci", ours + "rack/manifest", false},
		{"artifact/oci", ours + "source", false},
		{"structural/tray", ours + "rack", true},
		{"structural/tray", ours + "electrical", false},
		{"electrical/bmcboard", ours + "firmware/wire", false},
		{"firmware/wire", ours + "rack", false},
		{"firmware/wire", "golang.org/x/crypto/ssh", false},
		{"firmware/trust", "C", false},
		{"firmware/bmc", ours + "firmware/wire", true},
		{"firmware/bmc", ours + "firmware/driver", true},
		{"firmware/bmc", ours + "firmware/driver/ina228", false},
		{"firmware/bmc", ours + "firmware/store", true},
		{"firmware/bmc", ours + "rack", false},
		{"firmware/store", ours + "firmware/driver", true},
		{"firmware/store", ours + "firmware/wire", false},
		{"firmware/rmc", ours + "firmware/bmc", false},
		{"firmware/board/tray", ours + "firmware/driver/ina228", true},
		{"firmware/board/tray", ours + "system/redfish", false},
		{"firmware/conformance", ours + "firmware/wire", true},
		{"firmware/conformance", ours + "firmware/bmc", false},
		{"firmware/conformance", ours + "sim", false},
		{"firmware/bootstrap", ours + "source", true},
		{"firmware/bootstrap/init", ours + "firmware/bootstrap", true},
		{"firmware/bootstrap", "github.com/u-root/u-root/pkg/boot", true},
		{"firmware/bootstrap", ours + "firmware/bmc", false},
		{"firmware/bootstrap", ours + "system/hypervisor", false},
		{"system/hypervisor", ours + "firmware/wire", true},
		{"system/hypervisor", ours + "firmware/bootstrap", false},
		{"system/hypervisor", "k8s.io/kubernetes/cmd/kubelet/app", false},
		{"system/kubernetes", "k8s.io/kubernetes/cmd/kubelet/app", true},
		{"system/redfish", ours + "firmware/bmc", false},
		{"system/redfish", ours + "system/enroll", false},
		{"system/gitops", ours + "sim", false},
		{"system/new", ours + "rack", false},
		{"user/vm", ours + "artifact", true},
		{"user/vm", ours + "firmware/wire", false},
		{"user/vm", ours + "system/hypervisor", false},
		{"user/vm", ours + "user/cluster", false},
		{"user/vm", module, false},
		{"sim", ours + "firmware/bmc", true},
		{"sim/chip", ours + "sim/plant", true},
		{"sim", ours + "cmd/racklet", false},
		{"cmd/racklet", ours + "sim", true},
		{"cmd/racklet", ours + "system/redfish", true},
		{"cmd/racklet", ours + "system/kubernetes", false},
		{"e2e", ours + "sim", true},
		{"e2e", ours + "cmd/racklet", false},
		{"tools/schema", ours + "rack", true},
		{"tools/schema", ours + "sim", false},
	} {
		if err := refuse(c.from, c.to, false); (err == nil) != c.ok {
			t.Errorf("%s imports %s: %v, want allowed = %v", c.from, c.to, err, c.ok)
		}
	}
	if err := refuse("firmware/bmc", "pgregory.net/rapid", true); err != nil {
		t.Errorf("a test of firmware/bmc: %v", err)
	}
	if err := refuse("firmware/bmc", "pgregory.net/rapid", false); err == nil {
		t.Error("firmware/bmc itself may import a test library")
	}
}

// TestPackageComments asks each package to say what it is: one comment, in one
// of its files.
func TestPackageComments(t *testing.T) {
	packages := map[string][]*ast.File{} // by folder
	tests := map[string][]*ast.File{}
	for _, s := range sources(t) {
		to := packages
		if s.test {
			to = tests
		}
		to[s.dir] = append(to[s.dir], s.file)
	}
	for dir, files := range tests { // a folder of tests only, such as e2e
		if packages[dir] == nil {
			packages[dir] = files
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		var docs []string
		for _, f := range packages[dir] {
			if doc := strings.TrimSpace(f.Doc.Text()); doc != "" {
				docs = append(docs, doc)
			}
		}
		if wrong := commentFault(packages[dir][0].Name.Name, docs); wrong != "" {
			t.Errorf("%s: %s", dir, wrong)
		}
	}
}

// commentFault says what is wrong with the comments of a package, or "".
func commentFault(name string, docs []string) string {
	switch {
	case len(docs) == 0:
		return "package " + name + " has no comment"
	case len(docs) > 1:
		return fmt.Sprintf("package %s has %d comments, want one", name, len(docs))
	case name != "main" && !strings.HasPrefix(docs[0], "Package "+name+" "):
		return "the comment of package " + name + " does not begin with its name"
	case len(docs[0]) < 40:
		return "the comment of package " + name + " says too little"
	}
	return ""
}

func TestCommentFault(t *testing.T) {
	const good = "Package rack holds the nouns that all others share."
	for _, c := range []struct {
		name string
		docs []string
		ok   bool
	}{
		{"rack", []string{good}, true},
		{"main", []string{"Racklet runs and operates a rack, virtual or real."}, true},
		{"rack", nil, false},
		{"rack", []string{good, good}, false},
		{"racks", []string{good}, false},
		{"rack", []string{"Package rack is rack."}, false},
	} {
		if got := commentFault(c.name, c.docs); (got == "") != c.ok {
			t.Errorf("%s with %q: %q", c.name, c.docs, got)
		}
	}
}

// TestEveryPackageHasTests asks each package for a test of its own, but for
// commands, whose main is a few lines, and for packages that serve tests.
func TestEveryPackageHasTests(t *testing.T) {
	untested := map[string]bool{}
	tested := map[string]bool{}
	for _, s := range sources(t) {
		switch {
		case s.test:
			tested[s.dir] = true
		case s.file.Name.Name != "main" && !strings.HasSuffix(s.file.Name.Name, "test"):
			untested[s.dir] = true
		}
	}
	maps.DeleteFunc(untested, func(dir string, _ bool) bool { return tested[dir] })
	for _, dir := range slices.Sorted(maps.Keys(untested)) {
		t.Errorf("%s: a package without a test", dir)
	}
}

// emptyNames say nothing of what a package holds.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "lib", "pkg", "impl", "base"}

func TestPackageNames(t *testing.T) {
	for _, s := range sources(t) {
		if name := s.file.Name.Name; slices.Contains(emptyNames, name) || slices.Contains(emptyNames, path.Base(s.dir)) {
			t.Errorf("%s: package %s: name it for what it holds", s.name, name)
		}
	}
}

// TestFormat is gofmt.
func TestFormat(t *testing.T) {
	for _, s := range sources(t) {
		want, err := format.Source(s.data)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		} else if !bytes.Equal(s.data, want) {
			t.Errorf("%s: run gofmt -w", s.name)
		}
	}
}

// maxDepth bounds how deep folders may be nested: a reader finds things by ls.
const maxDepth = 4

func TestDepth(t *testing.T) {
	walk(t, func(name string, d fs.DirEntry) {
		outer, _, data := strings.Cut(name, "/testdata")
		if d.IsDir() && !data && strings.Count(outer, "/") >= maxDepth {
			t.Errorf("%s: deeper than %d folders", name, maxDepth)
		}
	})
}

// forbidden are texts that no file may hold, with the reason. They are put
// together here so that this file does not hold them itself.
var forbidden = map[string]string{
	"deb" + ".debian.org":        "mirrors come from a flag or from apt's configuration",
	"ftp" + ".debian.org":        "mirrors come from a flag or from apt's configuration",
	"security" + ".debian.org":   "mirrors come from a flag or from apt's configuration",
	"snapshot" + ".debian.org":   "mirrors come from a flag or from apt's configuration",
	"archive" + ".ubuntu.com":    "mirrors come from a flag or from apt's configuration",
	"ports" + ".ubuntu.com":      "mirrors come from a flag or from apt's configuration",
	"proxy" + ".golang.org":      "the go command knows its proxy",
	"registry" + ".npmjs.org":    "npm knows its registry",
	"pythonhosted" + ".org":      "pip knows its index",
	"/work" + "/main":            "a path of one machine",
	"/work" + "/shared":          "a path of one machine",
	"/tmp" + "/team":             "a path of one machine",
	"/root" + "/go/":             "a path of one machine",
	"BEGIN OPENSSH" + " PRIVATE": "keys are made by tests, never checked in",
	"BEGIN" + " PRIVATE KEY":     "keys are made by tests, never checked in",
}

func TestForbiddenTexts(t *testing.T) {
	walk(t, func(name string, d fs.DirEntry) {
		if d.IsDir() {
			return
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(b, []byte("\x7fELF")) || bytes.HasPrefix(b, []byte("\xcf\xfa\xed\xfe")) {
			return // what somebody built and left here
		}
		for _, f := range findForbidden(b) {
			t.Errorf("%s:%s", name, f)
		}
	})
}

// findForbidden lists the forbidden texts of a file with line and reason.
func findForbidden(b []byte) (found []string) {
	for text, why := range forbidden {
		if at := bytes.Index(b, []byte(text)); at >= 0 {
			found = append(found, fmt.Sprintf("%d: %q: %s", 1+bytes.Count(b[:at], []byte("\n")), text, why))
		}
	}
	return found
}

func TestFindForbidden(t *testing.T) {
	for text := range forbidden {
		if found := findForbidden([]byte("one\ntwo " + text + "/x\n")); len(found) != 1 || !strings.HasPrefix(found[0], "2: ") {
			t.Errorf("%s is found as %q", text, found)
		}
	}
	if found := findForbidden([]byte("https://mirror.example/debian and work/main")); found != nil {
		t.Errorf("nothing forbidden is found as %q", found)
	}
}

func TestReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if os.IsNotExist(err) {
		t.Skip("no README.md yet")
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n > 120 {
		t.Errorf("README.md has %d lines: at most 120, the rest belongs into docs", n)
	}
}

var (
	requireBlock = regexp.MustCompile(`(?ms)^require \((.*?)^\)`)
	requireLine  = regexp.MustCompile(`(?m)^(?:require)?\s+(\S+) v\S+$`)
)

// directDependencies are the modules that a go.mod requires without "// indirect".
func directDependencies(mod string) (all []string) {
	lines := requireBlock.ReplaceAllString(mod, "")
	for _, block := range requireBlock.FindAllStringSubmatch(mod, -1) {
		lines += block[1]
	}
	for _, m := range requireLine.FindAllStringSubmatch(lines, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestDependencies holds docs/dependencies.md against go.mod, both ways: each
// direct dependency has a line that says what it is for.
func TestDependencies(t *testing.T) {
	const doc = "docs/dependencies.md"
	b, err := os.ReadFile(doc)
	if os.IsNotExist(err) {
		t.Skip("no " + doc + " yet")
	}
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := directDependencies(string(mod))
	if len(direct) == 0 {
		t.Fatal("no dependency found in go.mod")
	}
	for _, d := range direct {
		if !regexp.MustCompile(`(?m)^.*` + regexp.QuoteMeta("`"+d+"`") + `.*[a-z].*$`).Match(b) {
			t.Errorf("%s has no line for `%s`", doc, d)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^[|*-]\\s*`([a-z0-9.-]+\\.[a-z]+/[^`\\s]+)`").FindAllStringSubmatch(string(b), -1) {
		if !slices.Contains(direct, m[1]) && strings.Contains(m[1], "/") {
			t.Errorf("%s has a line for %s, which go.mod does not require directly", doc, m[1])
		}
	}
}

func TestDirectDependencies(t *testing.T) {
	got := directDependencies("module x\n\ngo 1.26\n\nrequire a.example/one v1.0.0\nrequire (\n\tb.example/two/v2 v2.0.0-rc1\n\tc.example/three v0.0.1 // indirect\n)\nrequire (\n\td.example/four v1.2.3 // indirect\n)\n")
	if want := []string{"a.example/one", "b.example/two/v2"}; !slices.Equal(got, want) {
		t.Errorf("direct dependencies %v, want %v", got, want)
	}
}

// TestKubernetesModule keeps the many dependencies of Kubernetes in a module
// of their own.
func TestKubernetesModule(t *testing.T) {
	const dir = "system/kubernetes"
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		t.Skipf("no %s yet", dir)
	}
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("module "+module+"/"+dir+"\n")) {
		t.Errorf("%s/go.mod is not of module %s/%s", dir, module, dir)
	}
}
