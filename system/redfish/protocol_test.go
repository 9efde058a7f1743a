package redfish_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish/redfishtest"
)

// read is a redfishtest.Get.
func (s *service) read(uri string) (int, []byte) {
	resp, b := s.do("GET", uri, "")
	return resp.StatusCode, b
}

// walk gets everything that is reachable from the service root.
func (s *service) walk() map[string][]byte { return redfishtest.Walk(s, s.read) }

// running is a service whose units run, with something in every log.
func running(t *testing.T, units int) *service {
	s := start(t, description(units, "On"))
	s.rack.BMCs[1].Record(wire.EventFailure, 0, "", wire.MakeFailure("slot.chunk", "a", "b"))
	s.rack.Record(wire.EventFan, 0, 0, "fan stalled")
	s.until("all run", func() bool {
		for slot := range s.rack.BMCs {
			if s.system("unit-"+string(rune('0'+slot))).Oem.Racklet.Stage != "running" {
				return false
			}
		}
		return true
	})
	return s
}

// TestEveryResource holds for each resource what DSP0266 says of all.
func TestEveryResource(t *testing.T) {
	s := running(t, 2)
	all := s.walk()
	if len(all) < 60 {
		t.Errorf("only %d resources", len(all))
	}
	for uri, b := range all {
		var o map[string]any
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		if o["@odata.id"] != uri || o["@odata.type"] == nil || o["Name"] == nil {
			t.Errorf("%s: @odata.id %v, @odata.type %v, Name %v", uri, o["@odata.id"], o["@odata.type"], o["Name"])
		}
		resp, body := s.do("GET", uri, "")
		etag := resp.Header.Get("ETag")
		var again map[string]any
		json.Unmarshal(body, &again)
		if etag == "" || strings.HasPrefix(etag, "W/") || again["@odata.etag"] != etag {
			t.Errorf("%s: ETag %s, @odata.etag %v", uri, etag, again["@odata.etag"])
		}
		for name, want := range map[string]string{"OData-Version": "4.0", "Content-Type": "application/json; charset=utf-8"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s %q", uri, name, got)
			}
		}
		if l := resp.Header.Get("Link"); !strings.Contains(l, "rel=describedby") {
			t.Errorf("%s: Link %q", uri, l)
		}
		resp, body = s.do("HEAD", uri, "")
		if resp.StatusCode != 200 || len(body) != 0 || resp.Header.Get("ETag") == "" || resp.ContentLength <= 0 {
			t.Errorf("HEAD %s: %d, %d bytes, length %d", uri, resp.StatusCode, len(body), resp.ContentLength)
		}
		resp, _ = s.do("GET", uri+"/", "")
		if resp.StatusCode != 200 {
			t.Errorf("GET %s/: %d", uri, resp.StatusCode)
		}
		allowed := resp.Header.Get("Allow")
		for _, method := range []string{"PUT", "DELETE", "POST", "TRACE"} {
			if strings.Contains(allowed, method) {
				continue
			}
			resp, body := s.do(method, uri, "")
			allow := resp.Header.Get("Allow")
			if resp.StatusCode != 405 || !strings.HasPrefix(allow, "GET, HEAD") || strings.Contains(allow, method) {
				t.Errorf("%s %s: %d, Allow %q", method, uri, resp.StatusCode, allow)
			}
			firstMessage(t, body)
		}
		if resp, body := s.do("GET", uri+"/nothing", ""); resp.StatusCode != 404 || resp.Header.Get("Allow") != "" {
			t.Errorf("GET %s/nothing: %d %s", uri, resp.StatusCode, body)
		}
	}
}

