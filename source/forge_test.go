package source

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/firmware/trust"
)

// stranger is a key that nobody knows.
func stranger() OwnerKey {
	return OwnerKey{"stranger", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x55}, 32))}
}

// copyBundle is for spoiling.
func copyBundle(b *Bundle) *Bundle {
	c := &Bundle{Tip: b.Tip, Metadata: map[string][]byte{}, objects: objects{}}
	for name, content := range b.Metadata {
		c.Metadata[name] = bytes.Clone(content)
	}
	for id, obj := range b.objects {
		c.objects[id] = object{obj.kind, bytes.Clone(obj.content)}
	}
	return c
}

// forge makes what Sign refuses to make: a proposal altered at will, signed
// by any keys, published.
func (f *fixture) forge(t *testing.T, alter func(d *draft), change func(p *publication, n int64), signers ...OwnerKey) *Bundle {
	t.Helper()
	p, err := openPublication(f.dir, "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.draft(f.options())
	if err != nil {
		t.Fatal(err)
	}
	if alter != nil {
		alter(d)
	}
	n := p.newest() + 1
	if err := p.propose(n, d, f.options()); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(p, n)
	}
	for _, key := range signers {
		p.signAll(t, n, key)
	}
	if err := p.timestamp(f.keys.Online, n, 0); err != nil {
		t.Fatal(err)
	}
	b := &Bundle{Metadata: p.files, objects: objects{}}
	_, tip, err := p.clone.head()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.gatherCommits(p.clone.store, tip); err != nil {
		t.Fatal(err)
	}
	return b
}

// signAll signs without looking.
func (p *publication) signAll(t *testing.T, n int64, key OwnerKey) {
	t.Helper()
	targets, snapshot, err := p.load(n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign(targets, key); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(snapshot, key); err != nil {
		t.Fatal(err)
	}
	if err := p.store(n, targets, snapshot); err != nil {
		t.Fatal(err)
	}
	msg, _, err := trust.SplitSigned(p.files[floorPath(uint64(n))])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.signContainer(floorPath(uint64(n)), trust.DomainFloor, msg, key); err != nil {
		t.Fatal(err)
	}
}

// editFloor replaces the floor statement of an unsigned proposal.
func editFloor(t *testing.T, alter func(s *trust.FloorStatement)) func(p *publication, n int64) {
	return func(p *publication, n int64) {
		s, err := p.floorStatement(n)
		if err != nil {
			t.Fatal(err)
		}
		alter(&s)
		msg, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		p.files[floorPath(uint64(n))] = trust.AppendSigned(msg, nil)
	}
}

// edit changes signed metadata in a bundle without signing it again.
func edit[T metadata.Roles](t *testing.T, b *Bundle, name string, alter func(m *metadata.Metadata[T])) {
	t.Helper()
	m := new(metadata.Metadata[T])
	if _, err := m.FromBytes(b.Metadata[name]); err != nil {
		t.Fatal(err)
	}
	alter(m)
	var err error
	if b.Metadata[name], err = m.ToBytes(false); err != nil {
		t.Fatal(err)
	}
}

// only returns the path of the file between prefix and suffix.
func only(t *testing.T, b *Bundle, prefix, suffix string) string {
	t.Helper()
	for name := range b.Metadata {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			return name
		}
	}
	t.Fatalf("no file %s…%s", prefix, suffix)
	return ""
}

func flip(b *Bundle, name string, at int) {
	content := b.Metadata[name]
	if at < 0 {
		at += len(content)
	}
	content[at] ^= 1
}

func mustTarget(t *testing.T, b *Bundle) *target {
	t.Helper()
	v, ok := b.leadsTo(metadata.TARGETS)
	if !ok {
		t.Fatal("no targets")
	}
	x, err := b.target(metadata.TARGETS, v)
	if err != nil {
		t.Fatal(err)
	}
	return x
}
