package redfish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/redfish"
)

const wait = 20 * time.Second // generous: these machines are busy

// service is a Redfish service before a fake rack.
type service struct {
	*testing.T
	rack *wiretest.Rack
	url  string
}

func description(units int, power string) redfish.Options {
	r := &rack.Rack{Metadata: rack.Metadata{Name: "lab"}}
	r.Spec.ID, r.Spec.Slots = "7e9a2f9c-6d0f-4a3e-9a51-2b1b7e0c4d11", uint8(units+1)
	r.Spec.Power = rack.RackPower{Supply: 60, Reserve: 10}
	o := redfish.Options{Rack: r, Log: slog.New(slog.DiscardHandler), Link: link.Options{Timeout: 100 * time.Millisecond, Attempts: 2}}
	for i := range units {
		u := &rack.ComputeUnit{Metadata: rack.Metadata{Name: "unit-" + string(rune('1'+i))}}
		u.Spec = rack.ComputeUnitSpec{Slot: rack.SlotID(i + 1), Platform: "virt", Power: power}
		o.Units = append(o.Units, u)
	}
	return o
}

func start(t *testing.T, o redfish.Options, before ...func(*wiretest.Rack)) *service {
	t.Helper()
	r := wiretest.NewRack(len(o.Units))
	for _, f := range before {
		f(r)
	}
	o.Line = r.Line()
	s, err := redfish.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	server := httptest.NewServer(s.Local("tester"))
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		server.Close()
		r.Close()
	})
	v := &service{t, r, server.URL}
	v.until("the controllers answer", func() bool {
		var all struct {
			Members []struct{ Status struct{ State string } }
		}
		v.get("/redfish/v1/Managers?$expand=.", &all)
		return len(all.Members) == len(o.Units)+2 && !slices.ContainsFunc(all.Members, func(m struct{ Status struct{ State string } }) bool {
			return m.Status.State != "Enabled"
		})
	})
	for _, u := range o.Units {
		if u.Spec.Power == rack.PowerOn {
			v.reset(u.Metadata.Name, "On", 204)
		}
	}
	return v
}

func (s *service) until(what string, f func() bool) {
	s.Helper()
	for end := time.Now().Add(wait); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("timed out: %s", what)
		}
	}
}

// do sends a request and returns the answer and its body.
func (s *service) do(method, path, body string, header ...string) (*http.Response, []byte) {
	s.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp, b
}

func (s *service) get(path string, into any) {
	s.Helper()
	resp, b := s.do("GET", path, "")
	if resp.StatusCode != 200 {
		s.Fatalf("GET %s: %d %s", path, resp.StatusCode, b)
	}
	if err := json.Unmarshal(b, into); err != nil {
		s.Fatalf("GET %s: %v in %s", path, err, b)
	}
}

// system is what a test reads of one.
type system struct {
	PowerState              string
	LocationIndicatorActive bool
	BootProgress            struct{ LastState, OemLastState string }
	Status                  struct{ State, Health string }
	Boot                    struct {
		BootSourceOverrideEnabled, BootSourceOverrideTarget, UefiTargetBootSourceOverride, BootNext string
	}
	Oem struct {
		Racklet struct {
			Slot                                                                           int
			Stage, State, Reason, Expected, Seen, Cure, BootSlot, Commit, Release, Address string
			Stale, EvidenceVoid, Available, Present                                        bool
			DesiredGeneration, ObservedGeneration, BootCount, Resets                       int
			UptimeSeconds, AgeSeconds, Watts, EnergyJoules, CPUPercent                     float64
			DesiredPower                                                                   string
			Slots                                                                          []struct{ Name, State, Version, Digest string }
		}
	}
}

func (s *service) system(name string) (v system) {
	s.Helper()
	s.get("/redfish/v1/Systems/"+name, &v)
	return v
}

func (s *service) reset(name, kind string, want int) {
	s.Helper()
	resp, b := s.do("POST", "/redfish/v1/Systems/"+name+"/Actions/ComputerSystem.Reset", `{"ResetType":"`+kind+`"}`)
	if resp.StatusCode != want {
		s.Fatalf("reset %s %s: %d %s", name, kind, resp.StatusCode, b)
	}
}

