package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/racklet/racklet/artifact/verity"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

const (
	testRackID = "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a" // of rack/example
	testURL    = "https://git.test/rack.git"
	testPin    = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	otherPin   = "sha256//AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
	diskSize   = 600 << 20
)

var testNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// world is a rack repository with its keys, artefacts on mirrors, a BMC and a
// computer: all that a Boot meets.
type world struct {
	t      *testing.T
	dir    string
	url    string
	signed time.Time
	keys   *source.Keys

	kernel, initramfs, root, image []byte
	tree                           verity.Tree
	slot                           []byte // unsigned slot manifest
	spec                           rack.ReleaseSpec
	blobs                          map[rack.Digest][]byte

	bmc      *fakeBMC
	machine  *fakeMachine
	mirrors  []*fakeMirror
	boot     BootImage
	fetch    func(context.Context, rack.Repository) (*source.Bundle, error)
	config   rack.BootConfig
	console  bytes.Buffer
	unsigned func(*rack.ReleaseSpec) // changes the release before it is signed
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func newWorld(t *testing.T, edit ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "rack"), url: testURL, signed: testNow, blobs: map[rack.Digest][]byte{}}
	w.kernel, w.initramfs = random(1, 40_000), random(2, 30_000)
	w.root, w.tree = verity.Append(random(3, 600*verity.BlockSize), []byte("salt"))
	w.image = random(4, 5*trust.ChunkSize+512)
	for _, e := range edit {
		e(w)
	}
	w.build()
	w.publish()
	id, err := rack.ParseUUID(testRackID)
	if err != nil {
		t.Fatal(err)
	}
	root := w.keys.Root
	owners, err := source.Owners(root)
	if err != nil {
		t.Fatal(err)
	}
	w.config = rack.BootConfig{
		RackID: testRackID, Unit: "unit-1", Slot: 1, TUFRoot: root,
		Repository: rack.Repository{URL: w.url, Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef, TLSPins: []string{testPin, otherPin}},
	}
	w.bmc = &fakeBMC{now: testNow, owners: owners, rackID: id, security: 1, key: map[uint8][32]byte{}}
	w.bmc.slots[0] = wire.SlotInfo{State: wire.SlotValid, Digest: sha256.Sum256(w.slot)}
	w.machine = newMachine(t)
	w.mirrors = []*fakeMirror{{blobs: w.blobs}}
	w.boot = BootImage{Version: "0.1.0", SecurityVersion: 1, Kernel: rack.SHA256(w.kernel)}
	w.fetch = func(context.Context, rack.Repository) (*source.Bundle, error) {
		return source.ReadBundle(w.dir, w.config.Repository)
	}
	return w
}

func (w *world) blob(mediaType string, b []byte) descriptor {
	d := rack.SHA256(b)
	w.blobs[d] = b
	return descriptor{mediaType, d, int64(len(b))}
}