func TestProtocol(t *testing.T) {
	s := start(t, description(2, "Off"))
	const unit = "/redfish/v1/Systems/unit-1"
	s.until("the board says who it is", func() bool { // which changes the ETag once
		_, b := s.do("GET", unit, "")
		return strings.Contains(string(b), `"SerialNumber"`)
	})
	resp, _ := s.do("GET", unit, "")
	etag := resp.Header.Get("ETag")
	resp, _ = s.do("GET", "/redfish/v1/Systems", "")
	steady := resp.Header.Get("ETag")
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		message                  string
	}{
		{"version root", "GET", "/redfish", "", nil, 200, ""},
		{"service document", "GET", "/redfish/v1/odata", "", nil, 200, ""},
		{"metadata", "GET", "/redfish/v1/$metadata", "", nil, 200, ""},
		{"elsewhere", "GET", "/", "", nil, 404, "ResourceMissingAtURI"},
		{"odd path", "GET", "/redfish/v1/Systems/%2e%2e/%00", "", nil, 404, "ResourceMissingAtURI"},
		{"empty segment", "GET", "/redfish/v1/Systems//", "", nil, 404, "ResourceMissingAtURI"},
		{"same OData version", "GET", unit, "", []string{"OData-Version", "4.0"}, 200, ""},
		{"other OData version", "GET", unit, "", []string{"OData-Version", "3.0"}, 412, "HeaderInvalid"},
		{"accepts XML only", "GET", unit, "", []string{"Accept", "application/xml"}, 406, "HeaderInvalid"},
		{"accepts JSON among others", "GET", unit, "", []string{"Accept", "text/html, application/json;q=0.5"}, 200, ""},
		{"not modified", "GET", "/redfish/v1/Systems", "", []string{"If-None-Match", steady}, 304, ""},
		{"modified", "GET", "/redfish/v1/Systems", "", []string{"If-None-Match", `"other"`}, 200, ""},
		{"with readings, never not modified", "GET", unit, "", []string{"If-None-Match", etag}, 200, ""},
		{"wrong ETag", "PATCH", unit, `{"LocationIndicatorActive":true}`, []string{"If-Match", `"other"`}, 412, "PreconditionFailed"},
		{"weak ETag", "PATCH", unit, `{"LocationIndicatorActive":true}`, []string{"If-Match", "W/" + etag}, 412, "PreconditionFailed"},
		{"right ETag", "PATCH", unit, `{"LocationIndicatorActive":true}`, []string{"If-Match", etag}, 200, ""},
		{"that ETag again", "PATCH", unit, `{"LocationIndicatorActive":true}`, []string{"If-Match", etag}, 412, "PreconditionFailed"},
		{"any ETag", "PATCH", unit, `{"LocationIndicatorActive":false}`, []string{"If-Match", "*"}, 200, ""},
		{"unknown property", "PATCH", unit, `{"Colour":"red"}`, nil, 400, "PropertyUnknown"},
		{"read-only property", "PATCH", unit, `{"PowerState":"On"}`, nil, 400, "PropertyNotWritable"},
		{"read-only property within", "PATCH", unit, `{"Boot":{"BootOrder":["SlotB"]}}`, nil, 400, "PropertyNotWritable"},
		{"wrong type", "PATCH", unit, `{"LocationIndicatorActive":"yes"}`, nil, 400, "PropertyValueTypeError"},
		{"object for a value", "PATCH", unit, `{"Boot":"now"}`, nil, 400, "PropertyValueTypeError"},
		{"null", "PATCH", unit, `{"LocationIndicatorActive":null}`, nil, 400, "PropertyValueTypeError"},
		{"not in list", "PATCH", unit, `{"Boot":{"BootSourceOverrideEnabled":"Twice"}}`, nil, 400, "PropertyValueNotInList"},
		{"nothing", "PATCH", unit, `{}`, nil, 400, "NoOperation"},
		{"annotations only", "PATCH", unit, `{"@odata.id":"x"}`, nil, 400, "NoOperation"},
		{"cut short", "PATCH", unit, `{"LocationIndicatorActive":`, nil, 400, "MalformedJSON"},
		{"two documents", "PATCH", unit, `{} {}`, nil, 400, "MalformedJSON"},
		{"null document", "PATCH", unit, `null`, nil, 400, "MalformedJSON"},
		{"deep", "PATCH", unit, strings.Repeat("[", 20_000), nil, 400, "MalformedJSON"},
		{"huge", "PATCH", unit, `{"A":"` + strings.Repeat("x", 70_000) + `"}`, nil, 413, "PayloadTooLarge"},
		{"a form", "PATCH", unit, "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "HeaderInvalid"},
		{"patch a collection", "PATCH", "/redfish/v1/Systems", `{}`, nil, 405, "OperationNotAllowed"},
		{"patch nothing", "PATCH", "/redfish/v1/Systems/unit-9", `{}`, nil, 404, "ResourceMissingAtURI"},
		{"get an action", "GET", unit + "/Actions/ComputerSystem.Reset", "", nil, 405, "OperationNotAllowed"},
		{"a fan of a tray", "GET", "/redfish/v1/Chassis/tray-1/ThermalSubsystem/Fans/fan-1", "", nil, 404, "ResourceMissingAtURI"},
		{"unknown query", "GET", "/redfish/v1/Systems?$orderby=Id", "", nil, 501, "QueryNotSupported"},
		{"a value for only", "GET", "/redfish/v1/Systems?only=one", "", nil, 400, "QueryParameterValueFormatError"},
		{"too many levels", "GET", "/redfish/v1/Systems?$expand=*($levels=5)", "", nil, 400, "QueryParameterOutOfRange"},
		{"no levels", "GET", "/redfish/v1/Systems?$expand=.($levels=0)", "", nil, 400, "QueryParameterOutOfRange"},
		{"levels of what", "GET", "/redfish/v1/Systems?$expand=.($levels=x)", "", nil, 400, "QueryParameterValueFormatError"},
		{"filter without an end", "GET", "/redfish/v1/Systems?$filter=Id%20eq", "", nil, 400, "QueryParameterValueFormatError"},
		{"filter of no collection", "GET", unit + "?$filter=Id%20eq%20'x'", "", nil, 400, "QueryNotSupportedOnResource"},
		{"an ETag of a part", "GET", unit + "?$select=Boot", "", []string{"If-None-Match", steady}, 200, ""},
		{"parameter of others", "GET", "/redfish/v1/Systems?colour=red", "", nil, 200, ""},
		{"bad top", "GET", "/redfish/v1/Systems?$top=-1", "", nil, 400, "QueryParameterValueFormatError"},
		{"bad expand", "GET", "/redfish/v1/Systems?$expand=all", "", nil, 400, "QueryParameterValueFormatError"},
		{"top of no collection", "GET", unit + "?$top=1", "", nil, 400, "QueryNotSupportedOnResource"},
		{"bad Last-Event-ID", "GET", "/redfish/v1/EventService/SSE", "", []string{"Last-Event-ID", "yesterday"}, 400, "HeaderInvalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, b := s.do(c.method, c.path, c.body, c.header...)
			if resp.StatusCode != c.status {
				t.Fatalf("%d, want %d: %s", resp.StatusCode, c.status, b)
			}
			if v := resp.Header.Get("OData-Version"); v != "4.0" {
				t.Errorf("OData-Version %q", v)
			}
			if c.message != "" {
				m := firstMessage(t, b)
				if m.MessageID != "Base.1.22."+c.message || m.Message == "" || m.Resolution == "" {
					t.Errorf("message %+v", m)
				}
				if strings.HasPrefix(c.message, "Property") && len(m.Related) == 0 {
					t.Errorf("the property is not named: %+v", m)
				}
			}
		})
	}
	if n := s.rack.BMCs[1].State().DesiredGeneration; n != 2 {
		t.Errorf("%d changes reached the BMC, want the 2 good ones", n)
	}
}

