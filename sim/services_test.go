package sim_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestServicesDown takes one service of the neighbourhood away and leaves the other.
func TestServicesDown(t *testing.T) {
	b := quiet(t)
	asked := 0
	s := httptest.NewServer(b.Neighbourhood(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ })))
	defer s.Close()
	get := func(path string) bool {
		r, err := http.Get(s.URL + path)
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	}
	for _, tt := range []struct {
		down        string
		git, mirror bool
	}{{"", true, true}, {"mirror", true, false}, {"git", false, true}} {
		for _, name := range []string{"git", "mirror"} {
			body := `{"down": false}`
			if name == tt.down {
				body = `{"down": true}`
			}
			if status, answer := b.call(t, "PUT", "/sim/v1/services/"+name, body); status != http.StatusNoContent {
				t.Fatalf("%d %s", status, answer)
			}
		}
		if git, mirror := get("/rack.git/info/refs"), get("/v2/"); git != tt.git || mirror != tt.mirror {
			t.Errorf("with %q down: git answers %v, mirror %v", tt.down, git, mirror)
		}
	}
	if asked != 4 {
		t.Errorf("%d requests came through, want 4", asked)
	}
}
