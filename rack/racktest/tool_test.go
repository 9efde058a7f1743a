package racktest

import (
	"fmt"
	"testing"
)

// A recorder is a test that notes how it ended.
type recorder struct{ skipped, failed string }

func (r *recorder) Helper()                      {}
func (r *recorder) Skipf(f string, args ...any)  { r.skipped = fmt.Sprintf(f, args...) }
func (r *recorder) Fatalf(f string, args ...any) { r.failed = fmt.Sprintf(f, args...) }

func TestTool(t *testing.T) {
	const none = "no-such-program-of-racklet"
	t.Setenv("CI", "")
	var r recorder
	if path := Tool(&r, "go"); path == "" || r != (recorder{}) {
		t.Errorf("go: %q, %+v", path, r)
	}
	if Tool(&r, none); r.skipped == "" || r.failed != "" {
		t.Errorf("missing at home: %+v, want skipped", r)
	}
	t.Setenv("CI", "true")
	r = recorder{}
	if Tool(&r, none); r.failed == "" || r.skipped != "" {
		t.Errorf("missing in CI: %+v, want failed", r)
	}
}
