package bmc

import (
	"github.com/racklet/racklet/firmware/wire"
)

// drain is a shutdown under way.
type drain struct {
	cycle    bool         // the rail comes on again after it
	failure  wire.Failure // why, when it ends in Faulted
	deadline uint64       // when the rail is cut whatever the unit does
	cutAt    uint64       // when the rail is cut because the unit has halted; 0: it has not
}

// start finds out, at the first Step, what a BMC restart has left behind.
func (b *BMC) start() {
	b.restarts++
	b.keepCounters()
	b.event(wire.EventRestart, 0, "", nil)
	b.readIdentity()
	b.setLED()
	b.since, b.openedAt, b.stageSince, b.checkpoint = b.now, b.now, b.now, b.now
	if b.ports.ResetSeen != nil {
		b.resetLevel = b.ports.ResetSeen.Get()
	}
	for slot := wire.SlotA; slot <= wire.SlotB; slot++ {
		b.inspect(slot) // for GetSlots; what boots is verified again before it does
	}
	good := b.ports.PowerGood.Get()
	if b.boot.rail && good && !b.faulted {
		b.adopt()
		if b.damaged() { // what runs was verified against the floors as they were; nothing new starts
			f := b.damageFailure()
			b.fail(&f)
		}
		return
	}
	b.ports.Switch.Set(false)
	if b.boot.rail || good {
		b.event(wire.EventRail, 0, "found off or not ours", nil)
		b.boot.rail = false
		b.boot.stage = wire.StageOff
		b.keepBoot()
	}
	if b.faulted {
		b.enter(wire.StateFaulted)
	}
}

// adopt goes on with a unit that ran while this BMC did not. Nobody watched it meanwhile: the evidence is void.
func (b *BMC) adopt() {
	b.ports.Switch.Set(true)
	b.closed, b.railAt = true, b.now
	b.bootSlot, b.stage, b.stageSince = b.boot.slot, b.boot.stage, b.now
	b.boot.void = true
	b.handedOver = b.stage > wire.StageBootstrap // its word of long ago: let nobody in who may have been past it
	b.keepBoot()
	b.extend(registerRail, &digestAdopted)
	b.enter(wire.StateRunning)
	if b.bootSlot <= wire.SlotB {
		if f := b.inspect(b.bootSlot); f.IsZero() {
			b.exposed = true
		} else {
			b.event(wire.EventSlot, uint16(b.bootSlot), "no longer valid", &f)
		}
	}
}

func (b *BMC) enter(s wire.State) {
	if b.state == s {
		return
	}
	b.state, b.since = s, b.now
	b.event(wire.EventState, uint16(s), "", nil)
}

// stepOff: rail off. Starts when power is desired and the rail has been off for long enough to be a real cycle.
func (b *BMC) stepOff() {
	if b.desired.power != wire.PowerOn {
		return
	}
	if b.damaged() {
		b.fault(b.damageFailure())
		return
	}
	b.chooseOrder()
	b.enter(wire.StateVerifying)
}

// stepPowering waits for the grant, then closes the switch, then waits for power-good.
func (b *BMC) stepPowering() {
	good := b.ports.PowerGood.Get()
	if b.desired.power != wire.PowerOn {
		b.openSwitch("no longer wanted")
		b.enter(wire.StateOff)
		return
	}
	if b.closed {
		switch {
		case good:
			b.railOn()
		case b.now-b.since >= uint64(b.limits.PowerGoodMillis):
			b.again(wire.MakeFailure("power.good", "power good within "+seconds(uint64(b.limits.PowerGoodMillis)), "no power good"))
		}
		return
	}
	if b.now-b.openedAt < uint64(b.limits.OffMillis) {
		return
	}
	if good {
		if b.now-b.openedAt >= uint64(b.limits.OffMillis)+uint64(b.limits.PowerGoodMillis) {
			b.fault(wire.MakeFailure("power.good", "rail off while the switch is open", "power good"))
		}
		return
	}
	if b.hot {
		b.fault(b.tooHot())
		return
	}
	if b.waiting() {
		if b.now-b.since >= grantMillis && b.failure.Reason != grantReason {
			f := wire.MakeFailure("power.grant", milli(b.request())+" W granted", milli(b.grant)+" W")
			b.fail(&f)
		}
		return
	}
	// The record comes first: a boot that happened and was not counted would let evidence be passed off as older, and a
	// restart of the BMC must know whose rail it finds on.
	b.bootCount++
	if !b.keepCounters() {
		b.bootCount--
		b.fault(wire.MakeFailure("bmc.store", "boot count written", "flash error"))
		return
	}
	b.boot.rail, b.boot.slot, b.boot.void, b.boot.stage = true, b.bootSlot, false, wire.StagePowered
	if b.boot.trial != trialProven && b.boot.trial > 0 && b.bootSlot == b.boot.preferred {
		b.boot.trial--
	}
	if !b.keepBoot() {
		b.boot.rail = false
		b.fault(wire.MakeFailure("bmc.store", "boot record written", "flash error"))
		return
	}
	if b.desired.bootMode == wire.BootOnce {
		b.desired.bootMode, b.desired.bootSlot = wire.BootDisabled, wire.SlotNone
		b.keepDesired()
	}
	b.clearBoot()
	b.closed, b.since = true, b.now
	b.ports.Switch.Set(true)
}