func TestPower(t *testing.T) {
	s := start(t, description(2, "Off"))
	if v := s.system("unit-1"); v.PowerState != "Off" || v.Oem.Racklet.Stage != "off" || v.Oem.Racklet.Slot != 1 || v.BootProgress.LastState != "None" {
		t.Fatalf("at first: %+v", v)
	}
	s.reset("unit-1", "On", 204)
	s.until("unit-1 runs", func() bool {
		v := s.system("unit-1")
		return v.PowerState == "On" && v.Oem.Racklet.Stage == "running" && v.BootProgress.LastState == "OSRunning" && v.Status.State == "Enabled"
	})
	if v := s.system("unit-1").Oem.Racklet; v.BootCount != 1 || v.BootSlot != "A" || v.DesiredGeneration != 1 || v.ObservedGeneration != 1 || v.Watts == 0 {
		t.Errorf("running: %+v", v)
	}
	if v := s.system("unit-2"); v.PowerState != "Off" {
		t.Errorf("its neighbour is %s", v.PowerState)
	}
	s.reset("unit-1", "ForceRestart", 204)
	if v := s.system("unit-1").Oem.Racklet; v.Resets != 1 || !v.EvidenceVoid {
		t.Errorf("after a restart: %+v", v)
	}
	s.reset("unit-1", "PowerCycle", 204)
	s.until("unit-1 boots again", func() bool { return s.system("unit-1").Oem.Racklet.BootCount == 2 })
	s.reset("unit-1", "GracefulShutdown", 204)
	if v := s.system("unit-1"); v.PowerState != "Off" || v.Oem.Racklet.DesiredPower != "Off" {
		t.Errorf("after shutdown: %+v", v)
	}
	for body, want := range map[string]string{
		`{"ResetType":"Explode"}`:         "Base.1.22.ActionParameterValueNotInList",
		`{}`:                              "Base.1.22.ActionParameterMissing",
		``:                                "Base.1.22.ActionParameterMissing",
		`{"ResetType":"On","Force":true}`: "Base.1.22.ActionParameterUnknown",
		`{"ResetType":`:                   "Base.1.22.MalformedJSON",
		`["ResetType"]`:                   "Base.1.22.MalformedJSON",
	} {
		resp, b := s.do("POST", "/redfish/v1/Systems/unit-1/Actions/ComputerSystem.Reset", body)
		if m := firstMessage(t, b); resp.StatusCode != 400 || m.MessageID != want || m.Resolution == "" {
			t.Errorf("reset %q: %d %+v", body, resp.StatusCode, m)
		}
	}
	if resp, _ := s.do("POST", "/redfish/v1/Systems/unit-9/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`); resp.StatusCode != 404 {
		t.Errorf("reset of no unit: %d", resp.StatusCode)
	}
}

type message struct {
	MessageID  string `json:"MessageId"`
	Message    string
	Resolution string
	Related    []string `json:"RelatedProperties"`
}

func firstMessage(t *testing.T, b []byte) message {
	t.Helper()
	var e struct {
		Error struct {
			Code string    `json:"code"`
			Info []message `json:"@Message.ExtendedInfo"`
		} `json:"error"`
	}
	if err := json.Unmarshal(b, &e); err != nil || len(e.Error.Info) == 0 || e.Error.Code == "" {
		t.Fatalf("no error body: %v in %q", err, b)
	}
	return e.Error.Info[0]
}

// TestStart: the RMC gets its policies. Units are left as they are: what they shall do, clients say.
func TestStart(t *testing.T) {
	o := description(1, "Off")
	o.Units[0].Spec.PowerCap, o.Units[0].Spec.IdentifyLED = 7, true
	o.Thermal = &rack.ThermalPolicy{Spec: rack.ThermalPolicySpec{
		Curve: []rack.CurvePoint{{Temperature: 30, Duty: 20}, {Temperature: 55, Duty: 100}}, Throttle: 70, Shutdown: 80, Hysteresis: 3,
	}}
	o.Power = &rack.PowerPolicy{Spec: rack.PowerPolicySpec{Budget: 40, UnitCap: 12, Stagger: rack.Duration(2 * time.Second)}}
	s := start(t, o)
	s.until("the RMC has its policies", func() bool { return s.rack.Policies().Generation > 0 })
	p := s.rack.Policies()
	if p.CurveCount != 2 || p.Curve[0].MilliCelsius != 30_000 || p.ThrottleMilliCelsius != 70_000 || p.BudgetMilliwatts != 50_000 ||
		p.ReserveMilliwatts != 10_000 || p.StaggerMillis != 2000 || p.SlotCapMilliwatts[0] != 7000 {
		t.Errorf("policies: %+v", p)
	}
	if st := s.rack.BMCs[1].State(); st.DesiredGeneration != 0 || st.CapMilliwatts != 0 || st.LED {
		t.Errorf("somebody told the BMC: %+v", st)
	}
}

