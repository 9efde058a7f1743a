package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/racklet/racklet/artifact/verity"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

func TestSwitchRoot(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	var stages []string
	for _, r := range w.bmc.stages {
		stages = append(stages, r.stage.String())
		if !r.failure.IsZero() {
			t.Errorf("failure in a good boot: %v", r.failure.Reason)
		}
	}
	if got, want := strings.Join(stages, " "), "bootstrap network source verified fetch artifact handover"; got != want {
		t.Errorf("stages %q, want %q", got, want)
	}
	h := w.machine.handover
	if h.Unit != "unit-1" || h.Slot != 1 || h.Release != "0.1.0" || h.Stale || h.Sequence != 1 || len(h.Commit) != 40 ||
		h.RootHash != w.spec.OS.RootHash || h.Path != "switch_root" || h.Lease == nil || len(h.Times) != 7 {
		t.Errorf("handover %+v", h)
	}
	if w.bmc.floors.Sequence != 1 {
		t.Errorf("floors %+v", w.bmc.floors)
	}

	// A verifier must be able to compute the registers from repository and release.
	want := map[uint8][32]byte{}
	extend := func(n uint8, d [32]byte) {
		r := trust.Register{Value: want[n]}
		r.Extend(d)
		want[n] = r.Value
	}
	b, err := source.ReadBundle(w.dir, w.config.Repository)
	if err != nil {
		t.Fatal(err)
	}
	msg, _, err := trust.SplitSigned(b.Metadata["floors/1.floor"])
	if err != nil {
		t.Fatal(err)
	}
	extend(trust.RegisterTree, sha256.Sum256(msg))
	d, _ := w.spec.OS.Digest.Sum()
	extend(trust.RegisterOS, d)
	extend(trust.RegisterRootHash, w.tree.Root)
	extend(trust.RegisterHandover, sha256.Sum256([]byte("kernel "+string(w.spec.OS.Kernel)+"\ninitramfs -\ncmdline console=ttyAMA0\n")))
	for n, v := range want {
		if w.bmc.key[n] != v {
			t.Errorf("register %d is %x, want %x", n, w.bmc.key[n], v)
		}
	}
	if len(w.bmc.key) != len(want) {
		t.Errorf("registers %v", w.bmc.labels)
	}
}

// TestSecondBoot uses what lies on the disk: nothing is downloaded again.
func TestSecondBoot(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	served := w.mirrors[0].served
	w.mustBoot("switch_root")
	if w.mirrors[0].served != served {
		t.Errorf("%d bytes fetched again", w.mirrors[0].served-served)
	}
	if !strings.Contains(w.console.String(), "already") {
		t.Errorf("console:\n%s", w.console.String())
	}
}

func TestKexec(t *testing.T) {
	w := newWorld(t)
	w.boot.Kernel = rack.SHA256([]byte("another kernel"))
	w.mustBoot("kexec")
	if !bytes.Equal(w.machine.loaded, w.kernel) {
		t.Error("another kernel was loaded")
	}
	if w.machine.opened {
		t.Error("the root is still open under the old kernel")
	}
	// The archive in front says what to open; the kernel unpacks both.
	rest, ok := bytes.CutSuffix(w.machine.resume, w.initramfs)
	if !ok || len(rest)%512 != 0 {
		t.Fatalf("initramfs of %d bytes with %d in front", len(w.machine.resume), len(rest))
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(rest)))
	if err != nil {
		t.Fatal(err)
	}
	var h Handover
	for _, r := range records {
		if "/"+r.Name == ResumeFile {
			doc := make([]byte, r.FileSize)
			if _, err := r.ReadAt(doc, 0); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if err := json.Unmarshal(doc, &h); err != nil {
				t.Fatal(err)
			}
		}
	}
	if h.Verity == nil || h.Path != "kexec" || h.Partition != PartitionOSA {
		t.Fatalf("handover %+v", h)
	}
	v, err := h.Verity.parse()
	if err != nil || v.Root != w.tree.Root || v.DataBlocks != w.tree.DataBlocks || int64(v.HashStart)*verity.BlockSize != w.tree.HashOffset || string(v.Salt) != string(w.tree.Salt) {
		t.Errorf("verity %+v, %v", v, err)
	}
}

