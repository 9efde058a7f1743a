package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func sum(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

func TestPartial(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	want := sum("hello")
	if _, err := c.Lookup(want); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty cache: %v", err)
	}
	p, err := c.Partial(want)
	if err != nil {
		t.Fatal(err)
	}
	p.WriteString("hel")
	p.Close()
	p, err = c.Partial(want) // as after an interruption
	if err != nil {
		t.Fatal(err)
	}
	p.WriteString("lo")
	name, err := p.Commit()
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Lookup(want); err != nil || got != name {
		t.Errorf("lookup: %q, %v", got, err)
	}

	p, err = c.Partial(sum("other"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.WriteString("wrong")
	if _, err := p.Commit(); !errors.Is(err, ErrHash) {
		t.Errorf("wrong content: %v", err)
	}
	if st, _ := p.Stat(); st.Size() != 0 {
		t.Error("wrong content is kept")
	}
}

func TestLookupRemovesDamaged(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	p, err := c.Partial(sum("x"))
	if err != nil {
		t.Fatal(err)
	}
	p.WriteString("x")
	name, err := p.Commit()
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(name, []byte("y"), 0o600)
	if _, err := c.Lookup(sum("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("damaged file: %v", err)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Error("damaged file is kept")
	}
}

// TestDerived: what is kept comes back as it was, or not at all.
func TestDerived(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	key := Key("compressed", "a")
	if Key("compressed", "a") != key || Key("compresseda") == key || Key("compressed", "b") == key {
		t.Error("keys do not tell what they are made of")
	}
	if _, _, err := c.Derived(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing kept: %v", err)
	}
	if err := c.KeepDerived(key, json.RawMessage(`{"n":1}`), []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	about, b, err := c.Derived(key)
	if err != nil || string(about) != `{"n":1}` || string(b) != "bytes" {
		t.Errorf("%s %q %v", about, b, err)
	}
	sum := sha256.Sum256([]byte("bytes"))
	name := c.Path(hex.EncodeToString(sum[:]))
	if err := os.WriteFile(name, []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Derived(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("damaged bytes: %q %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "derived", key), []byte(`{"sha256":"../../etc/passwd"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Derived(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a record that points elsewhere: %q %v", b, err)
	}
}
