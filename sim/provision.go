package sim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/source"
)

// Provisioning is what a new BMC gets over a cable, once: what it trusts, where
// its unit finds the desired state, and a first boot image in both slots.
type Provisioning struct {
	// Repository is where units fetch from. With RepositoryURL and no pins it
	// is the built-in Git server, whose pins are filled in.
	Repository rack.Repository
	TUFRoot    []byte        // the trusted root.json
	Owners     trust.Keyring // its owners
	// Boot images with their signed slot manifests, by release name.
	Boot map[string]BootImage
	// Seed is a rack repository on this machine whose branches the built-in
	// Git server begins with; "" leaves it empty for a first push.
	Seed string
}

// BootImage is what a boot slot is flashed with.
type BootImage struct {
	Image    []byte // FAT volume
	Manifest []byte // slot manifest with the owners' signatures
}

// mediaType of the boot artefact's layer that is flashed.
const mediaBootImage = "application/vnd.racklet.boot.image.v1"

// maxBootImage is the size of a boot slot.
const maxBootImage = 30 << 20

// Provision gathers what new BMCs get, out of a clone of a rack repository on
// this machine and release layouts. It verifies the repository as a unit would,
// trusting the root.json found in it: whoever provisions chooses the rack.
func Provision(repository string, where rack.Repository, layouts ...string) (Provisioning, *manifest.Set, error) {
	bundle, err := source.ReadBundle(repository, where)
	if err != nil {
		return Provisioning{}, nil, fmt.Errorf("gather provisioning: %w", err)
	}
	root, ok := bundle.Metadata["metadata/1.root.json"]
	if !ok {
		return Provisioning{}, nil, errors.New("gather provisioning: the repository has no metadata/1.root.json")
	}
	set, err := manifest.Load(os.DirFS(repository))
	if err != nil {
		return Provisioning{}, nil, fmt.Errorf("gather provisioning: %w", err)
	}
	v, err := source.Verify(bundle, source.Anchor{RackID: set.Rack.Spec.ID, Repository: where, TUFRoot: root}, time.Now())
	if err != nil {
		return Provisioning{}, nil, fmt.Errorf("gather provisioning: %w", err)
	}
	p, err := Gather(v, where, root, layouts...)
	p.Seed = repository
	return p, v.Set, err
}

// Gather is Provision for state that was verified already, against root. It
// takes the boot images of all releases that units name. A release that the
// layouts do not hold is left out: only a new board needs its boot image.
func Gather(v *source.Verified, where rack.Repository, root []byte, layouts ...string) (Provisioning, error) {
	p := Provisioning{Repository: where, TUFRoot: root, Owners: v.Owners, Boot: map[string]BootImage{}}
	for _, u := range v.Set.Units {
		name := u.Spec.Release
		if _, done := p.Boot[name]; done {
			continue
		}
		r := v.Set.Releases[name]
		if r == nil {
			return p, fmt.Errorf("gather provisioning: unit %s: no release %q", u.Metadata.Name, name)
		}
		signed, ok := v.Slots[r.Spec.Boot.SlotManifest]
		if !ok {
			continue
		}
		image, err := bootImage(layouts, r.Spec.Boot.Digest)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("gather provisioning: release %s: %w", name, err)
		}
		p.Boot[name] = BootImage{Image: image, Manifest: signed}
	}
	return p, nil
}

