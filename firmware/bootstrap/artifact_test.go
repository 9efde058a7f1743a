package bootstrap

import (
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
)

// TestMirrorsInOrder: a mirror that is down, one that has nothing and one that
// lies are passed over; the third one is honest.
func TestMirrorsInOrder(t *testing.T) {
	w := newWorld(t)
	root := rack.SHA256(w.root)
	down := &fakeMirror{err: errors.New("connection refused")}
	empty := &fakeMirror{}
	liar := &fakeMirror{blobs: spoil(w.blobs, root)}
	honest := &fakeMirror{blobs: w.blobs}
	w.more(down, empty, liar, honest)
	w.mustBoot("switch_root")
	if liar.served < int64(len(w.root)) || honest.served < int64(len(w.root)) {
		t.Errorf("the liar served %d bytes, the honest mirror %d", liar.served, honest.served)
	}

	refused := func() (n int) { // as a BMC logs it: when a stage failed by it
		for _, r := range w.bmc.stages {
			if r.stage == wire.StageFailed && r.failure.Reason.String() == "os.root" && r.failure.Expected.Len() > 0 && r.failure.Seen.Len() > 0 {
				n++
			}
		}
		return n
	}
	if n := refused(); n != 1 {
		t.Errorf("the BMC heard %d times of what the liar sent", n)
	}

	// Liars alone: named, and final. A liar and one that is down: perhaps later.
	w = newWorld(t)
	w.more(&fakeMirror{blobs: spoil(w.blobs, root)}, &fakeMirror{blobs: spoil(w.blobs, root)})
	f := w.mustStop("os.root")
	if f.Expected != string(root) || f.Seen == f.Expected || f.Seen == "" {
		t.Errorf("%v does not say what was expected and seen", f)
	}
	if n := refused(); n != 1 {
		t.Errorf("the BMC heard %d times of what liars sent", n)
	}
	w = newWorld(t)
	w.more(&fakeMirror{blobs: spoil(w.blobs, root)}, &fakeMirror{err: errors.New("connection refused")})
	w.mustStop("os.unreachable")
	if n := refused(); n != 1 {
		t.Errorf("the BMC heard %d times of what a liar sent while the other mirror is down", n)
	}
}

// TestBrokenConnections goes on where the connection broke, with the next mirror.
func TestBrokenConnections(t *testing.T) {
	w := newWorld(t)
	a, b := &fakeMirror{blobs: w.blobs, breaks: 1 << 20}, &fakeMirror{blobs: w.blobs, breaks: 1 << 20}
	w.more(a, b)
	w.mustBoot("switch_root")
	if got := a.served + b.served; got > int64(len(w.root))+10_000 {
		t.Errorf("%d bytes for an image of %d", got, len(w.root))
	}
}

// TestMixedOrigins: when bytes of a liar and of an honest mirror come
// together, nobody is blamed, and the whole comes from one.
func TestMixedOrigins(t *testing.T) {
	w := newWorld(t)
	bad := spoil(w.blobs, rack.SHA256(w.root))
	bad[rack.SHA256(w.root)][0] ^= 1
	w.more(&fakeMirror{blobs: bad, breaks: 1 << 20}, &fakeMirror{blobs: w.blobs})
	w.mustBoot("switch_root")
}

// TestResumeAfterPowerCut: what an interrupted boot wrote is not fetched again.
func TestResumeAfterPowerCut(t *testing.T) {
	w := newWorld(t)
	w.mustBoot("switch_root")
	parts, err := prepare(w.machine.disk)
	if err != nil {
		t.Fatal(err)
	}
	set := func(good bool) {
		rec := readRecord(w.machine.disk, parts.cache)
		img := rec.Images[PartitionOSA]
		img.Complete, img.Written = false, 1<<20
		rec.Images[PartitionOSA] = img
		if err := writeRecord(w.machine.disk, parts.cache, rec); err != nil {
			t.Fatal(err)
		}
		if !good {
			w.machine.disk.flip(t, parts.os[0].Offset+5000)
		}
		w.mirrors[0].served, w.mirrors[0].offs = 0, nil
	}
	set(true)
	w.mustBoot("switch_root")
	if got, want := w.mirrors[0].served, int64(len(w.root)-1<<20); got != want {
		t.Errorf("%d bytes fetched, want %d", got, want)
	}
	// The same with a bit turned on the disk: from the start, without blaming the mirror.
	set(false)
	w.mustBoot("switch_root")
	if len(w.mirrors[0].offs) != 2 || w.mirrors[0].offs[1] != 0 {
		t.Errorf("fetched from %v", w.mirrors[0].offs)
	}
}

// TestTwoImages: a new release goes beside the old one, which stays.
func TestTwoImages(t *testing.T) {
	b := &Boot{record: &Record{Images: map[string]Image{}}, parts: &partitions{os: [2]Partition{{Name: PartitionOSA, Size: 1}, {Name: PartitionOSB, Size: 1}}}}
	d := func(s string) rack.Digest { return rack.SHA256([]byte(s)) }
	for i, c := range []struct{ release, want string }{
		{"one", PartitionOSA}, {"two", PartitionOSB}, {"three", PartitionOSA}, {"two", PartitionOSB}, {"four", PartitionOSA},
	} {
		p := b.victim(d(c.release))
		if have, ok := b.partitionWith(d(c.release)); ok {
			p = have
		}
		if p.Name != c.want {
			t.Errorf("step %d: %s goes to %s, want %s", i, c.release, p.Name, c.want)
		}
		b.record.Images[p.Name] = Image{Digest: d(c.release), Complete: true, Used: uint64(i + 1)}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"artifactType":"application/vnd.racklet.os.v1","layers":[{"mediaType":"application/vnd.racklet.os.root.v1","digest":"sha256:00","size":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b, rack.SHA256(b), typeOS)
		if err != nil {
			return
		}
		if l, err := m.layer(typeOSRoot, 100); err == nil && (l.Size <= 0 || l.Size > 100 || l.MediaType != typeOSRoot) {
			t.Errorf("layer %+v", l)
		}
	})
}
