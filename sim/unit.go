package sim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/bootrom"
	"github.com/racklet/racklet/sim/machine"
	"github.com/racklet/racklet/sim/plant"
)

// unit is the compute unit on a tray: while its rail is good and its reset line
// free, a goroutine is its boot ROM and then its machine.
//
//	rail good ─▶ boot ROM reads the medium ─▶ machine runs ─┬─ guest reset ──▶ boot ROM again
//	                  ▲ │                                   ├─ guest off ────▶ halted until the rail falls
//	                  └─┘ no medium: once more              └─ rail falls ───▶ killed, at once
type unit struct {
	tray *tray

	// Used by the tray's goroutine alone.
	on       bool
	cancel   context.CancelFunc
	done     chan struct{}
	sampled  time.Time
	sampleOf *machine.Machine
	cpu      time.Duration
	traffic  uint64

	mu      sync.Mutex
	machine *machine.Machine // nil: none runs
	phase   string
	boots   int
	keys    chan []byte
	lastErr string
}

// Phases of a unit, as /sim/v1 shows them.
const (
	phaseOff    = "off"
	phaseROM    = "boot ROM"
	phaseRuns   = "running"
	phaseHalted = "halted"
)

func newUnit(t *tray) *unit {
	return &unit{tray: t, phase: phaseOff, keys: make(chan []byte, 64)}
}

// power follows the rail. It does not wait: the tray's goroutine also steps the
// BMC. A machine that is still ending keeps the next one from starting.
func (u *unit) power(ctx context.Context, on bool) {
	switch {
	case on && !u.on:
		if u.done != nil {
			select {
			case <-u.done:
			default:
				return
			}
		}
		u.on = true
		var run context.Context
		run, u.cancel = context.WithCancel(ctx)
		u.done = make(chan struct{})
		go u.live(run, u.done)
	case !on && u.on:
		u.on = false
		u.cancel()
		u.kill()
	}
}

// end switches the unit off and waits until it is.
func (u *unit) end() {
	u.power(context.Background(), false)
	if u.done != nil {
		<-u.done
	}
}

func (u *unit) kill() {
	u.mu.Lock()
	m := u.machine
	u.mu.Unlock()
	if m != nil {
		m.Kill()
	}
}

func (u *unit) set(phase string, m *machine.Machine) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.phase, u.machine = phase, m
}

func (u *unit) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lastErr = err.Error()
}

// typed hands keystrokes to the unit's UART. A machine that does not read
// loses them.
func (u *unit) typed(p []byte) {
	select {
	case u.keys <- append([]byte(nil), p...):
	default:
	}
}

// wait pauses, and reports whether the power is still on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

const (
	romRetry   = 50 * time.Millisecond // first; a BMC shows its medium just after power-good
	romRetries = time.Second           // later
	crashRetry = 2 * time.Second
)

func (u *unit) live(ctx context.Context, done chan struct{}) {
	defer close(done)
	defer u.set(phaseOff, nil)
	retry := romRetry
	for ctx.Err() == nil {
		u.set(phaseROM, nil)
		spec, err := u.rom(ctx)
		if err != nil {
			if !errors.Is(err, bootrom.ErrNoMedium) {
				u.tray.log.Info("boot ROM found nothing to boot", "err", err)
				u.fail(err)
			}
			if !wait(ctx, retry) {
				return
			}
			retry = min(2*retry, romRetries)
			continue
		}
		retry = romRetry
		exit, err := u.machineRun(ctx, spec)
		switch {
		case err != nil:
			u.tray.log.Error("machine does not start", "err", err)
			u.fail(err)
			if !wait(ctx, crashRetry) {
				return
			}
		case exit.Cause == machine.CauseGuestReset:
			u.tray.log.Debug("unit reset itself")
			u.tray.sawReset()
		case exit.Cause == machine.CauseCrashed:
			u.tray.log.Error("machine crashed", "err", exit.Err)
			u.fail(exit.Err)
			u.tray.sawReset()
			if !wait(ctx, crashRetry) {
				return
			}
		case exit.Cause == machine.CauseKilled:
			if ctx.Err() == nil { // not by us: someone ended the process
				u.tray.sawReset()
			}
		default:
			u.tray.log.Debug("unit halted", "cause", exit.Cause)
			u.set(phaseHalted, nil)
			<-ctx.Done()
		}
	}
}

