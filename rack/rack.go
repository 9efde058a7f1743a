// Package rack holds the nouns of a Racklet: the rack itself, its compute
// units, the releases they boot, the policies that cool and feed them, what a
// BMC tells its unit, and the names of all the reasons for which a step of the
// boot chain is refused.
//
// It is the vocabulary that all other packages share, so it has no I/O, no
// clock and no dependency beyond the standard library. Reading the objects
// from the files of a rack repository, with file and line in each error, is
// the work of package rack/manifest; checking that a repository says what the
// owners signed is the work of package source.
//
// The objects look like those of Kubernetes (apiVersion, kind, metadata,
// spec), group racklet.io/v1alpha1. A field whose JSON tag lacks "omitempty" and "omitzero"
// must be given. JSON Schema of each kind is in the folder rack/schema, made
// from the types and comments of this package by tools/schema.
package rack

import (
	"encoding/json"
	"fmt"
)

// APIVersion is the group and version of all objects in this package.
const APIVersion = "racklet.io/v1alpha1"

// The kinds of objects.
const (
	KindRack          = "Rack"
	KindComputeUnit   = "ComputeUnit"
	KindRelease       = "Release"
	KindThermalPolicy = "ThermalPolicy"
	KindPowerPolicy   = "PowerPolicy"
)

// The platforms that a compute unit can be.
const (
	PlatformVirt = "virt" // QEMU's arm64 "virt" machine
	PlatformRPi4 = "rpi4" // Raspberry Pi 4 Model B
	PlatformRPi5 = "rpi5" // Raspberry Pi 5
)

// The power states that can be asked for.
const (
	PowerOn  = "On"
	PowerOff = "Off"
)

// TypeMeta says what an object is.
type TypeMeta struct {
	// Version of the schema that the object follows: racklet.io/v1alpha1.
	APIVersion string `json:"apiVersion" enum:"racklet.io/v1alpha1"`
	// What the object describes.
	Kind string `json:"kind"`
}

