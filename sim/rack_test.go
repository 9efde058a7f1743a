package sim_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/example"
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
	b := &bench{Rack: r, units: cfg.Units, done: make(chan error, 1)}
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

// TestUnitsBoot boots real units through the whole chain.
func TestUnitsBoot(t *testing.T) {
	n := 1
	if s := os.Getenv("RACKLET_UNITS"); s != "" {
		fmt.Sscan(s, &n)
	}
	repo, _ := repository(t, n)
	b := start(t, filepath.Join(t.TempDir(), "rack"), repo)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	if err := b.conn.SetTime(ctx, wire.EIDRMC, uint64(time.Now().UnixMilli())); err != nil {
		t.Fatal(err)
	}
	for i, u := range b.units {
		eid := wire.BMC(uint8(u.Spec.Slot))
		for {
			_, err := b.conn.SetDesired(ctx, eid, &wire.Desired{Generation: 1, Power: wire.PowerOn, Mask: wire.DesiredPower})
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("unit %d: %v", i, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	stage := make([]wire.Stage, n)
	offset := make([]uint64, n)
	left := n
	for left > 0 {
		if ctx.Err() != nil {
			t.Fatalf("units not running after %v: %v", time.Since(begin), stage)
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
			if s.Stage != stage[i] {
				stage[i] = s.Stage
				t.Logf("%6.1f s %s %v %v %d mW", time.Since(begin).Seconds(), u.Metadata.Name, s.State, s.Stage, s.Milliwatts)
				if s.Stage == wire.StageRunning {
					left--
				}
			}
			if !s.Failure.IsZero() {
				t.Logf("%6.1f s %s reason %v", time.Since(begin).Seconds(), u.Metadata.Name, s.Failure)
			}
			if s.State == wire.StateFaulted || s.Stage == wire.StageFailed {
				t.Fatalf("%s: %v %v %v", u.Metadata.Name, s.State, s.Stage, s.Failure)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}
