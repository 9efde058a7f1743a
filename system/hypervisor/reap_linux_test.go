package hypervisor

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
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
// further down leaves them open.
func TestDoors(t *testing.T) {
	if doors[0].file != "/proc/sys/kernel/kexec_load_disabled" || doors[1].file != "/proc/sys/kernel/modules_disabled" {
		t.Errorf("doors %v", doors[:2])
	}
}
