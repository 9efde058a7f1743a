package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/racklet/racklet/rack"
)

// dialect is the version of JSON Schema that we write.
const dialect = "https://json-schema.org/draft/2020-12/schema"

// base is the address that schemas are identified by. Nothing is fetched from it.
const base = "https://racklet.io/schema/v1alpha1/"

// kinds are the objects to describe.
var kinds = []struct {
	name string
	t    reflect.Type
}{
	{rack.KindRack, reflect.TypeFor[rack.Rack]()},
	{rack.KindComputeUnit, reflect.TypeFor[rack.ComputeUnit]()},
	{rack.KindRelease, reflect.TypeFor[rack.Release]()},
	{rack.KindThermalPolicy, reflect.TypeFor[rack.ThermalPolicy]()},
	{rack.KindPowerPolicy, reflect.TypeFor[rack.PowerPolicy]()},
	{rack.KindFault, reflect.TypeFor[rack.Fault]()},
	{rack.KindScenario, reflect.TypeFor[rack.Scenario]()},
}

// A schema is a JSON Schema, its keywords in the order in which they are written.
type schema struct {
	Schema               string      `json:"$schema,omitempty"`
	ID                   string      `json:"$id,omitempty"`
	Title                string      `json:"title,omitempty"`
	Description          string      `json:"description,omitempty"`
	Type                 string      `json:"type,omitempty"`
	Const                string      `json:"const,omitempty"`
	Enum                 []string    `json:"enum,omitempty"`
	Format               string      `json:"format,omitempty"`
	Pattern              string      `json:"pattern,omitempty"`
	Examples             []any       `json:"examples,omitempty"`
	Minimum              *int64      `json:"minimum,omitempty"`
	Maximum              *int64      `json:"maximum,omitempty"`
	MinItems             int64       `json:"minItems,omitempty"`
	MaxItems             int64       `json:"maxItems,omitempty"`
	MaxLength            int         `json:"maxLength,omitempty"`
	Items                *schema     `json:"items,omitempty"`
	Properties           *properties `json:"properties,omitempty"`
	Required             []string    `json:"required,omitempty"`
	AdditionalProperties any         `json:"additionalProperties,omitempty"`
}

// properties are the fields of an object in the order of the Go type.
type properties []property

type property struct {
	name string
	schema
}

