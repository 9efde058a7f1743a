package source

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/racklet/racklet/firmware/trust"
)

// The role that the operator's key signs, delegated by the owners.
const roleApps = "apps"

// nameField is the field of root.json that gives keys names for people:
// {key identifier: "owner-1"}. It is signed like the rest.
const nameField = "x-racklet-names"

// A delegator says whose signatures count for a role.
type delegator struct {
	keys   map[string]*metadata.Key
	role   metadata.Role
	names  map[string]string // of keys, by identifier
	plural string            // "owners", "the online key"
}

// rootRole is the delegator of a role in root.json.
func rootRole(root *metadata.Metadata[metadata.RootType], role string) (delegator, error) {
	r := root.Signed.Roles[role]
	if r == nil {
		return delegator{}, fmt.Errorf("root.json has no role %s", role)
	}
	d := delegator{keys: root.Signed.Keys, role: *r, names: names(root), plural: "owners"}
	if role == metadata.TIMESTAMP {
		d.plural = "the online key"
	}
	return d, nil
}

// appsRole is the delegator of the operator's role in targets.json.
func appsRole(root *metadata.Metadata[metadata.RootType], targets *metadata.Metadata[metadata.TargetsType]) (delegator, bool) {
	if targets.Signed.Delegations == nil {
		return delegator{}, false
	}
	for _, r := range targets.Signed.Delegations.Roles {
		if r.Name == roleApps {
			return delegator{
				keys:   targets.Signed.Delegations.Keys,
				role:   metadata.Role{KeyIDs: r.KeyIDs, Threshold: r.Threshold},
				names:  names(root),
				plural: "the operator",
			}, true
		}
	}
	return delegator{}, false
}

// names reads the names of keys; without one a key goes by its identifier.
func names(root *metadata.Metadata[metadata.RootType]) map[string]string {
	out := map[string]string{}
	if m, ok := root.Signed.UnrecognizedFields[nameField].(map[string]any); ok {
		for id, v := range m {
			if name, ok := v.(string); ok && len(name) <= 32 {
				out[id] = name
			}
		}
	}
	return out
}

func (d delegator) name(id string) string {
	if name := d.names[id]; name != "" {
		return name
	}
	return id[:min(8, len(id))]
}

// signers returns the names of the keys that signed signed metadata, and the
// identifiers of signatures that count for nothing. It reports; the library
// decides.
func signers[T metadata.Roles](d delegator, m *metadata.Metadata[T]) (good, bad []string) {
	for _, sig := range m.Signatures {
		one := metadata.Root()
		one.Signed.Keys = d.keys
		one.Signed.Roles = map[string]*metadata.Role{"role": {KeyIDs: []string{sig.KeyID}, Threshold: 1}}
		if !contains(d.role.KeyIDs, sig.KeyID) || d.keys[sig.KeyID] == nil || one.VerifyDelegate("role", m) != nil {
			bad = append(bad, sig.KeyID)
			continue
		}
		good = append(good, d.name(sig.KeyID))
	}
	return good, bad
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// signatures writes who signed: what a Refusal says when too few did.
func signatures[T metadata.Roles](d delegator, m *metadata.Metadata[T]) (expected, seen string) {
	good, bad := signers(d, m)
	expected = fmt.Sprintf("%d signatures of %s", d.role.Threshold, d.plural)
	if d.role.Threshold == 1 {
		expected = "a signature of " + d.plural
	}
	seen = fmt.Sprint(len(good))
	if len(good) > 0 {
		seen += " (" + strings.Join(good, ", ") + ")"
	}
	for i, id := range bad {
		why := "no key of theirs"
		if contains(d.role.KeyIDs, id) {
			why = "does not verify"
		}
		if i == 3 {
			seen += fmt.Sprintf(", and %d more", len(bad)-i)
			break
		}
		seen += fmt.Sprintf(", %s: %s", d.name(id), why)
	}
	return expected, seen
}

// keyring is the owners' keys as firmware/trust and a BMC know them.
func keyring(root *metadata.Metadata[metadata.RootType]) (trust.Keyring, error) {
	var k trust.Keyring
	role := root.Signed.Roles[metadata.TARGETS]
	if role == nil {
		return k, errors.New("root.json has no role targets")
	}
	for _, id := range role.KeyIDs {
		key := root.Signed.Keys[id]
		if key == nil || key.Type != metadata.KeyTypeEd25519 {
			return k, fmt.Errorf("owner's key %.8s is not of the kind Ed25519", id)
		}
		pub, err := hex.DecodeString(key.Value.PublicKey)
		if err != nil || len(pub) != ed25519.PublicKeySize {
			return k, fmt.Errorf("owner's key %.8s is malformed", id)
		}
		k.Keys = append(k.Keys, pub)
	}
	k.Threshold = role.Threshold
	return k, k.Check()
}

// Owners returns the owners' keys and threshold in a root.json that the caller
// trusts, for the provisioning record of a BMC.
func Owners(root []byte) (trust.Keyring, error) {
	m, err := metadata.Root().FromBytes(root)
	if err != nil {
		return trust.Keyring{}, fmt.Errorf("read root.json: %w", err)
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return trust.Keyring{}, fmt.Errorf("read root.json: %w", err)
	}
	return keyring(m)
}
