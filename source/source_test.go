package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

// The time at which the tests' metadata is signed. No test looks at a clock.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const testURL = "https://git.example/rack.git"

// A fixture is a rack repository on disk with all its keys.
type fixture struct {
	dir    string
	keys   *Keys
	anchor Anchor
	slots  map[rack.Digest][]byte // unsigned slot manifests
}

// newFixture makes a repository of the example rack with a release whose slot
// manifest exists.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{dir: filepath.Join(t.TempDir(), "rack"), slots: map[rack.Digest][]byte{}}
	files := exampleFiles(t)
	files["rack/releases/v0-1-0.yaml"] = &fstest.MapFile{Data: f.release(t, "v0-1-0", 1)}
	keys, err := InitRepository(f.dir, InitOptions{
		Files:      files,
		Repository: rack.Repository{URL: testURL},
		Sign:       f.options(),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.keys = keys
	f.anchor = Anchor{
		RackID:     "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a",
		Repository: rack.Repository{URL: testURL, Ref: defaultRef, MetadataRef: DefaultMetadataRef},
		TUFRoot:    keys.Root,
	}
	return f
}

// exampleFiles are those of rack/example.
func exampleFiles(t testing.TB) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	example := os.DirFS("../rack/example")
	for _, dir := range []string{"rack", "apps"} {
		err := fs.WalkDir(example, dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(example, name)
			files[name] = &fstest.MapFile{Data: data}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// release makes a slot manifest and the release that names it.
func (f *fixture) release(t testing.TB, name string, security uint32) []byte {
	t.Helper()
	kernel := sha256.Sum256([]byte("kernel of " + name))
	m := trust.SlotManifest{Version: name, SecurityVersion: security, ImageSize: 1024, ChunkSize: trust.ChunkSize,
		Kernel: kernel, Chunks: [][32]byte{sha256.Sum256([]byte(name))}}
	msg, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	f.slots[rack.SHA256(msg)] = msg
	return fmt.Appendf(nil, `apiVersion: racklet.io/v1alpha1
kind: Release
metadata:
  name: %s
spec:
  version: %q
  securityVersion: %d
  boot:
    artifact: racklet/boot
    digest: %s
    slotManifest: %s
    kernel: %s
  os:
    artifact: racklet/os
    digest: %s
    kernel: %[6]s
    rootHash: %[8]q
`, name, name, security, rack.SHA256([]byte("boot "+name)), rack.SHA256(msg), rack.DigestOf(kernel),
		rack.SHA256([]byte("os "+name)), rack.SHA256([]byte("root "+name)).Hex())
}

func (f *fixture) options() SignOptions {
	return SignOptions{Now: testNow, SlotManifest: f.slotManifest}
}

func (f *fixture) slotManifest(d rack.Digest) ([]byte, error) {
	if msg, ok := f.slots[d]; ok {
		return msg, nil
	}
	return nil, fs.ErrNotExist
}

// commit writes files and commits them to main, as an owner would with git.
func (f *fixture) commit(t testing.TB, change map[string]string) string {
	t.Helper()
	c, err := openClone(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range change {
		path := filepath.Join(f.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if content == "" {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var files []File
	for _, dir := range []string{rackDir, appsDir} {
		some, err := c.diskFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, some...)
	}
	id, err := c.commit(defaultRef, files, "change", testNow)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// sign signs HEAD with owners by number, publishing with the online key.
func (f *fixture) sign(t testing.TB, owners ...int) *Proposal {
	t.Helper()
	var p *Proposal
	for _, n := range owners {
		o := f.options()
		o.Online = &f.keys.Online
		var err error
		if p, err = Sign(f.dir, f.keys.Owners[n-1], o); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// unitFile is the file of unit-1 with a note, to have something to change.
func unitFile(note string) map[string]string {
	return map[string]string{"rack/units/unit-1.yaml": `apiVersion: racklet.io/v1alpha1
kind: ComputeUnit
metadata:
  name: unit-1
  annotations: {note: "` + note + `"}
spec:
  slot: 1
  platform: virt
  release: v0-1-0
  power: "On"
`}
}

// bundle reads the repository as it is on disk.
func (f *fixture) bundle(t testing.TB) *Bundle {
	t.Helper()
	b, err := ReadBundle(f.dir, f.anchor.Repository)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// accept verifies and remembers what was accepted, as a BMC does.
func (f *fixture) accept(t testing.TB, b *Bundle) *Verified {
	t.Helper()
	v, err := Verify(b, f.anchor, testNow)
	if err != nil {
		t.Fatalf("good control refused: %v", err)
	}
	id, err := rack.ParseUUID(f.anchor.RackID)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.anchor.Floors.Raise(&v.Owners, id, 9, v.FloorStatement); err != nil {
		t.Fatalf("BMC refuses the floor statement: %v", err)
	}
	return v
}

// wantRefusal checks the name of a refusal, and that it says something.
func wantRefusal(t *testing.T, err error, check string) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("err = %v, want refusal %s", err, check)
	}
	if r.Check != check {
		t.Fatalf("refused by %s (expected %s, seen %s), want %s", r.Check, r.Expected, r.Seen, check)
	}
	if _, ok := rack.LookupReason(r.Check); !ok || r.Expected == "" || r.Seen == "" {
		t.Fatalf("refusal %+v does not say enough", r)
	}
	return r
}

func TestInitVerify(t *testing.T) {
	f := newFixture(t)
	v := f.accept(t, f.bundle(t))
	if v.Sequence != 1 || v.Stale || len(v.Set.Units) != 4 || v.Set.Releases["v0-1-0"] == nil {
		t.Errorf("verified %+v", v)
	}
	if got := strings.Join(v.Signers, " "); got != "owner-1 owner-2" {
		t.Errorf("signers %q", got)
	}
	if len(v.Slots) != 1 {
		t.Errorf("%d slot manifests", len(v.Slots))
	}
	for digest, signed := range v.Slots {
		msg, err := v.Owners.Open(trust.DomainSlot, signed)
		if err != nil || rack.SHA256(msg) != digest {
			t.Errorf("slot manifest %s: %v", digest, err)
		}
	}
	if _, err := fs.ReadFile(v.FS, "rack/rack.yaml"); err != nil {
		t.Error(err)
	}
	if v.AppsRefusal != nil || v.AppsCommit != v.Commit {
		t.Errorf("apps: %v, commit %q", v.AppsRefusal, v.AppsCommit)
	}
	if err := fstest.TestFS(v.FS, "rack/rack.yaml", "rack/units/unit-1.yaml", "apps/README.md"); err != nil {
		t.Error(err)
	}
	if want := testNow.Add(TimestampLifetime); !v.Expires.Equal(want) {
		t.Errorf("expires %s, want %s", v.Expires, want)
	}
}

func TestSignTwoOwners(t *testing.T) {
	f := newFixture(t)
	f.accept(t, f.bundle(t))
	commit := f.commit(t, unitFile("two"))

	p := f.sign(t, 1)
	if p.Sequence != 2 || p.Complete || p.Published || !p.Changed || p.Commit != commit {
		t.Fatalf("after one signature: %+v", p)
	}
	if v := f.accept(t, f.bundle(t)); v.Sequence != 1 {
		t.Fatalf("a proposal with one signature is in force: %+v", v)
	}
	if p = f.sign(t, 1); p.Changed || p.Sequence != 2 {
		t.Fatalf("signing twice: %+v", p)
	}
	if p = f.sign(t, 3); !p.Complete || !p.Published {
		t.Fatalf("after two signatures: %+v", p)
	}
	v := f.accept(t, f.bundle(t))
	if v.Sequence != 2 || v.Commit != commit {
		t.Fatalf("verified %+v", v)
	}
	if p = f.sign(t, 2); p.Sequence != 2 || !p.Changed || len(p.Missing) != 0 {
		t.Fatalf("third signature: %+v", p)
	}
	f.accept(t, f.bundle(t))
}

// writeFile writes a file of a clone without committing it.
func writeFile(dir, name, content string) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}
