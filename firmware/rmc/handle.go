package rmc

import "github.com/racklet/racklet/firmware/wire"

// operator is from where an RMC takes commands: the management computer's line and the debug port. It has no unit.
const operator = wire.FromBus | wire.FromDebug

// maxTime is the year 9999, in Unix milliseconds.
const maxTime = 253_402_300_800_000

// rule is one command. It appends its answer's payload to dst, which holds header and completion code already.
type rule struct {
	kind, command uint8
	handle        func(r *RMC, req, dst []byte) ([]byte, wire.Code)
}

var rules = [...]rule{
	{wire.TypeBase, wire.CmdSetTID, setTID},
	{wire.TypeBase, wire.CmdGetTID, getTID},
	{wire.TypeBase, wire.CmdGetVersion, getVersion},
	{wire.TypeBase, wire.CmdGetTypes, getTypes},
	{wire.TypeBase, wire.CmdGetCommands, nil}, // walks this table
	{wire.TypeMonitor, wire.CmdGetSensorReading, getSensorReading},
	{wire.TypeMonitor, wire.CmdGetStateSensor, getStateSensor},
	{wire.TypeMonitor, wire.CmdGetPDRInfo, getPDRInfo},
	{wire.TypeMonitor, wire.CmdGetPDR, getPDR},
	{wire.TypeFRU, wire.CmdGetFRUMetadata, getFRUMetadata},
	{wire.TypeFRU, wire.CmdGetFRUTable, getFRUTable},
	{wire.TypeOEM, wire.CmdReadEvents, readEvents},
	{wire.TypeOEM, wire.CmdSetTime, setTime},
	{wire.TypeOEM, wire.CmdGetTime, getTime},
	{wire.TypeOEM, wire.CmdGetRackState, getRackState},
	{wire.TypeOEM, wire.CmdSetPolicies, setPolicies},
	{wire.TypeOEM, wire.CmdGetPolicies, getPolicies},
	{wire.TypeOEM, wire.CmdSetLED, setLED},
	{wire.TypeOEM, wire.CmdGetFirmware, getFirmware},
	{wire.TypeOEM, wire.CmdRestart, restart},
}

// types are the PLDM types and their versions.
var types = [...]struct {
	kind    uint8
	version uint32
}{{wire.TypeBase, wire.VersionBase}, {wire.TypeMonitor, wire.VersionMonitor}, {wire.TypeFRU, wire.VersionFRU}, {wire.TypeOEM, wire.VersionOEM}}

func versionOf(kind uint8) (uint32, bool) {
	for _, t := range types {
		if t.kind == kind {
			return t.version, true
		}
	}
	return 0, false
}

// Handle takes one PLDM message that arrived from a side at a time in milliseconds and writes the response into resp,
// which should have room for wire.MaxMessage bytes and must not overlap req. It returns the response's length; 0 when
// there is none: for what is no request, or a datagram.
func (r *RMC) Handle(side wire.Side, now uint64, req, resp []byte) int {
	r.now = max(r.now, now)
	h, payload, err := wire.ParseHeader(req)
	if err != nil || !h.Request || len(resp) < wire.HeaderSize+1 {
		return 0
	}
	dst := wire.AppendResponse(resp[:0:len(resp)], h, wire.CodeSuccess)
	out, code := r.dispatch(side, &h, payload, dst)
	if h.Datagram {
		return 0
	}
	if len(out) > len(resp) { // the answer does not fit: it was built elsewhere
		out, code = dst, wire.CodeError
	}
	out[wire.HeaderSize] = byte(code)
	return len(out)
}

func (r *RMC) dispatch(side wire.Side, h *wire.Header, req, dst []byte) ([]byte, wire.Code) {
	if _, ok := versionOf(h.Type); !ok {
		return dst, wire.CodeInvalidType
	}
	for i := range rules {
		u := &rules[i]
		if u.kind != h.Type || u.command != h.Command {
			continue
		}
		switch {
		case !operator.Has(side) && h.Type == wire.TypeOEM:
			return dst, wire.CodeWrongSide
		case !operator.Has(side):
			return dst, wire.CodeUnsupported
		case u.handle == nil:
			return getCommands(req, dst)
		}
		return u.handle(r, req, dst)
	}
	return dst, wire.CodeUnsupported
}

// bad is the code for a request that does not parse.
func bad(err error) wire.Code {
	if err == wire.ErrShort || err == wire.ErrTrailing {
		return wire.CodeInvalidLength
	}
	return wire.CodeInvalidData
}

func empty(req []byte) wire.Code {
	if len(req) != 0 {
		return wire.CodeInvalidLength
	}
	return wire.CodeSuccess
}

func getFirmware(_ *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	return wire.AppendFirmware(dst, wire.MakeText32(Version)), wire.CodeSuccess
}

