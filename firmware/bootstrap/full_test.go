package bootstrap

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact/verity"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/source"
)

// next publishes another release: another system and, if so asked, another boot image.
func (w *world) next(boot bool) {
	w.t.Helper()
	racktest.Tool(w.t, "git")
	before := w.spec
	w.root, w.tree = verity.Append(random(5, 600*verity.BlockSize), []byte("salt"))
	if boot {
		w.image = random(6, len(w.image))
	}
	w.build()
	file := filepath.Join(w.dir, "rack/releases/v0-1-0.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(b)
	for old, new := range map[string]string{
		string(before.Boot.Digest): string(w.spec.Boot.Digest), string(before.Boot.SlotManifest): string(w.spec.Boot.SlotManifest),
		string(before.OS.Digest): string(w.spec.OS.Digest), before.OS.RootHash: w.spec.OS.RootHash,
	} {
		text = strings.ReplaceAll(text, old, new)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	git := exec.Command("git", "-C", w.dir, "-c", "user.name=An Owner", "-c", "user.email=owner@rack.example", "commit", "--quiet", "--all", "--message", "next")
	if out, err := git.CombinedOutput(); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	for _, owner := range w.keys.Owners[:2] {
		if _, err := source.Sign(w.dir, owner, source.SignOptions{Now: w.signed, Online: &w.keys.Online, SlotManifest: w.slotManifest}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestFullDisk: a disk that takes nothing more refuses the new release and keeps the one that is on it.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name string
		boot bool  // the release has another boot image too
		room int64 // bytes that the disk still takes
	}{{"at once", false, 0}, {"in the middle of the image", false, 1 << 20}, {"before the boot image is staged", true, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.mustBoot("switch_root")
			measured, root := maps.Clone(w.bmc.key), w.spec.OS.RootHash
			w.next(tt.boot)
			for range 2 {
				w.machine.disk.budget = tt.room
				w.mustBoot("switch_root")
				if h := w.machine.handover; h.RootHash != root || h.Sequence != 1 || w.bmc.floors.Sequence != 1 || w.bmc.staged != nil {
					t.Errorf("started root %.8s of sequence %d, floor %d, staged %d bytes", h.RootHash, h.Sequence, w.bmc.floors.Sequence, len(w.bmc.staged))
				}
				if !maps.Equal(w.bmc.key, measured) {
					t.Errorf("measured %x, without the new release %x", w.bmc.key, measured)
				}
				if !slices.ContainsFunc(w.bmc.stages, func(r reported) bool {
					return r.stage == wire.StageFailed && r.failure.Reason.String() == "disk.full"
				}) {
					t.Error("the BMC was not told")
				}
			}
			w.machine.disk.budget = -1
			if tt.boot {
				if err := w.run(); err != ErrCycle {
					t.Fatal(err)
				}
				w.bmc.booted = 1
			}
			w.mustBoot("switch_root")
			if h := w.machine.handover; h.RootHash != w.spec.OS.RootHash || h.Sequence != 2 || w.bmc.floors.Sequence != 2 {
				t.Errorf("with room again: root %.8s of sequence %d, floor %d", h.RootHash, h.Sequence, w.bmc.floors.Sequence)
			}
		})
	}
	t.Run("nothing on it", func(t *testing.T) {
		w := newWorld(t)
		if _, err := prepare(w.machine.disk); err != nil {
			t.Fatal(err)
		}
		w.machine.disk.budget = 0
		w.mustStop("disk.full")
	})
	t.Run("what is on it is below the floor", func(t *testing.T) {
		w := newWorld(t)
		w.mustBoot("switch_root")
		w.next(false)
		old := w.machine.disk
		w.machine.disk = newDisk(t, diskSize)
		w.mustBoot("switch_root")
		w.machine.disk = old
		old.budget = 0
		w.mustStop("disk.full")
	})
}
