package manifest

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/racklet/racklet/rack/schema"
)

// schemas compiles all schemas, by kind.
func schemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	all := map[string]*jsonschema.Schema{}
	for name, b := range schema.Files() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource(name, doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, err := c.Compile(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[s.Title] = s
	}
	return all
}

// judge validates the first document of a file by the schema of a kind.
func judge(t *testing.T, s *jsonschema.Schema, b []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return err
	}
	j, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// kindOf is the kind that the schema reference of a file's folder would name.
func kindOf(name string) string {
	switch {
	case strings.HasPrefix(name, "rack/units/"):
		return "ComputeUnit"
	case strings.HasPrefix(name, "rack/releases/"):
		return "Release"
	case strings.Contains(name, "thermal"):
		return "ThermalPolicy"
	case strings.Contains(name, "power"):
		return "PowerPolicy"
	}
	return "Rack"
}

// TestSchemaAgrees holds the published schemas against the decoder: what the
// decoder accepts the schema accepts, and what is wrong within one object
// alone the schema refuses as well, so that an editor shows it.
func TestSchemaAgrees(t *testing.T) {
	all := schemas(t)
	for name, file := range good(t) {
		if strings.HasPrefix(name, "rack/") {
			if err := judge(t, all[kindOf(name)], file.Data); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, name := range []string{
		"artifact-name", "curve-empty", "curve-long", "digest", "duty-out-of-range", "led-not-bool", "memory", "mirrors", "missing-fields",
		"missing-kind", "missing-spec", "missing-version", "misspelt-kind", "platform", "policy-field", "power-state", "power-state-bool",
		"quantities", "quantity-list", "quantity-negative", "rack-id", "rack-slots", "root-hash", "security-version", "slot-not-a-number",
		"slot-out-of-range", "slot-zero", "spec-not-an-object", "unknown-field", "unknown-top-field", "version-bad", "version-unquoted", "wrong-kind", "wrong-version",
	} {
		a, err := txtar.ParseFile(filepath.Join("testdata", "refused", name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if err := judge(t, all[kindOf(f.Name)], f.Data); err == nil {
				t.Errorf("%s: the schema accepts %s", name, f.Name)
			}
		}
	}
}
