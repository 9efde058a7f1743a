// Command direct is PID 1 of the boot image that e2e/bench_test.go calls direct boot: no network, no
// repository, no fetch and no check. It loads the same modules as stage 1, mounts the root image that
// lies at the beginning of the data disk, and starts its /sbin/init, which finds the handover that
// stage 1 would have left, without an address.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"
)

func main() {
	fmt.Println("direct: error:", run())
	for {
		time.Sleep(time.Hour)
	}
}

func run() error {
	log.SetOutput(io.Discard) // as stage 1 does
	for _, m := range []struct{ dir, kind string }{{"/dev", "devtmpfs"}, {"/proc", "proc"}, {"/sys", "sysfs"}, {"/run", "tmpfs"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	order, err := os.ReadFile("/lib/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open("/lib/modules/" + name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		f.Close()
	}
	if err := os.MkdirAll("/newroot", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", "/newroot", "squashfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := os.MkdirAll("/run/racklet", 0o755); err != nil {
		return err
	}
	const handover = `{"unit":"unit-1","slot":1,"release":"direct","path":"switch_root"}`
	if err := os.WriteFile("/run/racklet/handover.json", []byte(handover), 0o444); err != nil {
		return err
	}
	return mount.SwitchRoot("/newroot", "/sbin/init")
}
