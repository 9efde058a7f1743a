package redfish_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire/wiretest"
)

// TestOutlets: an outlet is a unit's load switch.
func TestOutlets(t *testing.T) {
	s := start(t, description(2, "Off"))
	const outlet = "/redfish/v1/PowerEquipment/RackPDUs/backplane/Outlets/slot-2"
	for _, c := range []struct{ order, state string }{{"On", "On"}, {"PowerCycle", "On"}, {"Off", "Off"}} {
		if resp, b := s.do("POST", outlet+"/Actions/Outlet.PowerControl", `{"PowerState":"`+c.order+`"}`); resp.StatusCode != 204 {
			t.Fatalf("%s: %d %s", c.order, resp.StatusCode, b)
		}
		s.until("the outlet is "+c.state, func() bool {
			var v struct {
				PowerState   string
				PowerEnabled bool
				PowerWatts   struct{ Reading float64 }
			}
			s.get(outlet, &v)
			return v.PowerState == c.state && v.PowerEnabled == (c.state == "On") && (v.PowerWatts.Reading > 0) == v.PowerEnabled
		})
	}
	if n := len(s.rack.BMCs[1].Resets()); n != 0 || s.system("unit-1").PowerState != "Off" {
		t.Errorf("the other unit: %d resets, %s", n, s.system("unit-1").PowerState)
	}
	if resp, b := s.do("POST", outlet+"/Actions/Outlet.PowerControl", `{"PowerState":"Dim"}`); resp.StatusCode != 400 {
		t.Errorf("Dim: %d %s", resp.StatusCode, b)
	}
	s.do("PATCH", outlet, `{"LocationIndicatorActive":true}`)
	if !s.system("unit-2").LocationIndicatorActive {
		t.Error("the light is not on")
	}
}

// TestManagers: what runs on the controllers, their time, their restart.
func TestManagers(t *testing.T) {
	s := start(t, description(2, "Off"))
	type manager struct {
		FirmwareVersion, DateTime, Manufacturer string
		etag                                    string
	}
	read := func(id string) (m manager) {
		t.Helper()
		resp, b := s.do("GET", "/redfish/v1/Managers/"+id, "")
		if err := json.Unmarshal(b, &m); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %d %s", id, resp.StatusCode, b)
		}
		m.etag = resp.Header.Get("ETag")
		return m
	}
	near := func(text string, want time.Time) bool {
		at, err := time.Parse(time.RFC3339, text)
		return err == nil && at.Sub(want).Abs() < time.Minute
	}
	for _, id := range []string{"rmc", "bmc-1", "bmc-2"} {
		s.until(id+" is known", func() bool {
			m := read(id)
			return m.FirmwareVersion == wiretest.Firmware && near(m.DateTime, time.Now()) && m.Manufacturer == "Acme"
		})
		for _, kind := range []string{"ForceRestart", "GracefulRestart"} {
			if resp, b := s.do("POST", "/redfish/v1/Managers/"+id+"/Actions/Manager.Reset", `{"ResetType":"`+kind+`"}`); resp.StatusCode != 204 {
				t.Errorf("%s %s: %d %s", id, kind, resp.StatusCode, b)
			}
		}
	}
	if n := s.rack.BMCs[1].Restarts(); n != 2 {
		t.Errorf("%d restarts of bmc-1", n)
	}
	if resp, _ := s.do("POST", "/redfish/v1/Managers/api/Actions/Manager.Reset", `{"ResetType":"ForceRestart"}`); resp.StatusCode != 404 {
		t.Errorf("the API restarts: %d", resp.StatusCode)
	}
	later := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	for body, want := range map[string]int{
		`{"DateTime":"yesterday"}`: 400, `{"DateTime":5}`: 400, `{"DateTime":"0001-01-01T00:00:00Z"}`: 400, `{"DateTime":"99999-01-01T00:00:00Z"}`: 400,
		`{"FirmwareVersion":"2"}`: 400, `{"DateTime":"` + later.Format(time.RFC3339) + `"}`: 200,
	} {
		if resp, b := s.do("PATCH", "/redfish/v1/Managers/bmc-1", body, "If-Match", read("bmc-1").etag); resp.StatusCode != want {
			t.Errorf("%s: %d %s", body, resp.StatusCode, b)
		}
	}
	for _, id := range []string{"rmc", "bmc-1", "bmc-2"} {
		if m := read(id); !near(m.DateTime, later) {
			t.Errorf("%s has %s, want about %s", id, m.DateTime, later)
		}
	}
	if at := time.UnixMilli(int64(s.rack.BMCs[2].Clock())); at.Sub(later).Abs() > time.Minute {
		t.Errorf("the clock of bmc-2 was set to %s", at)
	}
}

