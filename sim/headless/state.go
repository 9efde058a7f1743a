package headless

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing/fstest"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/example"
	"github.com/racklet/racklet/source"
)

// epoch is when headless racks are signed and switched on.
var epoch = time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)

const (
	rackID  = "5d0f2a4c-6b1e-4a57-8f3c-2e9d7b604a11"
	release = "2026.11.1"
)

var where = rack.Repository{URL: "https://git.rack.internal/rack.git", Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef}

// states are what the owners of headless racks signed, once per process: the current state, an older one, and what a
// thief made of it with one owner's key and the online key.
type states struct {
	root                    []byte
	owners                  trust.Keyring
	keys                    []source.OwnerKey
	image                   []byte
	slot                    []byte // signed slot manifest
	current, replay, forged *source.Bundle
}

var signed = sync.OnceValues(sign)

// seedReader yields seeds of keys that are no secret.
type seedReader struct{ n byte }

func (r *seedReader) Read(p []byte) (int, error) {
	r.n++
	sum := sha256.Sum256([]byte{'k', r.n})
	return copy(p, sum[:]), nil
}

func sign() (*states, error) {
	s := &states{image: make([]byte, 4*trust.ChunkSize)}
	for i := range s.image {
		s.image[i] = byte(i*i>>7 ^ i)
	}
	m := trust.SlotManifest{Version: release, SecurityVersion: 1, ImageSize: uint32(len(s.image)), ChunkSize: trust.ChunkSize, Kernel: sha256.Sum256([]byte("kernel"))}
	for off := 0; off < len(s.image); off += trust.ChunkSize {
		m.Chunks = append(m.Chunks, sha256.Sum256(s.image[off:off+trust.ChunkSize]))
	}
	manifest, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	digest := func(b []byte) rack.Digest {
		sum := sha256.Sum256(b)
		return rack.Digest("sha256:" + hex.EncodeToString(sum[:]))
	}
	spec := rack.ReleaseSpec{Version: release, SecurityVersion: 1,
		Boot: rack.ReleaseBoot{Artifact: "racklet/boot", Digest: digest([]byte("boot")), SlotManifest: digest(manifest), Kernel: digest([]byte("kernel"))},
		OS:   rack.ReleaseOS{Artifact: "racklet/os", Digest: digest([]byte("os")), Kernel: digest([]byte("kernel")), RootHash: string(digest([]byte("root")))[7:]}}
	files, err := example.Files(example.Options{Name: "rack", ID: rackID, Units: rack.MaxSlots - 1, Release: spec})
	if err != nil {
		return nil, err
	}
	fsys := fstest.MapFS{}
	for name, b := range files {
		fsys[name] = &fstest.MapFile{Data: b}
	}
	dir, err := os.MkdirTemp("", "racklet-headless-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	options := source.SignOptions{Now: epoch, SlotManifest: func(rack.Digest) ([]byte, error) { return manifest, nil }}
	keys, err := source.InitRepository(dir, source.InitOptions{Files: fsys, Repository: where, Rand: &seedReader{}, Sign: options})
	if err != nil {
		return nil, fmt.Errorf("make the owners' state: %w", err)
	}
	s.root, s.keys = keys.Root, keys.Owners
	options.Online = &keys.Online
	if s.replay, err = source.ReadBundle(dir, where); err != nil {
		return nil, err
	}
	v, err := source.Verify(s.replay, s.anchor(trust.Floors{}), epoch.Add(time.Hour))
	if err != nil {
		return nil, fmt.Errorf("verify the owners' state: %w", err)
	}
	s.owners, s.slot = v.Owners, v.Slots[spec.Boot.SlotManifest]
	if s.slot == nil {
		return nil, fmt.Errorf("the owners' state has no slot manifest")
	}

	if err := commit(dir, "a newer state", files, "# newer\n"); err != nil {
		return nil, err
	}
	for _, owner := range keys.Owners[:2] {
		if _, err := source.Sign(dir, owner, options); err != nil {
			return nil, fmt.Errorf("sign a newer state: %w", err)
		}
	}
	if s.current, err = source.ReadBundle(dir, where); err != nil {
		return nil, err
	}

	if err := commit(dir, "a thief's state", files, "# stolen\n"); err != nil {
		return nil, err
	}
	options.PublishIncomplete = true
	if _, err := source.Sign(dir, keys.Owners[0], options); err != nil {
		return nil, fmt.Errorf("sign as a thief: %w", err)
	}
	s.forged, err = source.ReadBundle(dir, where)
	return s, err
}

// commit changes one file of the rack and commits it.
func commit(dir, message string, files map[string][]byte, more string) error {
	const name = "rack/rack.yaml"
	if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), append(bytes.Clone(files[name]), more...), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("git", "-C", dir, "commit", "--quiet", "--all", "--message", message)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=An Owner", "GIT_AUTHOR_EMAIL=owner@rack.example",
		"GIT_COMMITTER_NAME=An Owner", "GIT_COMMITTER_EMAIL=owner@rack.example", "GIT_AUTHOR_DATE="+epoch.Format(time.RFC3339), "GIT_COMMITTER_DATE="+epoch.Format(time.RFC3339))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git commit: %w: %s", err, out)
	}
	return nil
}

func (s *states) anchor(floors trust.Floors) source.Anchor {
	return source.Anchor{RackID: rackID, Repository: where, TUFRoot: s.root, Floors: floors}
}
