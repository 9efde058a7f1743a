package headless

import (
	"bytes"
	"errors"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/source"
)

// ghost stands in for the machine of a unit: it reads the medium that the real BMC serves, talks to it in-band, fetches
// a state and lets the real source.Verify decide. It boots in the time of a machine and does nothing that a processor
// would. What real units do is shown by scenarios that need machines.
type ghost struct {
	rack   *Rack
	tray   *tray
	on     bool
	step   step
	due    uint64 // ms, when the step is done
	tries  int
	reset  bool // it reset itself; until the BMC has read it
	cached *source.Bundle
	hasOS  bool
	state  *source.Verified
	beat   uint64
	id     uint8
	bad    bool // it booted what nobody signed
	stolen bool // the thief has been here
}

type step uint8

const (
	stepOff step = iota
	stepROM
	stepBootstrap
	stepNetwork
	stepSource
	stepVerified
	stepFetch
	stepHandover
	stepOS
	stepRunning
	stepStopping
	stepHalted
	stepFailed
)

var phases = map[step]string{stepOff: "off", stepROM: "boot ROM", stepHalted: "halted"}

// phase is what the machine does, in the words of /sim/v1.
func (g *ghost) phase() string {
	if p, ok := phases[g.step]; ok {
		return p
	}
	return "running"
}

// Times in milliseconds; ours, about those of an emulated unit without its fetching.
const (
	romMillis   = 400
	bootMillis  = 1500
	stepMillis  = 500
	fetchMillis = 1500
	retryMillis = 2000
	beatMillis  = 5000
	haltMillis  = 1000
	sourceTries = 3
)

// power follows the rail and the reset line.
func (g *ghost) power(now uint64, on bool) {
	if on == g.on {
		return
	}
	g.on = on
	if on {
		g.begin(now)
		return
	}
	g.step = stepOff
}

func (g *ghost) begin(now uint64) {
	g.step, g.due, g.tries, g.state = stepROM, now+romMillis, 0, nil
}

// press is the unit resetting itself.
func (g *ghost) press(now uint64) {
	if g.on {
		g.reset = true
		g.begin(now)
	}
}

func (g *ghost) next(now uint64, s step, stage wire.Stage, after uint64) {
	g.tell(now, stage, wire.Failure{})
	g.step, g.due, g.tries = s, now+after, 0
}

// run lets the machine act. effects say what is broken around it.
func (g *ghost) run(now uint64, e *fault.Effects) {
	t := &e.Trays[g.tray.slot-1]
	if t.KeyStolen && g.step == stepRunning && !g.stolen {
		g.stolen = g.misuse(now)
	}
	if !g.on || t.Silent || now < g.due {
		return
	}
	switch g.step {
	case stepROM:
		g.rom(now)
	case stepBootstrap:
		g.next(now, stepNetwork, wire.StageNetwork, stepMillis)
	case stepNetwork:
		if f := g.link(e); f != "" {
			g.again(now, wire.StageNetwork, f, "a lease", "none")
			return
		}
		g.next(now, stepSource, wire.StageSource, stepMillis+g.travel(e, 20_000))
	case stepSource:
		g.obtain(now, e)
	case stepVerified:
		g.next(now, stepFetch, wire.StageFetch, fetchMillis+g.travel(e, 4_000_000))
	case stepFetch:
		if !g.hasOS && (e.Mirror == fault.ServiceDown || g.link(e) != "") {
			g.again(now, wire.StageFetch, "os.unreachable", "a mirror that answers", "none")
			return
		}
		g.hasOS = true
		g.tell(now, wire.StageArtifact, wire.Failure{})
		g.ask(now, wire.CmdRaiseFloors, wire.AppendBytes(nil, g.state.FloorStatement))
		g.next(now, stepHandover, wire.StageHandover, stepMillis)
	case stepHandover:
		g.next(now, stepOS, wire.StageOS, stepMillis)
	case stepOS:
		g.next(now, stepRunning, wire.StageRunning, 0)
	case stepRunning:
		g.heartbeat(now)
	case stepStopping:
		g.next(now, stepHalted, wire.StageHalted, 0)
	case stepFailed: // it stays, and says so, until the power is cycled
		g.due = now + retryMillis
	}
}

// rom reads the whole medium, as the BMC serves it, and compares it with what the owners signed.
func (g *ghost) rom(now uint64) {
	g.due = now + romMillis
	b := g.tray.alive()
	if b == nil {
		return
	}
	n := b.MediumBlocks()
	if n == 0 {
		return
	}
	image := make([]byte, n*trust.BlockSize)
	if g.rack.defect == "medium-unverified" {
		if err := g.tray.flash.ReadAt(image, 0); err != nil {
			return
		}
	} else if err := b.ReadMedium(0, image); err != nil {
		return
	}
	if !bytes.Equal(image, g.rack.signed.image) {
		g.bad = true
	}
	g.next(now, stepBootstrap, wire.StageBootstrap, bootMillis)
}