// clearBoot forgets what was measured and counted. It is called when the load switch opens, so that nobody takes the
// evidence of a unit that is off for that of one that runs, and before it closes; nothing else clears a register.
func (b *BMC) clearBoot() {
	b.resets, b.handedOver = 0, false
	b.staging.sessions, b.staging.offer.begun = 0, 0
	if b.staging.offer.side == wire.SideInBand {
		b.staging.offer = offer{}
	}
	b.served = [len(b.served)]byte{}
	b.resetRegisters()
}

// railOn begins a boot.
func (b *BMC) railOn() {
	b.railAt = b.now
	b.extend(registerSlot, &b.digest)
	b.extend(registerRail, &digestRail)
	b.exposed, b.cached = true, -1
	b.settleFailure()
	if b.ports.ResetSeen != nil {
		b.resetLevel = b.ports.ResetSeen.Get()
	}
	b.event(wire.EventRail, 1, "", nil)
	b.enter(wire.StateRunning)
	b.setStage(wire.StagePowered, "")
}

// openSwitch cuts the rail and puts away all that belongs to a boot.
func (b *BMC) openSwitch(why string) {
	b.ports.Switch.Set(false)
	if b.ports.UnitReset != nil && b.resetLine != 0 {
		b.ports.UnitReset.Set(false)
	}
	b.resetLine = 0
	b.exposed, b.cached = false, -1
	b.bootSlot = wire.SlotNone
	b.grant = 0
	b.drain = drain{}
	b.overSince = 0
	b.broken = wire.Failure{}
	b.inventory, b.report, b.reported, b.reportStale = wire.Inventory{}, wire.Report{}, false, false
	if b.staging.side == wire.SideInBand {
		b.staging.active = false
	}
	if !b.closed {
		return
	}
	b.closed = false
	b.openedAt = b.now
	b.clearBoot()
	b.event(wire.EventRail, 0, why, nil)
	b.boot.rail, b.boot.stage = false, wire.StageOff
	b.stage, b.stageSince, b.overdue = wire.StageOff, b.now, false
	b.keepBoot()
	b.keepEnergy()
}

// stepRunning converges on what is desired, and notices what a unit does by itself.
func (b *BMC) stepRunning() {
	switch {
	case !b.ports.PowerGood.Get():
		b.again(wire.MakeFailure("power.lost", "power good", "rail lost"))
	case !b.broken.IsZero():
		b.again(b.broken)
	case b.hot:
		b.startDrain(false)
		b.drain.failure = b.tooHot()
		b.event(wire.EventThermal, 2, "", &b.drain.failure)
	case b.desired.power != wire.PowerOn:
		b.startDrain(false)
	case b.stage == wire.StageHalted:
		b.startDrain(true)
	}
}

// startDrain asks the unit to shut down. A unit that has not come as far as software of ours has nothing to lose.
func (b *BMC) startDrain(cycle bool) {
	b.drain = drain{cycle: cycle, deadline: b.now + uint64(b.limits.DrainMillis)}
	if b.stage <= wire.StageMedium {
		b.drain.cutAt = b.now
	}
	if b.stage == wire.StageHalted {
		b.drain.cutAt = b.now + uint64(b.limits.HaltMillis)
	}
	b.enter(wire.StateDraining)
}

