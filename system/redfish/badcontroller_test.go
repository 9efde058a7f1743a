package redfish_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
)

// TestBadControllers: BMCs that are silent, slow, garble what they say, say that they are somebody else or that they cannot, become
// unavailable with an age that rises, and back; the one that is well stays fresh and is written to in time meanwhile.
func TestBadControllers(t *testing.T) {
	liar := func(req wire.Header, resp []byte) []byte {
		if req.Command != wire.CmdGetUnitState || req.Type != wire.TypeOEM {
			return resp
		}
		s := wire.UnitState{Slot: 9, BootSlot: wire.SlotNone, BootOverride: wire.SlotNone, Milliwatts: 66_000}
		return wire.AppendUnitState(wire.AppendResponse(nil, req, wire.CodeSuccess), &s)
	}
	bad := map[uint8]wiretest.Faults{
		1: {Silent: true}, 2: {Delay: time.Second}, 3: {Corrupt: true}, 4: {Lie: liar}, 5: {Code: wire.CodeError},
		6: {Lie: func(_ wire.Header, resp []byte) []byte { return append(resp, make([]byte, 3000)...) }}, // it babbles
	}
	s := start(t, description(7, "Off"))
	for slot, f := range bad {
		s.rack.BMCs[slot].SetFaults(f)
	}
	name := func(slot uint8) string { return "unit-" + string(rune('0'+slot)) }
	type state struct {
		Status struct{ State string }
		Oem    struct {
			Racklet struct {
				AgeSeconds, Watts float64
				Available         bool
			}
		}
	}
	read := func(slot uint8) (v state) {
		t.Helper()
		s.get("/redfish/v1/Systems/"+name(slot), &v)
		return v
	}
	for slot := range bad {
		s.until(name(slot)+" is unavailable", func() bool {
			v := read(slot)
			return v.Status.State == "UnavailableOffline" && !v.Oem.Racklet.Available && v.Oem.Racklet.AgeSeconds >= 3
		})
		if v := read(slot); v.Oem.Racklet.Watts > 60 {
			t.Errorf("%s: the lie is believed: %+v", name(slot), v)
		}
		begin := read(slot).Oem.Racklet.AgeSeconds
		s.until("the age of "+name(slot)+" rises", func() bool { return read(slot).Oem.Racklet.AgeSeconds > begin })
		if resp, b := s.do("POST", "/redfish/v1/Systems/"+name(slot)+"/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`); resp.StatusCode < 400 || firstMessage(t, b).Resolution == "" {
			t.Errorf("%s is switched on: %d %s", name(slot), resp.StatusCode, b)
		} else if (resp.StatusCode == http.StatusServiceUnavailable) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %d, Retry-After %q", name(slot), resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	// A polled controller answers four times a second: an age of seconds would be the others' doing.
	s.until("the one that is well is fresh", func() bool {
		v := read(7)
		return v.Status.State == "StandbyOffline" && v.Oem.Racklet.AgeSeconds < 1.5
	})
	if resp, b := s.do("POST", "/redfish/v1/Systems/unit-7/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`); resp.StatusCode != 204 {
		t.Errorf("the one that is well: %d %s", resp.StatusCode, b)
	}
	s.until("it runs", func() bool { return s.system("unit-7").Oem.Racklet.Stage == "running" })
	for slot := range bad {
		s.rack.BMCs[slot].SetFaults(wiretest.Faults{})
	}
	for slot := range bad {
		s.until(name(slot)+" is back", func() bool { v := read(slot); return v.Oem.Racklet.Available && v.Oem.Racklet.AgeSeconds < 2.5 })
	}
}