func TestFailureIsNamed(t *testing.T) {
	s := start(t, description(1, "Off"))
	f := wire.MakeFailure("os.disk", "a data disk", "none")
	s.rack.BMCs[1].Stuck(&f)
	s.reset("unit-1", "On", 204)
	v := s.system("unit-1")
	if o := v.Oem.Racklet; o.Stage != "failed" || o.Reason != "os.disk" || o.Expected != "a data disk" || o.Seen != "none" || o.Cure == "" {
		t.Errorf("failure: %+v", o)
	}
	if v.Status.Health != "Critical" {
		t.Errorf("health %s", v.Status.Health)
	}
	s.until("the log has it", func() bool {
		var log struct {
			Members []struct{ Message, Severity, Resolution, MessageID string }
		}
		s.get("/redfish/v1/Systems/unit-1/LogServices/Log/Entries", &log)
		for _, e := range log.Members {
			if strings.Contains(e.Message, "os.disk") && e.Severity == "Critical" && e.Resolution != "" {
				return true
			}
		}
		return false
	})
}

func TestReport(t *testing.T) {
	s := start(t, description(1, "On"))
	s.until("it runs", func() bool { return s.system("unit-1").Oem.Racklet.Stage == "running" })
	s.rack.BMCs[1].SetReport(wire.Report{
		Commit: [20]byte{0xC0, 0xDE}, Release: wire.MakeText32("v0.1.0"), UptimeSeconds: 65, CPUPermille: 125, MemoryUsedKiB: 2048,
		MemoryTotalKiB: 8192, Stale: true, Address: [4]byte{10, 77, 0, 2},
	})
	s.until("the report is there", func() bool { return s.system("unit-1").Oem.Racklet.Release == "v0.1.0" })
	o := s.system("unit-1").Oem.Racklet
	if !strings.HasPrefix(o.Commit, "c0de") || len(o.Commit) != 40 || !o.Stale || o.Address != "10.77.0.2" || o.CPUPercent != 12.5 || o.UptimeSeconds < 65 {
		t.Errorf("report: %+v", o)
	}
	if len(o.Slots) != 2 || o.Slots[0].State != "valid" || !strings.HasPrefix(o.Slots[0].Digest, "sha256:01") {
		t.Errorf("slots: %+v", o.Slots)
	}
}

func TestIdentifyAndLimits(t *testing.T) {
	s := start(t, description(1, "Off"))
	for _, path := range []string{"/redfish/v1/Systems/unit-1", "/redfish/v1/Chassis/tray-1"} {
		for _, on := range []string{"true", "false"} {
			resp, b := s.do("PATCH", path, `{"LocationIndicatorActive":`+on+`}`)
			if resp.StatusCode != 200 || !bytes.Contains(b, []byte(`"LocationIndicatorActive":`+on)) || s.rack.BMCs[1].State().LED != (on == "true") {
				t.Errorf("%s %s: %d %s", path, on, resp.StatusCode, b)
			}
		}
	}
	resp, b := s.do("PATCH", "/redfish/v1/Chassis/tray-1/EnvironmentMetrics", `{"PowerLimitWatts":{"SetPoint":6.5}}`)
	if resp.StatusCode != 200 || s.rack.BMCs[1].State().CapMilliwatts != 6500 || !bytes.Contains(b, []byte(`"SetPoint":6.5`)) {
		t.Errorf("cap: %d %s", resp.StatusCode, b)
	}
	resp, b = s.do("PATCH", "/redfish/v1/Chassis/tray-1/EnvironmentMetrics", `{"PowerLimitWatts":{"SetPoint":1000}}`)
	if m := firstMessage(t, b); resp.StatusCode != 400 || m.MessageID != "Base.1.22.PropertyValueOutOfRange" || m.Related[0] != "#/PowerLimitWatts/SetPoint" {
		t.Errorf("cap out of range: %d %s", resp.StatusCode, b)
	}
	resp, b = s.do("PATCH", "/redfish/v1/Chassis/rack/EnvironmentMetrics", `{"PowerLimitWatts":{"SetPoint":44}}`)
	if resp.StatusCode != 200 || s.rack.Policies().BudgetMilliwatts != 44_000 {
		t.Errorf("budget: %d %s", resp.StatusCode, b)
	}
	resp, b = s.do("PATCH", "/redfish/v1/Chassis/rack", `{"Oem":{"Racklet":{"Policies":{"ThrottleCelsius":66,"Curve":[{"TemperatureCelsius":20,"DutyPercent":10},{"TemperatureCelsius":50,"DutyPercent":100}]}}}}`)
	if p := s.rack.Policies(); resp.StatusCode != 200 || p.ThrottleMilliCelsius != 66_000 || p.Curve[0].DutyPercent != 10 || p.BudgetMilliwatts != 44_000 {
		t.Errorf("policies: %d %s", resp.StatusCode, b)
	}
	resp, b = s.do("PATCH", "/redfish/v1/Chassis/rack", `{"Oem":{"Racklet":{"Policies":{"BudgetWatts":40,"ReserveWatts":8}}}}`)
	if p := s.rack.Policies(); resp.StatusCode != 200 || p.BudgetMilliwatts != 48_000 || p.ReserveMilliwatts != 8_000 || !bytes.Contains(b, []byte(`"BudgetWatts":40`)) {
		t.Errorf("budget and reserve: %d %+v", resp.StatusCode, p)
	}
	before := s.rack.Policies()
	if resp, _ := s.do("PATCH", "/redfish/v1/Chassis/rack", `{"Oem":{"Racklet":{"Policies":{"ReserveWatts":8}}}}`); resp.StatusCode != 200 || s.rack.Policies() != before {
		t.Errorf("a repetition made a generation: %d %+v", resp.StatusCode, s.rack.Policies())
	}
	for _, body := range []string{
		`{"Oem":{"Racklet":{"Policies":{"ThrottleCelsius":140}}}}`, // above shutdown
		`{"Oem":{"Racklet":{"Policies":{"Curve":[]}}}}`,
		`{"Oem":{"Racklet":{"Policies":{"Curve":[{"TemperatureCelsius":20,"DutyPercent":90},{"TemperatureCelsius":30,"DutyPercent":10}]}}}}`,
		`{"Oem":{"Racklet":{"Policies":{"BudgetWatts":30,"Curve":"steep"}}}}`, // right and wrong: nothing is done
		`{"Oem":{"Racklet":{"Policies":7}}}`,
		`{"Oem":{"Other":{}}}`,
	} {
		if resp, b := s.do("PATCH", "/redfish/v1/Chassis/rack", body); resp.StatusCode != 400 {
			t.Errorf("%s: %d %s", body, resp.StatusCode, b)
		}
	}
	if s.rack.Policies() != before {
		t.Errorf("a refused change took effect: %+v", s.rack.Policies())
	}
}

