package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/artifact/hosttool"
	"github.com/racklet/racklet/rack/racktest"
)

// The guests of these tests are a handful of instructions. More of them (the
// UART is a PL011 at 0x09000000; Arm DDI 0183, 3.2):
const (
	uartInX1    = 0xD2A12001 // MOVZ X1, #0x0900, LSL #16
	storeByte   = 0xB9000022 // STR W2, [X1]
	loadFlags   = 0xB9401823 // LDR W3, [X1, #0x18]
	untilByte   = 0x3727FFE3 // TBNZ W3, #4 (RXFE), previous instruction
	loadByte    = 0xB9400022 // LDR W2, [X1]
	backToFlags = 0x17FFFFFC // B four instructions back
)

func say(s string) []uint32 {
	words := []uint32{uartInX1}
	for _, c := range []byte(s) {
		words = append(words, 0x52800002|uint32(c)<<5, storeByte) // MOVZ W2, #c
	}
	return words
}

var (
	off   = []uint32{movzW0(0x8400, 16), movkW0(psciOff), hvc, branchSelf}
	reset = []uint32{movzW0(0x8400, 16), movkW0(psciReset), hvc, branchSelf}
	echo  = []uint32{loadFlags, untilByte, loadByte, storeByte, backToFlags}
	halt  = []uint32{wfi, branchSelf}
	spin  = []uint32{branchSelf}
)

