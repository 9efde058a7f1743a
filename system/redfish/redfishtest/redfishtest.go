// Package redfishtest holds a Redfish service against the standard, in tests: it walks all that can be reached from the
// service root, and validates it against the JSON Schemas of the Redfish publications (DSP8010), where they are at hand,
// and against the service's own schemas of what stands under Oem.
//
// The schemas are not part of the repository: they are looked for in REDFISH_SCHEMAS and, without it, in
// ../shared/redfish-schemas beside the repository.
package redfishtest

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Get reads a URI of the service.
type Get func(uri string) (status int, body []byte)

var reference = regexp.MustCompile(`"@odata\.id":\s*"([^"]+)"`)

// Walk reads everything that is reachable from the service root by references. A reference that leads nowhere fails the test.
func Walk(t testing.TB, get Get) map[string][]byte {
	t.Helper()
	seen := map[string][]byte{}
	queue := []string{"/redfish/v1"}
	for len(queue) > 0 {
		uri := queue[0]
		queue = queue[1:]
		if seen[uri] != nil {
			continue
		}
		status, b := get(uri)
		if status != 200 {
			t.Errorf("GET %s: %d %s", uri, status, b)
		}
		seen[uri] = b
		for _, m := range reference.FindAllSubmatch(b, -1) {
			queue = append(queue, string(m[1]))
		}
	}
	return seen
}

// Schemas validates resources.
type Schemas struct {
	dir      string
	get      Get
	missing  map[string]map[string]any // file: its definitions
	compiler *jsonschema.Compiler
	done     map[string]*jsonschema.Schema
}

// Find looks for the schemas, and skips the test where there are none; where the environment has CI, it fails then. Get
// reads the service's own schemas.
func Find(t testing.TB, get Get) *Schemas {
	t.Helper()
	dir := os.Getenv("REDFISH_SCHEMAS")
	if dir == "" {
		at, err := os.Getwd()
		for ; err == nil && at != filepath.Dir(at); at = filepath.Dir(at) {
			if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
				dir = filepath.Join(at, "..", "shared", "redfish-schemas")
				break
			}
		}
	}
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no schemas: set REDFISH_SCHEMAS to the JSON Schemas of the Redfish publications")
		}
		t.Skip("no schemas: set REDFISH_SCHEMAS to the JSON Schemas of the Redfish publications")
	}
	s := &Schemas{dir: dir, get: get, missing: map[string]map[string]any{}, done: map[string]*jsonschema.Schema{}}
	s.look(t)
	s.compiler = jsonschema.NewCompiler()
	s.compiler.UseLoader(s)
	return s
}

var link = regexp.MustCompile(`http://redfish\.dmtf\.org/schemas/(?:swordfish/)?v1/([A-Za-z0-9_.]+)#/definitions/([A-Za-z0-9_]+)`)

// look replaces what is not there: another version of a schema that is there accepts nothing, since the newest one decides;
// a schema of what is not served accepts a reference.
func (s *Schemas) look(t testing.TB) {
	files, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no schemas in %s: %v", s.dir, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(b, -1) {
			file, name := string(m[1]), string(m[2])
			if _, err := os.Stat(filepath.Join(s.dir, file)); err == nil {
				continue
			}
			if s.missing[file] == nil {
				s.missing[file] = map[string]any{}
			}
			base, _, _ := strings.Cut(file, ".")
			if base == "Privileges" { // an enumeration
				s.missing[file][name] = map[string]any{"enum": []any{"Login", "ConfigureSelf", "ConfigureUsers", "ConfigureManager", "ConfigureComponents", "NoAuth"}}
				continue
			}
			if _, err := os.Stat(filepath.Join(s.dir, base+".json")); err == nil {
				s.missing[file][name] = false
			} else {
				s.missing[file][name] = map[string]any{"type": "object", "required": []any{"@odata.id"}}
			}
		}
	}
}

// Load implements jsonschema.URLLoader: nothing is loaded from elsewhere.
func (s *Schemas) Load(url string) (any, error) {
	if own, ok := strings.CutPrefix(url, "racklet://"); ok {
		_, b := s.get(own)
		return jsonschema.UnmarshalJSON(bytes.NewReader(b))
	}
	name := filepath.Base(url)
	if d := s.missing[name]; d != nil {
		return map[string]any{"definitions": d}, nil
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return jsonschema.UnmarshalJSON(f)
}

// schema returns the schema of a type, such as #Chassis.v1_28_0.Chassis.
func (s *Schemas) schema(kind string) (*jsonschema.Schema, error) {
	if c := s.done[kind]; c != nil {
		return c, nil
	}
	dot := strings.LastIndexByte(kind, '.')
	file, name := kind[1:max(dot, 1)]+".json", kind[dot+1:]
	from := "http://redfish.dmtf.org/schemas/v1/" + file
	if name == "Racklet" {
		from = "racklet:///redfish/v1/Schemas/" + file
	}
	c, err := s.compiler.Compile(from + "#/definitions/" + name)
	if err == nil {
		s.done[kind] = c
	}
	return c, err
}

// Validate says what is wrong with a resource, and with what stands under Oem.Racklet anywhere in it.
func (s *Schemas) Validate(b []byte) (problems []string) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return []string{err.Error()}
	}
	check := func(v any, what string) {
		o, _ := v.(map[string]any)
		kind, _ := o["@odata.type"].(string)
		if !strings.HasPrefix(kind, "#") {
			problems = append(problems, what+" has no type")
			return
		}
		schema, err := s.schema(kind)
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			problems = append(problems, what+" "+kind+": "+err.Error())
		}
	}
	check(v, "the resource")
	var under func(v any, in []string)
	under = func(v any, in []string) {
		switch v := v.(type) {
		case map[string]any:
			for name, e := range v {
				if name == "Racklet" && len(in) > 0 && in[len(in)-1] == "Oem" && !slices.Contains(in, "Actions") && !slices.Contains(in, "Links") {
					check(e, strings.Join(append(in, name), "/"))
				}
				under(e, append(in[:len(in):len(in)], name))
			}
		case []any:
			for _, e := range v {
				under(e, in)
			}
		}
	}
	under(v, nil)
	return problems
}
