package machine

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Accel is how QEMU runs the guest's instructions.
type Accel string

// The accelerators.
const (
	TCG Accel = "tcg" // translates them; works everywhere
	KVM Accel = "kvm" // arm64 Linux hosts
	HVF Accel = "hvf" // Apple silicon
)

func (a Accel) arguments() (accel, cpu, board string) {
	switch a {
	case KVM:
		return "kvm", "host", "virt,gic-version=host"
	case HVF:
		return "hvf", "host", "virt"
	case TCG, "":
		return "tcg,thread=multi", "cortex-a72", "virt"
	}
	return string(a), "host", "virt" // QEMU will say that it knows none
}

// probeTimeout bounds the probe. A working accelerator needs a few hundred
// milliseconds.
const probeTimeout = 5 * time.Second

// Probe finds the fastest accelerator that works. That a device like /dev/kvm
// exists says little (on some rented hosts it does and no guest ever starts),
// so a machine is booted with it, and has to switch itself off in time.
func Probe(ctx context.Context, qemu string) Accel {
	var a Accel
	switch runtime.GOOS + "/" + runtime.GOARCH {
	case "linux/arm64":
		a = KVM
	case "darwin/arm64":
		a = HVF
	default:
		return TCG
	}
	if boots(ctx, qemu, a) != nil {
		return TCG
	}
	return a
}

// boots runs a machine whose whole program is to switch itself off.
func boots(ctx context.Context, qemu string, a Accel) error {
	dir, err := os.MkdirTemp("", "racklet-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "off")
	if err := os.WriteFile(program, code(
		movzW0(0x8400, 16), movkW0(psciOff), // PSCI SYSTEM_OFF
		hvc, wfi, branchSelf,
	), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	m, err := Start(Spec{Name: "probe", Dir: dir, QEMU: qemu, Accel: a, MemoryMiB: 64, Kernel: program,
		MAC: net.HardwareAddr{0x52, 0x54, 0, 0x52, 0x4b, 0xff}})
	if err != nil {
		return err
	}
	defer m.Close()
	select {
	case <-m.Done():
		if e := m.Exit(); e.Cause != CauseGuestShutdown {
			return fmt.Errorf("probe %s: %v: %w", a, e.Cause, e.Err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A few arm64 instructions (Arm Architecture Reference Manual for A-profile,
// C6.2), enough to call the firmware (PSCI, Arm DEN 0022, 5.1).
const (
	psciOff    = 8          // SYSTEM_OFF is 0x84000008
	psciReset  = 9          // SYSTEM_RESET is 0x84000009
	hvc        = 0xD4000002 // HVC #0
	wfi        = 0xD503207F // WFI
	branchSelf = 0x14000000 // B .
)

func movzW0(imm, shift uint32) uint32 { return 0x52800000 | shift/16<<21 | imm<<5 }
func movkW0(imm uint32) uint32        { return 0x72800000 | imm<<5 }

func code(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}