func TestQueries(t *testing.T) {
	s := start(t, description(3, "Off"))
	var c struct {
		Members []map[string]any
		Count   int    `json:"Members@odata.count"`
		Next    string `json:"Members@odata.nextLink"`
	}
	get := func(q string) { c.Members, c.Next = nil, ""; s.get("/redfish/v1/Systems"+q, &c) }
	if get("?$expand=.($levels=1)"); len(c.Members) != 3 || c.Members[2]["PowerState"] != "Off" || c.Members[2]["Id"] != "unit-3" {
		t.Errorf("expanded: %v", c.Members)
	}
	if get("?$top=2"); len(c.Members) != 2 || c.Count != 3 || c.Next != "/redfish/v1/Systems?$skip=2&$top=2" {
		t.Errorf("top: %d of %d, next %q", len(c.Members), c.Count, c.Next)
	}
	if get("?$skip=2"); len(c.Members) != 1 || c.Members[0]["@odata.id"] != "/redfish/v1/Systems/unit-3" {
		t.Errorf("skip: %v", c.Members)
	}
	if get("?$skip=9"); len(c.Members) != 0 {
		t.Errorf("skip beyond: %v", c.Members)
	}
	if get("?$expand=*&$select=PowerState,Boot/BootNext"); len(c.Members) != 3 || c.Members[0]["PowerState"] != "Off" || c.Members[0]["Oem"] != nil || c.Members[0]["Boot"] == nil {
		t.Errorf("select of expanded: %v", c.Members)
	}
	one := start(t, description(1, "Off"))
	var v struct{ Id, PowerState string }
	if one.get("/redfish/v1/Systems?only", &v); v.Id != "unit-1" || v.PowerState != "Off" {
		t.Errorf("only: %+v", v)
	}
	var sel map[string]any
	if one.get("/redfish/v1/Systems/unit-1?$select=Oem/Racklet/Stage,Oem/Racklet/Slot", &sel); fmt.Sprint(sel["Oem"]) != "map[Racklet:map[@odata.type:#RackletComputerSystem.v1_0_0.Racklet Slot:1 Stage:off]]" {
		t.Errorf("select within: %v", sel)
	}
	sel = nil
	if one.get("/redfish/v1/Systems/unit-1?$select=PowerState", &sel); sel["PowerState"] != "Off" || sel["Boot"] != nil || sel["Id"] == nil {
		t.Errorf("select: %v", sel)
	}
}

func FuzzRequests(f *testing.F) {
	f.Add("PATCH", "/redfish/v1/Systems/unit-1", `{"Boot":{"BootSourceOverrideEnabled":"Once"}}`)
	f.Add("POST", "/redfish/v1/Systems/unit-1/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`)
	f.Add("GET", "/redfish/v1/Systems?$expand=.&$select=Oem/Racklet/Stage&$top=1", "")
	f.Add("PATCH", "/redfish/v1/Chassis/rack", `{"Oem":{"Racklet":{"Policies":{"Curve":[{"TemperatureCelsius":1,"DutyPercent":2}]}}}}`)
	h := newFuzzService(f)
	f.Fuzz(func(t *testing.T, method, target, body string) { h.try(t, method, target, body) })
}
