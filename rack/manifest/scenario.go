package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/racklet/racklet/rack"
)

// ParseScenario decodes and checks one scenario, as strictly as Load does. name is the file's, for errors, which are
// of type Errors.
func ParseScenario(name string, b []byte) (*rack.Scenario, error) {
	s := new(rack.Scenario)
	return s, parseOne(name, b, rack.KindScenario, s)
}

// ParseFault decodes and checks one fault on its own, as ParseScenario does.
func ParseFault(name string, b []byte) (*rack.Fault, error) {
	f := new(rack.Fault)
	return f, parseOne(name, b, rack.KindFault, f)
}

func parseOne(name string, b []byte, kind string, o validator) error {
	l := &loader{places: map[any]*places{}}
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	err := d.Decode(&doc)
	switch {
	case len(b) > maxFile:
		l.failf(name, 0, "", "too large: at most %d KiB", maxFile>>10)
	case errors.Is(err, io.EOF):
		l.failf(name, 1, "", "the file holds no object: want kind %s", kind)
	case err != nil:
		line := 0
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
		}
		l.failf(name, line, "", "not YAML: %s", yamlLine.ReplaceAllString(err.Error(), ""))
	case doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode:
		l.failf(name, doc.Line, "", "want an object with apiVersion, kind, metadata and spec")
	case d.Decode(&more) != io.EOF:
		l.failf(name, more.Line, "", "a second object: want one %s", kind)
	default:
		node := doc.Content[0]
		for i := 0; i+1 < len(node.Content); i += 2 {
			want := map[string]string{"kind": kind, "apiVersion": rack.APIVersion}[node.Content[i].Value]
			if v := node.Content[i+1]; want != "" && v.Value != want {
				l.failf(name, v.Line, node.Content[i].Value, "%q: want %s", v.Value, want)
			}
		}
		if len(l.errs) == 0 {
			l.decode(name, node, o)
		}
	}
	if len(l.errs) > 0 {
		return l.errs
	}
	return nil
}

// FormatScenario encodes a scenario as a file that ParseScenario reads.
func FormatScenario(s *rack.Scenario) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Metadata.Name, err)
	}
	return marshalYAML(s)
}

// marshalYAML encodes an object by its JSON form, in JSON's order of fields.
func marshalYAML(o any) ([]byte, error) {
	j, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var node yaml.Node // JSON is YAML; decoding into a node keeps the order
	if err := yaml.Unmarshal(j, &node); err != nil {
		return nil, err
	}
	plain(&node)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// plain drops JSON's braces, and the quotes of texts that stay texts without.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}
