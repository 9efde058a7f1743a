package source

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParseBundle holds the cache's parser to one encoding per bundle.
func FuzzParseBundle(f *testing.F) {
	fx := newFixture(f)
	f.Add(fx.bundle(f).Marshal())
	f.Add((&Bundle{}).Marshal())
	f.Add([]byte(bundleMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle, err := ParseBundle(b)
		if err != nil {
			return
		}
		if !bytes.Equal(bundle.Marshal(), b) {
			t.Fatal("two encodings of one bundle")
		}
	})
}

// FuzzVerify replaces one file of a good bundle by anything: Verify must not
// panic, must give a Refusal, and must not come to another state.
func FuzzVerify(f *testing.F) {
	fx := newFixture(f)
	good := fx.bundle(f)
	names := []string{"metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json", "metadata/1.apps.json",
		"metadata/2.root.json", "floors/1.floor"}
	for i, name := range names {
		f.Add(uint8(i), good.Metadata[name])
	}
	f.Add(uint8(4), good.Metadata["metadata/1.root.json"])
	want, err := fx.verify(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		b := copyBundle(good)
		b.Metadata[names[int(which)%len(names)]] = content
		v, err := fx.verify(b)
		var r *Refusal
		if err != nil && !errors.As(err, &r) {
			t.Fatalf("err = %v, want a Refusal", err)
		}
		if err == nil && (v.Sequence != want.Sequence || v.TreeDigest != want.TreeDigest || v.Commit != want.Commit) {
			t.Fatal("another state was accepted")
		}
	})
}

func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x0012345678901234567890" + "40000 b\x0012345678901234567890"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parseTree(b)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, e := range entries {
			again.WriteString(e.mode + " " + e.name + "\x00")
			again.Write(e.id[:])
		}
		if !bytes.Equal(again.Bytes(), b) {
			t.Fatal("two encodings of one tree")
		}
	})
}

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte("tree 0123456789012345678901234567890123456789\nparent 0123456789012345678901234567890123456789\nauthor a\ncommitter b\n\nx\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseCommit(b); err == nil && !bytes.HasPrefix(b, []byte("tree "+c.tree.String()+"\n")) {
			t.Fatal("another tree")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	f := newFixture(b)
	bundle := f.bundle(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.verify(bundle); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseBundle(b *testing.B) {
	data := newFixture(b).bundle(b).Marshal()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ParseBundle(data); err != nil {
			b.Fatal(err)
		}
	}
}
