// Package machine runs one compute unit as a QEMU process.
//
// A Machine is the board's computer and nothing of its surroundings: it exists
// while the load switch is closed and is killed when it opens, as a power cut
// does it. What is connected to the board comes out as three byte streams: the
// UART console, the in-band serial line to the BMC, and the network cable (in
// QEMU's stream framing). They are socket pairs, so nothing of a machine is
// left in the file system but its disk, its log and its pid file.
//
//	sim ──┬─ Console ── PL011 UART
//	      ├─ InBand ─── virtio-serial port "racklet.bmc"
//	      ├─ Network ── virtio-net
//	      └─ QMP ────── events: guest reset, guest power-off
//
// The boot ROM is another package; it hands over the files it read from the
// boot medium. Only sim's top calls this package.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/racklet/racklet/artifact/hosttool"
)

// PortName is the name under which a guest finds its line to the BMC.
const PortName = "racklet.bmc"

// DiskSerial is the serial number of the data disk, as the guest sees it.
const DiskSerial = "racklet-data"

// Spec describes one machine and what it boots.
type Spec struct {
	Name string
	Dir  string // for disk, log and pid file; exists

	QEMU  string // qemu-system-aarch64: a path, or a name to be looked up
	Accel Accel  // empty: TCG

	CPUs           int
	MemoryMiB      int
	MAC            net.HardwareAddr
	Virtualization bool  // gives the guest the virtualisation extensions, under TCG
	Disk           bool  // attach the data disk; EnsureDisk has made it
	DiskFull       bool  // it takes no more data: SetDiskFull
	ClockOffset    int64 // seconds that the real-time clock is ahead

	Kernel, Initramfs, Cmdline string // paths of two files, the second may be empty

	Log *slog.Logger
}

// Cause says why a machine ended.
type Cause int

// The causes.
const (
	CauseCrashed       Cause = iota // QEMU ended by itself, with an error
	CauseKilled                     // Kill: the power was cut
	CauseGuestReset                 // the guest asked for a reset; its power is still on
	CauseGuestShutdown              // the guest switched itself off and halts
	CauseGuestPanic                 // the guest's kernel gave up
)

func (c Cause) String() string {
	return [...]string{"crashed", "killed", "guest reset", "guest shutdown", "guest panic"}[c]
}

// Exit is how a machine ended.
type Exit struct {
	Cause Cause
	Err   error         // for CauseCrashed: what QEMU had to say
	CPU   time.Duration // CPU time that QEMU used in all
}

// Machine is a QEMU process.
type Machine struct {
	// The three lines. They end (EOF) with the machine, after its last byte;
	// Close closes our ends.
	Console net.Conn // bytes of the UART, both ways
	InBand  net.Conn // bytes of the line to the BMC, both ways
	Network net.Conn // frames behind their length, both ways

	spec    Spec
	process *process
	qmp     *qmp
	done    chan struct{}
	exit    Exit // valid once done is closed

	disk sync.Mutex // guards spec.DiskFull

	mu     sync.Mutex
	killed bool
	reason string // of the SHUTDOWN event
	panick bool
}

