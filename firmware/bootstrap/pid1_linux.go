package bootstrap

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/libinit"
	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/source"
)

// releaseFile is what a boot image says about itself.
const releaseFile = "/etc/racklet/release.json"

// Init is PID 1 of stage 1. It never returns: where it can go no further, it
// says why and stays, because a kernel whose PID 1 ends panics and tells less.
func Init() {
	os.Clearenv()           // unknown words of a kernel's command line arrive as environment; none is heeded
	debug.SetGCPercent(400) // short life, plenty of memory: collecting garbage is processor time wasted
	console := io.Writer(os.Stdout)
	defer stay()
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(console, "racklet: stage 1 met an error of its own: %v\n%s", r, debug.Stack())
		}
	}()
	log.SetOutput(io.Discard) // of u-root's helpers; what matters comes back as errors
	logger := slog.New(slog.NewTextHandler(console, &slog.HandlerOptions{Level: slog.LevelWarn}))
	for _, err := range setUp() {
		fmt.Fprintf(console, "racklet: %v\n", err)
	}
	machine := &linuxMachine{}
	ctx := context.Background()
	bmc := waitLink(ctx, machine, console)
	live := newHeart(bmc, console)
	go live.beat(ctx)

	if doc, err := os.ReadFile(ResumeFile); err == nil {
		resume(ctx, bmc, machine, console, doc)
		return
	}
	b := &Boot{
		BMC: bmc, Machine: machine, Fetch: source.Fetch, Open: OpenMirror,
		Console: console, Log: logger,
	}
	if err := readImage(&b.Image); err != nil {
		f := stop("boot.internal", "", "", err)
		b.report(ctx, wire.StageFailed, f)
		b.explain(f, "stopped; nothing was started")
		return
	}
	switch err := b.Run(ctx); {
	case errors.Is(err, ErrCycle):
		live.halt(ctx, wire.MakeFailure("handover.pending", "", ""))
	case err == nil:
		fmt.Fprint(console, "racklet: the handover came back\n")
	}
}

// stay keeps PID 1 alive.
func stay() {
	for {
		time.Sleep(time.Hour)
	}
}

// setUp mounts what a kernel has to offer and loads the boot image's modules.
func setUp() (errs []error) {
	for _, c := range []libinit.Creator{
		libinit.Dir{Name: "/dev", Mode: 0o755},
		libinit.Mount{Source: "devtmpfs", Target: "/dev", FSType: "devtmpfs", Flags: unix.MS_NOSUID, Opts: "mode=0755"},
		libinit.Dir{Name: "/proc", Mode: 0o555},
		libinit.Mount{Source: "proc", Target: "/proc", FSType: "proc", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		libinit.Dir{Name: "/sys", Mode: 0o555},
		libinit.Mount{Source: "sysfs", Target: "/sys", FSType: "sysfs", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		libinit.Dir{Name: "/run", Mode: 0o755},
		libinit.Mount{Source: "tmpfs", Target: "/run", FSType: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Opts: "mode=0755"},
		libinit.Dir{Name: "/tmp", Mode: 0o700},
	} {
		if err := c.Create(); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("%s: %w", c, err))
		}
	}
	return append(errs, loadModules("/lib/modules")...)
}

// loadModules loads the modules that file order in dir lists, one per line, in
// that order. A line that starts with "-" or "#" is not loaded.
func loadModules(dir string) (errs []error) {
	order, err := os.Open(path.Join(dir, "order"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []error{err}
	}
	defer order.Close()
	for s := bufio.NewScanner(order); s.Scan(); {
		name := strings.TrimSpace(s.Text())
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if err := loadModule(path.Join(dir, path.Base(name))); err != nil {
			errs = append(errs, err)
		}
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

func readImage(img *BootImage) error {
	b, err := os.ReadFile(releaseFile)
	if err != nil {
		return fmt.Errorf("read what this boot image is: %w", err)
	}
	if err := json.Unmarshal(b, img); err != nil {
		return fmt.Errorf("decode %s: %w", releaseFile, err)
	}
	return nil
}

// waitLink opens the in-band link and asks for the floors, a cheap question,
// until there is an answer.
func waitLink(ctx context.Context, m *linuxMachine, console io.Writer) BMC {
	last := ""
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		bmc, err := openLink(ctx, m.CommandLine())
		if err == nil {
			return bmc
		}
		if line := err.Error(); line != last {
			last = line
			if wait > time.Second {
				f := retry("boot.inband", "", "", err)
				(&Boot{Console: console}).explain(f, "trying again")
			}
		}
		_ = m.Wait(ctx, wait)
	}
}

// resume is the second half of a kexec: the new kernel runs, and its root has
// been verified, measured and named by the first half. All that is left is to
// open it.
func resume(ctx context.Context, bmc BMC, m *linuxMachine, console io.Writer, doc []byte) {
	b := &Boot{BMC: bmc, Machine: m, Console: console, Log: slog.New(slog.DiscardHandler)}
	b.stage = wire.StageHandover
	err := func() error {
		h := new(Handover)
		if err := json.Unmarshal(doc, h); err != nil || h.Verity == nil {
			return stop("boot.internal", "", "", fmt.Errorf("decode %s: %w", ResumeFile, err))
		}
		v, err := h.Verity.parse()
		if err != nil {
			return stop("boot.internal", "", "", err)
		}
		b.say("kernel of release %s, opening its root", h.Release)
		if err := b.persist(ctx, "os.disk", b.openDisk); err != nil {
			return err
		}
		for _, p := range b.parts.os {
			if p.Name != h.Partition {
				continue
			}
			if err := m.OpenRoot(p, v); err != nil {
				return err
			}
			h.Lease = nil // another kernel, no addresses
			since, cpu := clocks()
			h.Times = append(h.Times, StageTime{Stage: "kexec", Since: since, CPU: cpu})
			return stop("handover.exec", "", "", m.SwitchRoot(h))
		}
		return stop("os.disk", "partition "+h.Partition, "none", nil)
	}()
	f := asFailure(err, "boot.internal")
	b.report(ctx, wire.StageFailed, f)
	b.explain(f, "stopped; nothing was started")
}
