// Package cache keeps downloaded and derived bytes by their SHA-256 under the user's cache
// directory: racklet/sha256/HEX for whole files, racklet/partial/HEX for those under way. Whatever is
// found there is hashed again before it is used, so that a damaged cache costs time, never trust.
package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A Cache is a directory of files named by their SHA-256.
type Cache struct{ Dir string }

// User returns the cache of the user who runs this program.
func User() (Cache, error) {
	d, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, fmt.Errorf("find the user's cache directory: %w", err)
	}
	return Cache{Dir: filepath.Join(d, "racklet")}, nil
}

// Path is where the file with a hash (64 hex digits) lies, if it does.
func (c Cache) Path(sum string) string { return filepath.Join(c.Dir, "sha256", sum) }

// Lookup returns the path of the file with a hash when it is there and intact. A damaged file is
// removed and reported as absent (fs.ErrNotExist).
func (c Cache) Lookup(sum string) (string, error) {
	name := c.Path(sum)
	got, _, err := HashFile(name)
	if err != nil {
		return "", err
	}
	if got != sum {
		os.Remove(name)
		return "", fmt.Errorf("cached file %s was damaged and is removed: %w", sum, fs.ErrNotExist)
	}
	return name, nil
}

// Partial is a file on its way into the cache. One process at a time holds it.
type Partial struct {
	*os.File
	cache Cache
	sum   string
}

// Partial opens, and locks against other processes, the unfinished file with a hash; its offset is
// at the end of what earlier attempts left.
func (c Cache) Partial(sum string) (*Partial, error) {
	for _, d := range []string{"sha256", "partial"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make cache: %w", err)
		}
	}
	name := filepath.Join(c.Dir, "partial", sum)
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open partial download: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock partial download: %w", err)
		}
		// Whoever held the lock before may have moved the file away.
		a, errA := f.Stat()
		b, errB := os.Stat(name)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			_, err := f.Seek(0, io.SeekEnd)
			return &Partial{f, c, sum}, err
		}
		f.Close()
	}
}

// Restart throws away what is there.
func (p *Partial) Restart() error {
	if err := p.Truncate(0); err != nil {
		return err
	}
	_, err := p.Seek(0, io.SeekStart)
	return err
}

// ErrHash says that a file is not what its name promises.
var ErrHash = errors.New("hash differs")

// Commit hashes the file and moves it into the cache; a wrong one is emptied (ErrHash).
func (p *Partial) Commit() (string, error) {
	if _, err := p.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, p.File); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.sum {
		if err := p.Restart(); err != nil {
			return "", err
		}
		return "", fmt.Errorf("%w: expected %s, got %s", ErrHash, p.sum, got)
	}
	if err := p.Sync(); err != nil {
		return "", err
	}
	if err := os.Rename(p.Name(), p.cache.Path(p.sum)); err != nil {
		return "", err
	}
	return p.cache.Path(p.sum), nil
}

// HashFile returns a file's SHA-256 in hex, and its size in bytes.
func HashFile(name string) (sum string, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	if err != nil {
		return "", 0, fmt.Errorf("hash %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}
