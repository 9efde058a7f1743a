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
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
)

// A Flavour is what a system does beyond the smallest one. Its functions may
// be nil.
type Flavour struct {
	// Keep names mounts of the smallest system that this one makes itself.
	Keep []string
	// Settings are kernel settings, beside those that every system shuts, and
	// after them: a file below /proc/sys and its value.
	Settings []Setting
	// Early runs once modules are loaded, while the doors are open still. Its
	// error, if it has a reason's name (Refusal), ends the start.
	Early func(log *slog.Logger, h *Handover) error
	// Services adds what runs beside network and heartbeat.
	Services func(s *System, tree *Supervisor)
	// Last runs when all services have ended, before the disks are synced.
	Last func(log *slog.Logger)
}

// A Refusal is why a system does not run: a name out of rack.Reasons, what was
// expected, and what was found instead.
type Refusal struct {
	Reason, Expected string
	Err              error
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %v", r.Reason, r.Err) }
func (r *Refusal) Unwrap() error { return r.Err }

// A Setting is a kernel setting and its value.
type Setting struct{ File, Value string }

// Init is PID 1. It never returns: it ends with the power.
func Init(flavour Flavour) {
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
	go reap()
	start := uptime()
	for _, err := range append(mounts(flavour.Keep), lateModules("/lib/modules")...) {
		log.Warn("set up", "err", err)
	}
	modules := uptime()

	h, err := ReadHandover(HandoverFile)
	if err != nil {
		log.Error("this root was not started by stage 1", "err", err)
		return
	}
	if err := unix.Sethostname([]byte(h.Unit)); err != nil {
		log.Warn("set hostname", "err", err)
	}
	var early error
	if flavour.Early != nil {
		early = flavour.Early(log, h)
	}
	if flavour.Early != nil {
		log.Info("started", "at", seconds(start), "modules", seconds(modules-start), "flavour", seconds(uptime()-modules))
	}
	warnings, open := shut("/")
	for _, x := range flavour.Settings {
		if err := set(x.File, x.Value); err != nil {
			warnings = append(warnings, fmt.Errorf("set %s to %s: %w", x.File, x.Value, err))
		}
	}
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
	if flavour.Services != nil {
		s.Services = func(tree *Supervisor) { flavour.Services(s, tree) }
	}
	s.Last = flavour.Last
	var refused *Refusal
	switch {
	case open != nil:
		s.fail(context.Background(), "os.doors", "other kernels and modules ruled out", open)
		return
	case errors.As(early, &refused):
		s.fail(context.Background(), refused.Reason, refused.Expected, refused.Err)
		return
	case early != nil:
		log.Warn("set up", "err", early)
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

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func openLine() (io.ReadWriteCloser, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	return link.OpenInBand(string(line))
}

// mounts are what the root itself does not have. Those of stage 1 (/dev,
// /proc, /sys, /run) came along.
func mounts(keep []string) (errs []error) {
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
		if slices.Contains(keep, m.target) {
			continue
		}
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
