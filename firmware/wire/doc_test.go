package wire_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocument holds docs/wire.md against the code: its vectors are those of testdata, every vendor-defined
// command has its line and section, every vector of one is shown.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "wire.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile("(?s)```hex ([a-z-]+)\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		want, err := os.ReadFile(filepath.Join("testdata", "vectors", m[1]+".hex"))
		if err != nil || m[2] != string(want) {
			t.Errorf("vector %s is not that of testdata: %v", m[1], err)
		}
		shown[m[1]] = true
	}
	for _, name := range []string{"unit-state", "events", "fru-table", "rack-state", "policies", "desired", "report", "slots", "failure"} {
		if !shown[name] {
			t.Errorf("no vector %s", name)
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), "oem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			name, isCommand := strings.CutPrefix(v.Names[0].Name, "Cmd")
			if !isCommand {
				continue
			}
			commands++
			code := v.Values[0].(*ast.BasicLit).Value
			if !strings.Contains(doc, "| "+code+" | "+name+" ") {
				t.Errorf("command %s %s has no line in the table", code, name)
			}
			if !regexp.MustCompile(`(?m)^### .*` + code + " " + name + `\b`).MatchString(doc) {
				t.Errorf("command %s %s has no section", code, name)
			}
		}
	}
	if commands < 26 {
		t.Errorf("only %d commands found", commands)
	}
}