// Metadata names an object.
type Metadata struct {
	// Name of the object, unique among its kind: lower-case letters, digits and hyphens, at most 32.
	Name string `json:"name"`
	// Free key and value pairs to select objects by.
	Labels map[string]string `json:"labels,omitempty"`
	// Free key and value pairs for people and tools; Racklet does not read them.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// SlotID is the number of a slot in the rack, counted from 1; 0 is no slot.
type SlotID uint8

// Rack describes the whole rack: its size, its supply, its network and the
// policies in force. A rack repository holds exactly one.
type Rack struct {
	TypeMeta
	// Name and labels of the rack.
	Metadata Metadata `json:"metadata"`
	// What the rack shall be.
	Spec RackSpec `json:"spec"`
}

// RackSpec is the desired state of a rack.
type RackSpec struct {
	// UUID of this rack. Owner statements on version floors carry it, so that they hold for no other rack.
	ID string `json:"id" format:"uuid"`
	// Number of slots, 3 to 10, the management unit's slot included.
	Slots uint8 `json:"slots" min:"3" max:"10"`
	// Slot of the management unit; the last one when left out.
	ManagementSlot SlotID `json:"managementSlot,omitempty" min:"1" max:"10"`
	// What the supply can give and what stays back for the rack itself.
	Power RackPower `json:"power"`
	// Addresses of the rack's own network.
	Network RackNetwork `json:"network"`
	// Name of the ThermalPolicy in force.
	ThermalPolicy string `json:"thermalPolicy"`
	// Name of the PowerPolicy in force.
	PowerPolicy string `json:"powerPolicy"`
	// Where artefacts are fetched from, tried in this order. None: the host of the repository, with the same TLS pins. Mirrors are not trusted; whatever they send is checked by digest.
	Mirrors []Mirror `json:"mirrors,omitempty" max:"8"`
	// The rack's own Kubernetes; left out, the rack has none.
	Kubernetes RackKubernetes `json:"kubernetes,omitzero"`
}

// RackKubernetes is the Kubernetes whose nodes are the rack's compute units.
type RackKubernetes struct {
	// Where the control plane runs: host is beside the management API.
	Placement string `json:"placement" enum:"host"`
	// Version that the control plane must have, such as v1.37.1; any when left out.
	Version string `json:"version,omitempty" format:"version"`
	// IPv4 range of pods, 16 bits; the unit in slot N gives its pods addresses of the Nth /24.
	Pods string `json:"pods" format:"cidr"`
	// IPv4 range of services, 12 to 24 bits; its first address is the API server's, its tenth the name server's.
	Services string `json:"services" format:"cidr"`
	// Feature gates that differ from upstream's defaults, such as SomeFeature=true.
	Features []string `json:"features,omitempty" max:"32"`
}

// PlacementHost is the control plane beside the management API.
const PlacementHost = "host"

// Management is the slot of the management unit, the default applied.
func (s *RackSpec) Management() SlotID {
	if s.ManagementSlot != 0 {
		return s.ManagementSlot
	}
	return SlotID(s.Slots)
}

// RackPower is the rack's supply.
type RackPower struct {
	// What the supply can deliver continuously.
	Supply Watts `json:"supply"`
	// What is kept for fans, switch, rack controller and management unit, and never granted to a compute unit.
	Reserve Watts `json:"reserve"`
}

// RackNetwork is the rack's own layer-2 network.
type RackNetwork struct {
	// IPv4 prefix of the rack's network.
	Subnet string `json:"subnet" format:"cidr"`
	// Address of the gateway within the subnet: DHCP, DNS and the way out.
	Gateway string `json:"gateway" format:"ipv4"`
}

// Mirror is a server of OCI artefacts. It is not trusted.
type Mirror struct {
	// Base address of the mirror, such as https://mirror.example; /v2/ follows it.
	URL string `json:"url" format:"uri"`
	// Pinned public keys of the mirror's certificate: sha256// and the base64 of the SHA-256 of the SubjectPublicKeyInfo. Two allow a change of key.
	TLSPins []string `json:"tlsPins" min:"1" max:"8"`
}

// ComputeUnit is one computer of the rack and what it shall run.
type ComputeUnit struct {
	TypeMeta
	// Name and labels of the unit.
	Metadata Metadata `json:"metadata"`
	// What the unit shall be and do.
	Spec ComputeUnitSpec `json:"spec"`
}

// ComputeUnitSpec is the desired state of a compute unit.
type ComputeUnitSpec struct {
	// Slot that the unit sits in, from 1; not the management unit's.
	Slot SlotID `json:"slot" min:"1" max:"10"`
	// Kind of computer.
	Platform string `json:"platform" enum:"virt,rpi4,rpi5"`
	// Name of the Release that the unit boots.
	Release string `json:"release"`
	// Whether the unit shall be on.
	Power string `json:"power" enum:"On,Off"`
	// The most that the unit may draw; the power policy's unitCap when left out.
	PowerCap Watts `json:"powerCap,omitempty"`
	// Whether the slot's identify light is on.
	IdentifyLED bool `json:"identifyLED,omitempty"`
	// Memory of a virtual unit in MiB; ignored on hardware.
	MemoryMiB int `json:"memoryMiB,omitempty" min:"256" max:"65536"`
	// Processors of a virtual unit; ignored on hardware.
	CPUs int `json:"cpus,omitempty" min:"1" max:"16"`
}

// Release is a set of artefacts that boot and run together, by digest.
type Release struct {
	TypeMeta
	// Name and labels of the release.
	Metadata Metadata `json:"metadata"`
	// The artefacts, by digest.
	Spec ReleaseSpec `json:"spec"`
}

// ReleaseSpec names the artefacts of a release by their digests.
type ReleaseSpec struct {
	// Version for people, such as 2026.11.1; at most 32 bytes.
	Version string `json:"version" format:"version"`
	// Number that rises when an older release must no longer boot; the BMC's floor is compared with it.
	SecurityVersion uint32 `json:"securityVersion"`
	// What the BMC's boot slot holds.
	Boot ReleaseBoot `json:"boot"`
	// What stage 1 fetches and hands over to.
	OS ReleaseOS `json:"os"`
}

// ReleaseBoot names the boot image of a release.
type ReleaseBoot struct {
	// OCI repository of the boot artefact, such as racklet/boot.
	Artifact string `json:"artifact" format:"artifact"`
	// Digest of the artefact's OCI manifest.
	Digest Digest `json:"digest"`
	// Digest of the unsigned slot manifest's bytes (firmware/trust), which the owners' signatures cover.
	SlotManifest Digest `json:"slotManifest"`
	// Digest of the kernel file inside the slot image.
	Kernel Digest `json:"kernel"`
	// Kernel command line inside the slot image. Enrolment compares it with what was measured; without it no unit of the release is admitted.
	CommandLine string `json:"commandLine,omitempty"`
}

// ReleaseOS names the operating system of a release.
type ReleaseOS struct {
	// OCI repository of the OS artefact, such as racklet/os.
	Artifact string `json:"artifact" format:"artifact"`
	// Digest of the artefact's OCI manifest.
	Digest Digest `json:"digest"`
	// Digest of the kernel that the system runs under.
	Kernel Digest `json:"kernel"`
	// Root hash of the root image's dm-verity tree: 64 lower-case hexadecimal digits.
	RootHash string `json:"rootHash" format:"roothash"`
	// Digest of the initramfs that the system's kernel is started with by kexec; needed where that kernel is not the slot's.
	Initramfs Digest `json:"initramfs,omitempty"`
	// What the system is: minimal (the default), which shows the chain and runs nothing, or node, which is a Kubernetes node.
	Flavour string `json:"flavour,omitempty" enum:"minimal,node"`
}

// Flavours of a unit's operating system.
const (
	FlavourMinimal = "minimal"
	FlavourNode    = "node"
)

// ParseReleaseSpec decodes and checks the release.json that a build leaves
// beside its artefacts. Unknown fields and trailing bytes are errors.
func ParseReleaseSpec(b []byte) (*ReleaseSpec, error) {
	s := new(ReleaseSpec)
	if err := strictJSON(b, s); err != nil {
		return nil, fmt.Errorf("decode release: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return s, nil
}

// ThermalPolicy says how the rack is cooled and when heat switches units off.
type ThermalPolicy struct {
	TypeMeta
	// Name and labels of the policy.
	Metadata Metadata `json:"metadata"`
	// The fan curve and the limits.
	Spec ThermalPolicySpec `json:"spec"`
}

// ThermalPolicySpec is a fan curve with two limits.
type ThermalPolicySpec struct {
	// Fan duty over the hottest unit's temperature: one to eight points, temperatures rising, duty never falling, the last at 100 percent. Between two points the duty is interpolated; below the first it is the first's.
	Curve []CurvePoint `json:"curve" min:"1" max:"8"`
	// From here on power caps are lowered.
	Throttle Celsius `json:"throttle"`
	// From here on the unit is switched off.
	Shutdown Celsius `json:"shutdown"`
	// How far a temperature must fall before a limit is lifted or a fan slows down.
	Hysteresis Celsius `json:"hysteresis"`
}

// CurvePoint is one point of a fan curve.
type CurvePoint struct {
	// Temperature of the hottest unit.
	Temperature Celsius `json:"temperature"`
	// Fan duty in percent.
	Duty int `json:"duty" min:"0" max:"100"`
}

// PowerPolicy says how the supply is shared among the units.
type PowerPolicy struct {
	TypeMeta
	// Name and labels of the policy.
	Metadata Metadata `json:"metadata"`
	// The shares and times.
	Spec PowerPolicySpec `json:"spec"`
}

// PowerPolicySpec shares out the supply.
type PowerPolicySpec struct {
	// What all compute units together may be granted; at most supply minus reserve.
	Budget Watts `json:"budget"`
	// The most that one unit may draw when it names no cap of its own.
	UnitCap Watts `json:"unitCap"`
	// Time between the starts of two units, so that their inrush does not add up.
	Stagger Duration `json:"stagger"`
	// Time that a unit has to shut down cleanly before its power is cut; 30s when left out.
	GracefulOff Duration `json:"gracefulOff,omitempty"`
}

// DefaultGracefulOff is PowerPolicySpec.GracefulOff where none is given.
const DefaultGracefulOff = Duration(30e9)

// Cap is the most that a unit may draw under policy p: its own cap, or the policy's.
func (s *ComputeUnitSpec) Cap(p *PowerPolicySpec) Watts {
	if s.PowerCap != 0 {
		return s.PowerCap
	}
	return p.UnitCap
}

// Repository is where a rack's desired state comes from, and the pins under
// which it is fetched. Neither host nor network is trusted: the pins keep
// strangers from watching and stalling, the signatures decide.
type Repository struct {
	// Address of the Git repository: https:// or ssh://.
	URL string `json:"url"`
	// Ref that holds the desired state, such as refs/heads/main.
	Ref string `json:"ref"`
	// Ref that holds the TUF metadata, such as refs/heads/racklet-metadata.
	MetadataRef string `json:"metadataRef"`
	// Pinned public keys of the server's certificate: sha256// and base64 of the SHA-256 of the SubjectPublicKeyInfo.
	TLSPins []string `json:"tlsPins,omitempty"`
	// Pinned host keys of the SSH server, one per entry as in authorized_keys: ssh-ed25519 AAAA….
	SSHHostKeys []string `json:"sshHostKeys,omitempty"`
	// Read-only deploy key for SSH: OpenSSH private key, PEM.
	DeployKey string `json:"deployKey,omitempty"`
}

// The refs that a rack repository uses unless told otherwise.
const (
	DefaultRef         = "refs/heads/main"
	DefaultMetadataRef = "refs/heads/racklet-metadata"
)

// BootConfig is what a BMC hands to its unit in-band: who the unit is, where
// its desired state lies and which root it trusts. It is written once, when
// the BMC is provisioned, and encoded as JSON of at most MaxBootConfig bytes.
type BootConfig struct {
	// UUID of the rack.
	RackID string `json:"rackID"`
	// Name of the ComputeUnit.
	Unit string `json:"unit"`
	// Slot that the unit sits in.
	Slot SlotID `json:"slot"`
	// Where the desired state is.
	Repository Repository `json:"repository"`
	// Mirrors of the place that the rack stands in, tried after those that the Rack object lists. A mirror is not trusted.
	Mirrors []Mirror `json:"mirrors,omitempty" max:"8"`
	// The trusted TUF root metadata, root.json as signed.
	TUFRoot json.RawMessage `json:"tufRoot"`
	// Where the unit's system asks for its identity; a rack without has no cluster.
	Enrolment *Enrolment `json:"enrolment,omitempty"`
}

// Enrolment is where a unit shows its evidence and gets an identity.
type Enrolment struct {
	// Address of the verifier inside the rack's network, such as https://10.77.0.1:7443.
	URL string `json:"url"`
	// Pinned public keys of the verifier's certificate: sha256// and base64 of the SHA-256 of the SubjectPublicKeyInfo. Two allow a change of key.
	TLSPins []string `json:"tlsPins"`
}

// MaxBootConfig is the most bytes that an encoded BootConfig may have; a BMC
// keeps that much room for it.
const MaxBootConfig = 16 << 10

// ParseBootConfig decodes and checks what a BMC handed over. Unknown fields,
// trailing bytes and oversize are errors.
func ParseBootConfig(b []byte) (*BootConfig, error) {
	if len(b) > MaxBootConfig {
		return nil, fmt.Errorf("boot configuration of %d bytes: at most %d fit", len(b), MaxBootConfig)
	}
	c := new(BootConfig)
	if err := strictJSON(b, c); err != nil {
		return nil, fmt.Errorf("decode boot configuration: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// Marshal checks and encodes c.
func (c *BootConfig) Marshal() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode boot configuration: %w", err)
	}
	if len(b) > MaxBootConfig {
		return nil, fmt.Errorf("boot configuration of %d bytes: at most %d fit", len(b), MaxBootConfig)
	}
	return b, nil
}