// TestStaging runs an older boot image: the release's goes into the idle slot,
// once, and boots after the power cycle.
func TestStaging(t *testing.T) {
	w := newWorld(t)
	w.bmc.slots[0].Digest = sha256.Sum256([]byte("older"))
	if err := w.run(); !errors.Is(err, ErrCycle) {
		t.Fatalf("boot: %v\n%s", err, w.console.String())
	}
	if !bytes.Equal(w.bmc.staged, w.image) || w.machine.started != "" {
		t.Fatal("not staged, or something started")
	}
	w.bmc.booted = 1 // the BMC cycles the power
	w.mustBoot("switch_root")
}

// TestStagingEnds has a BMC that goes on booting the older image.
func TestStagingEnds(t *testing.T) {
	w := newWorld(t)
	w.bmc.slots[0].Digest = sha256.Sum256([]byte("older"))
	for range maxStaging {
		if err := w.run(); !errors.Is(err, ErrCycle) {
			t.Fatalf("boot: %v", err)
		}
	}
	w.bmc.staged = nil
	f := w.mustStop("handover.staging")
	if w.bmc.staged != nil || f.Expected != string(w.spec.Boot.SlotManifest) {
		t.Errorf("staged again, or unclear: %v", f)
	}
	// Whoever cycles the power after that wants another try.
	if err := w.run(); !errors.Is(err, ErrCycle) {
		t.Fatalf("boot: %v", err)
	}
}

// spoilSignature turns one bit of the first signature in TUF metadata, or of
// the last byte of anything else, which in a signed container is one too.
func spoilSignature(c []byte) {
	at := len(c) - 1
	if i := bytes.Index(c, []byte(`"sig"`)); i >= 0 {
		at = i + bytes.IndexByte(c[i+5:], '"') + 10
	}
	if c[at] ^= 1; c[at] > '9' && c[at] < 'a' || c[at] > 'f' {
		c[at] ^= 3
	}
}

