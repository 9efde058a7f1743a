// Package bootstrap is stage 1: what runs on a compute unit between the boot
// medium that its BMC serves and the operating system that its release names.
//
//	BMC ◀─in-band─▶ stage 1 ──▶ network ──▶ Git repository (pinned HTTPS or SSH)
//	 │                 │                        │ metadata, floors, signatures, tree
//	 │ boot config     │                        ▼
//	 │ floors, time    │ ◀────────────── source.Verify
//	 │                 │
//	 │ ◀─ stages,      ├──▶ mirrors (untrusted) ──▶ data disk, digests checked on the way
//	 │    measurements │
//	 │ ◀─ floors       ├──▶ dm-verity, switch_root      same kernel in slot and release
//	 │                 ├──▶ kexec                       another kernel
//	 │ ◀─ boot image   └──▶ idle slot, power cycle      another boot image
//
// Boot holds the order of the steps and all decisions. What it decides upon
// comes through two interfaces, BMC and Machine, which a unit fills with the
// in-band link and the kernel's system calls (package files *_linux.go), and
// tests with memory and files. The program of PID 1 is in folder init.
//
// Every step that fails does so with a name from rack.Reasons, told to the BMC
// and printed on the console with its cure. Network, repository and mirrors
// are tried again; a check that refused stops the boot until the power is
// cycled. There is no switch, flag or command line word that skips a check,
// and nothing that has not been verified is ever used in place of what could
// not be had: the cached bundle passes the same verification as a fresh one.
//
// The measurement registers are extended with these digests, which a verifier
// can compute from the repository and the release alone:
//
//	8   SHA-256 of the floor statement of the verified sequence, without its signatures
//	9   digest of the operating system's OCI manifest
//	10  dm-verity root hash
//	11  SHA-256 of "kernel DIGEST\ninitramfs DIGEST\ncmdline TEXT\n" as handed over to
//	    (initramfs "-" with switch_root)
package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// Image is what the running boot image says about itself, in
// /etc/racklet/release.json of its initramfs. The BMC verified it as part of
// the slot.
type BootImage struct {
	Version         string      `json:"version"`
	SecurityVersion uint32      `json:"securityVersion"`
	Kernel          rack.Digest `json:"kernel"` // of the kernel file beside the initramfs
}

// Boot is one run of stage 1.
type Boot struct {
	Image   BootImage
	BMC     BMC
	Machine Machine
	// Fetch gets a bundle; source.Fetch on a unit.
	Fetch func(context.Context, rack.Repository) (*source.Bundle, error)
	// Open opens a mirror of artefacts; OpenMirror on a unit.
	Open func(rack.Mirror) (Mirror, error)
	// Console is where people read, Log where programs do. Both may be io.Discard.
	Console io.Writer
	Log     *slog.Logger

	stage  wire.Stage
	times  []StageTime
	config *rack.BootConfig
	floors trust.Floors
	lease  *Lease
	disk   Disk
	parts  *partitions
	record *Record
	fresh  []byte // the bundle that was fetched and verified; nil: the one of an earlier boot is used
}

// ErrCycle is returned by Run when a boot image has been staged and the BMC
// shall cycle the power.
var ErrCycle = errors.New("boot image staged: power cycle needed")

// sourceAttempts is how often the repository is tried before the bundle of an
// earlier boot is looked at.
const sourceAttempts = 3

// earliest is a time before which no clock that was ever set can be.
var earliest = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Run boots. On a unit it returns only when it can go no further: with
// ErrCycle, or with the *Failure that it has reported. The caller stays
// around after that, so that console and heartbeat go on.
func (b *Boot) Run(ctx context.Context) error {
	err := b.run(ctx)
	if err == nil || errors.Is(err, ErrCycle) {
		return err
	}
	f := asFailure(err, "boot.internal")
	b.report(ctx, wire.StageFailed, f)
	b.explain(f, "stopped; nothing was started")
	return f
}

