package schema

import (
	"encoding/json"
	"testing"
)

func TestFiles(t *testing.T) {
	files := Files()
	for _, name := range []string{"rack.json", "computeunit.json", "release.json", "thermalpolicy.json", "powerpolicy.json", "fault.json", "scenario.json"} {
		var s struct {
			Title string
			Type  string
		}
		if err := json.Unmarshal(files[name], &s); err != nil || s.Title == "" || s.Type != "object" {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if len(files) != 7 {
		t.Errorf("%d schemas, want 7", len(files))
	}
}
