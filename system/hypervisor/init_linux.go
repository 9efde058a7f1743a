package hypervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
)

// Init is PID 1. It never returns: it ends with the power.
func Init() {
	os.Clearenv()
	console := io.Writer(os.Stdout)
	defer func() { // a kernel whose PID 1 ends panics and tells less
		for {
			time.Sleep(time.Hour)
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(console, "racklet: the system met an error of its own: %v\n%s", r, debug.Stack())
		}
	}()
	log := slog.New(slog.NewTextHandler(console, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("up", fmt.Sprintf("%.3f", uptime().Seconds()))
		}
		return a
	}}))
	for _, err := range append(mounts(), lateModules("/lib/modules")...) {
		log.Warn("set up", "err", err)
	}
	go reap()

	h, err := ReadHandover(HandoverFile)
	if err != nil {
		log.Error("this root was not started by stage 1", "err", err)
		return
	}
	if err := unix.Sethostname([]byte(h.Unit)); err != nil {
		log.Warn("set hostname", "err", err)
	}
	warnings, open := shut("/")
	for _, err := range warnings {
		log.Warn("shut a door", "err", err)
	}
	line, err := openLine()
	if err != nil {
		log.Error("no way to the BMC", "err", err)
		return
	}
	s := &System{
		Handover: h, BMC: inband{link.New(line, wire.EIDUnit, link.Options{})},
		Machine: &linuxMachine{log: log}, Console: console, Log: log,
	}
	if open != nil {
		s.fail(context.Background(), "os.doors", "other kernels and modules ruled out", open)
		return
	}
	if _, err := s.Run(context.Background()); err != nil {
		log.Error("system", "err", err)
		return
	}
	// The BMC cuts the rail, or closes it again; the unit itself never reboots.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		log.Error("power off", "err", err)
	}
}

func openLine() (io.ReadWriteCloser, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	return link.OpenInBand(string(line))
}

// mounts are what the root itself does not have. Those of stage 1 (/dev,
// /proc, /sys, /run) came along.
func mounts() (errs []error) {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		source, target, fs string
		flags              uintptr
		data               string
	}{
		{"tmpfs", "/tmp", "tmpfs", quiet, "mode=1777,size=64m"},
		{"tmpfs", "/var", "tmpfs", quiet, "mode=0755,size=64m"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, "nsdelegate"},
		{"securityfs", "/sys/kernel/security", "securityfs", quiet, ""},
	} {
		if err := unix.Mount(m.source, m.target, m.fs, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.target, err))
		}
	}
	return errs
}

// lateModules loads what dir/order lists, one module per line.
func lateModules(dir string) (errs []error) {
	order, err := os.Open(path.Join(dir, "order"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []error{err}
	}
	defer order.Close()
	s := bufio.NewScanner(order)
	for s.Scan() {
		name := strings.TrimSpace(s.Text())
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if err := loadModule(path.Join(dir, path.Base(name))); err != nil {
			errs = append(errs, err)
		}
	}
	if err := s.Err(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", path.Base(file), err)
	}
	return nil
}

// A door is a kernel setting.
type door struct {
	file, value string
	must        bool // with it open nothing runs
}

// doors are kernel settings that nothing here needs open, in the order in
// which they are shut. The first two cannot be opened again before the next
// boot, and the next boot begins at the BMC: what was measured is what runs
// for as long as they are shut.
var doors = []door{
	{"/proc/sys/kernel/kexec_load_disabled", "1", true},
	{"/proc/sys/kernel/modules_disabled", "1", true},
	{"/sys/kernel/security/lockdown", "integrity", false},
	{"/proc/sys/kernel/sysrq", "0", false},
	{"/proc/sys/kernel/kptr_restrict", "2", false},
	{"/proc/sys/kernel/dmesg_restrict", "1", false},
	{"/proc/sys/kernel/unprivileged_bpf_disabled", "1", false},
	{"/proc/sys/net/core/bpf_jit_harden", "2", false},
	{"/proc/sys/kernel/yama/ptrace_scope", "3", false},
	{"/proc/sys/fs/protected_symlinks", "1", false},
	{"/proc/sys/fs/protected_hardlinks", "1", false},
	{"/proc/sys/fs/suid_dumpable", "0", false},
	{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "1", false}, // nobody uses it yet, and any neighbour could configure it
	{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1", false},
	{"/proc/sys/net/ipv4/conf/all/accept_redirects", "0", false},
	{"/proc/sys/net/ipv4/conf/all/send_redirects", "0", false},
	{"/proc/sys/net/ipv4/conf/all/rp_filter", "1", false},
	{"/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts", "1", false},
}

// shut shuts the doors below root, all of them whatever happens to one. open is
// not nil when one is open, or not to be found, that must be shut.
func shut(root string) (warnings []error, open error) {
	for _, d := range doors {
		err := set(path.Join(root, d.file), d.value)
		switch {
		case err == nil:
		case d.must:
			open = errors.Join(open, fmt.Errorf("set %s to %s: %w", d.file, d.value, err))
		case !errors.Is(err, os.ErrNotExist):
			warnings = append(warnings, fmt.Errorf("set %s to %s: %w", d.file, d.value, err))
		}
	}
	return warnings, open
}

// set writes to a file that is there.
func set(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
