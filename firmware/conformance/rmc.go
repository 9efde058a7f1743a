package conformance

import (
	"bytes"
	"io"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// RMCLines are the lines of an RMC.
type RMCLines struct {
	Management io.ReadWriter // where the management computer is
	Present    []uint8       // slots whose BMCs answer behind it
	Empty      uint8         // a slot without a BMC; 0: none
}

var rmcCommands = map[uint8]bool{
	wire.CmdGetRackState: true, wire.CmdSetPolicies: true, wire.CmdSetLED: true, wire.CmdGetPolicies: true,
	wire.CmdReadEvents: true, wire.CmdSetTime: true, wire.CmdGetTime: true, wire.CmdGetFirmware: true, wire.CmdRestart: true,
}

// RMC holds an RMC against the wire.
func RMC(t *testing.T, l RMCLines) {
	p := newProbe("management", l.Management, wire.EIDManagement, wire.EIDRMC, 0, wire.SideBus)
	t.Run("discovery", func(t *testing.T) {
		discovery(t, p, func(kind, c uint8) bool {
			switch kind {
			case wire.TypeBase:
				return c >= wire.CmdSetTID && c <= wire.CmdGetCommands
			case wire.TypeMonitor:
				return c == wire.CmdGetSensorReading || c == wire.CmdGetStateSensor || c == wire.CmdGetPDRInfo || c == wire.CmdGetPDR
			case wire.TypeFRU:
				return c == wire.CmdGetFRUMetadata || c == wire.CmdGetFRUTable
			}
			return rmcCommands[c]
		})
	})
	t.Run("garbage", func(t *testing.T) {
		for c := range uint8(0x40) {
			code, _ := p.ask(t, wire.TypeOEM, c, bytes.Repeat([]byte{0xFF}, 200))
			if rmcCommands[c] && code != wire.CodeInvalidLength && code != wire.CodeInvalidData || !rmcCommands[c] && code != wire.CodeUnsupported {
				t.Errorf("command 0x%02x with garbage: %s (0x%02x)", c, code, uint8(code))
			}
		}
	})
	t.Run("state", func(t *testing.T) {
		s := rackState(t, p)
		for _, slot := range l.Present {
			if s.PresentMask&(1<<slot) == 0 {
				t.Errorf("slot %d is not present: %b", slot, s.PresentMask)
			}
		}
		if l.Empty != 0 && s.AnswerMask&(1<<l.Empty) != 0 {
			t.Errorf("empty slot %d answers", l.Empty)
		}
		again := rackState(t, p)
		if again.Millijoules < s.Millijoules || again.UptimeMillis < s.UptimeMillis || again.LastEvent < s.LastEvent {
			t.Error("a counter went back")
		}
		until(t, "all present slots answer", func() bool {
			s := rackState(t, p)
			for _, slot := range l.Present {
				if s.AnswerMask&(1<<slot) == 0 {
					return false
				}
			}
			return true
		})
	})
	t.Run("sensors", func(t *testing.T) {
		all := records(t, p)
		need(t, all, wire.PDRNumericSensor, wire.SensorPower, "power")
		need(t, all, wire.PDRNumericSensor, wire.SensorTemperature, "inlet temperature")
		for i := range rackState(t, p).FanCount {
			need(t, all, wire.PDRNumericSensor, wire.SensorFan+uint16(i), "fan")
		}
	})
	t.Run("identity", func(t *testing.T) { identity(t, p) })
	t.Run("policies", func(t *testing.T) { rmcPolicies(t, p) })
	t.Run("LEDs", func(t *testing.T) {
		for _, slot := range l.Present {
			for _, on := range []bool{true, false} {
				p.oem(t, wire.CmdSetLED, wire.AppendLED(nil, slot, on))
				if lit := rackState(t, p).LEDMask&(1<<slot) != 0; lit != on {
					t.Errorf("LED of slot %d: %v, want %v", slot, lit, on)
				}
			}
		}
		p.want(t, wire.CodeInvalidData, wire.TypeOEM, wire.CmdSetLED, []byte{0, 1})
	})
	t.Run("events", func(t *testing.T) { ring(t, p) })
	t.Run("clock", func(t *testing.T) { clock(t, p) })
	t.Run("bridge", func(t *testing.T) {
		for _, slot := range l.Present {
			q := *p
			q.dest = wire.BMC(slot)
			if s := unitState(t, &q); s.Slot != slot {
				t.Errorf("behind slot %d is a BMC that says %d", slot, s.Slot)
			}
			ring(t, &q) // answers of several packets
			p.instance, p.tag = q.instance, q.tag
		}
		if l.Empty != 0 {
			p.send(t, wire.BMC(l.Empty), wire.MessagePLDM, wire.AppendRequest(nil, 1, wire.TypeBase, wire.CmdGetTID), wire.BaselineUnit)
			p.silent(t, "a request to an empty slot")
		}
	})
	t.Run("damage", func(t *testing.T) { damage(t, p) })
}

func rackState(t testing.TB, p *probe) wire.RackState {
	t.Helper()
	s, err := wire.ParseRackState(p.oem(t, wire.CmdGetRackState, nil))
	if err != nil {
		t.Fatalf("rack state: %v", err)
	}
	return s
}

func rmcPolicies(t *testing.T, p *probe) {
	get := func() wire.Policies {
		t.Helper()
		v, err := wire.ParsePolicies(p.oem(t, wire.CmdGetPolicies, nil))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	was := get()
	want := was
	want.Generation += 2
	want.ThrottleMilliCelsius, want.ShutdownMilliCelsius = 71_000, 81_000
	desired, _, err := wire.ParseGenerations(p.oem(t, wire.CmdSetPolicies, wire.AppendPolicies(nil, &want)))
	if err != nil || desired != want.Generation {
		t.Errorf("generation %d after setting %d: %v", desired, want.Generation, err)
	}
	if got := get(); got != want {
		t.Errorf("policies read back as %+v, want %+v", got, want)
	}
	if s := rackState(t, p); s.PolicyGeneration != want.Generation || s.BudgetMilliwatts != want.BudgetMilliwatts || s.Flags&wire.RackPolicyUnset != 0 {
		t.Errorf("the state does not follow: %+v", s)
	}
	old := want
	old.Generation--
	old.ThrottleMilliCelsius = 60_000
	p.oem(t, wire.CmdSetPolicies, wire.AppendPolicies(nil, &old))
	if got := get(); got != want {
		t.Errorf("an older generation took effect: %+v", got)
	}
	bad := want
	bad.Generation++
	bad.ShutdownMilliCelsius = bad.ThrottleMilliCelsius
	p.want(t, wire.CodeInvalidData, wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &bad))
	was.Generation = want.Generation + 1
	p.oem(t, wire.CmdSetPolicies, wire.AppendPolicies(nil, &was))
}
