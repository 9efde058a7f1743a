package bmc

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// valid is a well-formed request of every command there is, so that what is refused is refused for its side alone.
func valid(r *rig, kind, command uint8) []byte {
	var digest [32]byte
	switch kind {
	case wire.TypeBase:
		switch command {
		case wire.CmdGetVersion:
			return wire.AppendGetVersionRequest(nil, wire.TypeBase)
		case wire.CmdGetCommands:
			return wire.AppendGetCommandsRequest(nil, wire.TypeBase, wire.VersionBase)
		}
	case wire.TypeMonitor:
		switch command {
		case wire.CmdGetSensorReading:
			return wire.AppendGetSensorReadingRequest(nil, wire.SensorPower)
		case wire.CmdGetStateSensor:
			return wire.AppendGetStateSensorRequest(nil, wire.SensorBoot)
		case wire.CmdSetNumericEffecter:
			return wire.AppendSetNumericEffecter(nil, wire.EffecterCap, wire.SizeUint32, 7_000)
		case wire.CmdGetNumericEffecter:
			return wire.AppendEffecterID(nil, wire.EffecterCap)
		case wire.CmdSetStateEffecter:
			return wire.AppendSetStateEffecter(nil, wire.EffecterIdentify, wire.IdentifyAsserted)
		case wire.CmdGetStateEffecter:
			return wire.AppendEffecterID(nil, wire.EffecterPower)
		case wire.CmdGetPDR:
			return wire.AppendGetPDR(nil, 0)
		}
	case wire.TypeFRU:
		if command == wire.CmdGetFRUTable {
			return wire.AppendGetFRUTable(nil)
		}
	case wire.TypeOEM:
		switch command {
		case wire.CmdGetBootConfig:
			return wire.AppendOffset(nil, 0)
		case wire.CmdReportStage:
			return wire.AppendReportStage(nil, wire.StageNetwork, &wire.Failure{})
		case wire.CmdExtendMeasurement:
			return wire.AppendExtendMeasurement(nil, 8, &digest, []byte("tree"))
		case wire.CmdSetKeyRegister, wire.CmdGetEvidence:
			return digest[:]
		case wire.CmdRaiseFloors:
			return wire.AppendBytes(nil, r.statement(1, 1, 1, owners[0], owners[1]))
		case wire.CmdSetDesired:
			return wire.AppendDesired(nil, &wire.Desired{Generation: 99, Mask: wire.DesiredLED, LED: true, BootSlot: wire.SlotNone})
		case wire.CmdReadEvents:
			return wire.AppendReadEvents(nil, 0)
		case wire.CmdReadConsole:
			return wire.AppendReadConsole(nil, 0)
		case wire.CmdWriteConsole:
			return wire.AppendBytes(nil, []byte("hello"))
		case wire.CmdSlotErase:
			return wire.AppendSlotErase(nil, testImageSize)
		case wire.CmdSlotWrite:
			return wire.AppendSlotWrite(nil, 0, make([]byte, 512))
		case wire.CmdSlotCommit:
			return wire.AppendSlotCommit(nil, 1000, 0, make([]byte, 512))
		case wire.CmdGrantPower:
			return wire.AppendGrant(nil, 5)
		case wire.CmdHeartbeat:
			return wire.AppendReport(nil, &wire.Report{})
		case wire.CmdSetInventory:
			return wire.AppendInventory(nil, &wire.Inventory{})
		case wire.CmdSetTime:
			return wire.AppendTime(nil, 1_800_000_000_000)
		case wire.CmdReset:
			return wire.AppendReset(nil, wire.ResetForceOff)
		}
	}
	return nil
}

