package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/system/hypervisor"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestProgram supervises a shell: it starts when it is ready and not before,
// comes back when it ends, whatever way, and its words are in its log.
func TestProgram(t *testing.T) {
	sh := racktest.Tool(t, "sh")
	logs := t.TempDir()
	stop := hypervisor.Reap()
	defer stop()
	var ready, starts atomic.Int32
	p := program{name: "a", path: sh, grace: time.Second,
		ready: func() error {
			if ready.Load() == 0 {
				return errors.New("not yet")
			}
			return nil
		},
		args: func() ([]string, error) {
			switch starts.Add(1) {
			case 1:
				return []string{"-c", "echo first; exit 3"}, nil
			case 2:
				return []string{"-c", "echo second; kill -9 $$"}, nil
			case 3:
				return nil, errors.New("no arguments yet")
			}
			return []string{"-c", "echo last $1; exec sleep 1000", "sh", "word"}, nil
		}}
	tree := hypervisor.NewSupervisor(slog.New(slog.DiscardHandler))
	tree.AddLevel(1, "a", p.run(place{logs: logs}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); tree.Run(ctx) }()
	read := func() string {
		b, _ := os.ReadFile(filepath.Join(logs, "a.log"))
		return string(b)
	}
	time.Sleep(3 * poll) // long enough for a program that does not wait to be seen
	if starts.Load() != 0 {
		t.Error("the program was started before it was ready")
	}
	ready.Store(1)
	eventually(t, "the last start", func() bool { return strings.HasSuffix(read(), "last word\n") })
	if got := read(); got != "first\nsecond\nlast word\n" {
		t.Errorf("log %q", got)
	}
	cancel()
	<-done
}

// TestOutliving: a child that keeps the log's pipe open does not keep the
// program from being started again, as containerd's shims must not.
func TestOutliving(t *testing.T) {
	sh := racktest.Tool(t, "sh")
	stop := hypervisor.Reap()
	defer stop()
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	p := program{name: "a", path: sh, args: func() ([]string, error) { return []string{"-c", "sleep 600 & echo $! > " + pid}, nil }}
	if err := p.run(place{logs: dir})(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", strings.TrimSpace(string(b))).Run(); err != nil {
		t.Errorf("the child has not outlived its parent: %v", err)
	}
}

// TestStatePartition makes and checks a real file system, and breaks it.
func TestStatePartition(t *testing.T) {
	make, check := racktest.Tool(t, "mke2fs"), racktest.Tool(t, "e2fsck")
	file := filepath.Join(t.TempDir(), "partition")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	run := func(path string, args ...string) (int, error) {
		cmd := exec.Command(map[string]string{mke2fs: make, e2fsck: check}[path], args...)
		out, err := cmd.CombinedOutput()
		t.Logf("%s %q: %s", filepath.Base(path), args, out)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode(), nil
		}
		return 0, err
	}
	log := slog.New(slog.DiscardHandler)
	for range 2 {
		if err := prepareState(file, run, log); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damage := slices.Clone(whole)
	for at := superAt + 0x20; at < superAt+0x30; at++ { // blocks, fragments and inodes per group
		damage[at] ^= 0x55
	}
	if err := os.WriteFile(file, damage, 0o600); err != nil {
		t.Fatal(err)
	}
	err = prepareState(file, run, log)
	now, rerr := os.ReadFile(file)
	if rerr != nil {
		t.Fatal(rerr)
	}
	if err == nil && bytes.Equal(now, damage) {
		t.Error("a damaged file system was called whole")
	}
	t.Log(err)
}

func TestMountsBelow(t *testing.T) {
	info := `21 1 253:0 / / ro - squashfs /dev/dm-0 ro
30 21 254:4 / /var rw - ext4 /dev/vda4 rw
31 30 0:40 / /var/lib/kubelet/pods/a\040b rw - tmpfs tmpfs rw
32 21 0:41 / /run/containerd/x rw - overlay overlay rw
33 21 0:42 / /variable rw - tmpfs tmpfs rw
34 21 0:43 / /run rw - tmpfs tmpfs rw
`
	got := mountsBelow(info, "/run/containerd", "/var")
	if want := []string{"/run/containerd/x", "/var/lib/kubelet/pods/a b", "/var"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestForEachProcess reads groups as the kernel shows them.
func TestForEachProcess(t *testing.T) {
	root := t.TempDir()
	for dir, procs := range map[string]string{"": "", "burstable/pod1/a": "12\n13\n", "besteffort/pod2": "14\n"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "cgroup.procs"), []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []int
	forEachProcess(root, func(pid int) { got = append(got, pid) })
	slices.Sort(got)
	if !slices.Equal(got, []int{12, 13, 14}) {
		t.Errorf("processes %v", got)
	}
	forEachProcess(filepath.Join(root, "none"), func(int) { t.Error("a process in no group") })
}
