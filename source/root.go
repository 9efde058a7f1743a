package source

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A RootChange says how the next root differs from the present one. The zero
// RootChange only gives it a new date.
type RootChange struct {
	AddOwners    map[string]ed25519.PublicKey // by name
	RemoveOwners []string                     // names
	Threshold    int                          // 0: unchanged
	Online       ed25519.PublicKey            // nil: unchanged
	Operator     ed25519.PublicKey            // nil: unchanged
}

// proposedRoot is where the next root waits for signatures.
const proposedRoot = "proposal/root.json"

// ErrNoRootProposal is returned when there is no next root to sign.
var ErrNoRootProposal = errors.New("no root is proposed")

// ProposeRoot makes the next root and signs it with one key. It replaces a
// root that was proposed before. Owners of the present root, of the next root
// or of both sign it by SignRoot.
//
// BMCs know the owners that they were provisioned with, and no root: while any
// of them shall be served, floor statements need a threshold of its owners,
// too. Exchange one owner at a time, and provision BMCs anew in between.
func ProposeRoot(dir string, key OwnerKey, change RootChange, o SignOptions) (complete bool, err error) {
	p, err := openPublication(dir, o.MetadataRef, o.Now)
	if err != nil {
		return false, err
	}
	root, err := metadata.Root().FromBytes(p.files[metadataPath(metadata.ROOT, p.root.Signed.Version)])
	if err != nil {
		return false, fmt.Errorf("read root.json: %w", err)
	}
	root.Signatures = nil
	root.Signed.Version++
	root.Signed.Expires = p.now.Add(RootLifetime).Truncate(time.Second)
	if err := change.apply(root); err != nil {
		return false, err
	}
	if err := put(p, proposedRoot, root); err != nil {
		return false, err
	}
	return p.signRoot(key, o)
}

// SignRoot adds an owner's signature to the proposed root. With enough of the
// present owners' and of the next owners' it takes effect, provided that what
// is published satisfies it: when too few of the next root's owners signed
// that, let the others sign the present sequence first. A root with another
// online key needs that key in the options.
func SignRoot(dir string, key OwnerKey, o SignOptions) (complete bool, err error) {
	p, err := openPublication(dir, o.MetadataRef, o.Now)
	if err != nil {
		return false, err
	}
	return p.signRoot(key, o)
}

func (p *publication) signRoot(key OwnerKey, o SignOptions) (bool, error) {
	data, ok := p.files[proposedRoot]
	if !ok {
		return false, ErrNoRootProposal
	}
	next, err := metadata.Root().FromBytes(data)
	if err != nil {
		return false, fmt.Errorf("read proposed root: %w", err)
	}
	if next.Signed.Version != p.root.Signed.Version+1 {
		return false, fmt.Errorf("the proposed root has version %d, the present one %d", next.Signed.Version, p.root.Signed.Version)
	}
	_, id, err := key.tufKey()
	if err != nil {
		return false, err
	}
	if !contains(p.root.Signed.Roles[metadata.ROOT].KeyIDs, id) && !contains(next.Signed.Roles[metadata.ROOT].KeyIDs, id) {
		return false, fmt.Errorf("sign root with %s: %w", key.Name, ErrNotOwner)
	}
	if _, err := sign(next, key); err != nil {
		return false, err
	}
	if err := put(p, proposedRoot, next); err != nil {
		return false, err
	}
	complete := p.root.VerifyDelegate(metadata.ROOT, next) == nil && next.VerifyDelegate(metadata.ROOT, next) == nil
	if complete {
		if err := p.adoptRoot(next, o); err != nil {
			return false, err
		}
	}
	return complete, p.save(fmt.Sprintf("%s signs root %d", key.Name, next.Signed.Version))
}

// adoptRoot puts the proposed root into force, unless units that follow it
// would then refuse what is published.
func (p *publication) adoptRoot(next *metadata.Metadata[metadata.RootType], o SignOptions) error {
	p.files[metadataPath(metadata.ROOT, next.Signed.Version)] = p.files[proposedRoot]
	delete(p.files, proposedRoot)
	p.root = next
	n := p.published()
	if n == 0 {
		return nil
	}
	if !p.complete(n) {
		return fmt.Errorf("sequence %d has too few signatures of the next root's owners: let them sign it first", n)
	}
	m, err := metadata.Timestamp().FromBytes(p.files["metadata/timestamp.json"])
	if err == nil && p.root.VerifyDelegate(metadata.TIMESTAMP, m) == nil {
		return nil
	}
	if o.Online == nil {
		return errors.New("the next root has another online key: it is needed to sign the timestamp anew")
	}
	return p.timestamp(*o.Online, n, p.appsVersion())
}

// ownerRoles are the roles that owners sign.
var ownerRoles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT}

func (c RootChange) apply(root *metadata.Metadata[metadata.RootType]) error {
	named := names(root)
	for _, name := range c.RemoveOwners {
		id := ""
		for _, k := range root.Signed.Roles[metadata.ROOT].KeyIDs {
			if named[k] == name {
				id = k
			}
		}
		if id == "" {
			return fmt.Errorf("no owner is called %s", name)
		}
		for _, role := range ownerRoles {
			if err := root.Signed.RevokeKey(id, role); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
		delete(named, id)
	}
	add := func(name string, public ed25519.PublicKey, roles ...string) error {
		key, err := metadata.KeyFromPublicKey(public)
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		id, err := key.ID()
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		for _, role := range roles {
			if err := root.Signed.AddKey(key, role); err != nil {
				return fmt.Errorf("add %s: %w", name, err)
			}
		}
		named[id] = name
		return nil
	}
	for name, public := range c.AddOwners {
		if err := add(name, public, ownerRoles...); err != nil {
			return err
		}
	}
	if c.Threshold != 0 {
		for _, role := range ownerRoles {
			root.Signed.Roles[role].Threshold = c.Threshold
		}
	}
	if c.Online != nil {
		for _, id := range slices.Clone(root.Signed.Roles[metadata.TIMESTAMP].KeyIDs) {
			if err := root.Signed.RevokeKey(id, metadata.TIMESTAMP); err != nil {
				return fmt.Errorf("replace the online key: %w", err)
			}
			delete(named, id)
		}
		if err := add("online", c.Online, metadata.TIMESTAMP); err != nil {
			return err
		}
	}
	if c.Operator != nil {
		if err := add("operator", c.Operator); err != nil {
			return err
		}
		root.Signed.UnrecognizedFields[operatorField] = hex.EncodeToString(c.Operator)
	}
	list := map[string]any{}
	for id, name := range named {
		list[id] = name
	}
	root.Signed.UnrecognizedFields[nameField] = list
	if k, err := keyring(root); err != nil {
		return fmt.Errorf("next root: %w", err)
	} else if slices.ContainsFunc(k.Keys, func(a ed25519.PublicKey) bool { return bytes.Equal(a, c.Online) }) {
		return errors.New("next root: the online key is an owner's")
	}
	return nil
}
