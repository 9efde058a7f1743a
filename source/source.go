// Package source turns a pinned Git repository and its TUF metadata into a
// tree of files that the rack's owners signed, or into a named refusal.
//
//	           owner                                  unit, command line
//	InitRepository ─┐                          ┌─ Fetch   pinned TLS or SSH
//	Sign            ├─► repository ── Git ───► │    ▼
//	SignApps        │   main, metadata         │  Bundle  nothing believed yet
//	RefreshTimestamp┘                          │    ▼
//	                                           └─ Verify  Verified or *Refusal
//
// The owners (by default two of three) sign metadata of The Update Framework,
// not commits. The target rack.json names repository, ref, commit, a rising
// sequence and the digest of the files under rack/; with each sequence comes a
// floor statement in the binary layout that a BMC understands, signed by the
// same keys. Both live on a ref of their own, beside the commits. Verify
// starts at the root that the BMC was provisioned with, takes every step from
// there, never looks at a clock of its own and trusts nothing that Fetch
// brought. Files under apps/ are delegated to a single operator key.
//
// The bootstrap environment links Fetch and Verify, the rack's command line
// also the owner's side. Nothing is ever checked out, and no global state of
// the Git library is touched, so that fetches with different pins run side by
// side.
//
// Names of the specifications: "TUF" is The Update Framework specification
// 1.0.33, theupdateframework.github.io.
package source

import (
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
)

// Repository says where the desired state is and which keys its server has.
type Repository = rack.Repository

// Folders of a rack repository.
const (
	rackDir = "rack" // what the owners' threshold signs
	appsDir = "apps" // what the operator's key signs
)

// Lifetimes of signed metadata. They bound how long somebody who holds
// back newer metadata can keep a rack from hearing of it.
const (
	RootLifetime      = 365 * 24 * time.Hour // signed by the owners, by hand
	TargetsLifetime   = 90 * 24 * time.Hour  // targets and snapshot, likewise
	TimestampLifetime = 7 * 24 * time.Hour   // signed by the online key, by a service
)

// Bounds of what is read from a repository.
const (
	// MaxBundle is the number of bytes of an encoded Bundle; two of them fit
	// the cache partition of a unit.
	MaxBundle = 7 << 20
	// MaxFile is the number of bytes of one file or Git object.
	MaxFile = 1 << 20
	// maxPack is the number of bytes of a pack from a server.
	maxPack = 32 << 20
	// maxUnpacked is the number of bytes of all objects in a pack.
	maxUnpacked = 128 << 20
	// maxObjects is the number of objects in a pack.
	maxObjects = 20_000
	// maxRefs is the number of bytes of a server's list of refs, some 60 each.
	maxRefs = 2 << 20
	// maxHistory is the number of commits searched for the signed one.
	maxHistory = 100_000
	// maxRoots is the number of successors of the trusted root.
	maxRoots = 256
)

// A Refusal is a failed check: its name in rack.Reasons, what would have been
// accepted and what was seen instead, both for people to read.
type Refusal struct {
	Check    string
	Expected string
	Seen     string
}

func (r *Refusal) Error() string {
	return r.Check + ": expected " + r.Expected + ", seen " + r.Seen
}

// An Anchor is what a unit knows before it looks at the network: all of it
// comes from its BMC.
type Anchor struct {
	RackID     string          // UUID of the rack
	Repository rack.Repository // where the state is expected to live
	TUFRoot    []byte          // root.json that was provisioned
	Floors     trust.Floors    // what was accepted last
}

// Verified is desired state that the owners signed.
type Verified struct {
	Commit     string        // of the files under rack/, 40 hexadecimal digits
	Sequence   uint64        // of the owners' publication
	TreeDigest [32]byte      // see TreeDigest
	Set        *manifest.Set // the rack's objects
	FS         fs.FS         // files under rack/ and, if the operator signed them, apps/
	Stale      bool          // metadata expired; exactly the version accepted last
	Expires    time.Time     // of the metadata that expires first

	// Root is the newest root.json; Owners are the keys in it, for the BMC.
	Root   []byte
	Owners trust.Keyring
	// FloorStatement is the signed container for the BMC.
	FloorStatement []byte
	// Slots holds signed containers for the BMC's flash by the digest of
	// their slot manifest. A release that is missing here cannot be staged.
	Slots map[rack.Digest][]byte
	// Signers are the names of the owners whose signatures were counted.
	Signers []string

	// Pending says why something newer than this state is not in force: a
	// proposal that lacks signatures, or a commit that nobody proposed. It is
	// read off what is not signed, for people only; nil when there is nothing
	// newer.
	Pending *Refusal

	// AppsCommit is the commit of the files under apps/, "" when there are
	// none that the operator signed; AppsRefusal says why not. It never
	// keeps a unit from booting.
	AppsCommit  string
	AppsRefusal *Refusal
}

// TreeDigest is the digest that owners sign: over the files in order of their
// path, each as
//
//	path || 0x00 || mode || 0x00 || length (8, big endian) || content
//
// after the line "racklet tree v1\n". The path is relative to the repository,
// with slashes; the mode is Git's, 100644 or 100755, in ASCII.
func TreeDigest(files []File) [32]byte {
	h := sha256.New()
	h.Write([]byte("racklet tree v1\n"))
	for _, f := range files {
		h.Write([]byte(f.Path + "\x00" + f.mode() + "\x00"))
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(f.Content))))
		h.Write(f.Content)
	}
	return [32]byte(h.Sum(nil))
}

// A File is one file of a signed tree.
type File struct {
	Path       string // relative to the repository, with slashes
	Executable bool
	Content    []byte
}

func (f File) mode() string {
	if f.Executable {
		return modeExecutable
	}
	return modeFile
}
