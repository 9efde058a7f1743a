package source

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/racklet/racklet/rack"
)

// TestTreeDigest is the digest by hand, for other implementations.
func TestTreeDigest(t *testing.T) {
	got := TreeDigest([]File{
		{Path: "rack/a.yaml", Content: []byte("one\n")},
		{Path: "rack/b/c.sh", Executable: true, Content: []byte{}},
	})
	// printf 'racklet tree v1\nrack/a.yaml\000100644\000\0\0\0\0\0\0\0\4one\n…' | sha256sum
	const want = "7bd6e09525ec5b2f8b62ba06aeed3d959a82d88e26765ae3f12ce2184c7be7ae"
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("digest %x, want %s", got, want)
	}
	for name, other := range map[string][]File{
		"mode":    {{Path: "rack/a.yaml", Executable: true, Content: []byte("one\n")}, {Path: "rack/b/c.sh", Executable: true}},
		"path":    {{Path: "rack/a.yam", Content: []byte("lone\n")}, {Path: "rack/b/c.sh", Executable: true}},
		"content": {{Path: "rack/a.yaml", Content: []byte("one ")}, {Path: "rack/b/c.sh", Executable: true}},
		"less":    {{Path: "rack/a.yaml", Content: []byte("one\n")}},
	} {
		if TreeDigest(other) == got {
			t.Errorf("%s does not matter", name)
		}
	}
}

// TestPending says why something newer is not in force.
func TestPending(t *testing.T) {
	f := newFixture(t)
	if v := f.accept(t, f.bundle(t)); v.Pending != nil {
		t.Errorf("nothing is newer: %v", v.Pending)
	}
	tip := f.commit(t, unitFile("two"))
	v := f.accept(t, f.bundle(t))
	if v.Pending == nil || v.Pending.Check != "rack.commit" || !strings.Contains(v.Pending.Seen, tip) {
		t.Errorf("unsigned commit: %v", v.Pending)
	}
	f.sign(t, 3)
	v = f.accept(t, f.bundle(t))
	if v.Pending == nil || v.Pending.Check != "tuf.targets" || v.Pending.Seen != "1 (owner-3)" || v.Pending.Expected != "sequence 2: 2 signatures of owners" {
		t.Errorf("one signature: %v", v.Pending)
	}
	if _, err := Sign(f.dir, f.keys.Owners[0], f.options()); err != nil { // without the online key
		t.Fatal(err)
	}
	v = f.accept(t, f.bundle(t))
	if v.Sequence != 1 || v.Pending == nil || v.Pending.Check != "tuf.timestamp" {
		t.Errorf("no timestamp: %v", v.Pending)
	}
	if err := RefreshTimestamp(f.dir, f.keys.Online, testNow); err != nil {
		t.Fatal(err)
	}
	if v = f.accept(t, f.bundle(t)); v.Sequence != 2 || v.Pending != nil {
		t.Errorf("published: sequence %d, %v", v.Sequence, v.Pending)
	}
}

