// Command probe is PID 1 of test images. As /init of an initramfs it loads the modules, opens the
// disk /dev/vda through dm-verity with the table on the kernel command line (probe=…, commas for
// blanks), mounts what is there as the stage 1 would, reads every file, says what it found on the
// console, and powers off. As /sbin/init of a root it only says that it is there.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("probe: error:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	fmt.Println("probe: PID", os.Getpid())
	for _, m := range []struct{ dir, kind string }{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}} {
		os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	order, err := os.ReadFile("/lib/modules/order")
	if err != nil {
		return err
	}
	n := 0
	for _, name := range strings.Fields(string(order)) {
		b, err := os.ReadFile("/lib/modules/" + name)
		if err != nil {
			return err
		}
		if err := unix.InitModule(b, ""); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		n++
	}
	fmt.Println("probe: modules", n)
	about, err := os.ReadFile("/etc/racklet/release.json")
	if err != nil {
		return err
	}
	fmt.Printf("probe: release %s\n", bytes.TrimSpace(about))
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(string(cmdline)) {
		if v, ok := strings.CutPrefix(word, "probe="); ok {
			sectors, table, _ := strings.Cut(v, ",")
			return root(sectors, strings.ReplaceAll(table, ",", " "))
		}
	}
	return nil
}

// root opens, mounts and reads the verified root.
func root(sectors, table string) error {
	var n uint64
	if _, err := fmt.Sscan(sectors, &n); err != nil {
		return err
	}
	if err := verity(n, table); err != nil {
		return fmt.Errorf("verity: %w", err)
	}
	os.MkdirAll("/new", 0o755)
	if err := unix.Mount("/dev/dm-0", "/new", "squashfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	files, size := 0, 0
	err := filepath.WalkDir("/new", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		files, size = files+1, size+len(b)
		return err
	})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	release, _ := os.ReadFile("/new/etc/os-release")
	fmt.Printf("probe: %s", release)
	fmt.Printf("probe: root %d files %d bytes\n", files, size)
	return nil
}

// Device-mapper ioctls (Linux, include/uapi/linux/dm-ioctl.h).
const (
	dmCreate  = 0xC138FD03
	dmSuspend = 0xC138FD06
	dmLoad    = 0xC138FD09
	dmSize    = 312
	readOnly  = 1
)

func verity(sectors uint64, table string) error {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	call := func(op uintptr, flags uint32, spec []byte) error {
		b := make([]byte, 4096)
		le := binary.LittleEndian
		le.PutUint32(b, 4)
		le.PutUint32(b[12:], 4096)
		le.PutUint32(b[16:], dmSize)
		if spec != nil {
			le.PutUint32(b[20:], 1)
			copy(b[dmSize:], spec)
		}
		le.PutUint32(b[28:], flags)
		copy(b[48:], "root")
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), op, uintptr(unsafe.Pointer(&b[0]))); e != 0 {
			return e
		}
		return nil
	}
	if err := call(dmCreate, 0, nil); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	spec := make([]byte, 40)
	binary.LittleEndian.PutUint64(spec[8:], sectors)
	copy(spec[24:], "verity")
	spec = append(append(spec, table...), 0)
	if err := call(dmLoad, readOnly, spec); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return call(dmSuspend, readOnly, nil)
}