// TestRefusals changes one thing at a time. Each case has a good control: the
// same world boots when nothing is changed (TestSwitchRoot and, for those that
// need another path, TestKexec and TestStaging).
func TestRefusals(t *testing.T) {
	// change alters a file of the metadata on its way.
	change := func(suffix string) func(*world) {
		return func(w *world) {
			honest := w.fetch
			w.fetch = func(ctx context.Context, r rack.Repository) (*source.Bundle, error) {
				b, err := honest(ctx, r)
				if err != nil {
					return nil, err
				}
				n := 0
				for name, content := range b.Metadata {
					if strings.HasSuffix(name, suffix) {
						c := bytes.Clone(content)
						spoilSignature(c)
						b.Metadata[name] = c
						n++
					}
				}
				if n == 0 {
					t.Errorf("no %s in the metadata", suffix)
				}
				return b, nil
			}
		}
	}
	older := func(w *world) { w.bmc.slots[0].Digest = sha256.Sum256([]byte("older")) }
	otherKernel := func(w *world) { w.boot.Kernel = rack.SHA256([]byte("another kernel")) }
	osLayer := func(i int) func(*world) {
		return func(w *world) {
			var m manifest
			if err := json.Unmarshal(w.blobs[w.spec.OS.Digest], &m); err != nil {
				t.Fatal(err)
			}
			d := m.Config.Digest
			if i >= 0 {
				d = m.Layers[i].Digest
			}
			w.mirrors[0].blobs = spoil(w.blobs, d)
		}
	}
	for _, c := range []struct {
		name   string
		before func(*world) // before the owners sign
		change []func(*world)
		reason string
	}{
		{"boot configuration", nil, []func(*world){func(w *world) { w.bmc.config = []byte(`{"rackID":1}`) }}, "boot.config"},
		{"no clock", nil, []func(*world){func(w *world) { w.bmc.now = time.Time{} }}, "network.clock"},
		{"clock of 1970", nil, []func(*world){func(w *world) { w.bmc.now = time.Unix(1000, 0) }}, "network.clock"},
		{"no network", nil, []func(*world){func(w *world) {
			w.machine.network = func() error { return retry("network.no-lease", "an answer", "none", nil) }
		}}, "network.no-lease"},
		{"foreign disk", nil, []func(*world){func(w *world) { w.machine.disk.flip(t, 3) }}, "disk.layout"},
		{"small disk", nil, []func(*world){func(w *world) { w.machine.disk = newDisk(t, 100<<20) }}, "os.disk"},

		{"timestamp", nil, []func(*world){change("timestamp.json")}, "tuf.timestamp"},
		{"snapshot", nil, []func(*world){change(".snapshot.json")}, "tuf.snapshot"},
		{"targets", nil, []func(*world){change("1.targets.json")}, "tuf.targets"},
		{"rack.json", nil, []func(*world){change(".rack.json")}, "tuf.targets"},
		{"floor statement", nil, []func(*world){change(".floor")}, "floor.statement"},
		{"slot manifest", nil, []func(*world){change(".slot")}, "slot.signature"},
		{"another rack's keys", nil, []func(*world){func(w *world) { w.fetch = newWorld(t).fetch }}, "tuf.timestamp"},
		{"another rack's identity", nil, []func(*world){func(w *world) { w.config.RackID = "11111111-2222-4333-8444-555555555555" }}, "rack.repository"},
		{"another repository", nil, []func(*world){func(w *world) { w.config.Repository.URL = "https://git.test/other.git" }}, "rack.repository"},
		{"older sequence", nil, []func(*world){func(w *world) { w.bmc.floors.Sequence = 2 }}, "rack.sequence"},
		{"same sequence, another tree", nil, []func(*world){func(w *world) { w.bmc.floors.Sequence = 1 }}, "rack.tree"},
		{"expired", nil, []func(*world){func(w *world) { w.bmc.now = testNow.AddDate(0, 0, 8) }}, "tuf.timestamp.expired"},
		{"nobody there", nil, []func(*world){func(w *world) {
			w.fetch = func(context.Context, rack.Repository) (*source.Bundle, error) {
				return nil, errors.New("connection refused")
			}
		}}, "source.unreachable"},
		{"another TLS key", nil, []func(*world){func(w *world) {
			w.fetch = func(context.Context, rack.Repository) (*source.Bundle, error) {
				return nil, &source.Refusal{Check: "source.tls-pin", Expected: testPin, Seen: "another"}
			}
		}}, "source.tls-pin"},

		{"unknown unit", nil, []func(*world){func(w *world) { w.config.Unit = "unit-9" }}, "unit.unknown"},
		{"another slot", nil, []func(*world){func(w *world) { w.config.Slot = 3 }}, "unit.slot"},
		{"another platform", nil, []func(*world){func(w *world) { w.machine.platform = rack.PlatformRPi4 }}, "unit.platform"},

		{"OS manifest", nil, []func(*world){func(w *world) { w.mirrors[0].blobs = spoil(w.blobs, w.spec.OS.Digest) }}, "os.manifest"},
		{"OS configuration", nil, []func(*world){osLayer(-1)}, "os.blob"},
		{"root image", nil, []func(*world){osLayer(0)}, "os.root"},
		{"kernel", nil, []func(*world){otherKernel, osLayer(1)}, "os.kernel"},
		{"initramfs", nil, []func(*world){otherKernel, osLayer(2)}, "os.blob"},
		{"no mirror has it", nil, []func(*world){func(w *world) { w.mirrors[0].blobs = nil }}, "os.unreachable"},
		{"release names another kernel", func(w *world) {
			w.unsigned = func(s *rack.ReleaseSpec) { s.OS.Kernel = rack.SHA256([]byte("x")) }
		}, nil, "os.kernel"},
		{"release names another root", func(w *world) {
			w.unsigned = func(s *rack.ReleaseSpec) { s.OS.RootHash = rack.SHA256([]byte("x")).Hex() }
		}, nil, "os.root"},
		{"release names a boot artefact as OS", func(w *world) {
			w.unsigned = func(s *rack.ReleaseSpec) { s.OS.Digest = s.Boot.Digest }
		}, nil, "os.manifest"},
		{"root hash of another image", func(w *world) {
			w.tree.Root[0] ^= 1
		}, nil, "os.verity"},

		{"boot manifest", nil, []func(*world){older, func(w *world) { w.mirrors[0].blobs = spoil(w.blobs, w.spec.Boot.Digest) }}, "os.manifest"},
		{"boot image", nil, []func(*world){older, func(w *world) { w.mirrors[0].blobs = spoil(w.blobs, rack.SHA256(w.image)) }}, "os.blob"},
		{"boot image with other chunks", func(w *world) {
			w.unsigned = func(s *rack.ReleaseSpec) { // an artefact that does not belong to the slot manifest
				other := random(9, len(w.image))
				m := manifest{SchemaVersion: 2, ArtifactType: typeBoot, Config: w.blob("application/json", []byte("{}")), Layers: []descriptor{w.blob(typeBootImage, other)}}
				s.Boot.Digest = w.blob("", w.document(m)).Digest
			}
		}, []func(*world){older}, "slot.chunk"},
		{"BMC refuses the slot", nil, []func(*world){older, func(w *world) {
			w.bmc.fail = func(call string) error {
				if call == "stage slot" {
					return stop("slot.floor", "security version 7", "1", nil)
				}
				return nil
			}
		}}, "slot.floor"},

		{"measurement lost", nil, []func(*world){func(w *world) {
			w.bmc.fail = func(call string) error {
				if call == "extend" {
					return errors.New("no answer")
				}
				return nil
			}
		}}, "handover.evidence"},
		{"floors refused", nil, []func(*world){func(w *world) { w.bmc.rackID[0] ^= 1 }}, "floor.statement"},
		{"no kexec here", nil, []func(*world){otherKernel, func(w *world) { w.machine.kexecOK = false }}, "handover.kernel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w *world
			if c.before != nil {
				w = newWorld(t, c.before)
			} else {
				w = newWorld(t)
			}
			for _, f := range c.change {
				f(w)
			}
			w.mustStop(c.reason)
			if w.bmc.raised && !w.bmc.saw(wire.StageArtifact) {
				t.Error("the floor was raised before everything was there")
			}
		})
	}
}