// rom is the boot ROM: it leaves kernel and initramfs as files for QEMU.
func (u *unit) rom(ctx context.Context) (machine.Spec, error) {
	t := u.tray
	begin := time.Now()
	w := newWitness(t)
	image, err := bootrom.Load(w)
	if err != nil {
		return machine.Spec{}, err
	}
	t.testify(w)
	t.log.Debug("boot ROM has read the medium", "kernel", len(image.Kernel), "initramfs", len(image.Initramfs), "took", time.Since(begin))
	dir := filepath.Join(t.dir, "boot")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return machine.Spec{}, err
	}
	spec := machine.Spec{
		Name: t.name, Dir: t.dir, QEMU: t.rack.cfg.QEMU, Accel: t.rack.cfg.Accel, Virtualization: t.rack.cfg.Virtualization,
		CPUs: t.spec.CPUs, MemoryMiB: t.spec.MemoryMiB, MAC: UnitMAC(t.spec.Slot), Disk: true,
		Kernel: filepath.Join(dir, "kernel"), Initramfs: filepath.Join(dir, "initramfs"), Cmdline: image.Cmdline, Log: t.log,
	}
	t.mu.Lock()
	spec.ClockOffset, spec.DiskFull = t.clockAhead, t.diskFull
	t.mu.Unlock()
	if spec.CPUs == 0 {
		spec.CPUs = 1
	}
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 512
	}
	if err := os.WriteFile(spec.Kernel, image.Kernel, 0o600); err != nil {
		return spec, err
	}
	if err := os.WriteFile(spec.Initramfs, image.Initramfs, 0o600); err != nil {
		return spec, err
	}
	return spec, machine.EnsureDisk(t.dir, t.rack.cfg.DiskBytes)
}

// machineRun runs a machine to its end, or kills it with ctx.
func (u *unit) machineRun(ctx context.Context, spec machine.Spec) (machine.Exit, error) {
	if ctx.Err() != nil {
		return machine.Exit{Cause: machine.CauseKilled}, nil
	}
	m, err := machine.Start(spec)
	if err != nil {
		return machine.Exit{}, err
	}
	u.mu.Lock()
	u.machine, u.phase = m, phaseRuns
	u.boots++
	u.mu.Unlock()
	if u.tray.cut() {
		u.tray.carrier(ctx)
	}
	if err := m.SetDiskFull(ctx, u.tray.full()); err != nil {
		u.tray.log.Warn("data disk", "err", err)
	}
	var lines sync.WaitGroup
	lines.Go(func() { u.console(m) })
	lines.Go(func() { u.line(m) })
	lines.Go(func() {
		if err := u.tray.port.ServeStream(ctx, m.Network); err != nil && ctx.Err() == nil {
			u.tray.log.Warn("network cable", "err", err)
		}
	})
	select {
	case <-m.Done():
	case <-ctx.Done():
		m.Kill()
	}
	exit := m.Exit()
	u.set(phaseROM, nil)
	lines.Wait()
	m.Close()
	return exit, nil
}

// writeLimit is how long a machine may take to read what was sent to it. After
// that the bytes are lost, as on a real serial line.
const writeLimit = time.Second

// console carries the UART, until the machine ends.
func (u *unit) console(m *machine.Machine) {
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-m.Done():
				return
			case p := <-u.keys:
				_ = m.Console.SetWriteDeadline(time.Now().Add(writeLimit))
				_, _ = m.Console.Write(p)
			}
		}
	})
	buf := make([]byte, 4096)
	for {
		n, err := m.Console.Read(buf)
		if n > 0 {
			u.tray.printed(buf[:n])
		}
		if err != nil {
			break
		}
	}
	writer.Wait()
}

// line carries the in-band line to the BMC, until the machine ends.
func (u *unit) line(m *machine.Machine) {
	port := wire.Port{Own: wire.BMC(u.tray.slot)}
	resp := make([]byte, wire.MaxMessage-1)
	buf := make([]byte, 4096)
	var out []byte
	for {
		n, err := m.InBand.Read(buf)
		for _, c := range buf[:n] {
			if out = u.tray.inBand(&port, c, out[:0], resp); len(out) > 0 {
				_ = m.InBand.SetWriteDeadline(time.Now().Add(writeLimit))
				_, _ = m.InBand.Write(out)
			}
		}
		if err != nil {
			return
		}
	}
}

const (
	sampleEvery = 200 * time.Millisecond
	fullTraffic = 12.5e6 // bytes per second that count as a busy network: 100 Mbit/s
)

// load tells the plant how busy the machine has been. The tray's goroutine calls
// it with each tick.
func (u *unit) load() {
	now := time.Now()
	u.mu.Lock()
	m := u.machine
	phase := u.phase
	u.mu.Unlock()
	if m == nil || m != u.sampleOf {
		u.sampled, u.sampleOf, u.cpu, u.traffic = now, m, 0, u.bytes()
		if m != nil {
			u.cpu, _ = m.CPUTime()
		}
		// A boot ROM reads and copies with one core.
		u.tray.activity(plant.Activity{Running: m != nil || phase == phaseROM, CPU: 0.25})
		return
	}
	d := now.Sub(u.sampled)
	if d < sampleEvery {
		return
	}
	cpu, err := m.CPUTime()
	if err != nil {
		return // it has just ended
	}
	traffic := u.bytes()
	cores := float64(max(u.tray.spec.CPUs, 1))
	u.tray.activity(plant.Activity{
		Running: true,
		CPU:     min(1, (cpu-u.cpu).Seconds()/d.Seconds()/cores),
		IO:      min(1, float64(traffic-u.traffic)/d.Seconds()/fullTraffic),
	})
	u.sampled, u.cpu, u.traffic = now, cpu, traffic
}

func (u *unit) bytes() uint64 {
	c := u.tray.port.Counters()
	return c.ReceivedBytes + c.SentBytes
}