// TestNewController: a BMC whose log begins anew is another one, or lost its memory; what the first one logged stays.
func TestNewController(t *testing.T) {
	s := start(t, description(1, "Off"))
	entries := func() (ids []string) {
		var log struct {
			Members []struct{ Id, Message string }
		}
		s.get("/redfish/v1/Systems/unit-1/LogServices/Log/Entries", &log)
		for _, e := range log.Members {
			ids = append(ids, e.Id)
		}
		return ids
	}
	for range 20 {
		s.rack.BMCs[1].Record(wire.EventState, 0, "state", wire.Failure{})
	}
	s.until("21 events", func() bool { return slices.Contains(entries(), "21") })
	s.rack.BMCs[1].Forget()
	s.until("the new log", func() bool { return slices.Contains(entries(), "2-1") })
	ids := entries()
	if !slices.Contains(ids, "21") || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != len(ids) {
		t.Errorf("entries: %v", ids)
	}
}

func TestBootOverride(t *testing.T) {
	s := start(t, description(1, "Off"))
	const path = "/redfish/v1/Systems/unit-1"
	for _, c := range []struct {
		body   string
		status int
		mode   wire.BootMode
		slot   uint8
	}{
		{`{"Boot":{"BootSourceOverrideEnabled":"Continuous","BootSourceOverrideTarget":"UefiTarget","UefiTargetBootSourceOverride":"SlotB"}}`, 200, wire.BootContinuous, wire.SlotB},
		{`{"Boot":{"BootSourceOverrideEnabled":"Once"}}`, 200, wire.BootOnce, wire.SlotB},
		{`{"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"Pxe"}}`, 200, wire.BootDisabled, wire.SlotNone},
		{`{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiBootNext","BootNext":"SlotA"}}`, 200, wire.BootOnce, wire.SlotA},
		{`{"Boot":{"BootSourceOverrideTarget":"None"}}`, 200, wire.BootDisabled, wire.SlotNone},
		{`{"Boot":{"BootSourceOverrideEnabled":"Once"}}`, 400, wire.BootDisabled, wire.SlotNone}, // which slot?
		{`{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}`, 400, wire.BootDisabled, wire.SlotNone},
		{`{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Hdd"}}`, 400, wire.BootDisabled, wire.SlotNone},
		{`{"Boot":{"BootSourceOverrideEnabled":"Once","UefiTargetBootSourceOverride":"SlotB"}}`, 200, wire.BootOnce, wire.SlotB},
	} {
		resp, b := s.do("PATCH", path, c.body)
		st := s.rack.BMCs[1].State()
		if resp.StatusCode != c.status || st.BootMode != c.mode || st.BootOverride != c.slot {
			t.Errorf("%s: %d, BMC has %v %d: %s", c.body, resp.StatusCode, st.BootMode, st.BootOverride, b)
		}
		if v := s.system("unit-1").Boot; v.BootSourceOverrideEnabled != c.mode.String() {
			t.Errorf("%s reads back as %+v", c.body, v)
		}
	}
	s.reset("unit-1", "On", 204)
	if v := s.system("unit-1"); v.Oem.Racklet.BootSlot != "B" || v.Boot.BootSourceOverrideEnabled != "Disabled" {
		t.Errorf("booted %s, override %+v", v.Oem.Racklet.BootSlot, v.Boot)
	}
}