// TestGroups: groups are reset in batches, as tasks, and boot by default again; they survive restarts of the service.
func TestGroups(t *testing.T) {
	dir := t.TempDir()
	o := description(3, "Off")
	o.Dir = dir
	s := start(t, o)
	const service = "/redfish/v1/AggregationService"
	targets := `["/redfish/v1/Systems/unit-1","/redfish/v1/Systems/unit-2","/redfish/v1/Systems/unit-3"]`
	finish := func(resp *http.Response, b []byte) (code int) {
		t.Helper()
		if resp.StatusCode != 202 || !strings.HasPrefix(resp.Header.Get("Location"), "/redfish/v1/TaskService/Tasks/") {
			t.Fatalf("%d %q %s", resp.StatusCode, resp.Header.Get("Location"), b)
		}
		s.until("the task ends", func() bool {
			r, _ := s.do("GET", resp.Header.Get("Location"), "")
			code = r.StatusCode
			return code != 202
		})
		return code
	}
	on := func() (n int) {
		for _, id := range []string{"unit-1", "unit-2", "unit-3"} {
			if s.system(id).PowerState == "On" {
				n++
			}
		}
		return n
	}
	// A temporary group, one system at a time, a second between.
	begin := time.Now()
	resp, b := s.do("POST", service+"/Actions/AggregationService.Reset", `{"ResetType":"On","TargetURIs":`+targets+`,"BatchSize":1,"DelayBetweenBatchesInSeconds":1}`)
	if resp.StatusCode == 202 && on() == 3 && time.Since(begin) < time.Second {
		t.Error("all are on at once")
	}
	if code := finish(resp, b); code != 200 || time.Since(begin) < 2*time.Second {
		t.Errorf("%d after %s", code, time.Since(begin))
	}
	s.until("all are on", func() bool { return on() == 3 })
	// A persistent one.
	resp, b = s.do("POST", service+"/Aggregates", `{"Name":"half","Elements":[{"@odata.id":"/redfish/v1/Systems/unit-1"}]}`)
	group := resp.Header.Get("Location")
	if resp.StatusCode != 201 || group == "" {
		t.Fatalf("%d %s", resp.StatusCode, b)
	}
	elements := func() string {
		var v struct {
			Name          string
			ElementsCount int
			Elements      []struct {
				ID string `json:"@odata.id"`
			}
		}
		s.get(group, &v)
		var ids []string
		for _, e := range v.Elements {
			ids = append(ids, strings.TrimPrefix(e.ID, "/redfish/v1/Systems/"))
		}
		if v.ElementsCount != len(ids) {
			t.Errorf("%d elements are counted of %v", v.ElementsCount, ids)
		}
		return v.Name + ": " + strings.Join(ids, " ")
	}
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/Actions/Aggregate.AddElements", `{"Elements":[{"@odata.id":"/redfish/v1/Systems/unit-3"},{"@odata.id":"/redfish/v1/Systems/unit-1"}]}`, "half: unit-1 unit-3"},
		{"POST", "/Actions/Aggregate.RemoveElements", `{"Elements":[{"@odata.id":"/redfish/v1/Systems/unit-1"}]}`, "half: unit-3"},
		{"PATCH", "", `{"Name":"two","Elements":[{"@odata.id":"/redfish/v1/Systems/unit-2"},{"@odata.id":"/redfish/v1/Systems/unit-3"}]}`, "two: unit-2 unit-3"},
	} {
		if resp, b := s.do(c.method, group+c.path, c.body); resp.StatusCode/100 != 2 || elements() != c.want {
			t.Errorf("%s %s: %d %s, %s", c.path, c.body, resp.StatusCode, b, elements())
		}
	}
	for _, id := range []string{"unit-1", "unit-2"} {
		s.do("PATCH", "/redfish/v1/Systems/"+id, `{"Boot":{"BootSourceOverrideEnabled":"Continuous","BootSourceOverrideTarget":"UefiTarget","UefiTargetBootSourceOverride":"SlotB"}}`)
	}
	if resp, b := s.do("POST", group+"/Actions/Aggregate.SetDefaultBootOrder", ""); resp.StatusCode != 204 {
		t.Errorf("default boot order: %d %s", resp.StatusCode, b)
	}
	if one, two := s.system("unit-1").Boot.BootSourceOverrideEnabled, s.system("unit-2").Boot.BootSourceOverrideEnabled; one != "Continuous" || two != "Disabled" {
		t.Errorf("override of unit-1 %s, of unit-2 %s", one, two)
	}
	resp, b = s.do("POST", service+"/Actions/AggregationService.SetDefaultBootOrder", `{"Systems":[{"@odata.id":"/redfish/v1/Systems/unit-1"}]}`)
	if now := s.system("unit-1").Boot.BootSourceOverrideEnabled; resp.StatusCode != 204 || now != "Disabled" {
		t.Errorf("%d %s: %s", resp.StatusCode, b, now)
	}
	// One that is silent does not keep the others.
	s.rack.BMCs[2].SetFaults(wiretest.Faults{Silent: true})
	resp, b = s.do("POST", group+"/Actions/Aggregate.Reset", `{"ResetType":"ForceOff"}`)
	if code := finish(resp, b); code < 400 {
		t.Errorf("with a silent BMC: %d", code)
	}
	s.until("unit-3 is off", func() bool { return s.system("unit-3").PowerState == "Off" })
	for body, want := range map[string]int{
		`{}`: 400, `{"ResetType":"On","TargetURIs":["/redfish/v1/Systems/unit-9"]}`: 400, `{"ResetType":"On","TargetURIs":"unit-1"}`: 400,
		`{"ResetType":"On","TargetURIs":[],"BatchSize":-1}`: 400, `{"ResetType":"Nap","TargetURIs":[]}`: 400, `{"ResetType":"On","TargetURIs":[],"Loud":1}`: 400,
	} {
		if resp, b := s.do("POST", service+"/Actions/AggregationService.Reset", body); resp.StatusCode != want {
			t.Errorf("%s: %d %s", body, resp.StatusCode, b)
		}
	}
	_, b = s.do("POST", service+"/Actions/AggregationService.Reset", `{"ResetType":"On","TargetURIs":"unit-1"}`)
	if m := firstMessage(t, b); m.MessageID != "Base.1.22.ActionParameterValueTypeError" || m.Message != "The value 'unit-1' for the parameter TargetURIs in the action AggregationService.Reset is not a type that the parameter can accept." {
		t.Errorf("a parameter of the wrong type: %+v", m)
	}
	before := elements()
	o = description(3, "Off")
	o.Dir = dir
	s = start(t, o)
	if elements() != before {
		t.Errorf("after a restart: %s, was %s", elements(), before)
	}
	if resp, _ := s.do("DELETE", group, ""); resp.StatusCode != 204 {
		t.Errorf("delete: %d", resp.StatusCode)
	}
	if resp, _ := s.do("GET", group, ""); resp.StatusCode != 404 {
		t.Errorf("deleted: %d", resp.StatusCode)
	}
}