func restart(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	r.restart = true
	return dst, wire.CodeSuccess
}

// setTID takes a terminus ID until the next restart. 0 and FFh are reserved (DSP0240, 9.1).
func setTID(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	tid, err := wire.ParseTID(req)
	if err != nil {
		return dst, bad(err)
	}
	if tid == 0 || tid == 0xFF {
		return dst, wire.CodeInvalidData
	}
	r.tid = tid
	return dst, wire.CodeSuccess
}

func getTID(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	return wire.AppendTID(dst, r.tid), wire.CodeSuccess
}

func getVersion(_ *RMC, req, dst []byte) ([]byte, wire.Code) {
	flag, kind, err := wire.ParseGetVersionRequest(req)
	if err != nil {
		return dst, bad(err)
	}
	if flag != wire.TransferFirst {
		return dst, wire.CodeBaseInvalidTransfer
	}
	v, ok := versionOf(kind)
	if !ok {
		return dst, wire.CodeBaseUnknownType
	}
	return wire.AppendGetVersionResponse(dst, v), wire.CodeSuccess
}

func getTypes(_ *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	var set wire.Bits
	for _, t := range types {
		set.Set(t.kind)
	}
	return wire.AppendGetTypesResponse(dst, &set), wire.CodeSuccess
}

func getCommands(req, dst []byte) ([]byte, wire.Code) {
	kind, version, err := wire.ParseGetCommandsRequest(req)
	if err != nil {
		return dst, bad(err)
	}
	v, ok := versionOf(kind)
	if !ok {
		return dst, wire.CodeBaseUnknownType
	}
	if v != version {
		return dst, wire.CodeBaseUnknownVersion
	}
	var set wire.Bits
	for i := range rules {
		if rules[i].kind == kind {
			set.Set(rules[i].command)
		}
	}
	return wire.AppendGetCommandsResponse(dst, &set), wire.CodeSuccess
}

func readEvents(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	after, err := wire.ParseReadEvents(req)
	if err != nil {
		return dst, bad(err)
	}
	oldest := uint32(0)
	if r.eventHeld > 0 {
		oldest = r.eventSeq - uint32(r.eventHeld) + 1
	}
	w := wire.StartEvents(dst, oldest, r.eventSeq, min(cap(dst), wire.MaxMessage-1))
	if r.eventHeld > 0 && after < r.eventSeq {
		for seq := max(after+1, oldest); seq <= r.eventSeq; seq++ {
			if !w.Add(&r.events[seq%eventRing]) {
				break
			}
		}
	}
	return w.Bytes(), wire.CodeSuccess
}

func setTime(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	millis, err := wire.ParseTime(req)
	if err != nil {
		return dst, bad(err)
	}
	if millis == 0 || millis > maxTime {
		return dst, wire.CodeInvalidData
	}
	r.clock, r.clockSet = int64(millis)-int64(r.now), true
	return dst, wire.CodeSuccess
}

func getTime(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	millis := uint64(0)
	if r.clockSet {
		millis = r.time()
	}
	return wire.AppendTime(dst, millis), wire.CodeSuccess
}

func getRackState(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	s := r.State()
	return wire.AppendRackState(dst, &s), wire.CodeSuccess
}

// setPolicies takes new policies, once they are kept. A generation that is not newer changes nothing.
func setPolicies(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	p, err := wire.ParsePolicies(req)
	if err != nil {
		return dst, bad(err)
	}
	if r.unset || p.Generation > r.policy.Generation {
		if f := Check(&p); !f.IsZero() {
			r.event(wire.EventFailure, 0, 0, "policies refused", &f)
			return wire.AppendFailure(dst, &f), wire.CodeRefused
		}
		var buf [256]byte
		if !r.keep(recordPolicies, wire.AppendPolicies(buf[:0], &p)) {
			return dst, wire.CodeError
		}
		r.policy, r.unset = p, false
		r.decide()
		r.event(wire.EventPolicy, 0, 0, "generation "+number(p.Generation), nil)
	}
	return wire.AppendGenerations(dst, r.policy.Generation, r.policy.Generation), wire.CodeSuccess
}

func getPolicies(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	return wire.AppendPolicies(dst, &r.policy), wire.CodeSuccess
}

func setLED(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	slot, on, err := wire.ParseLED(req)
	if err != nil {
		return dst, bad(err)
	}
	if slot > r.cfg.Slots {
		return dst, wire.CodeInvalidData
	}
	before := r.leds
	if r.leds &^= 1 << slot; on {
		r.leds |= 1 << slot
	}
	if r.leds != before && !r.keepCounters() {
		r.leds = before
		return dst, wire.CodeError
	}
	if led := r.ports.LED[slot-1]; led != nil {
		led.Set(on)
	}
	return dst, wire.CodeSuccess
}
