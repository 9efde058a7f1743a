package sim

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/racklet/racklet/rack"
)

type object = map[string]any

// OpenAPI returns the description of /sim/v1 (OpenAPI Specification 3.1.0),
// made from the table of routes and the types of their bodies.
func OpenAPI() ([]byte, error) {
	g := &generator{schemas: object{}}
	paths := object{}
	for _, op := range routes() {
		item, _ := paths[op.path].(object)
		if item == nil {
			item = object{}
			paths[op.path] = item
		}
		o := object{"operationId": op.name, "summary": op.summary}
		var parameters []object
		for _, name := range pathParameters.FindAllStringSubmatch(op.path, -1) {
			p := object{"name": name[1], "in": "path", "required": true, "schema": object{"type": "string"}}
			switch name[1] {
			case "slot":
				p["description"], p["schema"] = "slot in the rack, from 1", object{"type": "integer", "minimum": 1, "maximum": 10}
			case "chip":
				p["description"] = "which chip"
				p["schema"] = object{"type": "string", "enum": []string{"fans", "power", "temperature"}}
			case "service":
				p["description"], p["schema"] = "which service", object{"type": "string", "enum": []string{"git", "mirror"}}
			case "id":
				p["description"], p["schema"] = "number of the fault", object{"type": "integer", "minimum": 1}
			case "port":
				p["description"] = "name of a port of the switch: a unit's, or gateway"
			}
			parameters = append(parameters, p)
		}
		for _, q := range op.query {
			parameters = append(parameters, object{"name": q.name, "in": "query", "description": q.summary, "schema": object{"type": "string"}})
		}
		if parameters != nil {
			o["parameters"] = parameters
		}
		if op.request != nil {
			o["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": g.schema(reflect.TypeOf(op.request))}}}
		}
		ok := object{"description": "done"}
		status := "204"
		switch {
		case op.media != "":
			status, ok["content"] = "200", object{op.media: object{"schema": object{}}}
		case op.response != nil:
			status, ok["content"] = "200", object{"application/json": object{"schema": g.schema(reflect.TypeOf(op.response))}}
		}
		o["responses"] = object{
			status:    ok,
			"default": object{"description": "an error: 400 bad request, 404 no such thing, 409 not possible now", "content": object{"application/json": object{"schema": g.schema(reflect.TypeOf(Problem{}))}}},
		}
		item[strings.ToLower(op.method)] = o
	}
	b, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Racklet virtual rack", "version": "1",
			"description": "The physical things of a virtual rack: to be seen, measured and broken. It is served on a Unix socket; docs/sim-v1.md tells more.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"paths":      paths,
		"components": object{"schemas": g.schemas},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("describe /sim/v1: %w", err)
	}
	return append(b, '\n'), nil
}

var pathParameters = regexp.MustCompile(`\{([a-z]+)\}`)

// generator turns Go types into JSON Schema (draft 2020-12, as OpenAPI 3.1 takes it).
type generator struct{ schemas object }

func (g *generator) schema(t reflect.Type) object {
	if t == reflect.TypeFor[rack.Duration]() {
		return object{"type": "string", "examples": []string{"250ms", "30s"}}
	}
	switch t.Kind() {
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int64, reflect.Int:
		if t == reflect.TypeFor[time.Duration]() {
			return object{"type": "integer", "minimum": 0, "description": "nanoseconds"}
		}
		return object{"type": "integer"}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Slice:
		return object{"type": "array", "items": g.schema(t.Elem())}
	case reflect.Array:
		return object{"type": "array", "items": g.schema(t.Elem()), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.Struct:
		name := strings.ToUpper(t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:][:1]) + t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+2:] + t.Name()
		if t.PkgPath() == reflect.TypeFor[State]().PkgPath() {
			name = t.Name()
		}
		if _, done := g.schemas[name]; !done {
			g.schemas[name] = object{} // in case it holds itself
			g.schemas[name] = g.structure(t)
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	panic(fmt.Sprintf("sim: no schema for %v", t))
}

func (g *generator) structure(t reflect.Type) object {
	properties := object{}
	required := []string{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		s := g.schema(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc // beside $ref too, as 3.1 allows
		}
		properties[name] = s
		if !strings.Contains(options, "omitempty") && !strings.HasPrefix(t.Name(), "Fault") && !strings.HasSuffix(t.Name(), "Request") {
			required = append(required, name)
		}
	}
	o := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}
