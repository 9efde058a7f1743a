package sim_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/example"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/source"
)

const testRackID = "6b0c1c5e-1e2b-4d0a-9c55-0f1f6d7e8a90"

// release returns the directory of the release that `make build` leaves.
func release(t testing.TB) (string, *rack.ReleaseSpec) {
	t.Helper()
	dir, err := filepath.Abs("../bin/release")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") == "" {
		t.Skip("no bin/release; make build makes it")
	}
	if err != nil {
		t.Fatal(err)
	}
	spec, err := rack.ParseReleaseSpec(b)
	if err != nil {
		t.Fatal(err)
	}
	return dir, spec
}

// repository makes a signed rack repository with n units.
func repository(t testing.TB, n int) (dir string, keys *source.Keys) {
	t.Helper()
	layout, spec := release(t)
	files, err := example.Files(example.Options{Name: "test", ID: testRackID, Units: n, Release: *spec})
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	for name, data := range files {
		fsys[name] = &fstest.MapFile{Data: data}
	}
	dir = t.TempDir()
	keys, err = source.InitRepository(dir, source.InitOptions{Files: fsys, Repository: where,
		Sign: source.SignOptions{SlotManifest: func(d rack.Digest) ([]byte, error) {
			return os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Hex()))
		}}})
	if err != nil {
		t.Fatal(err)
	}
	return dir, keys
}

var where = rack.Repository{URL: sim.RepositoryURL, Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef}

// bench is a rack that runs, and the management computer's end of its line.
type bench struct {
	*sim.Rack
	cfg   sim.Config
	units []*rack.ComputeUnit
	conn  *link.Conn
	stop  func()
	done  chan error
}

// start builds a rack in dir from a repository and runs it.
func start(t testing.TB, dir, repo string) *bench {
	t.Helper()
	layout, _ := release(t)
	p, set, err := sim.Provision(repo, where, layout)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, sim.Config{Dir: dir, Rack: set.Rack, Units: set.Units, Provisioning: p, Releases: []string{layout}, QEMU: racktest.Tool(t, "qemu-system-aarch64")})
}

// run runs a rack until the test ends or stop is called.
func run(t testing.TB, cfg sim.Config) *bench {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	r, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bench{Rack: r, cfg: cfg, units: cfg.Units, done: make(chan error, 1)}
	go func() { b.done <- r.Run(ctx) }()
	b.conn = link.New(r.ManagementLine(), wire.EIDManagement, link.Options{})
	b.stop = sync.OnceFunc(func() { cancel(); b.wait(t) })
	t.Cleanup(b.stop)
	return b
}

func (b *bench) wait(t testing.TB) {
	select {
	case err := <-b.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("rack does not stop")
	}
	b.conn.Close()
}