func (w *world) document(v any) []byte {
	w.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// build makes the artefacts and the release that names them.
func (w *world) build() {
	w.t.Helper()
	sm := trust.SlotManifest{Version: "0.1.0", SecurityVersion: 1, ImageSize: uint32(len(w.image)), ChunkSize: trust.ChunkSize, Kernel: sha256.Sum256(w.kernel)}
	for rest := w.image; len(rest) > 0; rest = rest[min(len(rest), trust.ChunkSize):] {
		sm.Chunks = append(sm.Chunks, sha256.Sum256(rest[:min(len(rest), trust.ChunkSize)]))
	}
	var err error
	if w.slot, err = sm.MarshalBinary(); err != nil {
		w.t.Fatal(err)
	}
	c := osConfig{
		Version: "0.1.0", Kernel: rack.SHA256(w.kernel), RootHash: hex.EncodeToString(w.tree.Root[:]), Salt: hex.EncodeToString(w.tree.Salt),
		DataBlocks: w.tree.DataBlocks, HashOffset: uint64(w.tree.HashOffset), BlockSize: verity.BlockSize,
	}
	osm := manifest{SchemaVersion: 2, ArtifactType: typeOS, Config: w.blob("application/json", w.document(c)), Layers: []descriptor{
		w.blob(typeOSRoot, w.root), w.blob(typeOSKernel, w.kernel), w.blob(typeOSInitramfs, w.initramfs)}}
	bm := manifest{SchemaVersion: 2, ArtifactType: typeBoot, Config: w.blob("application/json", []byte("{}")), Layers: []descriptor{
		w.blob(typeBootImage, w.image), w.blob(typeBootManifest, w.slot)}}
	w.spec = rack.ReleaseSpec{
		Version: "0.1.0", SecurityVersion: 1,
		Boot: rack.ReleaseBoot{Artifact: "racklet/boot", Digest: w.blob("", w.document(bm)).Digest, SlotManifest: rack.SHA256(w.slot), Kernel: rack.SHA256(w.kernel)},
		OS:   rack.ReleaseOS{Artifact: "racklet/os", Digest: w.blob("", w.document(osm)).Digest, Kernel: rack.SHA256(w.kernel), RootHash: c.RootHash},
	}
	if w.unsigned != nil {
		w.unsigned(&w.spec)
	}
}

// publish makes the repository: the example rack with our release.
func (w *world) publish() {
	w.t.Helper()
	files := fstest.MapFS{}
	example := os.DirFS("../../rack/example")
	for _, dir := range []string{"rack", "apps"} {
		if err := fs.WalkDir(example, dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(example, name)
			files[name] = &fstest.MapFile{Data: data}
			return err
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	s := &w.spec
	files["rack/releases/v0-1-0.yaml"] = &fstest.MapFile{Data: fmt.Appendf(nil, `apiVersion: racklet.io/v1alpha1
kind: Release
metadata: {name: v0-1-0}
spec:
  version: %q
  securityVersion: %d
  boot: {artifact: %s, digest: %q, slotManifest: %q, kernel: %q}
  os: {artifact: %s, digest: %q, kernel: %q, rootHash: %q}
`, s.Version, s.SecurityVersion, s.Boot.Artifact, s.Boot.Digest, s.Boot.SlotManifest, s.Boot.Kernel,
		s.OS.Artifact, s.OS.Digest, s.OS.Kernel, s.OS.RootHash)}
	keys, err := source.InitRepository(w.dir, source.InitOptions{
		Files: files, Repository: rack.Repository{URL: w.url},
		Sign: source.SignOptions{Now: w.signed, SlotManifest: w.slotManifest},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.keys = keys
}

func (w *world) slotManifest(d rack.Digest) ([]byte, error) {
	if d == rack.SHA256(w.slot) {
		return w.slot, nil
	}
	return nil, fs.ErrNotExist
}

// run boots once, on whatever the disk holds by now.
func (w *world) run() error {
	w.t.Helper()
	doc, err := w.config.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.bmc.config == nil {
		w.bmc.config = doc
	}
	w.console.Reset()
	w.bmc.reset()
	w.machine.reset()
	b := &Boot{
		Image: w.boot, BMC: w.bmc, Machine: w.machine, Console: &w.console, Log: slog.New(slog.DiscardHandler),
		Fetch: func(ctx context.Context, r rack.Repository) (*source.Bundle, error) { return w.fetch(ctx, r) },
		Open: func(m rack.Mirror) (Mirror, error) {
			for i, f := range w.mirrors {
				if i == 0 || m.URL == fmt.Sprintf("https://mirror-%d.test", i) {
					if i > 0 || !strings.Contains(m.URL, "mirror-") {
						f.opened++
						return f, nil
					}
				}
			}
			return nil, fmt.Errorf("no mirror %s", m.URL)
		},
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Hour) // stalls take minutes, of a bubble's clock
	defer cancel()
	return b.Run(ctx)
}

// more adds mirrors of the place to the repository's host.
func (w *world) more(mirrors ...*fakeMirror) {
	w.mirrors = append([]*fakeMirror{nil}, mirrors...)
	for i := range mirrors {
		w.config.Mirrors = append(w.config.Mirrors, rack.Mirror{URL: fmt.Sprintf("https://mirror-%d.test", i+1), TLSPins: []string{testPin}})
	}
}

func (w *world) mustBoot(path string) {
	w.t.Helper()
	if err := w.run(); err != nil {
		w.t.Fatalf("boot: %v\n%s", err, w.console.String())
	}
	if w.machine.started != path {
		w.t.Fatalf("handed over by %q, want %q\n%s", w.machine.started, path, w.console.String())
	}
}

// mustStop checks that a boot was refused by name, that the BMC heard of it,
// that the console tells the cure, and that nothing was started.
func (w *world) mustStop(reason string) *Failure {
	w.t.Helper()
	err := w.run()
	var f *Failure
	if !errors.As(err, &f) {
		w.t.Fatalf("boot: %v, want a stop by %s\n%s", err, reason, w.console.String())
	}
	if f.Reason != reason {
		w.t.Fatalf("stopped by %v, want %s\n%s", f, reason, w.console.String())
	}
	r, ok := rack.LookupReason(reason)
	if !ok {
		w.t.Errorf("%s is not in rack.Reasons", reason)
	}
	last := w.bmc.stages[len(w.bmc.stages)-1]
	if last.stage != wire.StageFailed || last.failure.Reason.String() != reason {
		w.t.Errorf("the BMC heard last of stage %v, %v", last.stage, last.failure.Reason)
	}
	if out := w.console.String(); !strings.Contains(out, r.Cure) || !strings.Contains(out, reason) {
		w.t.Errorf("the console does not say what to do:\n%s", out)
	}
	if w.machine.started != "" {
		w.t.Errorf("something was started by %s", w.machine.started)
	}
	return f
}

// fakeBMC is a BMC in memory, with the real rules for floors.
type fakeBMC struct {
	config   []byte
	now      time.Time
	floors   trust.Floors
	owners   trust.Keyring
	rackID   [16]byte
	security uint32
	slots    [2]wire.SlotInfo
	booted   uint8
	staged   []byte
	key      map[uint8][32]byte

	stages []reported
	labels []string
	raised bool
	fail   func(call string) error
}

type reported struct {
	stage   wire.Stage
	failure wire.Failure
}

func (b *fakeBMC) reset() {
	b.stages, b.labels, b.raised, b.key = nil, nil, false, map[uint8][32]byte{}
}

func (b *fakeBMC) check(call string) error {
	if b.fail != nil {
		return b.fail(call)
	}
	return nil
}

func (b *fakeBMC) BootConfig(context.Context) ([]byte, error) { return b.config, b.check("config") }
func (b *fakeBMC) Floors(context.Context) (trust.Floors, error) {
	return b.floors, b.check("floors")
}
func (b *fakeBMC) Time(context.Context) (time.Time, error) { return b.now, b.check("time") }
func (b *fakeBMC) Slots(context.Context) ([2]wire.SlotInfo, uint8, error) {
	return b.slots, b.booted, b.check("slots")
}

func (b *fakeBMC) ReportStage(_ context.Context, s wire.Stage, f wire.Failure) error {
	b.stages = append(b.stages, reported{s, f})
	return b.check("stage")
}

func (b *fakeBMC) Heartbeat(context.Context, wire.Report) (wire.HostRequest, error) {
	return wire.HostNone, b.check("heartbeat")
}

func (b *fakeBMC) Extend(_ context.Context, register uint8, digest [32]byte, label string) error {
	if err := b.check("extend"); err != nil {
		return err
	}
	r := trust.Register{Value: b.key[register]}
	r.Extend(digest)
	b.key[register] = r.Value
	b.labels = append(b.labels, label)
	return nil
}

func (b *fakeBMC) RaiseFloors(_ context.Context, signed []byte) error {
	if err := b.check("raise"); err != nil {
		return err
	}
	if err := b.floors.Raise(&b.owners, b.rackID, b.security, signed); err != nil {
		return stop("floor.statement", "", "", err)
	}
	b.raised = true
	return nil
}

func (b *fakeBMC) saw(s wire.Stage) bool {
	return slices.ContainsFunc(b.stages, func(r reported) bool { return r.stage == s })
}

func (b *fakeBMC) Stage(_ context.Context, image, signed []byte) error {
	if err := b.check("stage slot"); err != nil {
		return err
	}
	msg, err := b.owners.Open(trust.DomainSlot, signed)
	if err != nil {
		return stop("slot.signature", "", "", err)
	}
	b.staged = image
	b.slots[1-b.booted] = wire.SlotInfo{State: wire.SlotValid, Digest: sha256.Sum256(msg)}
	return nil
}

// fakeMachine is a computer whose disk is a file and whose clock jumps.
type fakeMachine struct {
	clock    time.Time
	disk     *fileDisk
	platform string
	kexecOK  bool
	network  func() error
	waited   time.Duration

	opened   bool
	started  string
	handover *Handover
	resume   []byte
	loaded   []byte
}

func newMachine(t *testing.T) *fakeMachine {
	t.Helper()
	return &fakeMachine{disk: newDisk(t, diskSize), platform: rack.PlatformVirt, kexecOK: true}
}

func (m *fakeMachine) reset() {
	m.clock, m.waited, m.opened, m.started, m.handover = time.Time{}, 0, false, "", nil
}

func (m *fakeMachine) Platform() string           { return m.platform }
func (m *fakeMachine) Now() time.Time             { return m.clock }
func (m *fakeMachine) SetClock(t time.Time) error { m.clock = t; return nil }
func (m *fakeMachine) CommandLine() string        { return "console=ttyAMA0" }
func (m *fakeMachine) CanKexec() bool             { return m.kexecOK }
func (m *fakeMachine) CloseRoot() error           { m.opened = false; return nil }

func (m *fakeMachine) Wait(ctx context.Context, d time.Duration) error {
	if m.waited += d; m.waited > time.Hour {
		return context.DeadlineExceeded // nothing is going to change
	}
	return ctx.Err()
}

func (m *fakeMachine) Network(context.Context) (*Lease, error) {
	if m.network != nil {
		if err := m.network(); err != nil {
			return nil, err
		}
	}
	return &Lease{Interface: "eth0", Address: netip.MustParsePrefix("10.77.0.11/24"), Gateway: netip.MustParseAddr("10.77.0.1"), Seconds: 3600}, nil
}

func (m *fakeMachine) Disk(context.Context) (Disk, error) { return m.disk, nil }

func (m *fakeMachine) OpenRoot(p Partition, v Verity) error {
	if m.opened {
		return errors.New("open already")
	}
	t := verity.Tree{Root: v.Root, Salt: v.Salt, DataBlocks: v.DataBlocks, HashOffset: int64(v.HashStart) * verity.BlockSize}
	t.HashBlocks = t.CountHashBlocks()
	if err := t.Verify(io.NewSectionReader(m.disk, p.Offset, p.Size)); err != nil {
		return stop("os.verity", hexDigest(v.Root), "another content", err)
	}
	m.opened = true
	return nil
}

func (m *fakeMachine) SwitchRoot(h *Handover) error {
	if !m.opened {
		return errors.New("no root")
	}
	m.started, m.handover = "switch_root", h
	return nil
}

func (m *fakeMachine) Kexec(kernel, initramfs []byte, _ string) error {
	m.started, m.loaded, m.resume = "kexec", kernel, initramfs
	return nil
}

// fileDisk is a data disk in a file. It can lose power: after budget bytes
// nothing is written any more.
type fileDisk struct {
	*os.File
	size   int64
	budget int64 // bytes that still reach the medium; negative: no limit
	wrote  int64
}

func newDisk(t *testing.T, size int64) *fileDisk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return &fileDisk{File: f, size: size, budget: -1}
}

var errPower = errors.New("power cut")

func (d *fileDisk) WriteAt(b []byte, at int64) (int, error) {
	if d.budget >= 0 {
		if int64(len(b)) > d.budget {
			n, _ := d.File.WriteAt(b[:d.budget], at)
			d.budget = 0
			return n, errPower
		}
		d.budget -= int64(len(b))
	}
	d.wrote += int64(len(b))
	return d.File.WriteAt(b, at)
}

func (d *fileDisk) Size() int64   { return d.size }
func (d *fileDisk) Sync() error   { return nil }
func (d *fileDisk) Rescan() error { return nil }

func (d *fileDisk) flip(t *testing.T, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := d.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := d.File.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// fakeMirror serves blobs, honestly or not.
type fakeMirror struct {
	blobs  map[rack.Digest][]byte
	opened int
	served int64
	breaks int64 // connections end after so many bytes; 0: never
	offs   []int64
	err    error
	stuck  bool // no manifest ever comes
}

func (m *fakeMirror) get(d rack.Digest) ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	b, ok := m.blobs[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

func (m *fakeMirror) Manifest(ctx context.Context, _ string, d rack.Digest) ([]byte, error) {
	if m.stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.get(d)
}

func (m *fakeMirror) Blob(_ context.Context, _ string, d rack.Digest, offset int64) (io.ReadCloser, error) {
	b, err := m.get(d)
	if err != nil {
		return nil, err
	}
	if offset > int64(len(b)) {
		return nil, errors.New("range not satisfiable")
	}
	m.offs = append(m.offs, offset)
	b = b[offset:]
	if m.breaks > 0 && int64(len(b)) > m.breaks {
		b = b[:m.breaks]
	}
	m.served += int64(len(b))
	return io.NopCloser(bytes.NewReader(b)), nil
}

// spoil returns blobs of which one is changed by one bit.
func spoil(blobs map[rack.Digest][]byte, d rack.Digest) map[rack.Digest][]byte {
	out := maps.Clone(blobs)
	b := bytes.Clone(out[d])
	b[len(b)/2] ^= 1
	out[d] = b
	return out
}
