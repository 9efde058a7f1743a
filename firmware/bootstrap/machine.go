package bootstrap

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
)

// BMC is what stage 1 asks and tells its BMC over the in-band link.
type BMC interface {
	// BootConfig returns the encoded rack.BootConfig.
	BootConfig(ctx context.Context) ([]byte, error)
	// Floors returns what the BMC has accepted last.
	Floors(ctx context.Context) (trust.Floors, error)
	// Time returns the BMC's clock, the zero time while it is not set.
	Time(ctx context.Context) (time.Time, error)
	// Slots returns both boot slots and which of them booted.
	Slots(ctx context.Context) (slots [2]wire.SlotInfo, booted uint8, err error)
	// ReportStage says how far the unit has come, and what failed.
	ReportStage(ctx context.Context, s wire.Stage, f wire.Failure) error
	// Heartbeat says that the unit lives and returns what the BMC asks for.
	Heartbeat(ctx context.Context, r wire.Report) (wire.HostRequest, error)
	// Extend extends a unit-asserted measurement register.
	Extend(ctx context.Context, register uint8, digest [32]byte, label string) error
	// RaiseFloors hands over the owners' signed floor statement.
	RaiseFloors(ctx context.Context, signed []byte) error
	// Stage writes a boot image with its signed manifest into the idle slot.
	Stage(ctx context.Context, image, signed []byte) error
}

// Machine is the computer that stage 1 runs on: the kernel's system calls on a
// unit, memory and files in tests.
type Machine interface {
	// Platform is the kind of computer, one of rack.Platform…, or "" if unknown.
	Platform() string
	// Now is the clock; SetClock sets it.
	Now() time.Time
	SetClock(t time.Time) error
	// Wait returns after d, or with an error when ctx ends.
	Wait(ctx context.Context, d time.Duration) error
	// Network brings up link, address, route and resolver. One attempt.
	Network(ctx context.Context) (*Lease, error)
	// Disk finds the data disk. One attempt.
	Disk(ctx context.Context) (Disk, error)
	// OpenRoot puts dm-verity over a partition, reads every block through it
	// once and mounts the result read-only.
	OpenRoot(p Partition, v Verity) error
	// CloseRoot undoes OpenRoot as far as it went.
	CloseRoot() error
	// CommandLine of the running kernel.
	CommandLine() string
	// SwitchRoot starts the init of the opened root. It returns only with an error.
	SwitchRoot(h *Handover) error
	// CanKexec says whether the kernel can start another one.
	CanKexec() bool
	// Kexec starts another kernel. It returns only with an error.
	Kexec(kernel, initramfs []byte, commandLine string) error
}

// Lease is the unit's place in the network.
type Lease struct {
	Interface string       `json:"interface"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	DNS       []netip.Addr `json:"dns,omitempty"`
	MTU       int          `json:"mtu,omitempty"`
	Server    netip.Addr   `json:"server,omitzero"`
	Seconds   uint32       `json:"seconds"` // how long the address may be used
	Since     time.Time    `json:"since"`
}

// Verity is what dm-verity needs to know about a root image that carries its
// hash tree behind its data (kernel documentation, admin-guide/device-mapper/verity).
type Verity struct {
	Root       [32]byte // root hash, SHA-256
	Salt       []byte
	DataBlocks uint64
	HashStart  uint64 // block at which the tree begins
	BlockSize  uint32 // bytes, of data and hash blocks
}

// Handover is what the operating system learns from stage 1, as JSON in
// /run/racklet/handover.json.
type Handover struct {
	RackID          string      `json:"rackID"`
	Unit            string      `json:"unit"`
	Slot            uint8       `json:"slot"`
	Commit          string      `json:"commit"`
	Sequence        uint64      `json:"sequence"`
	Stale           bool        `json:"stale"`
	Release         string      `json:"release"`
	SecurityVersion uint32      `json:"securityVersion"`
	OSManifest      string      `json:"osManifest"`
	RootHash        string      `json:"rootHash"`
	Partition       string      `json:"partition"`
	Path            string      `json:"path"` // "switch_root" or "kexec"
	Lease           *Lease      `json:"lease,omitempty"`
	Verity          *VerityJSON `json:"verity,omitempty"` // for the second half of a kexec
	Times           []StageTime `json:"times"`
	// Enrolment is what the boot configuration says of it, which the system can no longer ask for.
	Enrolment *rack.Enrolment `json:"enrolment,omitempty"`
}

// VerityJSON is Verity in a Handover.
type VerityJSON struct {
	Root       string `json:"root"` // hexadecimal
	Salt       string `json:"salt"` // hexadecimal
	DataBlocks uint64 `json:"dataBlocks"`
	HashStart  uint64 `json:"hashStart"`
	BlockSize  uint32 `json:"blockSize"`
}

func (j *VerityJSON) parse() (Verity, error) {
	v := Verity{DataBlocks: j.DataBlocks, HashStart: j.HashStart, BlockSize: j.BlockSize}
	root, err := hex.DecodeString(j.Root)
	if err != nil || len(root) != len(v.Root) {
		return v, errors.New("handover: no root hash")
	}
	copy(v.Root[:], root)
	if v.Salt, err = hex.DecodeString(j.Salt); err != nil {
		return v, fmt.Errorf("handover: salt: %w", err)
	}
	return v, nil
}

// StageTime is when a stage began.
type StageTime struct {
	Stage string  `json:"stage"`
	Since float64 `json:"since"` // seconds since the kernel started
	CPU   float64 `json:"cpu"`   // seconds of processor time of this program until then
}
