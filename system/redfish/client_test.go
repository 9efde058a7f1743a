package redfish_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
)

// stream reads server-sent events until f is satisfied.
func (s *service) stream(last string, f func(id string, e map[string]any) bool, filter ...string) {
	s.Helper()
	query := ""
	if len(filter) > 0 {
		query = "?" + url.Values{"$filter": filter}.Encode()
	}
	ctx, cancel := context.WithTimeout(s.Context(), wait)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", s.url+"/redfish/v1/EventService/SSE"+query, nil)
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	if t := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || t != "text/event-stream" {
		s.Fatalf("stream: %d %s", resp.StatusCode, t)
	}
	lines := bufio.NewScanner(resp.Body)
	id := ""
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			id = v
		}
		if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var e struct{ Events []map[string]any }
			if err := json.Unmarshal([]byte(v), &e); err != nil || len(e.Events) != 1 {
				s.Fatalf("event %s: %v", v, err)
			}
			if f(id, e.Events[0]) {
				return
			}
		}
	}
	s.Fatalf("the stream ended: %v", lines.Err())
}

func TestEvents(t *testing.T) {
	s := start(t, description(2, "Off"))
	var ids []string
	go func() {
		time.Sleep(50 * time.Millisecond)
		s.rack.BMCs[2].Record(wire.EventThermal, 2, "too hot", wire.Failure{})
		s.rack.BMCs[2].Record(wire.EventStage, uint16(wire.StageSource), "", wire.Failure{})
	}()
	s.stream("", func(id string, e map[string]any) bool {
		ids = append(ids, id)
		if e["Message"] == "too hot" {
			o := e["OriginOfCondition"].(map[string]any)["@odata.id"]
			if e["MessageId"] != "Racklet.1.0.Thermal" || e["Severity"] != "Critical" || o != "/redfish/v1/Systems/unit-2" {
				t.Errorf("event: %v", e)
			}
			var entry struct{ Message string }
			if s.get(e["LogEntry"].(map[string]any)["@odata.id"].(string), &entry); entry.Message != "too hot" {
				t.Errorf("log entry: %+v", entry)
			}
		}
		return e["Message"] == "stage source"
	})
	if !slices.IsSortedFunc(ids, func(a, b string) int { return len(a) - len(b) + strings.Compare(a, b) }) {
		t.Errorf("numbers do not rise: %v", ids)
	}
	// The same again from the middle: exactly what came after.
	if len(ids) < 2 {
		t.Fatalf("only %v", ids)
	}
	s.stream(ids[len(ids)-2], func(id string, e map[string]any) bool {
		if id != ids[len(ids)-1] || e["Message"] != "stage source" {
			t.Errorf("replay begins with %s %v", id, e["Message"])
		}
		return true
	})
	// A number of another life: everything that is known.
	s.stream("99999999999999999", func(_ string, e map[string]any) bool { return e["Message"] == "controller started" })
}

func TestConsole(t *testing.T) {
	s := start(t, description(1, "On"))
	s.rack.BMCs[1].Print("booting\r\n")
	var v struct {
		SerialConsole struct{ WebSocket struct{ ConsoleURI string } }
	}
	s.get("/redfish/v1/Systems/unit-1", &v)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, s.url+v.SerialConsole.WebSocket.ConsoleURI, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	read := func(want string) {
		t.Helper()
		var got []byte
		for !bytes.Contains(got, []byte(want)) {
			kind, b, err := ws.Read(ctx)
			if err != nil || kind != websocket.MessageBinary {
				t.Fatalf("after %q: %v", got, err)
			}
			got = append(got, b...)
		}
	}
	read("booting\r\n")
	if err := ws.Write(ctx, websocket.MessageBinary, []byte("hello\r")); err != nil {
		t.Fatal(err)
	}
	s.until("it is typed", func() bool { return s.rack.BMCs[1].Typed() == "hello\r" })
	long := strings.Repeat("0123456789abcdef", 600) + "end\n"
	s.rack.BMCs[1].Print(long)
	read("end\n")
	second, _, err := websocket.Dial(ctx, s.url+v.SerialConsole.WebSocket.ConsoleURI, nil) // the scroll-back comes first
	if err != nil {
		t.Fatal(err)
	}
	defer second.CloseNow()
	if _, b, err := second.Read(ctx); err != nil || !bytes.HasPrefix(b, []byte("booting")) {
		t.Errorf("scroll-back %.20q: %v", b, err)
	}
	if _, resp, err := websocket.Dial(ctx, s.url+v.SerialConsole.WebSocket.ConsoleURI, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://evil.example"}}}); err == nil || resp.StatusCode != 403 {
		t.Error("a page of another origin may open the console")
	}
	if resp, _ := s.do("GET", "/redfish/v1/Systems/unit-9/Oem/Racklet/Console", ""); resp.StatusCode != 404 {
		t.Errorf("console of no unit: %d", resp.StatusCode)
	}
}