// Start starts a machine. It runs until the guest ends it, or Kill.
func Start(spec Spec) (*Machine, error) {
	if spec.Log == nil {
		spec.Log = slog.New(slog.DiscardHandler)
	}
	if err := Cleanup(spec.Dir); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if spec.QEMU == "" {
		spec.QEMU = hosttool.QEMU
	}
	qemu, err := hosttool.Path(spec.QEMU)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	logFile, err := os.OpenFile(filepath.Join(spec.Dir, "qemu.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer logFile.Close()

	m := &Machine{spec: spec, done: make(chan struct{})}
	var ours [4]net.Conn
	var theirs [4]*os.File
	closeTheirs := func() {
		for _, f := range theirs {
			if f != nil {
				f.Close()
			}
		}
	}
	defer closeTheirs()
	fail := func(err error) (*Machine, error) {
		for _, c := range ours {
			if c != nil {
				c.Close()
			}
		}
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	for i := range ours {
		if ours[i], theirs[i], err = socketPair(); err != nil {
			return fail(err)
		}
	}
	m.Console, m.InBand, m.Network = ours[1], ours[2], ours[3]
	args, err := spec.arguments()
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command(qemu, args...)
	cmd.Dir = spec.Dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = theirs[:] // descriptors 3 to 6
	if m.process, err = startProcess(cmd, pidFile(spec.Dir)); err != nil {
		return fail(err)
	}
	closeTheirs() // or our ends would never see QEMU's go
	m.qmp = newQMP(ours[0], m.event)
	go m.wait()
	// QEMU starts with the processors stopped: an event that comes before the
	// monitor is ready would be lost, and with it why a machine ended.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := m.Resume(ctx); err != nil && !errors.Is(err, errMonitor) { // an end by itself is told by Exit
		m.Close()
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return m, nil
}

// startTimeout is for QEMU to come up on a host that is very busy.
const startTimeout = 30 * time.Second

// arguments are QEMU's. The descriptors are those of Start.
func (s *Spec) arguments() ([]string, error) {
	accel, cpu, board := s.Accel.arguments()
	if s.Virtualization && (s.Accel == TCG || s.Accel == "") {
		board += ",virtualization=on"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S",
		"-name", "racklet-" + s.Name,
		"-M", board, "-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(max(s.CPUs, 1)), "-m", strconv.Itoa(max(s.MemoryMiB, 64)),
		"-rtc", "base=" + rtcBase(s.ClockOffset),
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=console,fd=4", "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=bmc,fd=5",
		"-device", "virtserialport,chardev=bmc,name=" + PortName,
		"-netdev", "stream,id=net0,server=off,addr.type=fd,addr.str=6",
		"-device", "virtio-net-pci,netdev=net0,romfile=,mac=" + s.MAC.String(),
		"-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
		"-kernel", s.Kernel,
	}
	if s.Initramfs != "" {
		args = append(args, "-initrd", s.Initramfs)
	}
	if s.Cmdline != "" {
		args = append(args, "-append", s.Cmdline)
	}
	if s.Disk {
		nodes := []any{map[string]any{"driver": "file", "node-name": diskFile, "filename": DiskPath(s.Dir), "discard": "unmap"}}
		if s.DiskFull {
			nodes = append(nodes, fullDisk())
		}
		for _, node := range append(nodes, diskOn(s.DiskFull)) {
			text, err := json.Marshal(node)
			if err != nil {
				return nil, err
			}
			args = append(args, "-blockdev", string(text))
		}
		// Errors go to the guest, as a disk's do: else QEMU stops the guest when the host has no room left.
		args = append(args, "-device", "virtio-blk-pci,drive=data,serial="+DiskSerial+",werror=report,rerror=report")
	}
	return args, nil
}

func rtcBase(offset int64) string {
	if offset == 0 {
		return "utc"
	}
	return time.Now().UTC().Add(time.Duration(offset) * time.Second).Format("2006-01-02T15:04:05")
}

func (m *Machine) event(e Event) {
	m.spec.Log.Debug("machine event", "unit", m.spec.Name, "event", e.Name, "data", string(e.Data))
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case "SHUTDOWN":
		var d struct {
			Reason string `json:"reason"`
		}
		if json.Unmarshal(e.Data, &d) == nil {
			m.reason = d.Reason
		}
	case "GUEST_PANICKED":
		m.panick = true
	}
}

func (m *Machine) wait() {
	err := m.process.wait()
	<-m.qmp.done // it has seen the last event
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exit.CPU = m.process.used()
	switch {
	case m.killed:
		m.exit.Cause = CauseKilled
	case m.panick || m.reason == "guest-panic":
		m.exit.Cause = CauseGuestPanic
	case m.reason == "guest-reset":
		m.exit.Cause = CauseGuestReset
	case m.reason == "guest-shutdown":
		m.exit.Cause = CauseGuestShutdown
	default:
		m.exit.Err = fmt.Errorf("qemu: %w: %s", errors.Join(err, errEnded), m.lastWords())
	}
	close(m.done)
}

var errEnded = errors.New("ended by itself")

func (m *Machine) lastWords() string {
	b, err := os.ReadFile(filepath.Join(m.spec.Dir, "qemu.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-500):])
}

// Kill cuts the power: the process is gone, with whatever it was doing, when
// Kill returns.
func (m *Machine) Kill() Exit {
	m.mu.Lock()
	m.killed = m.reason == "" && !m.panick
	m.mu.Unlock()
	m.process.kill()
	<-m.done
	return m.exit
}

// Close cuts the power if it is still on, and closes our ends of the lines.
func (m *Machine) Close() error {
	m.Kill()
	return errors.Join(m.Console.Close(), m.InBand.Close(), m.Network.Close())
}

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit waits for the end and says why.
func (m *Machine) Exit() Exit {
	<-m.done
	return m.exit
}

// PID is QEMU's process id.
func (m *Machine) PID() int { return m.process.cmd.Process.Pid }

// CPUTime is the CPU time that QEMU has used so far.
func (m *Machine) CPUTime() (time.Duration, error) { return m.process.cpuTime() }

// Resident is the memory that QEMU occupies, in bytes; 0 where the system
// does not tell cheaply.
func (m *Machine) Resident() uint64 { return m.process.resident() }

// Status returns QEMU's run state, for example "running" or "paused".
func (m *Machine) Status(ctx context.Context) (string, error) {
	var r struct {
		Status string `json:"status"`
	}
	err := m.qmp.execute(ctx, "query-status", nil, &r)
	return r.Status, err
}

// Pause stops the guest's processors and clock.
func (m *Machine) Pause(ctx context.Context) error { return m.qmp.execute(ctx, "stop", nil, nil) }

// Resume lets them run again.
func (m *Machine) Resume(ctx context.Context) error { return m.qmp.execute(ctx, "cont", nil, nil) }

// SetLink tells the guest's network card whether it has a carrier.
func (m *Machine) SetLink(ctx context.Context, up bool) error {
	return m.qmp.execute(ctx, "set_link", map[string]any{"name": "net0", "up": up}, nil)
}

// The data disk in QEMU's block layer: the guest's device is on "data", that on the file, with a filter between them while
// the disk is full.
const (
	diskFile   = "data-file"
	diskFilter = "data-full"
)

// diskOn is the node that the guest's device is on.
func diskOn(full bool) map[string]any {
	under := diskFile
	if full {
		under = diskFilter
	}
	return map[string]any{"driver": "raw", "node-name": "data", "discard": "unmap", "detect-zeroes": "unmap", "file": under}
}

// fullDisk is the filter: reads pass, writes fail for lack of space.
func fullDisk() map[string]any {
	const noSpace = 28 // ENOSPC
	var rules []any
	for _, kind := range []string{"write", "write-zeroes"} {
		rules = append(rules, map[string]any{"event": "none", "iotype": kind, "errno": noSpace})
	}
	return map[string]any{"driver": "blkdebug", "node-name": diskFilter, "image": diskFile, "inject-error": rules}
}

// SetDiskFull says whether the data disk takes no more data; what is on it can be read. The guest's writes fail.
func (m *Machine) SetDiskFull(ctx context.Context, full bool) error {
	m.disk.Lock()
	defer m.disk.Unlock()
	if full == m.spec.DiskFull {
		return nil
	}
	if err := m.setDiskFull(ctx, full); err != nil {
		return fmt.Errorf("disk of %s: %w", m.spec.Name, err)
	}
	m.spec.DiskFull = full
	return nil
}

func (m *Machine) setDiskFull(ctx context.Context, full bool) error {
	reopen := map[string]any{"options": []any{diskOn(full)}}
	if full {
		if err := m.qmp.execute(ctx, "blockdev-add", fullDisk(), nil); err != nil {
			return err
		}
		return m.qmp.execute(ctx, "blockdev-reopen", reopen, nil)
	}
	if err := m.qmp.execute(ctx, "blockdev-reopen", reopen, nil); err != nil {
		return err
	}
	return m.qmp.execute(ctx, "blockdev-del", map[string]any{"node-name": diskFilter}, nil)
}

// DiskPath is the data disk of the machine whose directory is dir.
func DiskPath(dir string) string { return filepath.Join(dir, "data.img") }

// EnsureDisk makes the data disk, sparse, or grows it. It never shrinks one.
func EnsureDisk(dir string, size int64) error {
	f, err := os.OpenFile(DiskPath(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make data disk: %w", err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end < size {
		err = f.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("make data disk: %w", err)
	}
	return f.Close()
}
