package bmc

import (
	"strconv"

	"github.com/racklet/racklet/firmware/wire"
)

// setStage notes how far the unit has come; a stage it is in already is no news.
func (b *BMC) setStage(s wire.Stage, text string) {
	if s == b.stage {
		return
	}
	if b.overdue && b.failure.Reason == timeoutReason {
		b.clearFailure() // it moved after all
	}
	b.stage, b.stageSince, b.overdue = s, b.now, false
	// Within the bounds of the bucket: the unit decides how often this happens. That a staged slot has proven itself is
	// kept all the same; it happens once.
	proven := s == wire.StageOS && b.bootSlot == b.boot.preferred && b.boot.trial != trialProven
	if proven {
		b.boot.trial = trialProven // its kernel and stage 1 have done all their work
	}
	logged := b.bucket.take(b.now)
	if logged {
		b.event(wire.EventStage, uint16(s), text, nil)
	}
	b.boot.stage = s
	if logged || proven {
		b.keepBoot()
	}
}

var timeoutReason = wire.MakeText32("boot.timeout")

// stageReport is the unit's word on its stage, with the check that made it stop if one did.
func (b *BMC) stageReport(s wire.Stage, f *wire.Failure) {
	if (s == wire.StageFailed || s == wire.StageHalted) && !f.IsZero() && *f != b.failure {
		b.failure = *f
		if b.bucket.take(b.now) {
			b.keepFailure()
			b.event(wire.EventFailure, uint16(b.stage), "", f)
		}
	}
	if s == wire.StageOS && b.stage != s {
		b.reportAt = b.now // its heartbeats begin anew
	}
	if s != wire.StageFailed && s >= wire.StageVerified && s <= wire.StageRunning && !b.failure.IsZero() && !b.boot.fallback {
		b.clearFailure() // the check that failed has passed since
	}
	b.setStage(s, "")
	if s >= wire.StageHandover && s <= wire.StageStopping {
		b.handedOver = true
	}
	if s == wire.StageRunning {
		b.tries = 0
	}
	if s == wire.StageHalted && b.state == wire.StateDraining && b.drain.cutAt == 0 {
		b.drain.cutAt = b.now + uint64(b.limits.HaltMillis)
	}
}

// heartbeat takes a report and answers with what is asked of the unit.
func (b *BMC) heartbeat(r *wire.Report) wire.HostRequest {
	b.report, b.reportAt = *r, b.now
	if !b.reported || b.reportStale {
		b.unitEvent(wire.EventReport, 1, "", nil)
	}
	b.reported, b.reportStale = true, false
	if b.state != wire.StateDraining {
		return wire.HostNone
	}
	if b.drain.cycle {
		return wire.HostRestart
	}
	return wire.HostShutdown
}

// watchUnit names a unit that has stopped moving. It does not touch the power unless the policy says so.
func (b *BMC) watchUnit() {
	if b.state != wire.StateRunning {
		return
	}
	if b.reported && !b.reportStale && b.stage >= wire.StageOS && b.now-b.reportAt > uint64(b.limits.ReportMillis) {
		b.reportStale = true
		f := wire.MakeFailure("inband.silent", "a heartbeat every "+seconds(uint64(b.limits.ReportMillis)), "none for "+seconds(b.now-b.reportAt))
		b.event(wire.EventReport, 0, "", &f)
	}
	if b.stage >= wire.StageRunning || b.overdue {
		return
	}
	limit := uint64(b.limits.StageMillis[b.stage])
	if limit == 0 || b.now-b.stageSince <= limit {
		return
	}
	b.overdue = true
	f := wire.MakeFailure("boot.timeout", "stage "+b.stage.String()+" done within "+seconds(limit),
		"still "+b.stage.String()+" after "+seconds(b.now-b.stageSince))
	if b.limits.CycleOnTimeout {
		b.again(f)
		return
	}
	b.fail(&f)
}

// seconds spells a time for people: "60 s", "0.5 s".
func seconds(millis uint64) string {
	s := strconv.FormatUint(millis/1000, 10)
	if tenth := millis % 1000 / 100; tenth != 0 {
		s += "." + string(rune('0'+tenth))
	}
	return s + " s"
}