// TestSilence: a silent BMC keeps its last values and says how old they are; others go on; it comes back.
func TestSilence(t *testing.T) {
	s := start(t, description(2, "On"))
	s.until("both run", func() bool {
		return s.system("unit-1").PowerState == "On" && s.system("unit-2").PowerState == "On"
	})
	s.rack.BMCs[1].SetFaults(wiretest.Faults{Silent: true})
	s.until("unit-1 is unavailable", func() bool { return s.system("unit-1").Status.State == "UnavailableOffline" })
	v := s.system("unit-1")
	if v.Oem.Racklet.Available || v.Oem.Racklet.AgeSeconds < 2 || v.PowerState != "On" || v.Oem.Racklet.Stage != "running" {
		t.Errorf("silent: %+v", v)
	}
	if v := s.system("unit-2"); v.Status.State != "Enabled" || v.Oem.Racklet.AgeSeconds > 2 {
		t.Errorf("its neighbour: %+v", v)
	}
	// It can be found all the same: the light at its slot is the RMC's.
	resp, b := s.do("PATCH", "/redfish/v1/Systems/unit-1", `{"LocationIndicatorActive":true}`)
	if resp.StatusCode != 200 || s.rack.State().LEDMask&2 == 0 || !bytes.Contains(b, []byte(`"LocationIndicatorActive":true`)) {
		t.Errorf("identify a silent tray: %d %s", resp.StatusCode, b)
	}
	resp, b = s.do("PATCH", "/redfish/v1/Systems/unit-1", `{"Boot":{"BootSourceOverrideEnabled":"Disabled"}}`)
	if m := firstMessage(t, b); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(m.Message, "bmc-1") {
		t.Errorf("change of a silent BMC: %d %+v", resp.StatusCode, m)
	}
	s.rack.BMCs[1].SetFaults(wiretest.Faults{})
	s.until("unit-1 is back", func() bool { return s.system("unit-1").Status.State == "Enabled" })
	// A BMC that lies about its slot is not believed.
	s.rack.BMCs[1].Update(func(st *wire.UnitState) { st.Slot = 2 })
	s.until("the liar is unavailable", func() bool { return s.system("unit-1").Status.State == "UnavailableOffline" })
	s.rack.BMCs[1].Update(func(st *wire.UnitState) { st.Slot = 1 })
	// The RMC with all behind it.
	s.rack.SetFaults(wiretest.Faults{Silent: true})
	s.until("all are unavailable", func() bool {
		var c struct{ Status struct{ State string } }
		s.get("/redfish/v1/Chassis/rack", &c)
		return c.Status.State == "UnavailableOffline" && s.system("unit-2").Status.State == "UnavailableOffline"
	})
	var all struct{ Members []struct{} }
	if s.get("/redfish/v1/Systems", &all); len(all.Members) != 2 {
		t.Errorf("%d systems are left", len(all.Members))
	}
	s.rack.SetFaults(wiretest.Faults{})
	s.until("all are back", func() bool {
		return s.system("unit-1").Status.State == "Enabled" && s.system("unit-2").Status.State == "Enabled"
	})
}

func BenchmarkSystems(b *testing.B) { benchmark(b, "/redfish/v1/Systems?$expand=.") }
func BenchmarkSensor(b *testing.B)  { benchmark(b, "/redfish/v1/Chassis/tray-1/Sensors/power") }

func benchmark(b *testing.B, uri string) {
	r := wiretest.NewRack(4)
	o := description(4, "On")
	o.Line = r.Line()
	s, err := redfish.New(o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done; r.Close() }()
	h := s.Local("benchmark")
	req := httptest.NewRequest("GET", uri, nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, req); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
