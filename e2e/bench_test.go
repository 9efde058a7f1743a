package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	nouns "github.com/racklet/racklet/rack" // rack is a type of this package
	"github.com/racklet/racklet/rack/example"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/sim/machine"
	"github.com/racklet/racklet/source"
)

// What these benchmarks tell, and what they told, is in docs/benchmarks.md.

// A variant is a way to boot: a release, and what lies on the data disk.
type variant struct {
	name   string
	layout string // directory of the release
	spec   *nouns.ReleaseSpec
	disk   []byte // the beginning of a new data disk
}

// checked is the release of make build.
func checked(b *testing.B) variant {
	racktest.Tool(b, "qemu-system-aarch64")
	cmd := exec.Command("make", "--no-print-directory", "build")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("make build: %v\n%s", err, out)
	}
	layout, err := filepath.Abs("../bin/release")
	if err != nil {
		b.Fatal(err)
	}
	return variant{name: "chain", layout: layout}.read(b)
}

// unchecked builds the release without checks into a directory of this
// benchmark, see tools/release.
func unchecked(b *testing.B) variant {
	dir := b.TempDir()
	mark := "What is in this directory checks nothing. It is for a benchmark, and for nothing else.\n"
	if err := os.WriteFile(filepath.Join(dir, "benchmark-only"), []byte(mark), 0o644); err != nil {
		b.Fatal(err)
	}
	makeRelease(b, "-o", dir, "-unchecked")
	return variant{name: "unchecked", layout: dir}.read(b)
}

// direct boots kernel and root without a stage 1: see testdata/direct.
func direct(b *testing.B) variant {
	dir := b.TempDir()
	makeRelease(b, "-o", dir, "-stage1", "./e2e/testdata/direct")
	v := variant{name: "direct", layout: dir}.read(b)
	l := oci.Layout{Dir: dir}
	m, err := l.Manifest(digest.Digest(v.spec.OS.Digest))
	if err != nil {
		b.Fatal(err)
	}
	root, err := oci.Layer(m, "application/vnd.racklet.os.root.v1")
	if err != nil {
		b.Fatal(err)
	}
	if v.disk, err = l.Read(root.Digest, 1<<30); err != nil {
		b.Fatal(err)
	}
	return v
}

func makeRelease(b *testing.B, args ...string) {
	b.Helper()
	cmd := exec.Command("go", append([]string{"run", "./tools/release"}, args...)...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build release: %v\n%s", err, out)
	}
}

func (v variant) read(b *testing.B) variant {
	doc, err := os.ReadFile(filepath.Join(v.layout, "release.json"))
	if err != nil {
		b.Fatal(err)
	}
	if v.spec, err = nouns.ParseReleaseSpec(doc); err != nil {
		b.Fatal(err)
	}
	return v
}

// A virtualRack is a new rack that runs, with keys that nobody has after it,
// and the management computer's end of its serial line.
type virtualRack struct {
	*sim.Rack
	cfg  sim.Config
	conn *link.Conn
	stop func()
}