func (p properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, f := range p {
		value, err := json.Marshal(f.schema)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%c%q:%s", "{,"[min(i, 1)], f.name, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// generate returns the schema files by name. source is the folder of package rack.
func generate(source string) (map[string][]byte, error) {
	comments, err := readComments(source)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, k := range kinds {
		g := generator{comments: comments, kind: k.name}
		s := g.of(k.t, "", comments[k.name])
		if g.err != nil {
			return nil, g.err
		}
		file := strings.ToLower(k.name) + ".json"
		s.Schema, s.ID, s.Title = dialect, base+file, k.name
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(s); err != nil {
			return nil, err
		}
		files[file] = b.Bytes()
	}
	return files, nil
}

type generator struct {
	comments map[string]string
	kind     string
	err      error // the first
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

// patterns of the types and formats that are texts with a form of their own.
var (
	typePatterns = map[reflect.Type]struct{ pattern, example string }{
		reflect.TypeFor[rack.Watts]():    {`^[0-9]+(\.[0-9]+)?W$`, "30W"},
		reflect.TypeFor[rack.Celsius]():  {`^-?[0-9]+(\.[0-9]+)?C$`, "45C"},
		reflect.TypeFor[rack.RPM]():      {`^[0-9]+(\.[0-9]+)?rpm$`, "1200rpm"},
		reflect.TypeFor[rack.Joules]():   {`^[0-9]+(\.[0-9]+)?J$`, "12J"},
		reflect.TypeFor[rack.Volts]():    {`^[0-9]+(\.[0-9]+)?V$`, "5.1V"},
		reflect.TypeFor[rack.Amperes]():  {`^[0-9]+(\.[0-9]+)?A$`, "2.5A"},
		reflect.TypeFor[rack.Duration](): {`^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`, "250ms"},
		reflect.TypeFor[rack.Digest]():   {`^sha256:[0-9a-f]{64}$`, "sha256:" + strings.Repeat("0", 64)},
	}
	formatPatterns = map[string]struct{ pattern, example string }{
		"uuid":     {`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a"},
		"cidr":     {`^[0-9]+(\.[0-9]+){3}/[0-9]+$`, "10.77.0.0/24"},
		"ipv4":     {`^[0-9]+(\.[0-9]+){3}$`, "10.77.0.1"},
		"uri":      {`^https://.+`, "https://mirror.example"},
		"version":  {`^[A-Za-z0-9._+-]{1,32}$`, "2026.11.1"},
		"artifact": {`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$`, "racklet/boot"},
		"roothash": {`^[0-9a-f]{64}$`, strings.Repeat("0", 64)},
	}
)

// of describes one type; tag and description are those of the field that has it.
func (g *generator) of(t reflect.Type, tag reflect.StructTag, description string) schema {
	s := schema{Description: description}
	if p, ok := typePatterns[t]; ok {
		s.Type, s.Pattern, s.Examples = "string", p.pattern, []any{p.example}
		return s
	}
	if t.Implements(textMarshaler) {
		g.fail("%s: no pattern for this type", t)
	}
	switch t.Kind() {
	case reflect.Struct:
		g.object(&s, t)
	case reflect.Slice:
		s.Type, s.MinItems, s.MaxItems = "array", number(tag, "min", 0), number(tag, "max", 0)
		item := g.of(t.Elem(), "", "")
		s.Items = &item
	case reflect.Map:
		s.Type, s.AdditionalProperties = "object", schema{Type: "string"}
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.String:
		s.Type = "string"
		if words := tag.Get("enum"); words != "" {
			s.Enum = strings.Split(words, ",")
		}
		if p, ok := formatPatterns[tag.Get("format")]; ok {
			s.Pattern, s.Examples = p.pattern, []any{p.example}
		}
	case reflect.Int, reflect.Uint8, reflect.Uint32:
		s.Type = "integer"
		lo, hi := number(tag, "min", 0), number(tag, "max", 1<<32-1)
		s.Minimum, s.Maximum = &lo, &hi
	default:
		g.fail("%s: cannot be described", t)
	}
	return s
}

func number(tag reflect.StructTag, key string, otherwise int64) int64 {
	n, err := strconv.ParseInt(tag.Get(key), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// object describes the fields of a struct.
func (g *generator) object(s *schema, t reflect.Type) {
	s.Type, s.AdditionalProperties, s.Properties = "object", false, new(properties)
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		owner := t
		if len(f.Index) > 1 { // a field of an embedded struct
			owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type
		}
		comment := g.comments[owner.Name()+"."+f.Name]
		if comment == "" {
			g.fail("%s.%s: no comment to describe it by", owner, f.Name)
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		field := g.of(f.Type, f.Tag, comment)
		switch owner.Name() + "." + f.Name {
		case "TypeMeta.APIVersion":
			field.Enum, field.Const = nil, rack.APIVersion
		case "TypeMeta.Kind":
			field.Const = g.kind
		case "FaultSpec.Kind":
			field.Enum = rack.FaultKindNames()
		case "Metadata.Name":
			field.Pattern, field.MaxLength = `^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`, rack.MaxName
		}
		if !strings.HasPrefix(options, "omit") {
			s.Required = append(s.Required, name)
		}
		*s.Properties = append(*s.Properties, property{name, field})
	}
}

func (g *generator) fail(format string, args ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, args...)
	}
}

// readComments collects the comments of types ("Rack") and fields
// ("Rack.Metadata") from a folder's source.
func readComments(dir string) (map[string]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	comments := map[string]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				return true
			}
			for _, spec := range d.Specs {
				t := spec.(*ast.TypeSpec)
				comments[t.Name.Name] = oneLine(d.Doc.Text())
				st, ok := t.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						comments[t.Name.Name+"."+name.Name] = oneLine(f.Doc.Text())
					}
				}
			}
			return false
		})
	}
	return comments, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
