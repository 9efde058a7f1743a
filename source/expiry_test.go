package source

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestExpired lets time pass: the version accepted last is Stale, anything
// else is refused, and the refusal says which role it is.
func TestExpired(t *testing.T) {
	f := newFixture(t)
	first := f.bundle(t)
	fresh := f.anchor
	f.accept(t, first)
	one := f.anchor
	f.commit(t, unitFile("two"))
	f.sign(t, 1, 2)
	second := f.bundle(t)

	for _, tt := range []struct {
		after time.Duration
		check string
	}{
		{TimestampLifetime + time.Second, "tuf.timestamp.expired"},
		{TargetsLifetime + time.Second, "tuf.timestamp.expired"},
		{RootLifetime + time.Second, "tuf.root.expired"},
	} {
		now := testNow.Add(tt.after)
		if v, err := Verify(first, one, now); err != nil || !v.Stale || v.Sequence != 1 {
			t.Errorf("after %s: last accepted: %v", tt.after, err)
		} else if v.AppsRefusal == nil || v.AppsRefusal.Check != "rack.stale" || v.AppsCommit != "" {
			t.Errorf("after %s: apps: %v", tt.after, v.AppsRefusal)
		}
		_, err := Verify(second, one, now)
		r := wantRefusal(t, err, tt.check)
		if !strings.Contains(r.Seen, "sequence 2, expired 202") {
			t.Errorf("refusal %+v", r)
		}
		_, err = Verify(first, fresh, now) // a BMC that has accepted nothing
		wantRefusal(t, err, tt.check)
		spoiled := copyBundle(first)
		delete(spoiled.Metadata, "floors/1.floor")
		_, err = Verify(spoiled, one, now)
		wantRefusal(t, err, "floor.statement")
	}

	// With a fresh timestamp it is targets and snapshot that expire.
	late := testNow.Add(TargetsLifetime + time.Hour)
	if err := RefreshTimestamp(f.dir, f.keys.Online, late); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(f.bundle(t), one, late)
	wantRefusal(t, err, "tuf.snapshot.expired")
	if _, err := Verify(f.bundle(t), one, testNow); err != nil {
		t.Errorf("before they expire: %v", err)
	}
	// Owners sign anew: a new sequence for the same commit.
	o := f.options()
	o.Now, o.Online = late, &f.keys.Online
	for _, key := range f.keys.Owners[:2] {
		if _, err := Sign(f.dir, key, o); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := Verify(f.bundle(t), one, late); err != nil || v.Sequence != 3 || v.Stale {
		t.Errorf("renewed: %+v, %v", v, err)
	}
}

// TestEveryByte flips bytes all over a bundle. Whatever is still accepted must
// be the very same state: white space and spare signatures are all that can
// change.
func TestEveryByte(t *testing.T) {
	f := newFixture(t)
	good := f.bundle(t)
	want, err := f.verify(good)
	if err != nil {
		t.Fatal(err)
	}
	stride := 7
	if testing.Short() {
		stride = 101
	}
	accepted, refused := 0, map[string]int{}
	try := func(what string, b *Bundle) {
		v, err := f.verify(b)
		if err != nil {
			refused[err.(*Refusal).Check]++
			return
		}
		accepted++
		if v.AppsRefusal != nil {
			v.AppsRefusal, v.AppsCommit, v.FS = nil, want.AppsCommit, want.FS
		}
		if !reflect.DeepEqual(v, want) {
			t.Fatalf("%s: accepted as something else", what)
		}
	}
	at := 0
	for _, name := range slices.Sorted(maps.Keys(good.Metadata)) {
		if strings.HasSuffix(name, ".root.json") {
			continue // the anchor's own
		}
		for ; at < len(good.Metadata[name]); at += stride {
			b := &Bundle{Tip: good.Tip, Metadata: maps.Clone(good.Metadata), objects: good.objects}
			b.Metadata[name] = bytes.Clone(good.Metadata[name])
			b.Metadata[name][at] ^= 1 << (at % 8)
			try(name, b)
		}
		at -= len(good.Metadata[name])
	}
	for id, obj := range good.objects {
		for at := 0; at < len(obj.content); at += 4 * stride {
			b := &Bundle{Tip: good.Tip, Metadata: good.Metadata, objects: maps.Clone(good.objects)}
			content := bytes.Clone(obj.content)
			content[at] ^= 0x10
			b.objects[id] = object{obj.kind, content}
			try(obj.kind.String(), b)
		}
	}
	t.Logf("accepted %d, refused %v", accepted, refused)
	if len(refused) < 6 {
		t.Errorf("refusals %v: the flips prove little", refused)
	}
}
