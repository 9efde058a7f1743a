package schema

import (
	"encoding/json"
	"testing"
)

func TestFiles(t *testing.T) {
	files := Files()
	for _, name := range []string{"rack.json", "computeunit.json", "release.json", "thermalpolicy.json", "powerpolicy.json"} {
		var s struct {
			Title string
			Type  string
		}
		if err := json.Unmarshal(files[name], &s); err != nil || s.Title == "" || s.Type != "object" {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if len(files) != 5 {
		t.Errorf("%d schemas, want 5", len(files))
	}
}
