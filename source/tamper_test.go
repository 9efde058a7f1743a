package source

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

// TestTamper spoils one thing after the other in a bundle that is good, and
// wants each refusal by its name.
func TestTamper(t *testing.T) {
	f := newFixture(t)
	old := f.bundle(t)
	f.accept(t, old)
	f.commit(t, unitFile("two"))
	f.sign(t, 1, 2)
	good := f.bundle(t)
	f.accept(t, good)

	o1, o2, o3, online := f.keys.Owners[0], f.keys.Owners[1], f.keys.Owners[2], f.keys.Online
	const timestamp, snapshot, targets = "metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.targets.json"
	rackJSON := only(t, good, "targets/", "."+"rack.json")
	for name := range good.Metadata { // that of sequence 2, not 1
		if strings.HasSuffix(name, ".rack.json") && bytes.Contains(good.Metadata[name], []byte(`"sequence":2`)) {
			rackJSON = name
		}
	}
	slot := only(t, good, "slots/", ".slot")
	commitID, _ := parseID(mustTarget(t, good).Commit)
	findObject := func(b *Bundle, kind plumbing.ObjectType, content string) objectID {
		for id, obj := range b.objects {
			if obj.kind == kind && bytes.Contains(obj.content, []byte(content)) {
				return id
			}
		}
		t.Fatalf("no %s with %q", kind, content)
		return objectID{}
	}
	spoil := func(b *Bundle, id objectID, at int) {
		obj := b.objects[id]
		obj.content[at] ^= 1
	}
	nextRoot := func(alter func(r *metadata.Metadata[metadata.RootType]), signers ...OwnerKey) []byte {
		r, err := metadata.Root().FromBytes(f.keys.Root)
		if err != nil {
			t.Fatal(err)
		}
		r.Signatures = nil
		r.Signed.Version = 2
		if alter != nil {
			alter(r)
		}
		for _, k := range signers {
			if _, err := sign(r, k); err != nil {
				t.Fatal(err)
			}
		}
		out, err := r.ToBytes(true)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	tests := []struct {
		name  string
		check string
		seen  string // part of Seen
		spoil func(t *testing.T, b *Bundle) *Bundle
	}{
		// Timestamp.
		{"timestamp missing", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle { delete(b.Metadata, timestamp); return b }},
		{"timestamp no JSON", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle { flip(b, timestamp, 0); return b }},
		{"timestamp of another kind", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle { b.Metadata[timestamp] = b.Metadata[snapshot]; return b }},
		{"timestamp version", "tuf.timestamp", "0, online: does not verify", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, timestamp, func(m *metadata.Metadata[metadata.TimestampType]) { m.Signed.Version++ })
			return b
		}},
		{"timestamp expiry", "tuf.timestamp", "", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, timestamp, func(m *metadata.Metadata[metadata.TimestampType]) {
				m.Signed.Expires = m.Signed.Expires.Add(time.Hour)
			})
			return b
		}},
		{"timestamp link", "tuf.timestamp", "", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, timestamp, func(m *metadata.Metadata[metadata.TimestampType]) {
				m.Signed.Meta["snapshot.json"].Version = 1
			})
			return b
		}},
		{"timestamp signature", "tuf.timestamp", "", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, timestamp, func(m *metadata.Metadata[metadata.TimestampType]) { m.Signatures[0].Signature[5] ^= 1 })
			return b
		}},
		{"timestamp by an owner", "tuf.timestamp", "owner-1: no key of theirs", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, timestamp, func(m *metadata.Metadata[metadata.TimestampType]) {
				m.Signatures = nil
				if _, err := sign(m, o1); err != nil {
					t.Fatal(err)
				}
			})
			return b
		}},
		// Snapshot.
		{"snapshot missing", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle { delete(b.Metadata, snapshot); return b }},
		{"snapshot version", "tuf.snapshot", "0, ", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, snapshot, func(m *metadata.Metadata[metadata.SnapshotType]) { m.Signed.Version++ })
			return b
		}},
		{"snapshot link", "tuf.snapshot", "", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, snapshot, func(m *metadata.Metadata[metadata.SnapshotType]) { m.Signed.Meta["targets.json"].Version = 1 })
			return b
		}},
		{"snapshot signature", "tuf.snapshot", "1 (owner-", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, snapshot, func(m *metadata.Metadata[metadata.SnapshotType]) { m.Signatures[0].Signature[5] ^= 1 })
			return b
		}},
		{"snapshot by the online key", "tuf.snapshot", "0, online: no key of theirs", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, snapshot, func(m *metadata.Metadata[metadata.SnapshotType]) {
				m.Signatures = nil
				if _, err := sign(m, online); err != nil {
					t.Fatal(err)
				}
			})
			return b
		}},
		{"snapshot of the last sequence", "tuf.snapshot", "version 1", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata[snapshot] = old.Metadata["metadata/1.snapshot.json"]
			return b
		}},
		// Targets.
		{"targets missing", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle { delete(b.Metadata, targets); return b }},
		{"targets hash", "tuf.targets", "0, ", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, targets, func(m *metadata.Metadata[metadata.TargetsType]) {
				m.Signed.Targets["rack.json"].Hashes["sha256"][0] ^= 1
			})
			return b
		}},
		{"targets delegation", "tuf.targets", "", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, targets, func(m *metadata.Metadata[metadata.TargetsType]) { m.Signed.Delegations.Roles[0].Threshold = 9 })
			return b
		}},
		{"targets of the last sequence", "tuf.targets", "version 1", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata[targets] = old.Metadata["metadata/1.targets.json"]
			return b
		}},
		{"targets by one owner", "tuf.targets", "1 (owner-2)", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, targets, func(m *metadata.Metadata[metadata.TargetsType]) {
				m.Signatures = nil
				if _, err := sign(m, o2); err != nil {
					t.Fatal(err)
				}
			})
			return b
		}},
		{"targets by an owner and a stranger", "tuf.targets", "1 (owner-2), ", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, targets, func(m *metadata.Metadata[metadata.TargetsType]) {
				m.Signatures = nil
				for _, k := range []OwnerKey{o2, stranger()} {
					if _, err := sign(m, k); err != nil {
						t.Fatal(err)
					}
				}
			})
			return b
		}},
		{"targets with one owner's signature twice", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, targets, func(m *metadata.Metadata[metadata.TargetsType]) { m.Signatures[1] = m.Signatures[0] })
			return b
		}},
		{"targets with one owner's signature under two names", "tuf.targets", "1 (owner-", func(t *testing.T, b *Bundle) *Bundle {
			edit(t, b, targets, func(m *metadata.Metadata[metadata.TargetsType]) {
				m.Signatures[1].Signature = m.Signatures[0].Signature
			})
			return b
		}},
		{"new sequence by one owner", "tuf.targets", "1 (owner-3)", func(t *testing.T, b *Bundle) *Bundle { return f.forge(t, nil, nil, o3) }},
		{"new sequence by strangers", "tuf.targets", "no key of theirs", func(t *testing.T, b *Bundle) *Bundle { return f.forge(t, nil, nil, stranger()) }},
		// Root.
		{"root by one owner", "tuf.root", "1 (owner-1)", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["metadata/2.root.json"] = nextRoot(nil, o1)
			return b
		}},
		{"root by strangers", "tuf.root", "0", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["metadata/2.root.json"] = nextRoot(func(r *metadata.Metadata[metadata.RootType]) {
				key, id, err := stranger().tufKey()
				if err != nil {
					t.Fatal(err)
				}
				r.Signed.Keys[id] = key
				for _, role := range r.Signed.Roles {
					role.KeyIDs, role.Threshold = []string{id}, 1
				}
			}, stranger())
			return b
		}},
		{"root that its own keys did not sign", "tuf.root", "0", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["metadata/2.root.json"] = nextRoot(func(r *metadata.Metadata[metadata.RootType]) {
				key, id, err := stranger().tufKey()
				if err != nil {
					t.Fatal(err)
				}
				r.Signed.Keys[id] = key
				r.Signed.Roles["root"].KeyIDs, r.Signed.Roles["root"].Threshold = []string{id}, 1
			}, o1, o2)
			return b
		}},
		{"root out of turn", "tuf.root", "", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["metadata/2.root.json"] = nextRoot(func(r *metadata.Metadata[metadata.RootType]) { r.Signed.Version = 3 }, o1, o2)
			return b
		}},
		{"root no JSON", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["metadata/2.root.json"] = []byte("{}")
			return b
		}},
		// rack.json.
		{"rack.json flipped", "tuf.targets", "", func(t *testing.T, b *Bundle) *Bundle { flip(b, rackJSON, 20); return b }},
		{"rack.json missing", "tuf.metadata", "", func(t *testing.T, b *Bundle) *Bundle { delete(b.Metadata, rackJSON); return b }},
		{"another rack", "rack.repository", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, func(d *draft) { d.Rack = "00000000-0000-4000-8000-000000000000" }, nil, o1, o2)
		}},
		{"another repository", "rack.repository", "https://other", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, func(d *draft) { d.Repository = "https://other.example/rack.git" }, nil, o1, o2)
		}},
		{"another ref", "rack.ref", "refs/heads/test", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, func(d *draft) { d.Ref = "refs/heads/test" }, nil, o1, o2)
		}},
		// Sequence.
		{"replay", "rack.sequence", "sequence 1", func(t *testing.T, b *Bundle) *Bundle { return copyBundle(old) }},
		{"sequence not the version", "rack.sequence", "9", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, nil, func(p *publication, n int64) {
				tg, sn, err := p.load(n)
				if err != nil {
					t.Fatal(err)
				}
				x := mustTarget(t, good)
				x.Sequence = 9
				content, err := json.Marshal(x)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.addTarget(tg, "rack.json", content); err != nil {
					t.Fatal(err)
				}
				if err := p.store(n, tg, sn); err != nil {
					t.Fatal(err)
				}
			}, o1, o2)
		}},
		// Floor statement.
		{"floor missing", "floor.statement", "", func(t *testing.T, b *Bundle) *Bundle { delete(b.Metadata, "floors/2.floor"); return b }},
		{"floor flipped", "floor.statement", "got 0", func(t *testing.T, b *Bundle) *Bundle { flip(b, "floors/2.floor", 40); return b }},
		{"floor signature flipped", "floor.statement", "got 1", func(t *testing.T, b *Bundle) *Bundle { flip(b, "floors/2.floor", -1); return b }},
		{"floor cut", "floor.statement", "", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["floors/2.floor"] = b.Metadata["floors/2.floor"][:60]
			return b
		}},
		{"floor of the last sequence", "floor.statement", "sequence 1", func(t *testing.T, b *Bundle) *Bundle {
			b.Metadata["floors/2.floor"] = old.Metadata["floors/1.floor"]
			return b
		}},
		{"floor of another rack", "floor.identity", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, nil, editFloor(t, func(s *trust.FloorStatement) { s.RackID[0] ^= 1 }), o1, o2)
		}},
		{"floor of another tree", "floor.tree", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, nil, editFloor(t, func(s *trust.FloorStatement) { s.Tree[0] ^= 1 }), o1, o2)
		}},
		{"floor of another commit", "floor.tree", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, nil, editFloor(t, func(s *trust.FloorStatement) { s.Commit[0] ^= 1 }), o1, o2)
		}},
		{"floor with a lower root", "floor.rollback", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, nil, editFloor(t, func(s *trust.FloorStatement) { s.RootVersion = 0 }), o1, o2)
		}},
		{"floor with a root to come", "tuf.root", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, nil, editFloor(t, func(s *trust.FloorStatement) { s.RootVersion = 2 }), o1, o2)
		}},
		// Commit, tree, blob.
		{"commit missing", "rack.commit", "no such commit", func(t *testing.T, b *Bundle) *Bundle { delete(b.objects, commitID); return b }},
		{"commit flipped", "rack.commit", "", func(t *testing.T, b *Bundle) *Bundle { spoil(b, commitID, 60); return b }},
		{"commit that does not exist", "rack.commit", "no such commit", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, func(d *draft) { d.Commit = strings.Repeat("12", 20) }, nil, o1, o2)
		}},
		{"commit is no commit", "rack.commit", "", func(t *testing.T, b *Bundle) *Bundle {
			obj := b.objects[commitID]
			b.objects[commitID] = object{plumbing.BlobObject, obj.content}
			return b
		}},
		{"tree flipped", "rack.tree", "", func(t *testing.T, b *Bundle) *Bundle {
			spoil(b, findObject(b, plumbing.TreeObject, "unit-1.yaml"), 30)
			return b
		}},
		{"tree missing", "rack.tree", "missing", func(t *testing.T, b *Bundle) *Bundle {
			delete(b.objects, findObject(b, plumbing.TreeObject, "unit-1.yaml"))
			return b
		}},
		{"blob flipped", "rack.tree", "unit-1.yaml", func(t *testing.T, b *Bundle) *Bundle {
			spoil(b, findObject(b, plumbing.BlobObject, "name: unit-1\n"), 3)
			return b
		}},
		{"blob missing", "rack.tree", "unit-1.yaml", func(t *testing.T, b *Bundle) *Bundle {
			delete(b.objects, findObject(b, plumbing.BlobObject, "name: unit-1\n"))
			return b
		}},
		{"tree not as signed", "rack.tree", "sha256:", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, func(d *draft) { d.Tree = rack.SHA256(nil) }, nil, o1, o2)
		}},
		{"release not as its target", "tuf.targets", "", func(t *testing.T, b *Bundle) *Bundle {
			return f.forge(t, func(d *draft) {
				i := slices.IndexFunc(d.files, func(f File) bool { return inFolder(f.Path, releasesDir) })
				d.files[i].Content = []byte("another")
			}, nil, o1, o2)
		}},
		// Slot manifests.
		{"slot manifest flipped", "slot.manifest", "", func(t *testing.T, b *Bundle) *Bundle { flip(b, slot, 50); return b }},
		{"slot signature flipped", "slot.signature", "got 1", func(t *testing.T, b *Bundle) *Bundle { flip(b, slot, -1); return b }},
		{"slot container cut", "slot.manifest", "", func(t *testing.T, b *Bundle) *Bundle { b.Metadata[slot] = b.Metadata[slot][:30]; return b }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.verify(tt.spoil(t, copyBundle(good)))
			r := wantRefusal(t, err, tt.check)
			if !strings.Contains(r.Seen, tt.seen) {
				t.Errorf("expected %q, seen %q: does not say %q", r.Expected, r.Seen, tt.seen)
			}
		})
	}

	t.Run("good control", func(t *testing.T) {
		if _, err := f.verify(copyBundle(good)); err != nil {
			t.Errorf("refused: %v", err)
		}
		if v, err := f.verify(f.forge(t, nil, nil, o2, o3)); err != nil || v.Sequence != 3 {
			t.Errorf("forgery without a change refused: %v", err)
		}
		if v, err := f.verify(f.forge(t, func(d *draft) {
			d.Repository, d.Alternatives = "ssh://git@git.example/rack.git", []string{testURL}
		}, nil, o2, o3)); err != nil || v.Sequence != 3 {
			t.Errorf("alternative address refused: %v", err)
		}
	})
	t.Run("anchor", func(t *testing.T) {
		for name, tt := range map[string]struct {
			check string
			spoil func(a *Anchor)
		}{
			"no root":            {"tuf.root", func(a *Anchor) { a.TUFRoot = nil }},
			"root flipped":       {"tuf.root", func(a *Anchor) { a.TUFRoot = bytes.Replace(a.TUFRoot, []byte("2027"), []byte("2028"), 1) }},
			"root floor":         {"tuf.root", func(a *Anchor) { a.Floors.RootVersion = 2 }},
			"boot floor":         {"floor.rollback", func(a *Anchor) { a.Floors.BootSecurity = 1 }},
			"higher sequence":    {"rack.sequence", func(a *Anchor) { a.Floors.Sequence = 3 }},
			"same, other tree":   {"rack.tree", func(a *Anchor) { a.Floors.Tree[0] ^= 1 }},
			"same, other commit": {"rack.commit", func(a *Anchor) { a.Floors.Commit[0] ^= 1 }},
			"other rack":         {"rack.repository", func(a *Anchor) { a.RackID = "00000000-0000-4000-8000-000000000000" }},
			"other repository":   {"rack.repository", func(a *Anchor) { a.Repository.URL += "x" }},
			"other ref":          {"rack.ref", func(a *Anchor) { a.Repository.Ref += "x" }},
		} {
			a := f.anchor
			tt.spoil(&a)
			_, err := Verify(copyBundle(good), a, testNow)
			t.Run(name, func(t *testing.T) { wantRefusal(t, err, tt.check) })
		}
	})
}