// on asks the BMC of each unit for power.
func (b *bench) on(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := b.conn.SetTime(ctx, wire.EIDRMC, uint64(time.Now().UnixMilli())); err != nil {
		t.Fatal(err)
	}
	for _, u := range b.units {
		for {
			_, err := b.conn.SetDesired(ctx, wire.BMC(uint8(u.Spec.Slot)), &wire.Desired{Generation: 1, Power: wire.PowerOn, Mask: wire.DesiredPower})
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: %v", u.Metadata.Name, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// reach follows the BMCs until every unit has come to a stage, and prints the
// time of each stage on the way.
func (b *bench) reach(ctx context.Context, t *testing.T, want wire.Stage) {
	t.Helper()
	begin := time.Now()
	stage := make([]wire.Stage, len(b.units))
	offset := make([]uint64, len(b.units))
	for left := len(b.units); left > 0; time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("after %v at %v, want %v", time.Since(begin), stage, want)
		}
		for i, u := range b.units {
			eid := wire.BMC(uint8(u.Spec.Slot))
			s, err := b.conn.UnitState(ctx, eid)
			if err != nil {
				continue
			}
			if p, err := b.conn.ReadConsole(ctx, eid, offset[i]); err == nil && len(p.Data) > 0 {
				offset[i] = p.From + uint64(len(p.Data))
				fmt.Fprintf(t.Output(), "%s| %s\n", u.Metadata.Name, strings.ReplaceAll(strings.TrimSpace(string(p.Data)), "\n", "\n"+u.Metadata.Name+"| "))
			}
			if s.State == wire.StateFaulted || s.Stage == wire.StageFailed {
				t.Fatalf("%s: %v, %v: %+v", u.Metadata.Name, s.State, s.Stage, s.Failure)
			}
			if s.Stage != stage[i] {
				if s.Stage >= want && stage[i] < want {
					left--
				}
				stage[i] = s.Stage
				m, _ := b.UnitState(u.Spec.Slot)
				t.Logf("%6.2f s, %6.2f CPU s: %s %v, %.1f W", time.Since(begin).Seconds(), m.Machine.CPUSeconds, u.Metadata.Name, s.Stage, float64(s.Milliwatts)/1000)
			}
		}
	}
}

// TestUnitsBoot boots a real unit through the whole chain, and then touches it.
// RACKLET_UNITS=4 boots four.
func TestUnitsBoot(t *testing.T) {
	n := 1
	if s := os.Getenv("RACKLET_UNITS"); s != "" {
		fmt.Sscan(s, &n)
	}
	repo, _ := repository(t, n)
	b := start(t, filepath.Join(t.TempDir(), "rack"), repo)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	b.on(ctx, t)
	b.reach(ctx, t, wire.StageRunning)
	cost := b.State().Simulator
	t.Logf("simulator %.1f CPU s, %d MiB; with machines %d MiB", cost.CPUSeconds, cost.ResidentBytes>>20, cost.TotalResidentBytes>>20)

	unit := func() sim.SlotState { return b.State().Slots[0] }
	bmc := func() wire.UnitState {
		t.Helper()
		for {
			s, err := b.conn.UnitState(ctx, wire.BMC(1))
			if err == nil {
				return s
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	post := func(path, body string) {
		t.Helper()
		if status, answer := b.call(t, "POST", "/sim/v1/slots/1/"+path, body); status != http.StatusNoContent {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
	}

	// A paused machine draws no CPU time; its BMC does not care.
	post("pause", "")
	post("resume", "")

	// The reset button: the rail stays on, the BMC counts it.
	before, boots := bmc(), unit().Machine.Boots
	post("reset", "")
	b.until(t, "the machine starts again after a reset", func(s sim.State) bool { return s.Slots[0].Machine.Boots > boots })
	for bmc().Resets <= before.Resets {
		if ctx.Err() != nil {
			t.Fatal("the BMC does not see the reset")
		}
		time.Sleep(20 * time.Millisecond)
	}

	// Pull the tray: machine and BMC are gone at once, the rest lives on.
	pid := unit().Machine.PID
	begin := time.Now()
	post("pull", "")
	b.until(t, "the machine is gone", func(s sim.State) bool { return s.Slots[0].Machine.PID == 0 && !s.Slots[0].BMC.Alive })
	t.Logf("tray pulled: machine gone after %v", time.Since(begin))
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after the pull: %v", pid, err)
	}
	post("insert", "")
	b.until(t, "the unit comes back by itself", func(s sim.State) bool { return s.Slots[0].Machine.PID != 0 })
	after := bmc()
	if after.BootCount <= before.BootCount {
		t.Errorf("boot %d after the pull, boot %d before", after.BootCount, before.BootCount)
	}

	// A flipped bit in slot A's image: slot B boots, and the BMC says why.
	if after.BootSlot != wire.SlotA {
		t.Fatalf("booted slot %d, want A", after.BootSlot)
	}
	post("flash/flip", `{"offset": 5000000, "bit": 1}`)
	if err := b.conn.Reset(ctx, wire.BMC(1), wire.ResetCycle); err != nil {
		t.Fatal(err)
	}
	for {
		s := bmc()
		if s.BootSlot == wire.SlotB && s.Flags&wire.FlagFallbackSlot != 0 && unit().Machine.PID != 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("after the flip: %+v", s)
		}
		time.Sleep(20 * time.Millisecond)
	}
	slots, err := b.conn.Slots(ctx, wire.BMC(1))
	if err != nil || slots[0].State != wire.SlotInvalid || slots[0].Failure.Reason.String() != "slot.chunk" {
		t.Errorf("slot A after the flip: %+v, %v", slots[0], err)
	}
}

// TestMain lets the test program be a simulator that TestKill can kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("RACKLET_TEST_SIMULATOR"); dir != "" {
		simulator(dir)
	}
	os.Exit(m.Run())
}

func simulator(dir string) {
	layout, err := filepath.Abs("../bin/release")
	if err == nil {
		var p sim.Provisioning
		var set *manifest.Set
		if p, set, err = sim.Provision(filepath.Join(dir, "repository"), where, layout); err == nil {
			var r *sim.Rack
			if r, err = sim.New(sim.Config{Dir: filepath.Join(dir, "rack"), Rack: set.Rack, Units: set.Units, Provisioning: p, Releases: []string{layout}}); err == nil {
				go func() {
					conn := link.New(r.ManagementLine(), wire.EIDManagement, link.Options{})
					for {
						_, err := conn.SetDesired(context.Background(), wire.BMC(1), &wire.Desired{Generation: 1, Power: wire.PowerOn, Mask: wire.DesiredPower})
						if m, _ := r.UnitState(1); err == nil && m.Machine.PID != 0 {
							fmt.Println(m.Machine.PID)
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
				err = r.Run(context.Background())
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// dead reports whether a process is no more, or only waits to be reaped.
func dead(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) && runtime.GOOS == "linux"
	}
	_, after, _ := strings.Cut(string(stat), ") ") // state follows the name
	return strings.HasPrefix(after, "Z")
}

// TestKill kills a whole simulator with SIGKILL: no machine is left behind, and
// the next simulator in that directory has the unit running again unasked.
func TestKill(t *testing.T) {
	racktest.Tool(t, "qemu-system-aarch64")
	release(t)
	repo, _ := repository(t, 1)
	dir := t.TempDir()
	if err := os.Rename(repo, filepath.Join(dir, "repository")); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "RACKLET_TEST_SIMULATOR="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	child.Process.Kill()
	child.Wait()
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, filepath.Join(dir, "rack"), filepath.Join(dir, "repository"))
	b.until(t, "the unit runs again", func(s sim.State) bool { return s.Slots[0].Machine.PID != 0 })
	// Dead is enough: who inherits the process may take its time to reap it.
	for deadline := time.Now().Add(time.Minute); !dead(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("machine %d of the killed simulator lives on", pid)
		}
	}
	s, err := b.conn.UnitState(t.Context(), wire.BMC(1))
	if err != nil || s.BootCount != 2 || s.DesiredGeneration != 1 {
		t.Errorf("boot %d, generation %d, %v; want the second boot of generation 1", s.BootCount, s.DesiredGeneration, err)
	}
}