func (b *Boot) run(ctx context.Context) error {
	b.enter(ctx, wire.StageBootstrap)
	if err := b.persist(ctx, "boot.inband", b.ask); err != nil {
		return err
	}
	b.enter(ctx, wire.StageNetwork)
	if err := b.persist(ctx, "network.no-lease", func(ctx context.Context) (err error) {
		b.lease, err = b.Machine.Network(ctx)
		return err
	}); err != nil {
		return err
	}
	b.say("address %v, gateway %v", b.lease.Address, b.lease.Gateway)
	if err := b.persist(ctx, "network.clock", b.setClock); err != nil {
		return err
	}
	if err := b.persist(ctx, "os.disk", b.openDisk); err != nil {
		return err
	}

	b.enter(ctx, wire.StageSource)
	v, err := b.obtain(ctx)
	if err != nil {
		return err
	}
	p, err := b.prepare(ctx, v)
	if f := (*Failure)(nil); errors.As(err, &f) && f.Reason == "disk.full" {
		if old := b.earlier(v); old != nil {
			b.report(ctx, wire.StageFailed, f)
			b.report(ctx, b.stage, nil)
			b.explain(f, "staying with what an earlier boot accepted, verified anew")
			p, err = b.prepare(ctx, old)
		}
	}
	if err != nil {
		return err
	}
	if err := b.measure(ctx, p); err != nil {
		return err
	}
	b.enter(ctx, wire.StageArtifact)
	b.keep()
	if err := b.accept(ctx, p.Verified); err != nil {
		return err
	}

	b.enter(ctx, wire.StageHandover)
	return b.handOver(ctx, p.Verified, p.unit, p.release, p.os)
}

// A plan is a verified state, and what of it this unit starts: all of that is there.
type plan struct {
	*source.Verified
	unit    *rack.ComputeUnit
	release *rack.Release
	os      *system
}

// prepare gets what a verified state needs. Nothing is measured or accepted yet: it may be another state that is started.
func (b *Boot) prepare(ctx context.Context, v *source.Verified) (*plan, error) {
	unit, release, err := b.choose(v)
	if err != nil {
		return nil, err
	}
	b.enter(ctx, wire.StageVerified)
	b.say("commit %.12s, sequence %d, release %s%s", v.Commit, v.Sequence, release.Spec.Version, staleWord(v.Stale))
	if err := b.compareSlot(ctx, v, unit, release); err != nil {
		return nil, err
	}
	b.enter(ctx, wire.StageFetch)
	os, err := b.operatingSystem(ctx, v, release)
	if err != nil {
		return nil, err
	}
	return &plan{v, unit, release, os}, nil
}

// ask gets everything that the BMC knows and stage 1 needs.
func (b *Boot) ask(ctx context.Context) error {
	doc, err := b.BMC.BootConfig(ctx)
	if err != nil {
		return fmt.Errorf("get boot configuration: %w", err)
	}
	if b.config, err = rack.ParseBootConfig(doc); err != nil {
		return stop("boot.config", "", "", err)
	}
	if b.floors, err = b.BMC.Floors(ctx); err != nil {
		return fmt.Errorf("get floors: %w", err)
	}
	b.say("unit %s in slot %d, floor: sequence %d", b.config.Unit, b.config.Slot, b.floors.Sequence)
	return nil
}

// setClock takes the BMC's time, which is the only one: metadata expires, and
// without a clock nothing could be called fresh.
func (b *Boot) setClock(ctx context.Context) error {
	t, err := b.BMC.Time(ctx)
	if err != nil {
		return fmt.Errorf("get time: %w", err)
	}
	if t.IsZero() {
		return retry("network.clock", "a time after "+earliest.Format(time.DateOnly), "not set", errors.New("the BMC has no time yet"))
	}
	if t.Before(earliest) {
		return retry("network.clock", "a time after "+earliest.Format(time.DateOnly), t.UTC().Format(time.DateOnly), errors.New("the BMC's time is wrong"))
	}
	if err := b.Machine.SetClock(t); err != nil {
		return stop("boot.internal", "", "", fmt.Errorf("set clock: %w", err))
	}
	return nil
}