func bootImage(layouts []string, d rack.Digest) ([]byte, error) {
	var errs []error
	for _, dir := range layouts {
		l := oci.Layout{Dir: dir}
		m, err := l.Manifest(digest.Digest(d))
		if err == nil {
			layer, lerr := oci.Layer(m, mediaBootImage)
			if lerr != nil {
				return nil, lerr
			}
			return l.Read(layer.Digest, maxBootImage)
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("boot artefact %s is in no layout: %w", d, errors.Join(errs...))
}

// record says what a slot's BMC was provisioned with. It is written last, so a
// half provisioned BMC is provisioned again.
type record struct {
	Unit      string `json:"unit"`
	Slot      uint8  `json:"slot"`
	RackID    string `json:"rackID"`
	DeviceKey []byte `json:"deviceKey"` // the public half
	Config    string `json:"config"`    // SHA-256 of owners' keys and boot configuration, hex
}

func recordFile(dir string) string { return filepath.Join(dir, "provisioned.json") }

// provisionSlot brings a slot's BMC to what cfg wants: everything the first
// time; later only keys and boot configuration when they have changed, and
// then those boot slots that the keys no longer vouch for. It returns the device's public key.
func provisionSlot(dir string, flash *chip.Flash, cfg bmc.Config, unit string, rackID string, boot BootImage) (ed25519.PublicKey, error) {
	h := sha256.New()
	h.Write([]byte{byte(cfg.Owners.Threshold)})
	for _, k := range cfg.Owners.Keys {
		h.Write(k)
	}
	h.Write(cfg.BootConfig)
	want := record{Unit: unit, Slot: cfg.Slot, RackID: rackID, Config: hex.EncodeToString(h.Sum(nil))}

	key, fresh, err := deviceKey(filepath.Join(dir, "device.pem"))
	if err != nil {
		return nil, err
	}
	public := key.Public().(ed25519.PublicKey)
	want.DeviceKey = public
	var have record
	b, err := os.ReadFile(recordFile(dir))
	if err == nil && json.Unmarshal(b, &have) == nil && !fresh {
		if have.Config == want.Config && have.Unit == unit && have.RackID == rackID && bytes.Equal(have.DeviceKey, public) {
			return public, nil
		}
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	cfg.DeviceKey, cfg.Emulated = key, true
	if err := bmc.Provision(flash, cfg); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	if err := flashSlots(flash, cfg.Owners, boot, have.RackID != rackID); err != nil {
		return nil, err
	}
	if b, err = json.MarshalIndent(want, "", "  "); err != nil {
		return nil, err
	}
	return public, replaceFile(recordFile(dir), append(b, '\n'))
}

// flashSlots writes the boot slots of a new board. Of one that was provisioned before it writes those that do not verify
// under the owners' keys of now, as after a change of owners; without a boot image at hand they stay, for the BMC to name
// what is wrong with them.
func flashSlots(flash *chip.Flash, owners trust.Keyring, boot BootImage, fresh bool) error {
	if fresh && len(boot.Image) == 0 {
		return errors.New("no signed boot image at hand for a new board: the layouts lack the release that its unit names")
	}
	for slot := range uint8(2) {
		if len(boot.Image) == 0 || !fresh && bmc.CheckSlot(flash, slot, owners) == nil {
			continue
		}
		if err := bmc.WriteSlot(flash, slot, bytes.NewReader(boot.Image), boot.Manifest); err != nil {
			return fmt.Errorf("flash slot %c: %w", 'A'+slot, err)
		}
	}
	return nil
}

// deviceKey loads or makes a board's own key. On hardware it would never leave
// the chip; here evidence says that it is emulated.
func deviceKey(file string) (key ed25519.PrivateKey, fresh bool, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, false, fmt.Errorf("make device key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, false, fmt.Errorf("make device key: %w", err)
		}
		return key, true, replaceFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if err != nil {
		return nil, false, fmt.Errorf("read device key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, false, fmt.Errorf("read device key: %s is no PEM", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, false, fmt.Errorf("read device key %s: %w", file, err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, false, fmt.Errorf("read device key %s: is a %T, want Ed25519", file, k)
	}
	return key, false, nil
}

// replaceFile writes a file whole or not at all, and through to the disk.
func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, werr := f.Write(b)
	if err := errors.Join(f.Chmod(0o600), werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// parseUUID turns a UUID's text into its 16 bytes.
func parseUUID(s string) (id [16]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("rack id %q: want a UUID", s)
	}
	return [16]byte(b), nil
}