func start(t *testing.T, parts ...[]uint32) *Machine {
	t.Helper()
	var words []uint32
	for _, p := range parts {
		words = append(words, p...)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, code(words...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := EnsureDisk(dir, 1<<30); err != nil {
		t.Fatal(err)
	}
	m, err := Start(Spec{Name: t.Name(), Dir: dir, QEMU: racktest.Tool(t, "qemu-system-aarch64"), MemoryMiB: 64,
		Kernel: program, Disk: true, MAC: net.HardwareAddr{0x52, 0x54, 0, 0x52, 0x4b, 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func await(t *testing.T, m *Machine) Exit {
	t.Helper()
	select {
	case <-m.Done():
		return m.Exit()
	case <-time.After(time.Minute):
		t.Fatal("machine does not end")
	}
	panic("unreachable")
}

func TestGuestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  []uint32
		want Cause
	}{{"shutdown", off, CauseGuestShutdown}, {"reset", reset, CauseGuestReset}} {
		t.Run(tt.name, func(t *testing.T) {
			m := start(t, say("bye"), tt.end)
			e := await(t, m)
			if e.Cause != tt.want || e.Err != nil {
				t.Errorf("exit %v, %v, want %v", e.Cause, e.Err, tt.want)
			}
			if e.CPU <= 0 {
				t.Errorf("CPU time %v", e.CPU)
			}
			if got, err := io.ReadAll(m.Console); err != nil || string(got) != "bye" {
				t.Errorf("console %q, %v", got, err)
			}
			if _, err := os.Stat(pidFile(m.spec.Dir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pid file is still there: %v", err)
			}
		})
	}
}

func TestConsoleAndMonitor(t *testing.T) {
	m := start(t, say("hi\n"), echo)
	r := bufio.NewReader(m.Console)
	m.Console.SetDeadline(time.Now().Add(time.Minute))
	if s, err := r.ReadString('\n'); err != nil || s != "hi\n" {
		t.Fatalf("console %q, %v", s, err)
	}
	io.WriteString(m.Console, "typed\n")
	if s, err := r.ReadString('\n'); err != nil || s != "typed\n" {
		t.Fatalf("console %q, %v", s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, step := range []struct {
		do   func(context.Context) error
		want string
	}{
		{func(context.Context) error { return nil }, "running"},
		{m.Pause, "paused"},
		{m.Resume, "running"},
		{func(ctx context.Context) error { return m.SetLink(ctx, false) }, "running"},
	} {
		if err := step.do(ctx); err != nil {
			t.Fatal(err)
		}
		if s, err := m.Status(ctx); err != nil || s != step.want {
			t.Errorf("status %q, %v, want %q", s, err, step.want)
		}
	}
	if err := m.qmp.execute(ctx, "no-such-command", nil, nil); err == nil || !strings.Contains(err.Error(), "CommandNotFound") {
		t.Errorf("unknown command: %v", err)
	}
	if m.Resident() == 0 {
		t.Error("no resident memory")
	}
	if e := m.Kill(); e.Cause != CauseKilled || e.Err != nil {
		t.Errorf("exit %v, %v", e.Cause, e.Err)
	}
	if _, err := m.Status(ctx); !errors.Is(err, errMonitor) {
		t.Errorf("monitor of a dead machine: %v", err)
	}
}

// TestCPUTime compares a guest that spins with one that waits.
// TestDiskFull: a disk fills up and is emptied under a machine that runs, as often as one likes. That its guest's writes
// fail and its reads do not is shown by the scenario machine-disk-full.
func TestDiskFull(t *testing.T) {
	m := start(t, halt)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	filters := func() (n int) {
		var nodes []struct {
			Driver string `json:"drv"`
		}
		if err := m.qmp.execute(ctx, "query-named-block-nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		for _, node := range nodes {
			if node.Driver == "blkdebug" {
				n++
			}
		}
		return n
	}
	for i, full := range []bool{false, true, true, false, true, false, false} {
		if err := m.SetDiskFull(ctx, full); err != nil {
			t.Fatal(i, err)
		}
		if n := filters(); (n == 1) != full || n > 1 {
			t.Errorf("%d: full is %v, %d filters", i, full, n)
		}
	}
}

func TestCPUTime(t *testing.T) {
	used := func(m *Machine) time.Duration {
		bufio.NewReader(m.Console).ReadByte() // it runs
		a, err := m.CPUTime()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for time.Since(begin) < 10*time.Second {
			time.Sleep(50 * time.Millisecond)
			b, err := m.CPUTime()
			if err != nil {
				t.Fatal(err)
			}
			if b-a > 200*time.Millisecond {
				return b - a
			}
			if time.Since(begin) > time.Second && b-a < 100*time.Millisecond {
				return b - a
			}
		}
		return -1
	}
	if d := used(start(t, say("x"), spin)); d < 200*time.Millisecond {
		t.Errorf("spinning guest used %v", d)
	}
	if d := used(start(t, say("x"), halt)); d > 100*time.Millisecond || d < 0 {
		t.Errorf("waiting guest used %v", d)
	}
}

func TestCrash(t *testing.T) {
	qemu := racktest.Tool(t, "qemu-system-aarch64")
	dir := t.TempDir()
	m, err := Start(Spec{Name: "crash", Dir: dir, QEMU: qemu, Kernel: filepath.Join(dir, "missing"), MAC: make(net.HardwareAddr, 6)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if e := await(t, m); e.Cause != CauseCrashed || e.Err == nil || !strings.Contains(e.Err.Error(), "missing") {
		t.Errorf("exit %v, %v", e.Cause, e.Err)
	}
	if _, err := Start(Spec{Name: "none", Dir: dir, QEMU: filepath.Join(dir, "no-qemu")}); err == nil {
		t.Error("started without QEMU")
	}
}

func TestProbe(t *testing.T) {
	qemu := racktest.Tool(t, "qemu-system-aarch64")
	if err := boots(t.Context(), qemu, TCG); err != nil {
		t.Errorf("probe with what works everywhere: %v", err)
	}
	if err := boots(t.Context(), qemu, "no-such-accelerator"); err == nil {
		t.Error("probe passes with an accelerator that does not exist")
	}
	t.Logf("this host: %s", Probe(t.Context(), qemu))
}

// TestUnpackedQEMU: without a name, QEMU is found where the set-up unpacks it when it may not install, behind a script
// that becomes it.
func TestUnpackedQEMU(t *testing.T) {
	qemu := racktest.Tool(t, hosttool.QEMU)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv("PATH", filepath.Join(home, "nothing"))
	dir, err := hosttool.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if err := boots(t.Context(), "", TCG); !errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("before it is there: %v", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n: > '" + filepath.Join(home, "ran") + "'\nexec '" + qemu + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, hosttool.QEMU), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := boots(t.Context(), "", TCG); err != nil {
		t.Errorf("unpacked: %v", err)
	}
	if _, err := os.Stat(filepath.Join(home, "ran")); err != nil {
		t.Errorf("the machine ran, but not by the script: %v", err)
	}
}

// TestCleanup has the pid file of a crashed simulator: the machine it names is
// ended, a process that merely has the same id is left alone.
func TestCleanup(t *testing.T) {
	sleep := racktest.Tool(t, "sleep")
	dir := t.TempDir()
	run := func() *exec.Cmd {
		c := exec.Command(sleep, "600")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		return c
	}
	write := func(pid int, stamp string) {
		if err := os.WriteFile(pidFile(dir), fmt.Appendf(nil, "%d %s\n", pid, stamp), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	orphan := run()
	stamp, err := identify(orphan.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { orphan.Wait(); close(ended) }()
	write(orphan.Process.Pid, stamp)
	if err := Cleanup(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("orphan lives")
	}

	// A stamp is as fine as the kernel's clock ticks: two processes of one tick
	// have the same one, so the stranger is of another.
	other := run()
	for deadline := time.Now().Add(10 * time.Second); ; other = run() {
		theirs, err := identify(other.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if theirs != stamp {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("every process starts at %s", stamp)
		}
	}
	for _, bad := range []string{"1 x", fmt.Sprintf("%d", other.Process.Pid), fmt.Sprintf("%d %s", other.Process.Pid, stamp), "-1 x", "", "rubbish"} {
		if err := os.WriteFile(pidFile(dir), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Cleanup(dir); err != nil {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := identify(other.Process.Pid); err != nil {
			t.Fatalf("%q: killed a stranger", bad)
		}
	}
	if err := Cleanup(dir); err != nil {
		t.Errorf("nothing to clean up: %v", err)
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"00:00:01":   time.Second,
		"1:02.50":    62500 * time.Millisecond,
		"02:03:04":   2*time.Hour + 3*time.Minute + 4*time.Second,
		"1-00:00:00": 24 * time.Hour,
		"100:00.25":  100*time.Minute + 250*time.Millisecond,
		"":           -1,
		"7":          -1,
		"a:b":        -1,
		"1:2:3:4":    -1,
		"1:99":       -1,
		"-1:00":      -1,
	} {
		got, err := parseTime(in)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestEnsureDisk(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ ask, want int64 }{{1 << 30, 1 << 30}, {1 << 20, 1 << 30}, {2 << 30, 2 << 30}} {
		if err := EnsureDisk(dir, tt.ask); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(DiskPath(dir))
		if err != nil || fi.Size() != tt.want || fi.Mode().Perm() != 0o600 {
			t.Errorf("asked for %d: %d with %v, %v", tt.ask, fi.Size(), fi.Mode(), err)
		}
	}
	if err := EnsureDisk(filepath.Join(dir, "missing"), 1); err == nil {
		t.Error("made a disk nowhere")
	}
}