// TestStale: metadata that has expired is good for exactly the version that
// was accepted last.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	w.bmc.now = testNow.AddDate(0, 0, 30)
	w.mustBoot("switch_root")
	if !w.machine.handover.Stale {
		t.Error("not marked Stale")
	}
	// The same without a server: from the disk.
	w.fetch = func(context.Context, rack.Repository) (*source.Bundle, error) {
		return nil, errors.New("connection refused")
	}
	w.mustBoot("switch_root")
	if !w.machine.handover.Stale {
		t.Error("not marked Stale")
	}
	// One floor higher, and neither will do.
	w.bmc.floors.Sequence++
	w.mustStop("source.unreachable")
}

// TestCachedBundle: without a server the bundle of an earlier boot is used, if
// it still holds.
func TestCachedBundle(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	w.fetch = func(context.Context, rack.Repository) (*source.Bundle, error) {
		return nil, errors.New("connection refused")
	}
	w.mustBoot("switch_root")
	told := false
	for _, r := range w.bmc.stages {
		told = told || r.failure.Reason.String() == "source.unreachable"
	}
	if w.machine.handover.Stale || !told {
		t.Errorf("stale %v, the BMC was told %v", w.machine.handover.Stale, told)
	}

	parts, err := readPartitions(w.machine.disk, w.machine.disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	cache := parts[2]
	rec := readRecord(w.machine.disk, cache)
	rec.Bundle[len(rec.Bundle)/2] ^= 1 // someone who can write the disk can also make the checksum right
	for range 2 {
		if err := writeRecord(w.machine.disk, cache, rec); err != nil {
			t.Fatal(err)
		}
	}
	w.mustStop("source.unreachable")
}

// TestRefusedSourceIsFinal: a bundle that was refused is no reason to fall
// back to an older one.
func TestRefusedSourceIsFinal(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	w.fetch = newWorld(t).fetch
	w.mustStop("tuf.timestamp")
}

// TestPatience: what comes late is waited for; the BMC hears when it takes long.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		failures int
		told     bool
	}{{2, false}, {8, true}} {
		w := newWorld(t)
		n := 0
		w.machine.network = func() error {
			if n++; n <= c.failures {
				return retry("network.no-carrier", "a link", "none", nil)
			}
			return nil
		}
		w.mustBoot("switch_root")
		told := false
		for i, r := range w.bmc.stages {
			if r.stage == wire.StageFailed {
				told = true
				if next := w.bmc.stages[i+1]; next.stage != wire.StageNetwork || !next.failure.IsZero() {
					t.Errorf("after the failure the BMC hears %v", next.stage)
				}
			}
		}
		if told != c.told {
			t.Errorf("%d failures: told %v, want %v", c.failures, told, c.told)
		}
	}
}