func (b *Boot) openDisk(ctx context.Context) (err error) {
	if b.disk, err = b.Machine.Disk(ctx); err != nil {
		return err
	}
	if b.parts, err = prepare(b.disk); err != nil {
		return err
	}
	if b.parts.fresh {
		b.say("data disk laid out")
	}
	b.record = readRecord(b.disk, b.parts.cache)
	return nil
}

// anchor is what the BMC says is to be trusted.
func (b *Boot) anchor() source.Anchor {
	return source.Anchor{RackID: b.config.RackID, Repository: b.config.Repository, TUFRoot: b.config.TUFRoot, Floors: b.floors}
}

// obtain returns the verified desired state: of the repository where it can be
// had, else of the bundle kept from an earlier boot.
func (b *Boot) obtain(ctx context.Context) (*source.Verified, error) {
	anchor := b.anchor()
	p := b.patient()
	for attempt := 1; ; attempt++ {
		bundle, err := b.fetchOnce(ctx)
		if err == nil {
			v, verr := decide(bundle, anchor, b.Machine.Now())
			if verr == nil {
				p.passed(ctx)
				b.fresh = bundle.Marshal()
				return v, nil
			}
			err = verr
		}
		f := asFailure(err, "source.unreachable")
		// Expired metadata and a silent server are the two cases in which what
		// was accepted last may still be right. Anything else was refused for
		// a reason that an older bundle does not mend.
		if expired(f.Reason) || (!f.Final && attempt == sourceAttempts) {
			if v := b.fromCache(anchor); v != nil {
				b.report(ctx, wire.StageFailed, f)
				b.report(ctx, b.stage, nil)
				b.explain(f, "using the bundle of an earlier boot, verified anew")
				return v, nil
			}
		}
		if f.Final || !p.again(ctx, f) {
			return nil, f
		}
	}
}

// expired says whether a check refused for age alone.
func expired(reason string) bool {
	switch reason {
	case "rack.stale", "tuf.timestamp.expired", "tuf.snapshot.expired", "tuf.targets.expired", "tuf.root.expired":
		return true
	}
	return false
}

func (b *Boot) fromCache(anchor source.Anchor) *source.Verified {
	if len(b.record.Bundle) == 0 {
		b.say("no bundle of an earlier boot on the data disk")
		return nil
	}
	bundle, err := source.ParseBundle(b.record.Bundle)
	if err == nil {
		var v *source.Verified
		if v, err = decide(bundle, anchor, b.Machine.Now()); err == nil {
			return v
		}
	}
	b.say("the bundle of an earlier boot does not hold: %v", err)
	return nil
}

// earlier returns the state that an earlier boot accepted, if it is another one than v and still passes every check. The
// floors decide: they rise with each state that is accepted.
func (b *Boot) earlier(v *source.Verified) *source.Verified {
	if b.fresh == nil || len(b.record.Bundle) == 0 {
		return nil // v is that state, or there was none
	}
	old := b.fromCache(b.anchor())
	if old == nil || old.Sequence == v.Sequence {
		return nil
	}
	b.fresh = nil
	return old
}

// keep stores the bundle that was verified, now that everything it stands for is on the disk, for a boot without network
// or without room for what comes next.
func (b *Boot) keep() {
	if b.fresh == nil || string(b.fresh) == string(b.record.Bundle) {
		return
	}
	b.record.Bundle = b.fresh
	b.save()
}

// save writes the record. Failing to is not failing to boot.
func (b *Boot) save() {
	if err := writeRecord(b.disk, b.parts.cache, b.record); err != nil {
		b.say("the record on the data disk could not be written: %v", err)
	}
}

