package redfish_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocument holds that docs/redfish.md names every property under Oem.Racklet.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "redfish.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	s := running(t, 1)
	names := map[string]string{}
	var collect func(uri string, v any)
	collect = func(uri string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				if !strings.HasPrefix(k, "@") {
					names[k] = uri
				}
				collect(uri, e)
			}
		case []any:
			for _, e := range v {
				collect(uri, e)
			}
		}
	}
	for uri, b := range s.walk() {
		var o struct {
			Oem struct{ Racklet map[string]any }
		}
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		collect(uri, o.Oem.Racklet)
	}
	if len(names) < 60 {
		t.Errorf("only %d names", len(names))
	}
	for name, uri := range names {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("%s: Oem.Racklet.%s is not in docs/redfish.md", uri, name)
		}
	}
}
