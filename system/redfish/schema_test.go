package redfish_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish"
	"github.com/racklet/racklet/system/redfish/redfishtest"
)

// TestSchemas holds every resource against the standard's JSON Schemas, where they are at hand, and against ours. Every form
// of URI that can be read is among them, and every type is listed where clients look for schemas.
func TestSchemas(t *testing.T) {
	n := listen(t, t.TempDir(), nil)
	populate(n)
	get := func(uri string) (int, []byte) {
		w := n.own("GET", uri, "")
		return w.Code, w.Body.Bytes()
	}
	schemas := redfishtest.Find(t, get)
	all := redfishtest.Walk(t, get)
	for _, uri := range redfish.Unlinked {
		_, all[uri] = get(uri)
	}
	var listed []string
	for uri := range all {
		listed = append(listed, strings.TrimPrefix(uri, "/redfish/v1/JsonSchemas/"))
	}
	for uri, b := range all {
		for _, problem := range schemas.Validate(b) {
			t.Errorf("%s: %s", uri, problem)
		}
		var o struct {
			Type string `json:"@odata.type"`
		}
		json.Unmarshal(b, &o)
		if kind := strings.TrimPrefix(o.Type, "#"); kind == "" || !slices.Contains(listed, kind[:strings.LastIndexByte(kind, '.')]) {
			t.Errorf("%s: %s is not listed in JsonSchemas", uri, kind)
		}
	}
	for _, r := range n.service.Routes() {
		if !slices.Contains(r.Methods, "HEAD") || r.Form == "/redfish" || r.Form == "/redfish/v1/odata" {
			continue // an action, a stream, no resource
		}
		if !reached(all, r.Form) {
			t.Errorf("no resource of the form %s was seen", r.Form)
		}
	}
	// Negative controls: what is wrong is found, in the standard's part and in ours.
	_, b := get("/redfish/v1/Systems/unit-1")
	for _, edit := range [][2]string{
		{`"PowerState":"On"`, `"PowerState":"Glowing"`}, {`"PowerState":"On"`, `"PowerState":"On","Invented":1`}, {`"Stage":"`, `"Invented":1,"Stage":"`},
		{`"Slot":1`, `"Slot":"1"`}, {`"#RackletComputerSystem.v1_0_0.Racklet"`, `"#RackletInvented.v1_0_0.Racklet"`},
	} {
		wrong := strings.Replace(string(b), edit[0], edit[1], 1)
		if wrong == string(b) || len(schemas.Validate([]byte(wrong))) == 0 {
			t.Errorf("%s passed", edit[1])
		}
	}
	for _, kind := range []string{"RackletRack_v1.xml", "RackletComputerSystem_v1.xml"} {
		if status, b := get("/redfish/v1/Schemas/" + kind); status != 200 || !strings.Contains(string(b), `Name="Slots" Type="Collection(RackletComputerSystem.v1_0_0.Slot)"`) == strings.Contains(kind, "System") {
			t.Errorf("%s: %d %s", kind, status, b)
		}
	}
}

// reached says whether a URI of a form is among those seen.
func reached(all map[string][]byte, form string) bool {
	want := strings.Split(form, "/")
	for uri := range all {
		have := strings.Split(uri, "/")
		if len(have) == len(want) {
			same := true
			for i := range want {
				same = same && (want[i] == "*" || want[i] == have[i])
			}
			if same {
				return true
			}
		}
	}
	return false
}

// inventory is what a fake unit says that it is made of.
var inventory = wire.Inventory{
	Processor: wire.MakeText64("Cortex-A72"), Cores: 4, Threads: 4, Megahertz: 1800, MemoryKiB: 4 << 20,
	DiskCount: 2, Disks: [4]wire.Disk{{Name: wire.MakeText32("vda"), Model: wire.MakeText32("virtio"), Bytes: 1 << 34}, {Name: wire.MakeText32("a/b"), Flags: wire.DiskSpins}},
	InterfaceCount: 2, Interfaces: [4]wire.Interface{{Name: wire.MakeText32("eth0"), MAC: [6]byte{0x52, 0x54, 0, 0x52, 0x4B, 1}, Up: true, Megabit: 1000,
		MTU: 1500, Address: [4]byte{10, 77, 0, 2}, Prefix: 24, Gateway: [4]byte{10, 77, 0, 1}}, {Name: wire.MakeText32("..")}},
}

// switchPorts are those of a fake switch.
func switchPorts() []redfish.SwitchPort {
	return []redfish.SwitchPort{
		{Name: "unit-1", Up: true, RX: redfish.SwitchCounters{Frames: 10, Bytes: 1000, Discards: 1}, TX: redfish.SwitchCounters{Frames: 20, Bytes: 2000}, Oversized: 2},
		{Name: "gateway"},
	}
}

// populate makes one of everything that is not there by itself.
func populate(n *network) {
	n.Helper()
	n.account("ada", "Administrator")
	n.login("ada", password)
	n.certificate("ada")
	if w := n.own("POST", "/redfish/v1/AggregationService/Aggregates", `{"Elements":[{"@odata.id":"/redfish/v1/Systems/unit-1"}]}`); w.Code != 201 {
		n.Fatalf("aggregate: %d %s", w.Code, w.Body)
	}
	n.rack.BMCs[1].SetInventory(inventory)
	if w := n.own("POST", "/redfish/v1/Systems/unit-1/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`); w.Code != 204 {
		n.Fatalf("on: %d %s", w.Code, w.Body)
	}
	n.until("the boot is logged", func() bool {
		w := n.own("GET", "/redfish/v1/Systems/unit-1", "")
		return strings.Contains(w.Body.String(), `"PowerState":"On"`) && strings.Contains(n.own("GET", "/redfish/v1/Systems/unit-1/LogServices/Boot/Entries", "").Body.String(), `"Id"`)
	})
	n.until("the inventory is known", func() bool {
		return strings.Contains(n.own("GET", "/redfish/v1/Systems/unit-1/Processors", "").Body.String(), "/cpu")
	})
	if w := n.own("POST", "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate", `{"ImageURI":"https://127.0.0.1:1/image"}`); w.Code != 202 {
		n.Fatalf("update: %d %s", w.Code, w.Body)
	}
	if w := n.own("POST", "/redfish/v1/EventService/Subscriptions", `{"Destination":"https://127.0.0.1:1/","Protocol":"Redfish","Context":"x","OriginResources":[{"@odata.id":"/redfish/v1/Chassis/rack"}]}`); w.Code != 201 {
		n.Fatalf("subscribe: %d %s", w.Code, w.Body)
	}
}