func (b *BMC) stepDraining() {
	why := ""
	switch {
	case !b.ports.PowerGood.Get():
		why = "rail lost"
	case b.drain.cutAt != 0 && b.now >= b.drain.cutAt:
		why = "unit has halted"
	case b.now >= b.drain.deadline:
		why = "deadline passed"
	default:
		return
	}
	if f := b.drain.failure; !f.IsZero() {
		b.fault(f)
		return
	}
	b.openSwitch(why)
	b.enter(wire.StateOff)
}

// stepFaulted stays until power is no longer desired; a new order leaves it elsewhere (clearFault).
func (b *BMC) stepFaulted() {
	if b.desired.power != wire.PowerOn {
		b.clearFault()
		return
	}
	if b.now-b.checkpoint >= checkpointMillis {
		b.checkpoint = b.now
		b.keepFailure() // writes only what could not be written when it happened
	}
}

// again ends a boot that cannot go on and tries the next one, until there were too many.
func (b *BMC) again(f wire.Failure) {
	b.tries++
	if b.tries >= b.limits.Tries {
		b.fault(f)
		return
	}
	b.fail(&f)
	b.openSwitch(f.Reason.String())
	b.enter(wire.StateOff)
}

// fault cuts the rail and stays off, with the reason, until an operator asks again.
func (b *BMC) fault(f wire.Failure) {
	b.faulted = true
	b.fail(&f)
	b.openSwitch(f.Reason.String())
	b.enter(wire.StateFaulted)
}

// fail remembers a failed check.
func (b *BMC) fail(f *wire.Failure) {
	b.failure = *f
	b.keepFailure()
	b.event(wire.EventFailure, 0, "", f)
}

// settleFailure leaves, at the start of a boot, the failure that made it one from the fallback slot, or none.
func (b *BMC) settleFailure() {
	switch why := b.slots[otherSlot(b.bootSlot)].info.Failure; {
	case !b.boot.fallback:
		b.clearFailure()
	case !why.IsZero():
		b.failure = why
		b.keepFailure()
	}
}

func (b *BMC) clearFailure() {
	b.failure = wire.Failure{}
	b.keepFailure()
}

// clearFault makes a fresh start possible: an operator asked for it. Distrusted slots get a second reading.
func (b *BMC) clearFault() {
	b.tries, b.recheck = 0, true
	b.bucket.tokens = max(b.bucket.tokens, bucketBoot)
	if b.faulted {
		b.faulted = false
		b.keepFailure()
	}
	if b.state == wire.StateFaulted {
		b.enter(wire.StateOff)
	}
}

var grantReason = wire.MakeText32("power.grant")

// waiting says whether the RMC has not yet granted enough to start. What it grants is its last word: a unit that gets
// less than it asked for starts all the same, flagged, unless that is too little for anything.
func (b *BMC) waiting() bool {
	return b.state == wire.StatePowering && !b.closed && b.grant < min(b.request(), b.limits.LeastMilliwatts)
}

// request is the power to ask of the RMC.
func (b *BMC) request() uint32 {
	if b.desired.cap != 0 {
		return b.desired.cap
	}
	return b.limits.RequestMilliwatts
}

// granted takes the RMC's word. A grant that nobody asked for is not kept for later: the budget may have gone by then.
func (b *BMC) granted(mW uint32) {
	switch b.state {
	case wire.StatePowering, wire.StateRunning, wire.StateDraining:
	default:
		return
	}
	if mW == b.grant {
		return
	}
	withdrawn := mW == 0
	b.grant = mW
	code := uint16(1)
	if withdrawn {
		code = 2
	}
	b.event(wire.EventPower, code, milli(mW)+" W", nil)
	if withdrawn && b.state == wire.StateRunning {
		b.startDrain(true)
	}
}

