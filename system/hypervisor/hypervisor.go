// Package hypervisor is the operating system of a compute unit, in its
// smallest form: what it takes to show that the chain of checks that began at
// the power button arrived somewhere.
//
//	stage 1 ──switch_root──▶ Init: mounts, late modules, doors shut
//	                           │
//	                           ▼
//	                        Supervisor ──▶ network    keeps the address
//	                           │      ├──▶ heartbeat  reports to the BMC, hears its wishes
//	                           │      └──▶ …          one Runnable each
//	                           ▼
//	                        the BMC asks to stop: stopping, halted, power off
//
// Its root is read-only and behind dm-verity, with the root hash that the
// owners signed. There is no shell, no login and nothing that listens. Once it
// runs, no module can be loaded and no other kernel started: a reboot goes
// through the BMC.
//
// It learns from stage 1, by a file, who it is and what was verified; it asks
// and tells its BMC over the in-band link. System and BMC meet nowhere else.
package hypervisor

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// HandoverFile is where stage 1 says what it verified and started.
const HandoverFile = "/run/racklet/handover.json"

// Handover is what stage 1 says. Fields that this system does not need are
// not named here.
type Handover struct {
	Unit     string      `json:"unit"`
	Slot     uint8       `json:"slot"`
	Commit   string      `json:"commit"`
	Sequence uint64      `json:"sequence"`
	Stale    bool        `json:"stale"`
	Release  string      `json:"release"`
	RootHash string      `json:"rootHash"`
	Path     string      `json:"path"` // "switch_root" or "kexec"
	Lease    *Lease      `json:"lease"`
	Times    []StageTime `json:"times"`
}

// StageTime is when a stage of stage 1 began.
type StageTime struct {
	Stage string  `json:"stage"`
	Since float64 `json:"since"` // seconds since the kernel started
	CPU   float64 `json:"cpu"`   // seconds of processor time of stage 1 until then
}

// Lease is the address that stage 1 got by DHCP.
type Lease struct {
	Interface string       `json:"interface"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway"`
	DNS       []netip.Addr `json:"dns"`
	MTU       int          `json:"mtu"`
	Server    netip.Addr   `json:"server"`
	Seconds   uint32       `json:"seconds"`
	Since     time.Time    `json:"since"`
}

// ReadHandover reads what stage 1 left.
func ReadHandover(name string) (*Handover, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read handover: %w", err)
	}
	return parseHandover(b)
}

func parseHandover(b []byte) (*Handover, error) {
	h := new(Handover)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("decode handover: %w", err)
	}
	if h.Unit == "" || h.Release == "" {
		return nil, fmt.Errorf("decode handover: unit or release missing")
	}
	return h, nil
}

// BMC is what the system tells its BMC over the in-band link.
type BMC interface {
	ReportStage(ctx context.Context, s wire.Stage, f wire.Failure) error
	Heartbeat(ctx context.Context, r wire.Report) (wire.HostRequest, error)
	SetKeyRegister(ctx context.Context, digest [32]byte) error
	SetInventory(ctx context.Context, v wire.Inventory) error
}

// Machine is what the system needs of the computer under it.
type Machine interface {
	// Uptime since the kernel started.
	Uptime() time.Duration
	// Load reads how busy processors and memory are.
	Load() (Load, error)
	// Inventory says what the computer is made of.
	Inventory() wire.Inventory
	// KeepNetwork holds the unit's address, starting with the lease that stage
	// 1 got, if any, and calls up whenever there is an address.
	KeepNetwork(ctx context.Context, lease *Lease, up func(netip.Addr)) error
	// Sync returns when everything written is on the disks.
	Sync()
}

// System is a running operating system.
type System struct {
	Handover *Handover
	BMC      BMC
	Machine  Machine
	Console  io.Writer
	Log      *slog.Logger

	// Services is what the flavour of the system runs besides network and
	// heartbeat; nil: nothing, and then the system has a key of its own, of which
	// it puts the hash into the BMC's key register.
	Services func(tree *Supervisor)
	// Last runs when all services have ended, before the disks are synced; nil: nothing.
	Last func(log *slog.Logger)

	sum  atomic.Pointer[[32]byte] // what the key register shall hold; nil: nothing yet
	addr atomic.Pointer[netip.Addr]
	news chan struct{} // there is a new address
}

// SetKeyRegister puts a digest into the BMC's key register, and again whenever
// the BMC may have lost it.
func (s *System) SetKeyRegister(ctx context.Context, digest [32]byte) error {
	s.sum.Store(&digest)
	if err := s.BMC.SetKeyRegister(ctx, digest); err != nil {
		return fmt.Errorf("set key register: %w", err)
	}
	return nil
}

// Run runs the system until the BMC asks it to stop, and returns what it asked
// for. The caller then switches the computer off.
func (s *System) Run(ctx context.Context) (wire.HostRequest, error) {
	s.banner()
	s.stage(ctx, wire.StageOS)
	if s.Services == nil {
		public, _, err := ed25519.GenerateKey(rand.Reader) // of this boot alone; nobody asks for a proof yet
		if err != nil {
			return wire.HostNone, fmt.Errorf("make key pair: %w", err)
		}
		sum := sha256.Sum256(public)
		s.sum.Store(&sum)
	}
	s.news = make(chan struct{}, 1)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wanted := make(chan wire.HostRequest, 1)
	tree := NewSupervisor(s.Log)
	tree.Add("network", func(ctx context.Context) error {
		return s.Machine.KeepNetwork(ctx, s.Handover.Lease, s.address)
	})
	tree.Add("heartbeat", func(ctx context.Context) error { return s.heartbeat(ctx, wanted) })
	wait := stopWait
	if s.Services != nil {
		s.Services(tree)
		wait = stopWaitServices
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tree.Run(ctx)
	}()

	var req wire.HostRequest
	select {
	case req = <-wanted:
	case <-ctx.Done():
	}
	last := context.WithoutCancel(ctx)
	s.say("the BMC asks to shut down")
	s.stage(last, wire.StageStopping)
	cancel(nil)
	select {
	case <-done:
	case <-time.After(wait):
		s.Log.Warn("services did not stop in time", "wait", wait)
	}
	if s.Last != nil {
		s.Last(s.Log)
	}
	s.Machine.Sync()
	s.stage(last, wire.StageHalted)
	return req, nil
}