// link says what is wrong with the way to the gateway; "": nothing.
func (g *ghost) link(e *fault.Effects) string {
	mine, gate := e.Cables[g.tray.name], e.Cables["gateway"]
	switch {
	case mine.FromDevice.Down && mine.ToDevice.Down:
		return "network.no-carrier"
	case mine.FromDevice.Down, mine.ToDevice.Down, gate.FromDevice.Down, gate.ToDevice.Down, mine.Group != gate.Group:
		return "network.no-lease"
	}
	// An exchange needs some ten frames each way, each of which is sent at most three times.
	for _, loss := range []float64{mine.FromDevice.Loss, mine.ToDevice.Loss} {
		for range 10 {
			if loss > 0 && g.rack.random() < loss*loss*loss {
				return "network.no-lease"
			}
		}
	}
	return ""
}

// travel is the time in milliseconds that so many bytes take more than on a whole cable.
func (g *ghost) travel(e *fault.Effects, bytes int64) uint64 {
	c := e.Cables[g.tray.name].ToDevice
	t := 8 * c.Delay
	if c.Bandwidth > 0 {
		t += time.Duration(bytes * 8 * int64(time.Second) / c.Bandwidth)
	}
	if c.Loss > 0 || c.Reorder > 0 {
		t += time.Duration(float64(bytes) / 1500 * max(c.Loss, c.Reorder/4) * float64(time.Millisecond))
	}
	return uint64(t.Milliseconds())
}

// obtain fetches the state, or takes the cached one when nobody answers, and has it verified.
func (g *ghost) obtain(now uint64, e *fault.Effects) {
	s := g.rack.signed
	bundle := map[fault.Service]*source.Bundle{fault.ServiceUp: s.current, fault.ServiceReplays: s.replay, fault.ServiceForged: s.forged}[e.Git]
	fresh := true
	if g.link(e) != "" {
		bundle = nil
	}
	if bundle == nil {
		if g.tries++; g.tries < sourceTries || g.cached == nil {
			g.tries--
			g.again(now, wire.StageSource, "source.unreachable", "an answer", "none")
			return
		}
		bundle, fresh = g.cached, false
	}
	b := g.tray.alive()
	if b == nil {
		g.due = now + retryMillis
		return
	}
	floors := b.UnitState().Floors
	clock := epoch.Add(time.Hour + time.Duration(now)*time.Millisecond)
	v, err := source.Verify(bundle, s.anchor(trust.Floors(floors)), clock)
	if err != nil && g.rack.defect == "refusal-ignored" {
		v, err = source.Verify(s.current, s.anchor(trust.Floors(floors)), clock)
	}
	var r *source.Refusal
	if errors.As(err, &r) {
		g.tell(now, wire.StageFailed, wire.MakeFailure(r.Check, r.Expected, r.Seen))
		g.step, g.due = stepFailed, now+retryMillis
		return
	}
	if err != nil {
		g.again(now, wire.StageSource, "source.bundle", "a bundle", err.Error())
		return
	}
	if fresh {
		g.cached = bundle
	}
	g.state = v
	g.next(now, stepVerified, wire.StageVerified, stepMillis)
}

// again says what failed and tries later.
func (g *ghost) again(now uint64, stage wire.Stage, reason, expected, seen string) {
	g.tries++
	g.due = now + retryMillis
	f := wire.MakeFailure(reason, expected, seen)
	g.tell(now, wire.StageFailed, f)
	g.tell(now, stage, f)
}

func (g *ghost) heartbeat(now uint64) {
	g.due = now + stepMillis
	draining := false
	if b := g.tray.alive(); b != nil {
		draining = b.UnitState().State == wire.StateDraining // the answer comes with a heartbeat; units ask more often then
	}
	if now < g.beat+beatMillis && !draining {
		return
	}
	g.beat = now
	cpu, _ := g.tray.cpu()
	r := wire.Report{Release: wire.MakeText32(release), UptimeSeconds: uint32(now / 1000), CPUPermille: uint16(cpu * 1000), MemoryTotalKiB: 512 << 10, MemoryUsedKiB: 100 << 10}
	payload := g.ask(now, wire.CmdHeartbeat, wire.AppendReport(nil, &r))
	if want, err := wire.ParseHostRequest(payload); err == nil && want != wire.HostNone {
		g.next(now, stepStopping, wire.StageStopping, haltMillis)
	}
}

func (g *ghost) tell(now uint64, stage wire.Stage, f wire.Failure) {
	g.ask(now, wire.CmdReportStage, wire.AppendReportStage(nil, stage, &f))
}

// ask sends one message in-band and returns the answer's payload; nil without one.
func (g *ghost) ask(now uint64, command uint8, payload []byte) []byte {
	b := g.tray.alive()
	if b == nil {
		return nil
	}
	g.id = (g.id + 1) & 31
	resp := g.rack.resp
	n := b.Handle(wire.SideInBand, now, append(wire.AppendRequest(nil, g.id, wire.TypeOEM, command), payload...), resp)
	_, code, body, err := wire.ParseResponse(resp[:n])
	if err != nil || code != wire.CodeSuccess {
		return nil
	}
	return body
}

// misuse is the thief with the BMC's device key: a floor statement signed by it, handed over by the unit itself. It
// reports whether there was a BMC to hear it.
func (g *ghost) misuse(now uint64) bool {
	b := g.tray.alive()
	if b == nil {
		return false
	}
	g.ask(now, wire.CmdRaiseFloors, wire.AppendBytes(nil, fault.ThiefsFloors(g.tray.key, g.rack.id, b.UnitState().Floors)))
	return true
}
