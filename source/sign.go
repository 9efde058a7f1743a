package source

import (
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/rack"
)

// SignOptions are what a signature needs besides a key and a commit.
type SignOptions struct {
	// Now is the time of signing; the zero time is time.Now.
	Now time.Time
	// MetadataRef is where metadata lives; "" is refs/heads/racklet-metadata.
	MetadataRef string
	// Repository and Alternatives are the URLs under which units know the
	// repository; empty ones stay as they were published last.
	Repository   string
	Alternatives []string
	// Ref is what units follow; "" stays, or is the branch of HEAD.
	Ref string
	// BootSecurity raises the floor for boot slots; 0 leaves it. Raise it
	// when no unit needs an older slot to boot any more.
	BootSecurity uint32
	// SlotManifest returns the slot manifest with a digest, unsigned; nil,
	// or fs.ErrNotExist from it, leaves a release without one that is not
	// published already: units then cannot stage it.
	SlotManifest func(rack.Digest) ([]byte, error)
	// Online, when it is at hand, signs the timestamp that publishes a
	// complete proposal.
	Online *OwnerKey
	// Renew makes a new sequence for a HEAD that is published already, with
	// new dates. Metadata with less than a third of its life left is renewed
	// in any case.
	Renew bool
	// PublishIncomplete lets the timestamp lead to a proposal without enough
	// signatures. Every unit refuses it; that is what it is for: drills.
	PublishIncomplete bool
}

// A Proposal is what owners sign: one commit under one sequence.
type Proposal struct {
	Sequence  uint64
	Commit    string
	Tree      rack.Digest
	Expires   time.Time
	Threshold int
	Signed    []string // names of owners who signed all of it
	Missing   []string // names of the other owners
	Slots     []string // digests of the slot manifests that are signed with it
	Complete  bool     // enough owners signed
	Published bool     // the timestamp leads to it
	Changed   bool     // this call added something
}

// DefaultMetadataRef is where metadata lives unless somebody decides otherwise.
const DefaultMetadataRef = "refs/heads/racklet-metadata"

// defaultRef is what units follow unless somebody decides otherwise.
const defaultRef = "refs/heads/main"

// ErrNotOwner is returned for a key that has no say in what it shall sign.
var ErrNotOwner = errors.New("the key is none of the owners'")

// Sign adds one owner's signature to what is proposed for HEAD: targets,
// snapshot, floor statement and slot manifests. Without a proposal for HEAD it
// makes one, under the next sequence; a sequence that anybody has signed is
// never given to another commit. Before signing what somebody else proposed it
// makes all of it anew and compares. Signing twice changes nothing.
//
// It refuses when the files under rack/ differ from HEAD or are not valid. The
// result is a commit on the metadata ref, for git push.
func Sign(dir string, key OwnerKey, o SignOptions) (*Proposal, error) {
	p, err := openPublication(dir, o.MetadataRef, o.Now)
	if err != nil {
		return nil, err
	}
	d, err := rootRole(p.root, metadata.TARGETS)
	if err != nil {
		return nil, err
	}
	_, id, err := key.tufKey()
	if err != nil {
		return nil, err
	}
	if !contains(d.role.KeyIDs, id) {
		return nil, fmt.Errorf("sign with %s: %w", key.Name, ErrNotOwner)
	}
	want, err := p.draft(o)
	if err != nil {
		return nil, err
	}
	n, err := p.proposalFor(want, o)
	if err != nil {
		return nil, err
	}
	changed, err := p.signProposal(n, key, want, o)
	if err != nil {
		return nil, err
	}
	if o.Online != nil && (o.PublishIncomplete || p.complete(n)) && p.published() != n {
		if err := p.timestamp(*o.Online, n, p.appsVersion()); err != nil {
			return nil, err
		}
		changed = true
	}
	if changed {
		p.prune()
		if err := p.save(fmt.Sprintf("%s signs sequence %d", key.Name, n)); err != nil {
			return nil, err
		}
	}
	out, err := p.describe(n)
	if err != nil {
		return nil, err
	}
	out.Changed = changed
	return out, nil
}

// ReadProposal describes the newest proposal without signing.
func ReadProposal(dir string, metadataRef string) (*Proposal, error) {
	p, err := openPublication(dir, metadataRef, time.Time{})
	if err != nil {
		return nil, err
	}
	n := p.newest()
	if n == 0 {
		return nil, errors.New("nothing is proposed or published yet")
	}
	return p.describe(n)
}

// RefreshTimestamp publishes the newest complete proposal, and gives what is
// published a fresh timestamp. It needs the online key only and is for the
// service that holds it. The zero time is time.Now. Metadata must live at
// DefaultMetadataRef; elsewhere, Sign publishes.
func RefreshTimestamp(dir string, online OwnerKey, now time.Time) error {
	p, err := openPublication(dir, DefaultMetadataRef, now)
	if err != nil {
		return err
	}
	n := p.newestComplete()
	if n == 0 {
		return errors.New("no proposal has enough signatures yet")
	}
	if err := p.timestamp(online, n, p.newestApps()); err != nil {
		return err
	}
	p.prune()
	return p.save(fmt.Sprintf("timestamp %d for sequence %d", p.timestampVersion(), n))
}
