package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Key returns a key for something that is derived from the given words, and from nothing else.
func Key(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d %s", len(w), w)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// derived is the record of derived bytes: racklet/derived/KEY.
type derived struct {
	SHA256 string          `json:"sha256"` // where the bytes lie
	About  json.RawMessage `json:"about"`
}

// Derived returns what was kept under a key, and what its keeper had to say about it. When it is not there, or damaged,
// the error is fs.ErrNotExist.
func (c Cache) Derived(key string) (about json.RawMessage, data []byte, err error) {
	b, err := os.ReadFile(filepath.Join(c.Dir, "derived", key))
	if err != nil {
		return nil, nil, fs.ErrNotExist
	}
	var d derived
	if json.Unmarshal(b, &d) != nil || len(d.SHA256) != 2*sha256.Size || filepath.Base(d.SHA256) != d.SHA256 {
		return nil, nil, fs.ErrNotExist
	}
	if data, err = os.ReadFile(c.Path(d.SHA256)); err != nil {
		return nil, nil, fs.ErrNotExist
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d.SHA256 {
		os.Remove(c.Path(d.SHA256))
		return nil, nil, fs.ErrNotExist
	}
	return d.About, data, nil
}

// KeepDerived keeps bytes, and words about them in JSON, under a key.
func (c Cache) KeepDerived(key string, about json.RawMessage, data []byte) error {
	sum := sha256.Sum256(data)
	d := derived{hex.EncodeToString(sum[:]), about}
	if len(about) == 0 {
		d.About = json.RawMessage("null")
	}
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("keep derived bytes: %w", err)
	}
	return errors.Join(c.write("sha256", d.SHA256, data), c.write("derived", key, b))
}

// write makes a file that is there as a whole or not at all.
func (c Cache) write(dir, name string, b []byte) error {
	dir = filepath.Join(c.Dir, dir)
	if old, err := os.ReadFile(filepath.Join(dir, name)); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write to the cache: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return fmt.Errorf("write to the cache: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write to the cache: %w", err)
	}
	return nil
}