// perform carries out a one-off order. It answers CodeNotReady when there is nothing to carry it out on, and CodeError when
// the store does not keep what it changes: an order to start is then refused, an order to stop carried out all the same.
func (b *BMC) perform(kind wire.ResetKind) wire.Code {
	kept := true
	switch kind {
	case wire.ResetGracefulOff:
		kept = b.desirePower(wire.PowerOff) // stepRunning does the rest
	case wire.ResetForceOff:
		kept = b.desirePower(wire.PowerOff)
		if b.state != wire.StateFaulted { // stepFaulted leaves that one
			b.openSwitch("ordered")
			b.enter(wire.StateOff)
		}
	case wire.ResetCycle:
		if !b.acknowledge() || !b.desirePower(wire.PowerOn) {
			return wire.CodeError
		}
		b.clearFault()
		if b.closed {
			b.openSwitch("ordered")
			b.enter(wire.StateOff)
		}
	case wire.ResetGracefulCycle:
		if b.desired.power != wire.PowerOn || b.state != wire.StateRunning {
			return wire.CodeNotReady
		}
		b.clearFault()
		b.startDrain(true)
	case wire.ResetForceRestart:
		if b.state != wire.StateRunning || b.ports.UnitReset == nil {
			return wire.CodeNotReady
		}
		if b.resetLine == 0 {
			b.ports.UnitReset.Set(true)
			b.resetLine = b.now + resetPulse
			b.unitReset(1)
		}
	}
	if !kept {
		return wire.CodeError // it is off, and will not be for longer than the BMC runs
	}
	return wire.CodeSuccess
}

// desirePower changes the desired power and says whether that will survive. Off holds until a restart even if it will not.
func (b *BMC) desirePower(p wire.Power) bool {
	before := b.desired.power
	b.desired.power = p
	if b.keepDesired() {
		return true
	}
	if p != wire.PowerOff {
		b.desired.power = before
	}
	return false
}

// watchReset counts resets of the unit, and releases the reset line after a pulse of ours.
func (b *BMC) watchReset() {
	ours := b.resetLine != 0
	if ours && b.now >= b.resetLine {
		b.ports.UnitReset.Set(false)
		b.resetLine = 0
	}
	if b.ports.ResetSeen == nil {
		return
	}
	level := b.ports.ResetSeen.Get()
	rose := level && !b.resetLevel
	b.resetLevel = level
	if !rose || ours {
		return
	}
	switch b.state {
	case wire.StateRunning:
		b.unitReset(0)
		if b.state == wire.StateRunning && b.bootSlot != b.boot.preferred && b.boot.trial != trialProven && b.boot.trial > 0 {
			b.drain = drain{cycle: true, deadline: b.now, cutAt: b.now}
			b.enter(wire.StateDraining)
		}
	case wire.StateDraining:
		b.drain.cutAt = b.now // it was asked to stop, and starts again: that is as stopped as it gets
	}
}

// unitReset notes a reset without a rail cycle: what the unit asserts from now on may come from another system than
// what it asserted before, so evidence is void. code is 1 for a reset by the BMC.
func (b *BMC) unitReset(code uint16) {
	b.resets++
	b.handedOver = false // it starts from the boot slot again
	b.extend(registerRail, &digestReset)
	b.inventory, b.report, b.reported, b.reportStale = wire.Inventory{}, wire.Report{}, false, false
	if !b.boot.void {
		b.boot.void = true
		b.boot.stage = wire.StagePowered
		b.keepBoot()
	}
	b.unitEvent(wire.EventReset, code, "", nil)
	b.setStage(wire.StagePowered, "")
}

// setLED shows the desired state of the identify LED.
func (b *BMC) setLED() {
	if b.ports.LED != nil {
		b.ports.LED.Set(b.desired.led)
	}
}

// observe notes that the desired state has been reached.
func (b *BMC) observe() {
	if b.desired.observed == b.desired.generation {
		return
	}
	reached := b.state == wire.StateOff
	if b.desired.power == wire.PowerOn {
		reached = b.state == wire.StateRunning
	}
	if reached {
		b.desired.observed = b.desired.generation
		b.keepDesired()
	}
}

// want takes a new desired state. One that is not newer than the last changes nothing.
func (b *BMC) want(d *wire.Desired) {
	if d.Generation <= b.desired.generation {
		return
	}
	before := b.desired
	n := &b.desired
	n.generation = d.Generation
	if d.Mask&wire.DesiredPower != 0 {
		n.power = d.Power
	}
	if d.Mask&wire.DesiredLED != 0 {
		n.led = d.LED
	}
	if d.Mask&wire.DesiredCap != 0 {
		n.cap = d.CapMilliwatts
	}
	if d.Mask&wire.DesiredBoot != 0 {
		n.bootMode, n.bootSlot = d.BootMode, d.BootSlot
	}
	if !b.keepDesired() {
		b.desired = before // not kept is not accepted: the operator will ask again
		return
	}
	b.event(wire.EventDesired, uint16(d.Mask), "", nil)
	b.setLED()
	if d.Mask&wire.DesiredPower != 0 {
		b.clearFault()
	}
}
