package rmc_test

import (
	"testing"
	"unsafe"

	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
)

// The package comment promises a bound.
func TestMemory(t *testing.T) {
	if n := unsafe.Sizeof(rmc.RMC{}); n > 64<<10 {
		t.Errorf("an RMC takes %d bytes", n)
	} else {
		t.Logf("an RMC takes %d bytes", n)
	}
}

func TestBaseCommands(t *testing.T) {
	g := newRig(t).start()
	if code, out := g.call(wire.TypeBase, wire.CmdGetTID, nil); code != wire.CodeSuccess || len(out) != 1 || out[0] != uint8(wire.EIDRMC) {
		t.Errorf("GetTID: %v % x", code, out)
	}
	for tid, want := range map[uint8]wire.Code{0: wire.CodeInvalidData, 0xFF: wire.CodeInvalidData, 77: wire.CodeSuccess} {
		if code, _ := g.call(wire.TypeBase, wire.CmdSetTID, wire.AppendTID(nil, tid)); code != want {
			t.Errorf("SetTID %d: %v, want %v", tid, code, want)
		}
	}
	if _, out := g.call(wire.TypeBase, wire.CmdGetTID, nil); len(out) != 1 || out[0] != 77 {
		t.Errorf("GetTID after SetTID 77: % x", out)
	}
	code, out := g.call(wire.TypeBase, wire.CmdGetTypes, nil)
	types, err := wire.ParseGetTypesResponse(out)
	if code != wire.CodeSuccess || err != nil || !types.Has(wire.TypeBase) || !types.Has(wire.TypeMonitor) || !types.Has(wire.TypeOEM) || !types.Has(wire.TypeFRU) || types.Has(wire.TypeUpdate) {
		t.Errorf("GetTypes: %v % x", code, out)
	}
	for kind, version := range map[uint8]uint32{wire.TypeBase: wire.VersionBase, wire.TypeMonitor: wire.VersionMonitor, wire.TypeFRU: wire.VersionFRU, wire.TypeOEM: wire.VersionOEM} {
		code, out := g.call(wire.TypeBase, wire.CmdGetVersion, wire.AppendGetVersionRequest(nil, kind))
		if v, err := wire.ParseGetVersionResponse(out); code != wire.CodeSuccess || err != nil || v != version {
			t.Errorf("GetVersion %d: %v %x %v", kind, code, v, err)
		}
		code, out = g.call(wire.TypeBase, wire.CmdGetCommands, wire.AppendGetCommandsRequest(nil, kind, version))
		set, err := wire.ParseGetCommandsResponse(out)
		if code != wire.CodeSuccess || err != nil {
			t.Fatalf("GetCommands %d: %v %v", kind, code, err)
		}
		for c := range 256 { // what is listed is known, what is not is not
			code, _ := g.call(kind, uint8(c), []byte{1, 2, 3, 4, 5, 6, 7})
			if known := code != wire.CodeUnsupported; known != set.Has(uint8(c)) {
				t.Errorf("type %d command %#x: %v, listed %v", kind, c, code, set.Has(uint8(c)))
			}
		}
	}
	for name, c := range map[string]struct {
		kind, command uint8
		req           []byte
		want          wire.Code
	}{
		"unknown type":          {wire.TypeUpdate, 1, nil, wire.CodeInvalidType},
		"GetTID with data":      {wire.TypeBase, wire.CmdGetTID, []byte{1}, wire.CodeInvalidLength},
		"version of no type":    {wire.TypeBase, wire.CmdGetVersion, wire.AppendGetVersionRequest(nil, 9), wire.CodeBaseUnknownType},
		"short request":         {wire.TypeBase, wire.CmdGetVersion, []byte{1}, wire.CodeInvalidLength},
		"commands, old version": {wire.TypeBase, wire.CmdGetCommands, wire.AppendGetCommandsRequest(nil, wire.TypeOEM, 1), wire.CodeBaseUnknownVersion},
		"commands of no type":   {wire.TypeBase, wire.CmdGetCommands, wire.AppendGetCommandsRequest(nil, 9, 1), wire.CodeBaseUnknownType},
		"time zero":             {wire.TypeOEM, wire.CmdSetTime, wire.AppendTime(nil, 0), wire.CodeInvalidData},
		"time of a far future":  {wire.TypeOEM, wire.CmdSetTime, wire.AppendTime(nil, 1<<60), wire.CodeInvalidData},
		"no such sensor":        {wire.TypeMonitor, wire.CmdGetSensorReading, wire.AppendGetSensorReadingRequest(nil, 0x22), wire.CodeInvalidSensor},
		"no such slot":          {wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, wire.SensorPresence+6), wire.CodeInvalidSensor},
		"slot zero":             {wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, wire.SensorPresence), wire.CodeInvalidSensor},
		"no such record":        {wire.TypeMonitor, wire.CmdGetPDR, wire.AppendGetPDR(nil, 12), wire.CodeInvalidRecord},
	} {
		if code, _ := g.call(c.kind, c.command, c.req); code != c.want {
			t.Errorf("%s: %v, want %v", name, code, c.want)
		}
	}
}

// An RMC has no unit: nothing is accepted from an in-band side.
func TestNothingInBand(t *testing.T) {
	g := newRig(t).start()
	for _, kind := range []uint8{wire.TypeBase, wire.TypeMonitor, wire.TypeOEM} {
		for c := range 256 {
			resp := make([]byte, wire.MaxMessage)
			n := g.r.Handle(wire.SideInBand, g.now, wire.AppendRequest(nil, 1, kind, uint8(c)), resp)
			if _, code, _, err := wire.ParseResponse(resp[:n]); err != nil || code != wire.CodeWrongSide && code != wire.CodeUnsupported {
				t.Errorf("type %d command %#x in-band: %v, %v", kind, c, code, err)
			}
		}
	}
}

