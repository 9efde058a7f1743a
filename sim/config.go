package sim

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/racklet/racklet/artifact/hosttool"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/machine"
)

// Zone of names inside the rack, and where units find what the simulator serves.
const (
	GitHost    = "git.rack.internal"
	MirrorHost = "mirror.rack.internal"
	// RepositoryURL is the rack repository on the built-in Git server, as units see it.
	RepositoryURL = "https://" + GitHost + "/rack.git"
	// MirrorURL is the built-in mirror of artefacts.
	MirrorURL = "https://" + MirrorHost

	repositoryName = "rack"
)

// Config says what rack to build. Everything that it keeps is below Dir.
type Config struct {
	Dir   string
	Rack  *rack.Rack
	Units []*rack.ComputeUnit // those of the slots; a slot without is empty

	// Provisioning is what new BMCs get by cable: see Provision.
	Provisioning Provisioning
	// Releases are OCI layouts that the mirror serves, first come first served.
	Releases []string

	QEMU           string        // program; "" is the installed one, or what the set-up unpacked
	Accel          machine.Accel // "": the fastest that a boot probe finds to work
	Virtualization bool          // units get the virtualisation extensions, where emulated
	DiskBytes      int64         // of each unit's data disk, sparse; 0 is 8 GiB

	// Egress are ports of private addresses that units may reach through the
	// gateway, over TCP. The host's loopback and link-local addresses are never
	// reachable.
	Egress []netip.AddrPort
	// Forwards are single services of the host that units may reach: TCP port
	// of the gateway's address to address:port of the host.
	Forwards map[uint16]string
	// Hosts are names outside the rack's zone that units find at the gateway's
	// address, where Forwards are.
	Hosts []string

	// Enrolment is where units ask for their identity, an address of the
	// gateway that the caller serves; nil: nowhere.
	Enrolment *rack.Enrolment

	// Stolen are files of keys that a thief has found, for the fault owner-key-stolen: one owner's, and the online key, which
	// lies with the Git host. Without them there is nothing to steal.
	Stolen struct{ Owner, Online string }

	Seed uint64 // of tolerances, noise and random faults
	Log  *slog.Logger
}

func (c *Config) complete() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Rack == nil {
		return errors.New("simulate: no rack")
	}
	if !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("simulate: directory %q is not absolute", c.Dir)
	}
	if c.QEMU == "" {
		c.QEMU = hosttool.QEMU
	}
	if c.DiskBytes == 0 {
		c.DiskBytes = 8 << 30
	}
	seen := map[rack.SlotID]string{}
	for _, u := range c.Units {
		s := u.Spec.Slot
		if s < 1 || s > rack.SlotID(c.Rack.Spec.Slots) || s == c.Rack.Spec.Management() {
			return fmt.Errorf("simulate: unit %s in slot %d: no slot for a unit in this rack", u.Metadata.Name, s)
		}
		if other := seen[s]; other != "" {
			return fmt.Errorf("simulate: units %s and %s in slot %d", other, u.Metadata.Name, s)
		}
		seen[s] = u.Metadata.Name
	}
	for _, r := range c.Releases {
		if _, err := os.Stat(r); err != nil {
			return fmt.Errorf("simulate: %w", err)
		}
	}
	return nil
}

// UnitMAC is the hardware address of the unit in a slot.
func UnitMAC(slot rack.SlotID) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0x00, 0x52, 0x4b, byte(slot)}
}

// GatewayAddress is the gateway's address in a network: the first, unless it
// names another.
func GatewayAddress(n rack.RackNetwork) (netip.Addr, error) {
	if n.Gateway != "" {
		return netip.ParseAddr(n.Gateway)
	}
	p, err := netip.ParsePrefix(n.Subnet)
	return p.Masked().Addr().Next(), err
}

// firstUnitHost is the host part of the address that DHCP gives to slot 1.
const firstUnitHost = 11

// UnitAddress is the address of the unit in a slot of a network.
func UnitAddress(n rack.RackNetwork, slot rack.SlotID) (netip.Addr, error) {
	p, err := netip.ParsePrefix(n.Subnet)
	if err != nil || !p.Addr().Is4() {
		return netip.Addr{}, fmt.Errorf("subnet %q: want an IPv4 prefix", n.Subnet)
	}
	b := p.Masked().Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += firstUnitHost + uint32(slot) - 1
	a := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	if !p.Contains(a) {
		return netip.Addr{}, fmt.Errorf("subnet %s is too small for slot %d", n.Subnet, slot)
	}
	return a, nil
}
