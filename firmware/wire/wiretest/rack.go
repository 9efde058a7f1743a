package wiretest

import (
	"io"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// Rack is a fake RMC with fake BMCs behind it. It grants every BMC its power.
type Rack struct {
	BMCs map[uint8]*BMC // by slot

	mu       sync.Mutex
	faults   Faults
	state    wire.RackState
	policies wire.Policies
	events   []wire.Event
	ahead    int64 // of the clock, milliseconds
	line     io.ReadWriteCloser
	far      io.ReadWriteCloser
	done     chan struct{}
}

// NewRack returns a rack with BMCs in slots 1 to units and starts to serve its
// management line.
func NewRack(units int) *Rack {
	r := &Rack{BMCs: map[uint8]*BMC{}, done: make(chan struct{})}
	r.state = wire.RackState{
		Milliwatts: 6500, SupplyMillivolts: 5150, InletMilliCelsius: 23_400, BudgetMilliwatts: 60_000,
		FanCount: 2, Flags: wire.RackPolicyUnset,
	}
	for i := range r.state.Fans[:2] {
		r.state.Fans[i] = wire.FanState{RPM: uint16(1800 + i), DutyPercent: 40}
	}
	for i := range r.state.SlotAgeMillis {
		r.state.SlotAgeMillis[i] = wire.AgeNever
	}
	for slot := range uint8(units) {
		r.BMCs[slot+1] = NewBMC(slot + 1)
		r.state.PresentMask |= 2 << slot
	}
	r.policies = wire.Policies{
		CurveCount: 2, Curve: [wire.MaxCurvePoints]wire.CurvePoint{{MilliCelsius: 25_000, DutyPercent: 30}, {MilliCelsius: 60_000, DutyPercent: 100}},
		ThrottleMilliCelsius: 75_000, ShutdownMilliCelsius: 85_000, HysteresisMilliCelsius: 2_000, BudgetMilliwatts: 60_000,
	}
	r.event(wire.EventRestart, 0, 0, "controller started")
	r.line, r.far = Line()
	go func() {
		defer close(r.done)
		r.serve()
	}()
	return r
}

// Line is the management computer's end of the line to the RMC.
func (r *Rack) Line() io.ReadWriteCloser { return r.line }

func (r *Rack) Close() {
	r.line.Close()
	r.far.Close()
	<-r.done
}

// SetFaults makes the RMC misbehave, as the answering end and as the bridge.
func (r *Rack) SetFaults(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// Update changes the rack's state.
func (r *Rack) Update(f func(*wire.RackState)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.state)
}

// State returns a copy of the rack's state.
func (r *Rack) State() wire.RackState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Policies returns the policies in force.
func (r *Rack) Policies() wire.Policies {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policies
}

// Record adds an event to the RMC's ring.
func (r *Rack) Record(kind wire.EventKind, slot uint8, code uint16, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.event(kind, slot, code, text)
}

func (r *Rack) event(kind wire.EventKind, slot uint8, code uint16, text string) {
	r.state.LastEvent++
	r.events = append(r.events, wire.Event{
		Sequence: r.state.LastEvent, Millis: uint64(time.Now().UnixMilli()), ClockSet: true, Kind: kind, Slot: slot, Code: code, Text: wire.MakeText64(text),
	})
}

// serve is the RMC's end: what is for a BMC goes to that BMC, as over the bus.
func (r *Rack) serve() {
	var frames wire.Deframer
	own := wire.Port{Own: wire.EIDRMC}
	ports := map[wire.EID]*wire.Port{wire.EIDRMC: &own}
	for slot := range r.BMCs {
		ports[wire.BMC(slot)] = &wire.Port{Own: wire.BMC(slot)}
	}
	var write sync.Mutex
	var wait sync.WaitGroup
	defer wait.Wait()
	buf := make([]byte, 1024)
	for {
		n, err := r.far.Read(buf)
		for _, c := range buf[:n] {
			packet, ok := frames.Push(c)
			if !ok || len(packet) < 4 {
				continue
			}
			dest := wire.EID(packet[1])
			if dest == wire.EIDNull {
				dest = wire.EIDRMC
			}
			port := ports[dest]
			if port == nil {
				continue
			}
			port.Packets.Own = port.Own
			m, ok := port.Packets.Push(packet)
			if !ok {
				continue
			}
			m.Body = append([]byte(nil), m.Body...)
			faults, handle := r.route(dest)
			wait.Go(func() { // a slow BMC delays nobody else
				if out := answer(port, &m, wire.SideBus, faults, handle); len(out) > 0 {
					write.Lock()
					defer write.Unlock()
					r.far.Write(out) // the reader sees when the line is gone
				}
			})
		}
		if err != nil {
			return
		}
	}
}

func (r *Rack) route(dest wire.EID) (Faults, Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if dest == wire.EIDRMC || r.faults.Silent {
		return r.faults, r.Handle
	}
	b := r.BMCs[dest.Slot()]
	return b.Faults(), func(side wire.Side, req, resp []byte) []byte {
		resp = b.Handle(side, req, resp)
		b.mu.Lock()
		if s := &b.state; s.RequestMilliwatts > 0 && s.GrantMilliwatts == 0 {
			s.GrantMilliwatts = s.RequestMilliwatts
			b.converge()
		}
		b.mu.Unlock()
		return resp
	}
}

func rmcCommand(kind, c uint8) bool {
	switch kind {
	case wire.TypeBase:
		return c >= wire.CmdSetTID && c <= wire.CmdGetCommands
	case wire.TypeMonitor:
		return c == wire.CmdGetSensorReading || c == wire.CmdGetStateSensor || c == wire.CmdGetPDRInfo || c == wire.CmdGetPDR
	case wire.TypeFRU:
		return wire.FRUSides(c) != 0
	}
	switch c {
	case wire.CmdGetRackState, wire.CmdSetPolicies, wire.CmdGetPolicies, wire.CmdSetLED, wire.CmdReadEvents, wire.CmdSetTime, wire.CmdGetTime,
		wire.CmdGetFirmware, wire.CmdRestart:
		return true
	}
	return false
}

// Handle answers a PLDM request to the RMC.
func (r *Rack) Handle(_ wire.Side, req, resp []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, p, err := wire.ParseHeader(req)
	if err != nil || !h.Request {
		return resp
	}
	if out, ok := base(h, p, resp, 1, func(kind uint8) (wire.Bits, uint32, bool) { return commands(kind, rmcCommand) }); ok {
		return out
	}
	fail := func(c wire.Code) []byte { return wire.AppendResponse(resp, h, c) }
	ok := func() []byte { return fail(wire.CodeSuccess) }
	switch h.Type {
	case wire.TypeOEM:
	case wire.TypeMonitor:
		return r.monitor(h, p, resp)
	case wire.TypeFRU:
		return identify(h, p, resp, Identity(0))
	default:
		return fail(wire.CodeInvalidType)
	}
	switch h.Command {
	case wire.CmdGetRackState:
		if len(p) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		return wire.AppendRackState(ok(), r.current())
	case wire.CmdSetPolicies:
		n, err := wire.ParsePolicies(p)
		if err != nil {
			return fail(codeOf(err))
		}
		if n.Generation > r.policies.Generation {
			r.policies = n
			r.state.PolicyGeneration = n.Generation
			r.state.BudgetMilliwatts = n.BudgetMilliwatts
			r.state.Flags &^= wire.RackPolicyUnset
			r.event(wire.EventPolicy, 0, 0, "policies accepted")
		}
		return wire.AppendGenerations(ok(), r.policies.Generation, r.policies.Generation)
	case wire.CmdGetPolicies:
		if len(p) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		return wire.AppendPolicies(ok(), &r.policies)
	case wire.CmdSetLED:
		slot, on, err := wire.ParseLED(p)
		if err != nil {
			return fail(codeOf(err))
		}
		if on {
			r.state.LEDMask |= 1 << slot
		} else {
			r.state.LEDMask &^= 1 << slot
		}
		return ok()
	case wire.CmdReadEvents:
		after, err := wire.ParseReadEvents(p)
		if err != nil {
			return fail(codeOf(err))
		}
		return readEvents(ok(), r.events, after)
	case wire.CmdSetTime:
		t, err := wire.ParseTime(p)
		if err != nil {
			return fail(codeOf(err))
		}
		r.ahead = int64(t) - time.Now().UnixMilli()
		r.state.Flags |= wire.RackClockSet
		return ok()
	case wire.CmdGetFirmware, wire.CmdRestart:
		if len(p) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		if h.Command == wire.CmdRestart {
			r.state.Resets++
			return ok()
		}
		return wire.AppendFirmware(ok(), wire.MakeText32(Firmware))
	case wire.CmdGetTime:
		if len(p) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		if r.state.Flags&wire.RackClockSet == 0 {
			return wire.AppendTime(ok(), 0)
		}
		return wire.AppendTime(ok(), uint64(time.Now().UnixMilli()+r.ahead))
	}
	return fail(wire.CodeUnsupported)
}

// current fills in what the RMC knows of the BMCs.
func (r *Rack) current() *wire.RackState {
	s := &r.state
	s.AnswerMask, s.GrantedMilliwatts = 0, 0
	for slot, b := range r.BMCs {
		if !b.Faults().Silent {
			s.AnswerMask |= 1 << slot
			s.SlotAgeMillis[slot-1] = 20
			s.GrantedMilliwatts += b.State().GrantMilliwatts
		}
	}
	return s
}

var rmcPDRs = []wire.PDR{
	{Type: wire.PDRNumericSensor, ID: wire.SensorPower, Entity: wire.EntitySystemChassis, Unit: wire.UnitWatts, Modifier: -3, Size: wire.SizeUint32, Max: 200_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorVoltage, Entity: wire.EntitySystemChassis, Unit: wire.UnitVolts, Modifier: -3, Size: wire.SizeUint32, Max: 30_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorTemperature, Entity: wire.EntitySystemChassis, Unit: wire.UnitCelsius, Modifier: -3, Size: wire.SizeSint32, Min: -40_000, Max: 150_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorEnergy, Entity: wire.EntitySystemChassis, Unit: wire.UnitJoules, Size: wire.SizeUint32, Max: 1<<32 - 1},
	{Type: wire.PDRNumericSensor, ID: wire.SensorFan, Entity: wire.EntityFan, Unit: wire.UnitRPM, Size: wire.SizeUint16, Max: 10_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorFan + 1, Entity: wire.EntityFan, Instance: 1, Unit: wire.UnitRPM, Size: wire.SizeUint16, Max: 10_000},
}

func (r *Rack) monitor(h wire.Header, p, resp []byte) []byte {
	fail := func(c wire.Code) []byte { return wire.AppendResponse(resp, h, c) }
	switch h.Command {
	case wire.CmdGetSensorReading:
		id, err := wire.ParseGetSensorReadingRequest(p)
		if err != nil {
			return fail(codeOf(err))
		}
		v := wire.Reading{Size: wire.SizeUint32, Present: wire.ReadingNormal}
		switch {
		case id == wire.SensorPower:
			v.Value = int64(r.state.Milliwatts)
		case id == wire.SensorVoltage:
			v.Value = int64(r.state.SupplyMillivolts)
		case id == wire.SensorTemperature:
			v.Size, v.Value = wire.SizeSint32, int64(r.state.InletMilliCelsius)
		case id == wire.SensorEnergy:
			v.Value = int64(uint32(r.state.Millijoules / 1000))
		case id >= wire.SensorFan && id < wire.SensorFan+uint16(r.state.FanCount):
			v.Size, v.Value = wire.SizeUint16, int64(r.state.Fans[id-wire.SensorFan].RPM)
		default:
			return fail(wire.CodeInvalidSensor)
		}
		return wire.AppendReading(fail(wire.CodeSuccess), v)
	case wire.CmdGetStateSensor:
		id, err := wire.ParseGetStateSensorRequest(p)
		if err != nil {
			return fail(codeOf(err))
		}
		if id <= wire.SensorPresence || id > wire.SensorPresence+wire.MaxSlots {
			return fail(wire.CodeInvalidSensor)
		}
		v := wire.PresenceNotPresent
		if r.state.PresentMask&(1<<(id-wire.SensorPresence)) != 0 {
			v = wire.PresencePresent
		}
		return wire.AppendStateReading(fail(wire.CodeSuccess), wire.SensorEnabled, v)
	}
	return pdrs(h, p, resp, rmcPDRs)
}
