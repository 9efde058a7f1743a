package hypervisor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
)

// TestProcess runs children under the reaper: one that ends well, one that
// fails, one that has to be stopped, one that is not there.
func TestProcess(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	go reap()
	run := func(ctx context.Context, script string) error { return Process(sh, "-c", script)(ctx) }
	if err := run(t.Context(), "exit 0"); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), "exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := run(ctx, "while :; do :; done"); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Error(err)
	}
	if err := Process("/no/such/program")(t.Context()); err == nil {
		t.Error("a program that is not there was started")
	}
}

// TestDoors: the two that matter come before all others, so that no failure
// further down leaves them open, and without them nothing runs.
func TestDoors(t *testing.T) {
	if doors[0].file != "/proc/sys/kernel/kexec_load_disabled" || doors[1].file != "/proc/sys/kernel/modules_disabled" {
		t.Errorf("doors %v", doors[:2])
	}
	kernel := func() string {
		root := t.TempDir()
		for _, d := range doors {
			if err := errors.Join(os.MkdirAll(filepath.Join(root, filepath.Dir(d.file)), 0o700), os.WriteFile(filepath.Join(root, d.file), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return root
	}
	root := kernel()
	if warnings, open := shut(root); len(warnings) != 0 || open != nil {
		t.Errorf("control: %v, %v", warnings, open)
	}
	for i, d := range doors {
		if b, err := os.ReadFile(filepath.Join(root, d.file)); err != nil || string(b) != d.value {
			t.Errorf("%s is %q, %v", d.file, b, err)
		}
		root := kernel()
		name := filepath.Join(root, d.file)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if warnings, open := shut(root); len(warnings) != 0 || (open != nil) != (i < 2) {
			t.Errorf("%s is not there: %v, %v", d.file, warnings, open)
		}
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		warnings, open := shut(root)
		if (open != nil) != (i < 2) || len(warnings) == 0 && open == nil {
			t.Errorf("%s does not take it: %v, %v", d.file, warnings, open)
		}
		if b, err := os.ReadFile(filepath.Join(root, doors[len(doors)-1].file)); i < len(doors)-1 && (err != nil || len(b) == 0) {
			t.Errorf("%s does not take it, and the last is left open", d.file)
		}
	}
}

// TestFail: the BMC hears why nothing runs.
func TestFail(t *testing.T) {
	b := &fakeBMC{}
	s, _, console := newSystem(b)
	s.fail(t.Context(), "os.doors", "other kernels and modules ruled out", os.ErrPermission)
	if _, ok := rack.LookupReason("os.doors"); !ok {
		t.Error("os.doors is not in rack.Reasons")
	}
	if len(b.stages) != 1 || b.stages[0] != wire.StageFailed || !strings.Contains(console.String(), "os.doors") {
		t.Errorf("the BMC heard %v, the console shows\n%s", b.stages, console)
	}
}
