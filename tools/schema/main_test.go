package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack"
)

var update = flag.Bool("update", false, "write the files anew")

const (
	source = "../../rack"
	dir    = "../../rack/schema"
)

// TestFresh generates again and compares with what is checked in.
func TestFresh(t *testing.T) {
	if *update {
		if err := run(os.Stderr, []string{"-out", dir}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := generate(source)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say: run go run ./tools/schema", name)
		}
	}
	there, err := filepath.Glob(dir + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(files) {
		t.Errorf("%d schemas are checked in, %d are generated", len(there), len(files))
	}
}

// TestDescriptions walks every field of every kind.
func TestDescriptions(t *testing.T) {
	comments, err := readComments(source)
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	var walk func(path string, s *schema)
	walk = func(path string, s *schema) {
		if s.Properties == nil {
			return
		}
		for _, p := range *s.Properties {
			fields++
			if len(p.Description) < 10 || !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s.%s: description %q is not a sentence", path, p.name, p.Description)
			}
			walk(path+"."+p.name, &p.schema)
			if p.Items != nil {
				walk(path+"."+p.name, p.Items)
			}
		}
	}
	for _, k := range kinds {
		g := generator{comments: comments, kind: k.name}
		s := g.of(k.t, "", comments[k.name])
		if g.err != nil {
			t.Fatal(g.err)
		}
		walk(k.name, &s)
	}
	if fields < 60 {
		t.Errorf("only %d fields were looked at", fields)
	}
}

// TestNoComment shows that a field without a comment is noticed.
func TestNoComment(t *testing.T) {
	comments, err := readComments(source)
	if err != nil {
		t.Fatal(err)
	}
	delete(comments, "CurvePoint.Duty")
	g := generator{comments: comments}
	g.of(reflect.TypeFor[rack.ThermalPolicy](), "", "")
	if g.err == nil || !strings.Contains(g.err.Error(), "CurvePoint.Duty") {
		t.Errorf("error %v, want one that names CurvePoint.Duty", g.err)
	}
}
