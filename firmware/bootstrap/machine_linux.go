package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/u-root/u-root/pkg/boot/kexec"
	"github.com/u-root/u-root/pkg/boot/linux"
	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/rack"
)

// newRoot is where the verified root is mounted before it becomes "/".
const newRoot = "/newroot"

// linuxMachine is the Machine of a unit: the running kernel.
type linuxMachine struct {
	disk    *blockDisk
	mounted bool
}

var _ Machine = (*linuxMachine)(nil)

func (m *linuxMachine) Platform() string {
	b, err := os.ReadFile("/sys/firmware/devicetree/base/compatible")
	if err != nil {
		return ""
	}
	for _, word := range strings.Split(string(b), "\x00") {
		switch word {
		case "linux,dummy-virt":
			return rack.PlatformVirt
		case "raspberrypi,4-model-b":
			return rack.PlatformRPi4
		case "raspberrypi,5-model-b":
			return rack.PlatformRPi5
		}
	}
	return ""
}

func (m *linuxMachine) Now() time.Time { return time.Now() }

func (m *linuxMachine) SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

func (m *linuxMachine) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *linuxMachine) Network(ctx context.Context) (*Lease, error) { return networkUp(ctx) }

func (m *linuxMachine) Disk(ctx context.Context) (Disk, error) {
	if m.disk != nil {
		return m.disk, nil
	}
	d, err := findDisk(m.CommandLine())
	if err != nil {
		return nil, err
	}
	m.disk = d
	return d, nil
}

func (m *linuxMachine) CommandLine() string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (m *linuxMachine) OpenRoot(p Partition, v Verity) error {
	device, err := m.disk.device(p)
	if err != nil {
		return retry("os.disk", "", "", err)
	}
	root := device
	if checks {
		if root, err = openVerity(device, v); err != nil {
			return stop("os.verity", "", "", err)
		}
		if err := readThrough(root, int64(v.DataBlocks)*int64(v.BlockSize)); err != nil {
			return stop("os.verity", "root hash "+hexDigest(v.Root), "another content", err)
		}
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return stop("handover.mount", "", "", err)
	}
	// Only here, behind dm-verity, is anything parsed as a file system.
	var errs []error
	for _, fs := range []string{"squashfs", "erofs"} {
		if err = unix.Mount(root, newRoot, fs, unix.MS_RDONLY|unix.MS_NODEV, ""); err == nil {
			m.mounted = true
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", fs, err))
	}
	return stop("handover.mount", "squashfs or erofs", "neither", errors.Join(errs...))
}

func (m *linuxMachine) CloseRoot() error {
	if m.mounted {
		if err := unix.Unmount(newRoot, 0); err != nil {
			return fmt.Errorf("unmount root: %w", err)
		}
		m.mounted = false
	}
	return closeVerity()
}

func (m *linuxMachine) SwitchRoot(h *Handover) error {
	doc, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(HandoverFile), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(HandoverFile, doc, 0o444); err != nil {
		return err
	}
	if err := unix.Access(newRoot+"/sbin/init", unix.X_OK); err != nil {
		return fmt.Errorf("/sbin/init of the root image: %w", err)
	}
	return mount.SwitchRoot(newRoot, "/sbin/init")
}

func (m *linuxMachine) CanKexec() bool {
	_, err := os.Stat("/sys/kernel/kexec_loaded")
	// The firmware of a Raspberry Pi leaves its boards in a state that a second
	// kernel does not reliably come up from.
	p := m.Platform()
	return err == nil && p != rack.PlatformRPi4 && p != rack.PlatformRPi5
}

func (m *linuxMachine) Kexec(kernel, initramfs []byte, commandLine string) error {
	image, err := unpack(kernel)
	if err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	k, err := memoryFile("kernel", image)
	if err != nil {
		return err
	}
	defer k.Close()
	i, err := memoryFile("initramfs", bytes.NewReader(initramfs))
	if err != nil {
		return err
	}
	defer i.Close()
	// Debian's arm64 kernels have kexec_load alone, not kexec_file_load.
	if err := linux.KexecLoad(k, i, commandLine, nil, nil); err != nil {
		return fmt.Errorf("load kernel: %w", err)
	}
	unix.Sync()
	return kexec.Reboot()
}

// unpack reads an arm64 kernel, which boot loaders take gzip-compressed and
// kexec does not.
func unpack(kernel []byte) (io.Reader, error) {
	if !bytes.HasPrefix(kernel, []byte{0x1f, 0x8b}) { // RFC 1952, 2.3.1
		return bytes.NewReader(kernel), nil
	}
	z, err := gzip.NewReader(bytes.NewReader(kernel))
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return io.LimitReader(z, maxImage), nil
}

// memoryFile is a file that only memory holds.
func memoryFile(name string, content io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file for %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return nil, fmt.Errorf("fill file for %s: %w", name, err)
	}
	return f, nil
}