// TestPublishIncomplete is the drill: units refuse and say who signed.
func TestPublishIncomplete(t *testing.T) {
	f := newFixture(t)
	f.accept(t, f.bundle(t))
	f.commit(t, unitFile("two"))
	o := f.options()
	o.Online, o.PublishIncomplete = &f.keys.Online, true
	p, err := Sign(f.dir, f.keys.Owners[0], o)
	if err != nil || p.Complete || !p.Published {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = f.verify(f.bundle(t))
	if r := wantRefusal(t, err, "tuf.targets"); r.Expected != "2 signatures of owners" || r.Seen != "1 (owner-1)" {
		t.Errorf("refusal %+v", r)
	}
	if p = f.sign(t, 2); !p.Complete {
		t.Fatalf("%+v", p)
	}
	f.accept(t, f.bundle(t))
}

// TestSequencesAreNotReused gives a sequence that somebody signed to no other
// commit.
func TestSequencesAreNotReused(t *testing.T) {
	f := newFixture(t)
	f.commit(t, unitFile("two"))
	if p := f.sign(t, 1); p.Sequence != 2 {
		t.Fatalf("%+v", p)
	}
	f.commit(t, unitFile("three"))
	if p := f.sign(t, 2); p.Sequence != 3 || p.Complete {
		t.Fatalf("%+v", p)
	}
	if p := f.sign(t, 1); p.Sequence != 3 || !p.Published {
		t.Fatalf("%+v", p)
	}
	f.accept(t, f.bundle(t))
}

// TestSignRefuses what an owner should not sign.
func TestSignRefuses(t *testing.T) {
	f := newFixture(t)
	if _, err := Sign(f.dir, stranger(), f.options()); !errors.Is(err, ErrNotOwner) {
		t.Errorf("stranger: %v", err)
	}
	if _, err := Sign(f.dir, f.keys.Online, f.options()); !errors.Is(err, ErrNotOwner) {
		t.Errorf("online key: %v", err)
	}
	for name, content := range map[string]string{"rack/new.yaml": "x", "rack/rack.yaml": "x"} {
		was, err := os.ReadFile(filepath.Join(f.dir, name))
		if err := writeFile(f.dir, name, content); err != nil {
			t.Fatal(err)
		}
		if _, err := Sign(f.dir, f.keys.Owners[0], f.options()); !errors.Is(err, ErrDirty) {
			t.Errorf("changed %s: %v", name, err)
		}
		if err != nil {
			err = os.Remove(filepath.Join(f.dir, name))
		} else {
			err = writeFile(f.dir, name, string(was))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Sign(f.dir, f.keys.Owners[2], f.options()); err != nil {
		t.Errorf("good control: %v", err)
	}
	f.commit(t, map[string]string{"rack/units/unit-1.yaml": "apiVersion: racklet.io/v1alpha1\nkind: ComputeUnit\n"})
	if _, err := Sign(f.dir, f.keys.Owners[0], f.options()); err == nil || !strings.Contains(err.Error(), "unit-1.yaml") {
		t.Errorf("invalid objects: %v", err)
	}
	// Somebody's proposal that says more than it should.
	f.commit(t, unitFile("two"))
	f.sign(t, 1)
	p, err := openPublication(f.dir, "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	targets, snapshot, err := p.load(p.newest())
	if err != nil {
		t.Fatal(err)
	}
	targets.Signed.Targets["extra"] = targets.Signed.Targets["rack.json"]
	if err := p.store(p.newest(), targets, snapshot); err != nil {
		t.Fatal(err)
	}
	if err := p.save("extra"); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(f.dir, f.keys.Owners[1], f.options()); err == nil {
		t.Error("signed a proposal with a target too many")
	}
	// A slot manifest that is not the release's.
	f.commit(t, map[string]string{"rack/releases/v0-2-0.yaml": string(f.release(t, "v0-2-0", 2))})
	o := f.options()
	o.SlotManifest = func(rack.Digest) ([]byte, error) { return []byte("something else"), nil }
	if _, err := Sign(f.dir, f.keys.Owners[0], o); err == nil {
		t.Error("signed another slot manifest")
	}
	p2 := f.sign(t, 1, 2)
	if !p2.Published || len(p2.Slots) != 2 {
		t.Errorf("good control: %+v", p2)
	}
	if v := f.accept(t, f.bundle(t)); len(v.Slots) != 2 {
		t.Errorf("%d slot manifests", len(v.Slots))
	}
}

// TestBootSecurity raises the floor for boot slots and never lowers it again.
func TestBootSecurity(t *testing.T) {
	f := newFixture(t)
	f.accept(t, f.bundle(t))
	o := f.options()
	o.Online, o.BootSecurity = &f.keys.Online, 1
	for _, key := range f.keys.Owners[:2] {
		if _, err := Sign(f.dir, key, o); err != nil {
			t.Fatal(err)
		}
	}
	f.accept(t, f.bundle(t))
	f.commit(t, unitFile("two"))
	f.sign(t, 1, 2)
	f.accept(t, f.bundle(t))
	if f.anchor.Floors.BootSecurity != 1 || f.anchor.Floors.Sequence != 3 {
		t.Errorf("floors %+v", f.anchor.Floors)
	}
}

// TestApps gives apps/ to the operator alone, and keeps a unit booting
// whatever happens to them.
func TestApps(t *testing.T) {
	f := newFixture(t)
	f.accept(t, f.bundle(t))
	o := f.options()
	o.Online = &f.keys.Online
	commit := f.commit(t, map[string]string{"apps/web.yaml": "kind: Deployment\n"})
	if err := SignApps(f.dir, f.keys.Owners[0], o); !errors.Is(err, ErrNotOwner) {
		t.Errorf("an owner signs apps: %v", err)
	}
	if err := SignApps(f.dir, f.keys.Operator, o); err != nil {
		t.Fatal(err)
	}
	good := f.bundle(t)
	v := f.accept(t, good)
	if v.AppsRefusal != nil || v.AppsCommit != commit || v.Commit == commit || v.Sequence != 1 || v.Pending != nil {
		t.Fatalf("verified %+v", v)
	}
	if _, err := v.FS.Open("apps/web.yaml"); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(b *Bundle){
		"tuf.metadata": func(b *Bundle) { delete(b.Metadata, "metadata/2.apps.json") },
		"tuf.targets":  func(b *Bundle) { b.Metadata["metadata/2.apps.json"] = b.Metadata["metadata/1.targets.json"] },
		"rack.commit":  func(b *Bundle) { id, _ := parseID(commit); delete(b.objects, id) },
	} {
		b := copyBundle(good)
		spoil(b)
		v := f.accept(t, b)
		if v.AppsRefusal == nil || v.AppsRefusal.Check != name || v.AppsCommit != "" {
			t.Errorf("%s: %v", name, v.AppsRefusal)
		}
		if _, err := v.FS.Open("apps/web.yaml"); err == nil {
			t.Errorf("%s: apps are there nevertheless", name)
		}
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	key := testKey("owner-1", 1)
	file, err := key.Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := LoadKey(file); err != nil || got.Name != "owner-1" || !got.Key.Equal(key.Key) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := key.Save(dir); err == nil {
		t.Error("overwrote a key")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file); err == nil {
		t.Error("read a key that others may read")
	}
	if err := os.WriteFile(file, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file); err == nil {
		t.Error("read something else")
	}
}

func TestInitRefuses(t *testing.T) {
	files := exampleFiles(t)
	repo := rack.Repository{URL: testURL}
	for name, o := range map[string]InitOptions{
		"threshold beyond owners": {Files: files, Repository: repo, Owners: 2, Threshold: 3},
		"invalid rack":            {Files: fstest.MapFS{"rack/rack.yaml": {Data: []byte("x")}}, Repository: repo},
		"no files":                {Repository: repo},
		"no address":              {Files: files},
	} {
		o.Sign.Now = testNow
		if _, err := InitRepository(filepath.Join(t.TempDir(), "r"), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	dir := filepath.Join(t.TempDir(), "r")
	if _, err := InitRepository(dir, InitOptions{Files: files, Repository: repo, KeysDir: filepath.Join(dir, "keys")}); err == nil {
		t.Error("keys inside the repository: accepted")
	}
	if err := writeFile(dir, "something", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := InitRepository(dir, InitOptions{Files: files, Repository: repo}); err == nil {
		t.Error("folder that is not empty: accepted")
	}
}

// TestInitRepeats makes the same repository twice from the same seeds.
func TestInitRepeats(t *testing.T) {
	var bundles [2][]byte
	for i := range bundles {
		dir := filepath.Join(t.TempDir(), "r")
		keysDir := filepath.Join(t.TempDir(), "keys")
		repo := rack.Repository{URL: testURL, Ref: defaultRef, MetadataRef: DefaultMetadataRef}
		keys, err := InitRepository(dir, InitOptions{Files: exampleFiles(t), Repository: repo, KeysDir: keysDir,
			Rand: bytes.NewReader(bytes.Repeat([]byte("0123456789abcdefghijk"), 20)), Sign: SignOptions{Now: testNow}})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"owner-1", "owner-2", "owner-3", "operator", "online"} {
			if _, err := LoadKey(filepath.Join(keysDir, name+".pem")); err != nil {
				t.Error(err)
			}
		}
		b, err := ReadBundle(dir, repo)
		if err != nil {
			t.Fatal(err)
		}
		bundles[i] = b.Marshal()
		again, err := ParseBundle(bundles[i])
		if err != nil || !bytes.Equal(again.Marshal(), bundles[i]) || again.Tip != b.Tip {
			t.Errorf("bundle does not survive its encoding: %v", err)
		}
		owners, err := Owners(keys.Root)
		if err != nil || len(owners.Keys) != 3 || owners.Threshold != 2 {
			t.Errorf("owners %+v, %v", owners, err)
		}
	}
	if !bytes.Equal(bundles[0], bundles[1]) {
		t.Error("two repositories")
	}
}

// TestReasons looks up every name of a refusal that the package writes.
func TestReasons(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	literal := regexp.MustCompile(`Refusal\{(?:Check:\s*)?"([a-z.-]*[a-z])"`)
	names := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllSubmatch(source, -1) {
			names[string(m[1])] = true
		}
	}
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} { // made of parts
		names["tuf."+role], names["tuf."+role+".expired"] = true, true
	}
	for name := range names {
		if _, ok := rack.LookupReason(name); !ok {
			t.Errorf("rack.Reasons has no %s", name)
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d names found: the pattern is wrong", len(names))
	}
}