// Every sensor of the PDR repository can be read, each once, and a lost one is unavailable instead of zero.
func TestSensors(t *testing.T) {
	g := newRig(t).start()
	g.want(1)
	g.run(5_000)
	g.present[4] = false
	g.run(100)
	code, out := g.call(wire.TypeMonitor, wire.CmdGetPDRInfo, nil)
	info, err := wire.ParsePDRInfo(out)
	if code != wire.CodeSuccess || err != nil || info.Records != 4+2+5 {
		t.Fatalf("%v %+v %v", code, info, err)
	}
	want := map[uint16]int64{wire.SensorPower: 5_000, wire.SensorVoltage: 20_000, wire.SensorEnergy: int64(g.r.State().Millijoules / 1000), wire.SensorTemperature: 23_000, wire.SensorFan: 1_900, wire.SensorFan + 1: 1_900}
	seen := map[uint16]bool{}
	var size uint32
	for handle := uint32(0); ; {
		code, out := g.call(wire.TypeMonitor, wire.CmdGetPDR, wire.AppendGetPDR(nil, handle))
		next, record, err := wire.ParseGetPDRResponse(out)
		if code != wire.CodeSuccess || err != nil {
			t.Fatal(code, err)
		}
		size += uint32(len(record))
		_, p, err := wire.ParsePDR(record)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p.ID] {
			t.Errorf("sensor %#x twice", p.ID)
		}
		seen[p.ID] = true
		if p.Type == wire.PDRStateSensor {
			code, out := g.call(wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, p.ID))
			operational, state, err := wire.ParseStateReading(out)
			present := wire.PresencePresent
			if p.Instance == 5 {
				present = wire.PresenceNotPresent
			}
			if code != wire.CodeSuccess || err != nil || operational != wire.SensorEnabled || state != present {
				t.Errorf("presence of slot %d: %v, %d, %v", p.Instance, code, state, err)
			}
		} else if v := reading(g, p.ID); v.Operational != wire.SensorEnabled || v.Value != want[p.ID] || v.Size != p.Size || v.Value < p.Min || v.Value > p.Max {
			t.Errorf("sensor %#x: %+v, want %d", p.ID, v, want[p.ID])
		}
		if next == 0 {
			break
		}
		handle = next
	}
	if uint32(len(seen)) != info.Records || size != info.Size {
		t.Errorf("%d records of %d bytes, announced %+v", len(seen), size, info)
	}
	g.inletLost, g.powerLost, g.fansLost = true, true, true
	g.run(1_000)
	for id := range want {
		if v := reading(g, id); v.Operational != wire.SensorUnavailable {
			t.Errorf("lost sensor %#x: %+v", id, v)
		}
	}
}

func reading(g *rig, id uint16) wire.Reading {
	g.t.Helper()
	code, out := g.call(wire.TypeMonitor, wire.CmdGetSensorReading, wire.AppendGetSensorReadingRequest(nil, id))
	v, err := wire.ParseReading(out)
	if code != wire.CodeSuccess || err != nil {
		g.t.Fatalf("sensor %#x: %v %v", id, code, err)
	}
	return v
}

// Whatever comes in on whichever line: no panic, answers that parse, grants within the budget.
func FuzzLines(f *testing.F) {
	g := newRig(f).start()
	g.ask(wire.EIDRMC, wire.CmdGetRackState, nil)
	f.Add([]byte{0x7E, 1, 4, 1, 8, 9, 0xC8, 0, 0, 0x7E}, true)
	f.Add(wire.AppendControlRequest(nil, 1, wire.CtlGetEndpointID), false)
	for _, command := range []uint8{wire.CmdSetPolicies, wire.CmdReadEvents, wire.CmdGetRackState} {
		p := rmc.DefaultPolicies()
		body := wire.AppendPolicies(wire.AppendRequest(nil, 1, wire.TypeOEM, command), &p)
		frames, err := wire.AppendMessage(nil, 0, wire.Address{Dest: wire.EIDRMC, Source: wire.EIDManagement, Tag: 1, TagOwner: true}, wire.MessagePLDM, body, 64)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frames, true)
	}
	f.Fuzz(func(t *testing.T, p []byte, line bool) {
		g := newRig(t).start()
		g.want(1, 2)
		g.run(300)
		g.answersOf()
		if line {
			g.r.Management(p)
		} else {
			g.r.Bus(p)
		}
		g.run(300)
		g.answersOf() // fails the test when a frame does not parse
		if s := g.r.State(); s.GrantedMilliwatts > s.BudgetMilliwatts {
			t.Fatalf("%+v", s)
		}
	})
}

func FuzzHandle(f *testing.F) {
	for _, r := range []uint8{wire.CmdGetRackState, wire.CmdSetPolicies, wire.CmdReadEvents, wire.CmdSetLED} {
		f.Add(uint8(wire.SideBus), append(wire.AppendRequest(nil, 1, wire.TypeOEM, r), 1, 2, 3, 4))
	}
	g := newRig(f).start()
	f.Fuzz(func(t *testing.T, side uint8, req []byte) {
		resp := make([]byte, wire.MaxMessage)
		n := g.r.Handle(wire.Side(side), g.now, req, resp)
		if n == 0 {
			return
		}
		if _, _, _, err := wire.ParseResponse(resp[:n]); err != nil {
			t.Fatalf("% x was answered with % x: %v", req, resp[:n], err)
		}
	})
}