// TestParts: what the unit says that it is made of, and the ports of the switch.
func TestParts(t *testing.T) {
	o := description(1, "On")
	o.Switch = switchPorts
	s := start(t, o, func(r *wiretest.Rack) { r.BMCs[1].SetInventory(inventory) })
	var v struct {
		ProcessorSummary struct {
			Model                            string
			CoreCount, LogicalProcessorCount int
		}
		MemorySummary struct{ TotalSystemMemoryGiB float64 }
	}
	const unit = "/redfish/v1/Systems/unit-1"
	s.until("the inventory is known", func() bool { s.get(unit, &v); return v.MemorySummary.TotalSystemMemoryGiB == 4 })
	if p := v.ProcessorSummary; p.Model != "Cortex-A72" || p.CoreCount != 4 || p.LogicalProcessorCount != 4 {
		t.Errorf("%+v", p)
	}
	var nic struct {
		MACAddress, LinkStatus string
		IPv4Addresses          []struct{ Address, SubnetMask, Gateway string }
	}
	if s.get(unit+"/EthernetInterfaces/eth0", &nic); nic.MACAddress != "52:54:00:52:4b:01" || nic.LinkStatus != "LinkUp" || len(nic.IPv4Addresses) != 1 ||
		nic.IPv4Addresses[0].SubnetMask != "255.255.255.0" || nic.IPv4Addresses[0].Gateway != "10.77.0.1" {
		t.Errorf("%+v", nic)
	}
	for _, uri := range []string{"/EthernetInterfaces/interface-2", "/Storage/disks/Drives/vda", "/Storage/disks/Drives/disk-2", "/Processors/cpu", "/Memory/memory"} {
		if resp, b := s.do("GET", unit+uri, ""); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", uri, resp.StatusCode, b)
		}
	}
	var m struct {
		RXBytes, TXBytes, RXErrors int
		Networking                 struct{ RXFrames, TXFrames, RXDiscards int }
	}
	const ports = "/redfish/v1/Fabrics/network/Switches/switch/Ports"
	if s.get(ports+"/unit-1/Metrics", &m); m.RXBytes != 1000 || m.TXBytes != 2000 || m.RXErrors != 2 || m.Networking.TXFrames != 20 || m.Networking.RXDiscards != 1 {
		t.Errorf("%+v", m)
	}
	for port, want := range map[string]string{"unit-1": "LinkUp", "gateway": "LinkDown"} {
		var p struct{ LinkStatus string }
		if s.get(ports+"/"+port, &p); p.LinkStatus != want {
			t.Errorf("%s: %s", port, p.LinkStatus)
		}
	}
	if none := start(t, description(1, "Off")); true {
		if resp, _ := none.do("GET", "/redfish/v1/Fabrics/network", ""); resp.StatusCode != 404 {
			t.Errorf("without a switch: %d", resp.StatusCode)
		}
	}
}
