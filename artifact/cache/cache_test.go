package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
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