// newVirtualRack builds a rack of n units, all off, that boot in the variant's way.
func newVirtualRack(b *testing.B, v variant, n int) *virtualRack {
	b.Helper()
	files, err := example.Files(example.Options{Name: "bench", ID: "0b5e4c1a-3f0e-4a57-9f6e-1d2c3b4a5968", Units: n, Release: *v.spec})
	if err != nil {
		b.Fatal(err)
	}
	fsys := fstest.MapFS{}
	for name, data := range files {
		fsys[name] = &fstest.MapFile{Data: data}
	}
	where := nouns.Repository{URL: sim.RepositoryURL, Ref: nouns.DefaultRef, MetadataRef: nouns.DefaultMetadataRef}
	repository := b.TempDir()
	if _, err := source.InitRepository(repository, source.InitOptions{Files: fsys, Repository: where,
		Sign: source.SignOptions{SlotManifest: func(d nouns.Digest) ([]byte, error) {
			return os.ReadFile(filepath.Join(v.layout, "blobs", "sha256", d.Hex()))
		}}}); err != nil {
		b.Fatal(err)
	}
	p, set, err := sim.Provision(repository, where, v.layout)
	if err != nil {
		b.Fatal(err)
	}
	cfg := sim.Config{Dir: b.TempDir(), Rack: set.Rack, Units: set.Units, Provisioning: p, Releases: []string{v.layout},
		QEMU: racktest.Tool(b, "qemu-system-aarch64"), Accel: machine.TCG, Log: slog.New(slog.DiscardHandler)}
	if v.disk != nil {
		for _, u := range set.Units {
			dir := filepath.Join(cfg.Dir, fmt.Sprintf("slot-%d", u.Spec.Slot))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(machine.DiskPath(dir), v.disk, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	r, err := sim.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	out := &virtualRack{Rack: r, cfg: cfg}
	out.stop = sync.OnceFunc(func() {
		if out.conn != nil {
			out.conn.Close()
		}
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(out.stop)
	return out
}

// A sample is what one boot took: of QEMU's processes, in CPU seconds, and of
// the clock, both from power-on to the stage running.
type sample struct{ cpu, wall float64 }

// bootLimit is for a machine on which much else goes on.
const bootLimit = 5 * time.Minute

// boot powers all units on and waits until all run.
func (r *virtualRack) boot(b *testing.B) sample {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), bootLimit)
	defer cancel()
	r.conn = link.New(r.ManagementLine(), wire.EIDManagement, link.Options{})
	// The RMC finds the boards before it can ask them for anything.
	for r.conn.SetTime(ctx, wire.EIDRMC, uint64(time.Now().UnixMilli())) != nil && ctx.Err() == nil {
	}
	for _, u := range r.cfg.Units {
		for {
			if s, err := r.conn.UnitState(ctx, wire.BMC(uint8(u.Spec.Slot))); err == nil && s.State == wire.StateOff {
				break
			}
			if ctx.Err() != nil {
				b.Fatalf("%s does not answer", u.Metadata.Name)
			}
		}
	}
	begin := time.Now()
	for _, u := range r.cfg.Units {
		for {
			_, err := r.conn.SetDesired(ctx, wire.BMC(uint8(u.Spec.Slot)), &wire.Desired{Generation: 1, Power: wire.PowerOn, Mask: wire.DesiredPower})
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				b.Fatalf("power on %s: %v", u.Metadata.Name, err)
			}
		}
	}
	var out sample
	for _, u := range r.cfg.Units {
		for {
			s, err := r.conn.UnitState(ctx, wire.BMC(uint8(u.Spec.Slot)))
			if err == nil && s.Stage == wire.StageRunning {
				break
			}
			if ctx.Err() != nil || err == nil && (s.State == wire.StateFaulted || s.Stage == wire.StageFailed) {
				b.Fatalf("%s: %v, %v: %+v, %v\n%s", u.Metadata.Name, s.State, s.Stage, s.Failure, err, r.console(u.Spec.Slot))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	out.wall = time.Since(begin).Seconds()
	for _, u := range r.cfg.Units {
		s, _ := r.UnitState(u.Spec.Slot)
		out.cpu += s.Machine.CPUSeconds
	}
	return out
}

// console is what a unit printed.
func (r *virtualRack) console(slot nouns.SlotID) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var text strings.Builder
	for at := uint64(0); ; {
		p, err := r.conn.ReadConsole(ctx, wire.BMC(uint8(slot)), at)
		if err != nil || len(p.Data) == 0 {
			return text.String()
		}
		text.Write(p.Data)
		at = p.From + uint64(len(p.Data))
	}
}

// leastRounds is how often each variant boots, at least: a median of fewer
// says little on a busy machine.
const leastRounds = 5

// BenchmarkCostOfTrust boots one unit from an empty data disk through the whole
// chain, through the same two stages without checks, and directly, by turns,
// and prints the medians of the CPU seconds that QEMU took from power-on to
// running, and their ratios. -benchtime=10x makes it ten rounds.
func BenchmarkCostOfTrust(b *testing.B) {
	variants := []variant{checked(b), unchecked(b), direct(b)}
	samples := make([][]sample, len(variants))
	rounds := max(b.N, leastRounds)
	for round := range rounds {
		for i, v := range variants {
			r := newVirtualRack(b, v, 1)
			s := r.boot(b)
			samples[i] = append(samples[i], s)
			text := r.console(1)
			if strings.Contains(text, "WITHOUT CHECKS") != (v.name == "unchecked") {
				b.Errorf("%s: this is not what should be measured:\n%s", v.name, text)
			}
			if testing.Verbose() {
				b.Logf("round %d: %-9s %.2f CPU s, %.2f s", round+1, v.name, s.cpu, s.wall)
				if round == 0 {
					b.Logf("console:\n%s", text)
				}
			}
			r.stop()
		}
	}
	cpu := func(s sample) float64 { return s.cpu }
	chain, without, straight := median(samples[0], cpu), median(samples[1], cpu), median(samples[2], cpu)
	b.ReportMetric(0, "ns/op") // the clock says nothing here
	b.ReportMetric(float64(rounds), "rounds")
	b.ReportMetric(chain, "cpu-s/boot")
	b.ReportMetric(without, "cpu-s/unchecked")
	b.ReportMetric(straight, "cpu-s/direct")
	b.ReportMetric(chain/without, "x-of-unchecked")
	b.ReportMetric(chain/straight, "x-of-direct")
	for i, v := range variants {
		b.Logf("%-9s CPU s %s; wall s %s", v.name, spread(samples[i], cpu), spread(samples[i], func(s sample) float64 { return s.wall }))
	}
}

// BenchmarkFourUnits powers four units on at once.
func BenchmarkFourUnits(b *testing.B) {
	v := checked(b)
	var samples []sample
	for range max(b.N, 3) {
		r := newVirtualRack(b, v, 4)
		samples = append(samples, r.boot(b))
		r.stop()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(samples, func(s sample) float64 { return s.wall }), "s-to-running")
	b.ReportMetric(median(samples, func(s sample) float64 { return s.cpu }), "cpu-s/4-boots")
}

// BenchmarkEvidence asks the BMCs of four running units for evidence over fresh
// nonces, one after the other, through the RMC as system/redfish does, verifies
// it under the board's key, and prints the 95th percentile.
func BenchmarkEvidence(b *testing.B) {
	r := newVirtualRack(b, checked(b), 4)
	r.boot(b)
	var took []float64
	for i := range max(b.N, 200) {
		slot := r.cfg.Units[i%len(r.cfg.Units)].Spec.Slot
		var nonce [32]byte
		rand.Read(nonce[:])
		begin := time.Now()
		signed, err := r.conn.Evidence(b.Context(), wire.BMC(uint8(slot)), nonce)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := trust.VerifyEvidence(r.DeviceKey(slot), nonce, signed); err != nil {
			b.Fatalf("evidence of slot %d: %v", slot, err)
		}
		took = append(took, time.Since(begin).Seconds()*1000)
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took[len(took)/2], "ms-p50")
	b.ReportMetric(took[len(took)*95/100], "ms-p95")
	b.ReportMetric(took[len(took)-1], "ms-max")
}

func median(s []sample, of func(sample) float64) float64 {
	v := sorted(s, of)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func sorted(s []sample, of func(sample) float64) (out []float64) {
	for _, x := range s {
		out = append(out, of(x))
	}
	slices.Sort(out)
	return out
}

func spread(s []sample, of func(sample) float64) string {
	v := sorted(s, of)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(s, of), v[0], v[len(v)-1])
}
