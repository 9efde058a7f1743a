package source

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
)

func testKey(name string, n byte) OwnerKey {
	return OwnerKey{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))}
}

// TestRotateRoot exchanges an owner and the online key. Units that were
// provisioned with the first root follow; a root taken away again does not
// pass the floor.
func TestRotateRoot(t *testing.T) {
	f := newFixture(t)
	f.accept(t, f.bundle(t))
	o4, online := testKey("owner-4", 4), testKey("online", 5)
	change := RootChange{
		AddOwners: map[string]ed25519.PublicKey{"owner-4": o4.Public()}, RemoveOwners: []string{"owner-3"},
		Online: online.Public(),
	}
	o := f.options()
	o.Online = &online

	if _, err := SignRoot(f.dir, f.keys.Owners[0], o); !errors.Is(err, ErrNoRootProposal) {
		t.Errorf("signed a root that nobody proposed: %v", err)
	}
	if _, err := ProposeRoot(f.dir, stranger(), change, o); !errors.Is(err, ErrNotOwner) {
		t.Errorf("stranger proposed a root: %v", err)
	}
	complete, err := ProposeRoot(f.dir, f.keys.Owners[0], change, o)
	if err != nil || complete {
		t.Fatalf("one signature: complete %v, %v", complete, err)
	}
	before := f.accept(t, f.bundle(t)) // a proposal changes nothing
	if complete, err = SignRoot(f.dir, o4, o); err != nil || complete {
		t.Fatalf("signature of one present owner and the next one: complete %v, %v", complete, err)
	}
	if complete, err = SignRoot(f.dir, f.keys.Owners[1], o); err != nil || !complete {
		t.Fatalf("enough signatures: complete %v, %v", complete, err)
	}
	v := f.accept(t, f.bundle(t))
	if v.Sequence != 1 || bytes.Equal(v.Root, before.Root) {
		t.Errorf("verified %+v", v)
	}

	// The next publication is by the new keys and raises the floor.
	f.commit(t, unitFile("after"))
	if _, err := Sign(f.dir, f.keys.Owners[2], o); !errors.Is(err, ErrNotOwner) {
		t.Errorf("former owner signs: %v", err)
	}
	for _, key := range []OwnerKey{o4, f.keys.Owners[0]} {
		if _, err := Sign(f.dir, key, o); err != nil {
			t.Fatal(err)
		}
	}
	good := f.bundle(t)
	if v := f.accept(t, good); v.Sequence != 2 || f.anchor.Floors.RootVersion != 2 {
		t.Errorf("verified %+v, floors %+v", v, f.anchor.Floors)
	}
	without := copyBundle(good)
	delete(without.Metadata, "metadata/2.root.json")
	_, err = f.verify(without)
	wantRefusal(t, err, "tuf.root")
}

// TestRotateRootNeedsSignatures does not put a root into force under which the
// published sequence would be refused.
func TestRotateRootNeedsSignatures(t *testing.T) {
	f := newFixture(t) // published by owners 1 and 2
	change := RootChange{RemoveOwners: []string{"owner-1"}}
	if _, err := ProposeRoot(f.dir, f.keys.Owners[2], change, f.options()); err != nil {
		t.Fatal(err)
	}
	if complete, err := SignRoot(f.dir, f.keys.Owners[1], f.options()); err == nil || complete {
		t.Fatalf("complete %v, %v", complete, err)
	}
	f.accept(t, f.bundle(t))
	f.sign(t, 3)
	if complete, err := SignRoot(f.dir, f.keys.Owners[1], f.options()); err != nil || !complete {
		t.Fatalf("complete %v, %v", complete, err)
	}
	f.accept(t, f.bundle(t))
}

// TestRenewRoot is for a root that nears its end.
func TestRenewRoot(t *testing.T) {
	f := newFixture(t)
	late := testNow.Add(RootLifetime + time.Hour)
	o := f.options()
	o.Now, o.Online = late, &f.keys.Online
	for i, key := range f.keys.Owners[:2] {
		var complete bool
		var err error
		if i == 0 {
			complete, err = ProposeRoot(f.dir, key, RootChange{}, o)
		} else {
			complete, err = SignRoot(f.dir, key, o)
		}
		if err != nil || complete != (i == 1) {
			t.Fatalf("complete %v, %v", complete, err)
		}
	}
	for _, key := range f.keys.Owners[:2] {
		if _, err := Sign(f.dir, key, o); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := Verify(f.bundle(t), f.anchor, late); err != nil || v.Stale {
		t.Errorf("%+v, %v", v, err)
	}
}