// TestSides sends every command of every type from every side: 3 × 64 × 256 messages. What the wire package says about
// a side is what the BMC does, and a message from the wrong side changes nothing.
func TestSides(t *testing.T) {
	allowed := func(kind, command uint8) wire.SideMask {
		switch kind {
		case wire.TypeBase:
			switch command {
			case wire.CmdGetTID, wire.CmdGetVersion, wire.CmdGetTypes, wire.CmdGetCommands:
				return wire.FromAll
			}
		case wire.TypeMonitor:
			return wire.MonitorSides(command)
		case wire.TypeFRU:
			return wire.FRUSides(command)
		case wire.TypeOEM:
			return wire.Sides(command)
		}
		return 0
	}
	for side := wire.SideInBand; side <= wire.SideDebug; side++ {
		r := newRig(t)
		r.runUnit()
		if side == wire.SideInBand {
			img := testImage(testImageSize, "3.0")
			r.offer(signed(t, manifestFor(img, "3.0", 7), owners[0], owners[1]))
		}
		if r.b.stageErase(side, testImageSize) != wire.CodeSuccess { // so that SlotWrite and SlotCommit have a session
			t.Fatal("no session")
		}
		accepted := 0
		for kind := range 64 {
			for command := range 256 {
				k, c := uint8(kind), uint8(command)
				if k == wire.TypeOEM && c == wire.CmdReset {
					continue // below: it ends the boot that the others need
				}
				r.b.handedOver = false // GetBootConfig is for stage 1: TestBootConfigIsForStage1
				before := r.b.UnitState()
				registers := r.b.registers
				staged := r.b.staging.manifest + r.b.staging.next
				code, rest := r.callType(side, k, c, valid(r, k, c))
				sides := allowed(k, c)
				switch {
				case sides.Has(side):
					accepted++
					if code != wire.CodeSuccess {
						t.Errorf("%v, type %#x, command %#x: %v", side, k, c, code)
					}
					continue
				case k == wire.TypeOEM && sides != 0:
					if code != wire.CodeWrongSide || len(rest) != 0 {
						t.Errorf("%v, type %#x, command %#x: %v, want wrong side", side, k, c, code)
					}
				case k == wire.TypeBase || k == wire.TypeMonitor || k == wire.TypeFRU || k == wire.TypeOEM:
					if code != wire.CodeUnsupported {
						t.Errorf("%v, type %#x, command %#x: %v, want unsupported", side, k, c, code)
					}
				default:
					if code != wire.CodeInvalidType {
						t.Errorf("%v, type %#x, command %#x: %v, want invalid type", side, k, c, code)
					}
				}
				if r.b.UnitState() != before || r.b.registers != registers || r.b.staging.manifest+r.b.staging.next != staged {
					t.Errorf("%v, type %#x, command %#x: refused, and yet something changed", side, k, c)
				}
			}
		}
		code, _ := r.call(side, wire.CmdReset, valid(r, wire.TypeOEM, wire.CmdReset))
		if ok := wire.Sides(wire.CmdReset).Has(side); ok != (code == wire.CodeSuccess) || ok == r.sw.on {
			t.Errorf("%v: reset: %v", side, code)
		}
		if accepted < 20 {
			t.Errorf("%v: only %d commands accepted", side, accepted)
		}
	}
}

// TestCommandsAreTold: GetPLDMCommands tells each side exactly what it may send.
func TestCommandsAreTold(t *testing.T) {
	r := newRig(t)
	r.step(1)
	for side := wire.SideInBand; side <= wire.SideDebug; side++ {
		for _, v := range versions {
			code, rest := r.callType(side, wire.TypeBase, wire.CmdGetCommands, wire.AppendGetCommandsRequest(nil, v.kind, v.version))
			told, err := wire.ParseGetCommandsResponse(rest)
			if code != wire.CodeSuccess || err != nil {
				t.Fatal(code, err)
			}
			for c := range 256 {
				code, _ := r.callType(side, v.kind, uint8(c), nil)
				if known := code != wire.CodeUnsupported && (v.kind != wire.TypeOEM || code != wire.CodeWrongSide); known != told.Has(uint8(c)) {
					t.Errorf("%v, type %#x, command %#x: told %v, answers %v", side, v.kind, c, told.Has(uint8(c)), code)
				}
			}
		}
	}
}

// TestRulesAreOrdered keeps the table readable.
func TestRulesAreOrdered(t *testing.T) {
	for i := 1; i < len(rules); i++ {
		a, b := &rules[i-1], &rules[i]
		if a.kind > b.kind || a.kind == b.kind && a.command >= b.command {
			t.Errorf("command %#x of type %#x is out of order", b.command, b.kind)
		}
	}
}

// TestUnitMayNotSpeakWhileItIsOff: what claims to come from a unit without power does not come from the unit.
func TestUnitMayNotSpeakWhileItIsOff(t *testing.T) {
	r := newRig(t)
	r.step(5)
	for _, c := range []uint8{wire.CmdReportStage, wire.CmdExtendMeasurement, wire.CmdSetKeyRegister, wire.CmdHeartbeat, wire.CmdSetInventory} {
		if code, _ := r.call(wire.SideInBand, c, valid(r, wire.TypeOEM, c)); code != wire.CodeNotReady {
			t.Errorf("command %#x: %v", c, code)
		}
	}
}