// choose finds this unit and its release in the verified set.
func (b *Boot) choose(v *source.Verified) (*rack.ComputeUnit, *rack.Release, error) {
	unit := v.Set.Unit(b.config.Unit)
	if unit == nil {
		return nil, nil, stop("unit.unknown", "unit "+b.config.Unit, "no such unit", nil)
	}
	if unit.Spec.Slot != b.config.Slot {
		return nil, nil, stop("unit.slot", fmt.Sprintf("slot %d", unit.Spec.Slot), fmt.Sprintf("slot %d", b.config.Slot), nil)
	}
	if p := b.Machine.Platform(); p != "" && p != unit.Spec.Platform {
		return nil, nil, stop("unit.platform", unit.Spec.Platform, p, nil)
	}
	release := v.Set.Releases[unit.Spec.Release]
	if release == nil {
		return nil, nil, stop("release.unknown", "release "+unit.Spec.Release, "no such release", nil)
	}
	return unit, release, nil
}

// measure extends the registers of tree and operating system with what is about to be started.
func (b *Boot) measure(ctx context.Context, p *plan) error {
	if !checks {
		return nil
	}
	msg, _, err := trust.SplitSigned(p.FloorStatement)
	if err != nil {
		return stop("floor.statement", "", "", err)
	}
	if err := b.extend(ctx, trust.RegisterTree, sha256.Sum256(msg), fmt.Sprintf("sequence %d commit %.12s", p.Sequence, p.Commit)); err != nil {
		return err
	}
	sum, err := p.os.digest.Sum()
	if err != nil {
		return stop("os.manifest", "", "", err)
	}
	if err := b.extend(ctx, trust.RegisterOS, sum, "os "+p.release.Spec.Version); err != nil {
		return err
	}
	return b.extend(ctx, trust.RegisterRootHash, p.os.verity.Root, "root "+p.release.Spec.Version)
}

// extend measures. Without a measurement nothing is handed over. It is not
// tried twice: a register that took the digest, while the answer got lost,
// would take it once more and match no reference value.
func (b *Boot) extend(ctx context.Context, register uint8, digest [32]byte, label string) error {
	if !checks {
		return nil
	}
	if err := b.BMC.Extend(ctx, register, digest, label); err != nil {
		f := asFailure(err, "handover.evidence")
		f.Final = true
		return f
	}
	return nil
}

// accept hands the owners' floor statement to the BMC, now that everything it
// stands for is known to be there.
func (b *Boot) accept(ctx context.Context, v *source.Verified) error {
	if !checks || b.floors.Sequence == v.Sequence {
		return nil
	}
	return b.persist(ctx, "floor.statement", func(ctx context.Context) error {
		return b.BMC.RaiseFloors(ctx, v.FloorStatement)
	})
}

// enter begins a stage.
func (b *Boot) enter(ctx context.Context, s wire.Stage) {
	b.stage = s
	since, cpu := clocks()
	b.times = append(b.times, StageTime{Stage: s.String(), Since: since, CPU: cpu})
	fmt.Fprintf(b.Console, "racklet: [%7.3f s, %.3f s cpu] %s\n", since, cpu, s)
	b.report(ctx, s, nil)
}

// report tells the BMC, once: it may be this very link that is broken.
func (b *Boot) report(ctx context.Context, s wire.Stage, f *Failure) {
	var w wire.Failure
	if f != nil {
		seen := f.Seen
		if seen == "" && f.Err != nil {
			seen = f.Err.Error()
		}
		w = wire.MakeFailure(f.Reason, f.Expected, seen)
	}
	if err := b.BMC.ReportStage(ctx, s, w); err != nil {
		b.Log.Warn("report stage", "stage", s.String(), "err", err)
	}
}

func (b *Boot) say(format string, args ...any) {
	fmt.Fprintf(b.Console, "racklet: "+format+"\n", args...)
}

// explain writes a failure for people.
func (b *Boot) explain(f *Failure, then string) {
	text, cure := f.cure()
	b.say("REFUSED %s: %s", f.Reason, text)
	if f.Expected != "" {
		b.say("  expected %s", f.Expected)
	}
	if f.Seen != "" {
		b.say("  seen     %s", f.Seen)
	}
	if f.Err != nil {
		b.say("  because  %v", f.Err)
	}
	if cure != "" {
		b.say("  cure     %s", cure)
	}
	b.say("  %s", then)
}

func staleWord(stale bool) string {
	if stale {
		return " (Stale: its metadata has expired)"
	}
	return ""
}

func hexDigest(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