// TestDamagedRoot: a bit that turned on the disk is found before anything runs
// from it, told, and repaired from a mirror.
func TestDamagedRoot(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	w.machine.disk.flip(t, partitionAlign+123_456)
	served := w.mirrors[0].served
	w.mustBoot("switch_root")
	told := false
	for _, r := range w.bmc.stages {
		// A BMC logs what made a stage fail, and nothing else (firmware/bmc, stageReport).
		told = told || r.stage == wire.StageFailed && r.failure.Reason.String() == "os.verity"
	}
	if !told || w.mirrors[0].served-served < int64(len(w.root)) {
		t.Errorf("told %v, %d bytes fetched", told, w.mirrors[0].served-served)
	}
	w.machine.disk.flip(t, partitionAlign+123_456)
	w.mirrors[0].blobs = nil
	w.mustStop("os.unreachable")
}

// TestRecordIsAHint: whatever a liar writes into the record, the root hash of
// the verified release decides.
func TestRecordIsAHint(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	parts, err := prepare(w.machine.disk)
	if err != nil {
		t.Fatal(err)
	}
	// Another image, in a partition that is said to hold the release's.
	evil, tree := verity.Append(random(7, 600*verity.BlockSize), []byte("salt"))
	if _, err := w.machine.disk.WriteAt(evil, parts.os[1].Offset); err != nil {
		t.Fatal(err)
	}
	rec := readRecord(w.machine.disk, parts.cache)
	img := rec.Images[PartitionOSA]
	delete(rec.Images, PartitionOSA)
	var c osConfig
	if err := json.Unmarshal(img.Config, &c); err != nil {
		t.Fatal(err)
	}
	c.RootHash = rack.DigestOf(tree.Root).Hex()
	img.Config = w.document(c)
	rec.Images[PartitionOSB] = img
	if err := writeRecord(w.machine.disk, parts.cache, rec); err != nil {
		t.Fatal(err)
	}
	w.mustBoot("switch_root")
	if w.machine.handover.RootHash != w.spec.OS.RootHash {
		t.Error("the liar's root was booted")
	}
}

// TestReasons: every name that this package gives to a failure is known.
func TestReasons(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`(?:stop|retry|asFailure|persist|fromMirrors|MakeFailure)\([^"\n]*"([a-z]+\.[a-z.-]+)"`)
	n := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllSubmatch(b, -1) {
			n++
			if _, ok := rack.LookupReason(string(m[1])); !ok {
				t.Errorf("%s: %s is not in rack.Reasons", f, m[1])
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d names found: does the pattern still match?", n)
	}
}

// TestWords: of the kernel's command line stage 1 heeds two words, which say
// where devices are, and of its environment nothing. None can weaken a check.
func TestWords(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	inBand, err := filepath.Glob("../wire/link/inband*.go")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`"(racklet\.[a-z.-]+=[^"]*)"`)
	found := map[string]bool{}
	for _, f := range append(files, inBand...) {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range word.FindAllSubmatch(b, -1) {
			found[string(m[1])] = true
		}
		for _, bad := range []string{"os.Getenv", "os.LookupEnv", "os.Environ", "os.Args", `"flag"`} {
			if bytes.Contains(b, []byte(bad)) {
				t.Errorf("%s uses %s", f, bad)
			}
		}
	}
	if len(found) != 2 || !found["racklet.bmc=/dev/"] || !found["racklet.disk=/dev/"] {
		t.Errorf("words %v", found)
	}
}