func TestEvidence(t *testing.T) {
	s := start(t, description(1, "Off"))
	const path = "/redfish/v1/ComponentIntegrity/bmc-1/Actions/ComponentIntegrity.SPDMGetSignedMeasurements"
	nonce := strings.Repeat("5a", 32)
	resp, b := s.do("POST", path, `{"Nonce":"`+nonce+`"}`)
	var v struct{ SignedMeasurements, SigningAlgorithm string }
	if err := json.Unmarshal(b, &v); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, b)
	}
	got, err := base64.StdEncoding.DecodeString(v.SignedMeasurements)
	if err != nil || string(got) != "evidence"+strings.Repeat("Z", 32) || v.SigningAlgorithm != "EdDSA ed25519" {
		t.Errorf("evidence %q: %v", got, err)
	}
	for body, want := range map[string]string{
		`{"MeasurementIndices":[1]}`:      "ActionParameterValueNotInList",
		`{"SlotId":1}`:                    "ActionParameterValueNotInList",
		`{"Nonce":"5a"}`:                  "ActionParameterValueFormatError",
		`{"Nonce":7}`:                     "ActionParameterValueFormatError",
		`{"Nonce":"` + nonce + `","A":1}`: "ActionParameterUnknown",
	} {
		if resp, b := s.do("POST", path, body); resp.StatusCode != 400 || firstMessage(t, b).MessageID != "Base.1.22."+want {
			t.Errorf("%s: %d %s", body, resp.StatusCode, b)
		}
	}
	var two []string
	for range 2 { // without a nonce the service chooses one, another each time
		resp, b := s.do("POST", path, `{"MeasurementIndices":[255],"SlotId":0}`)
		if json.Unmarshal(b, &v) != nil || resp.StatusCode != 200 {
			t.Errorf("no nonce: %d %s", resp.StatusCode, b)
		}
		two = append(two, v.SignedMeasurements)
	}
	if two[0] == two[1] {
		t.Error("the service chooses the same nonce twice")
	}
	var c struct{ LastUpdated string }
	if s.get("/redfish/v1/ComponentIntegrity/bmc-1", &c); c.LastUpdated == "" {
		t.Error("not updated")
	}
	s.rack.BMCs[1].SetFaults(wiretest.Faults{Code: wire.CodeNotReady})
	if resp, b := s.do("POST", path, `{"Nonce":"`+nonce+`"}`); resp.StatusCode != 409 {
		t.Errorf("not ready: %d %s", resp.StatusCode, b)
	}
}

// TestGofish drives the service with a client that others wrote.
func TestGofish(t *testing.T) {
	s := start(t, description(2, "Off"))
	c, err := gofish.Connect(gofish.ClientConfig{Endpoint: s.url, ReuseConnections: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Logout()
	systems, err := c.Service.Systems()
	if err != nil || len(systems) != 2 {
		t.Fatalf("%d systems: %v", len(systems), err)
	}
	one := systems[slices.IndexFunc(systems, func(s *schemas.ComputerSystem) bool { return s.ID == "unit-1" })]
	if one.PowerState != schemas.OffPowerState {
		t.Errorf("power state %s", one.PowerState)
	}
	if _, err := one.Reset(schemas.OnResetType); err != nil {
		t.Fatal(err)
	}
	s.until("it is on", func() bool {
		systems, err := c.Service.Systems()
		return err == nil && slices.ContainsFunc(systems, func(s *schemas.ComputerSystem) bool { return s.ID == "unit-1" && s.PowerState == schemas.OnPowerState })
	})
	chassis, err := c.Service.Chassis()
	if err != nil || len(chassis) != 3 {
		t.Fatalf("%d chassis: %v", len(chassis), err)
	}
	at := slices.IndexFunc(chassis, func(c *schemas.Chassis) bool { return c.ChassisType == schemas.RackChassisType })
	if at < 0 {
		t.Fatal("no rack among the chassis")
	}
	thermal, err := chassis[at].ThermalSubsystem()
	if err != nil || thermal == nil {
		t.Fatalf("thermal subsystem: %v", err)
	}
	fans, err := thermal.Fans()
	if err != nil || len(fans) != 2 {
		t.Errorf("%d fans: %v", len(fans), err)
	}
	managers, err := c.Service.Managers()
	if err != nil || len(managers) != 4 || !slices.ContainsFunc(managers, func(m *schemas.Manager) bool { return m.ManagerType == schemas.BMCManagerType }) {
		t.Errorf("%d managers: %v", len(managers), err)
	}
	logs, err := one.LogServices()
	if err != nil || len(logs) != 2 {
		t.Fatalf("%d logs: %v", len(logs), err)
	}
	s.until("the log has the boot", func() bool {
		entries, err := logs[slices.IndexFunc(logs, func(l *schemas.LogService) bool { return l.ID == "Log" })].Entries()
		return err == nil && len(entries) > 3
	})
	if err := one.SetBoot(&schemas.Boot{BootSourceOverrideEnabled: schemas.OnceBootSourceOverrideEnabled,
		BootSourceOverrideTarget: schemas.UefiTargetBootSource, UefiTargetBootSourceOverride: "SlotB"}); err != nil {
		t.Errorf("boot override: %v", err)
	}
	if st := s.rack.BMCs[1].State(); st.BootMode != wire.BootOnce || st.BootOverride != wire.SlotB {
		t.Errorf("the BMC has %v %d", st.BootMode, st.BootOverride)
	}
}