// How long services may take to stop; the BMC's own deadline is longer.
const (
	stopWait         = 10 * time.Second
	stopWaitServices = 24 * time.Second // with those of a flavour, and workloads
)

// heartPeriod is the time between two heartbeats.
const heartPeriod = time.Second

// inventoryBeats is how often the inventory is told again, in heartbeats: a BMC that was restarted has forgotten it.
const inventoryBeats = 60

// heartbeat sets the key register, reports once a second, and hands on what
// the BMC asks for. A BMC that does not answer ends it; the supervisor starts
// it again, and that sets the register again: the BMC may have been exchanged.
func (s *System) heartbeat(ctx context.Context, wanted chan<- wire.HostRequest) error {
	if sum := s.sum.Load(); sum != nil {
		if err := s.SetKeyRegister(ctx, *sum); err != nil {
			return err
		}
	}
	report := wire.Report{Release: wire.MakeText32(s.Handover.Release), Stale: s.Handover.Stale}
	if b, err := hex.DecodeString(s.Handover.Commit); err == nil && len(b) == len(report.Commit) {
		copy(report.Commit[:], b)
	}
	before, err := s.Machine.Load()
	if err != nil {
		return err
	}
	running := false
	var told [4]byte // the address in the inventory that was told
	for tick, beat := time.NewTicker(heartPeriod), 0; ; beat++ {
		now, err := s.Machine.Load()
		if err != nil {
			return err
		}
		report.UptimeSeconds = uint32(s.Machine.Uptime() / time.Second)
		report.CPUPermille = now.busySince(before)
		report.MemoryUsedKiB, report.MemoryTotalKiB = now.UsedKiB, now.TotalKiB
		before = now
		if a := s.addr.Load(); a != nil {
			report.Address = a.As4()
		}
		req, err := s.BMC.Heartbeat(ctx, report)
		if err != nil {
			return fmt.Errorf("heartbeat: %w", err)
		}
		if req != wire.HostNone {
			select {
			case wanted <- req:
			default:
			}
			<-ctx.Done()
			return nil
		}
		if report.Address != told || beat%inventoryBeats == 0 {
			if err := s.BMC.SetInventory(ctx, s.Machine.Inventory()); err != nil {
				s.Log.Warn("tell the inventory", "err", err) // a BMC of another version may not want it
			}
			told = report.Address
		}
		if !running && report.Address != [4]byte{} {
			running = true
			s.stage(ctx, wire.StageRunning)
			s.say("running after %.1f s", s.Machine.Uptime().Seconds())
		}
		select {
		case <-tick.C:
		case <-s.news:
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		}
	}
}

// address notes the unit's address; the newest one counts.
func (s *System) address(a netip.Addr) {
	if !a.Is4() {
		return
	}
	s.addr.Store(&a)
	select {
	case s.news <- struct{}{}:
	default:
	}
	s.Log.Info("network", "address", a.String())
}

// stage reports a stage. A BMC that misses one learns the next.
func (s *System) stage(ctx context.Context, st wire.Stage) {
	if err := s.BMC.ReportStage(ctx, st, wire.Failure{}); err != nil {
		s.Log.Warn("report stage", "stage", st.String(), "err", err)
	}
}

// fail tells BMC and console why nothing runs.
func (s *System) fail(ctx context.Context, reason, expected string, err error) {
	s.say("REFUSED %s: expected %s: %v", reason, expected, err)
	if err := s.BMC.ReportStage(ctx, wire.StageFailed, wire.MakeFailure(reason, expected, err.Error())); err != nil {
		s.Log.Warn("report failure", "err", err)
	}
}

func (s *System) say(format string, args ...any) {
	fmt.Fprintf(s.Console, "racklet: "+format+"\n", args...)
}

// banner says what runs, and how long each stage took to get here.
func (s *System) banner() {
	h := s.Handover
	s.say("unit %s in slot %d", h.Unit, h.Slot)
	s.say("  release   %s, by %s", h.Release, h.Path)
	stale := ""
	if h.Stale {
		stale = ", Stale: its metadata has expired"
	}
	s.say("  commit    %s, sequence %d%s", h.Commit, h.Sequence, stale)
	s.say("  root hash %s", h.RootHash)
	for i, t := range h.Times {
		end, cpu := s.Machine.Uptime().Seconds(), t.CPU
		if i+1 < len(h.Times) {
			end, cpu = h.Times[i+1].Since, h.Times[i+1].CPU
		}
		if end < t.Since { // the clock began anew with another kernel
			s.say("  %-10s      ? s", t.Stage)
			continue
		}
		s.say("  %-10s %6.2f s  %5.2f s cpu", t.Stage, end-t.Since, max(0, cpu-t.CPU))
	}
}
