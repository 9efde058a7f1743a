package redfish_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

type logBody struct {
	Members []struct{ ID, Message, MessageID string }
}

func (n *network) log(uri string) (v logBody) {
	n.Helper()
	n.read(uri+"/Entries", &v)
	return v
}

func texts(v logBody) []string {
	var all []string
	for _, m := range v.Members {
		all = append(all, m.ID+" "+m.Message)
	}
	return all
}

// TestLogsSurvive: what a log has shown is there after restarts, once, also when the controller has forgotten it, or is another one.
func TestLogsSurvive(t *testing.T) {
	const unitLog, bmcLog, bootLog, rmcLog = "/redfish/v1/Systems/unit-1/LogServices/Log", "/redfish/v1/Managers/bmc-1/LogServices/Log", "/redfish/v1/Systems/unit-1/LogServices/Boot", "/redfish/v1/Managers/rmc/LogServices/Log"
	dir, r := t.TempDir(), newCable(t)
	n := listen(t, dir, r)
	r.BMCs[1].Record(wire.EventStage, uint16(wire.StageSource), "", wire.Failure{})
	r.BMCs[1].Record(wire.EventThermal, 1, "warm", wire.Failure{})
	r.Record(wire.EventFan, 1, 0, "fan 1")
	has := func(n *network, uri, text string) {
		n.Helper()
		n.until(text+" in "+uri, func() bool { return strings.Contains(strings.Join(texts(n.log(uri)), "\n"), text) })
	}
	has(n, unitLog, "warm")
	has(n, rmcLog, "stalled")
	before, beforeRMC := texts(n.log(unitLog)), texts(n.log(rmcLog))
	if strings.Join(texts(n.log(bmcLog)), "\n") != strings.Join(before, "\n") {
		t.Error("the log of the manager is another one")
	}
	if boot := strings.Join(texts(n.log(bootLog)), "\n"); !strings.Contains(boot, "stage source") || strings.Contains(boot, "warm") {
		t.Errorf("boot progress: %s", boot)
	}
	n.stop()

	// The same controller, and something new.
	r.BMCs[1].Record(wire.EventThermal, 0, "meanwhile", wire.Failure{})
	n = listen(t, dir, r)
	has(n, unitLog, "meanwhile")
	after := texts(n.log(unitLog))
	if strings.Join(after[:len(before)], "\n") != strings.Join(before, "\n") {
		t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if count := strings.Count(strings.Join(after, "\n"), "warm"); count != 1 {
		t.Errorf("an event is there %d times", count)
	}
	if got := texts(n.log(rmcLog)); strings.Join(got[:len(beforeRMC)], "\n") != strings.Join(beforeRMC, "\n") {
		t.Errorf("RMC: before\n%s\nafter\n%s", strings.Join(beforeRMC, "\n"), strings.Join(got, "\n"))
	}
	n.stop()

	// Another board, whose log has more events than the old one's.
	r.BMCs[1].Forget()
	for i := range len(after) + 5 {
		r.BMCs[1].Record(wire.EventThermal, 0, fmt.Sprintf("other %d", i), wire.Failure{})
	}
	n = listen(t, dir, r)
	r.BMCs[1].Record(wire.EventThermal, 0, "other last", wire.Failure{})
	has(n, unitLog, "other last")
	all := strings.Join(texts(n.log(unitLog)), "\n")
	if !strings.Contains(all, "other 0") || !strings.Contains(all, "warm") {
		t.Errorf("after a swap:\n%s", all)
	}
	n.stop()

	// A torn line at the end costs nothing else.
	f, err := os.OpenFile(filepath.Join(dir, "events.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"n":99999999999999,"eve`)
	f.Close()
	n = listen(t, dir, r)
	if got := strings.Join(texts(n.log(unitLog)), "\n"); !strings.HasPrefix(got, all) {
		t.Errorf("after a torn line:\n%s", got)
	}
}

// TestStreamSurvives: a reader that comes back after a restart gets what it missed, and nothing else.
func TestStreamSurvives(t *testing.T) {
	dir, r := t.TempDir(), newCable(t)
	read := func(n *network, last, until string, filter ...string) (ids []string, messages string) {
		t.Helper()
		server := httptest.NewServer(n.owner)
		defer server.Close()
		s := &service{t, r.Rack, server.URL}
		s.stream(last, func(id string, e map[string]any) bool {
			ids, messages = append(ids, id), messages+fmt.Sprintln(e["Message"])
			return e["Message"] == until
		}, filter...)
		return ids, messages
	}
	n := listen(t, dir, r)
	r.BMCs[1].Record(wire.EventThermal, 1, "one", wire.Failure{})
	ids, _ := read(n, "1", "one")
	n.stop()
	r.BMCs[1].Record(wire.EventThermal, 1, "two", wire.Failure{})
	n = listen(t, dir, r)
	if w := n.own("POST", "/redfish/v1/EventService/Actions/EventService.SubmitTestEvent", `{"Message":"three"}`); w.Code != 204 {
		t.Fatal(w.Body)
	}
	n.until("all events", func() bool {
		return strings.Contains(fmt.Sprint(texts(n.log("/redfish/v1/Systems/unit-1/LogServices/Log"))), "two")
	})
	n.stop()
	n = listen(t, dir, r)
	if w := n.own("POST", "/redfish/v1/EventService/Actions/EventService.SubmitTestEvent", `{"Message":"four"}`); w.Code != 204 {
		t.Fatal(w.Body)
	}
	more, messages := read(n, ids[len(ids)-1], "four")
	if strings.Contains(messages, "one\n") || strings.Count(messages, "two\n") != 1 || strings.Count(messages, "three\n") != 1 {
		t.Errorf("after %s: %v\n%s", ids[len(ids)-1], more, messages)
	}
	// Filters see the replay too.
	if _, messages := read(n, "1", "two", "MessageId eq 'Racklet.1.0.Thermal' and OriginResource eq '/redfish/v1/Systems/unit-1'"); messages != "one\ntwo\n" {
		t.Errorf("filtered: %s", messages)
	}
	if _, messages := read(n, "1", "four", "not (ResourceType eq 'ComputerSystem' or ResourceType eq 'Manager')"); messages != "three\nfour\n" {
		t.Errorf("filtered: %s", messages)
	}
	for query, want := range map[string]int{"$filter=Color+eq+'x'": 400, "$filter=MessageId+eq": 400, "$filter=('": 400, "$top=1": 501, "%zz": 400} {
		if w := n.own("GET", "/redfish/v1/EventService/SSE?"+query, ""); w.Code != want {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

// TestDeliveryIsKept: what a subscription was promised before a restart arrives after it, once and in order.
func TestDeliveryIsKept(t *testing.T) {
	dir, r := t.TempDir(), newCable(t)
	var mu sync.Mutex
	var got bytes.Buffer
	down := true
	dest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			w.WriteHeader(503)
			return
		}
		got.ReadFrom(req.Body)
	}))
	defer dest.Close()
	n := listen(t, dir, r)
	if w := n.own("PATCH", "/redfish/v1/EventService", `{"DeliveryRetryIntervalSeconds":1}`); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if w := n.own("POST", "/redfish/v1/EventService/Subscriptions", `{"Destination":"`+dest.URL+`","Protocol":"Redfish","MessageIds":["Racklet.1.0.Thermal"]}`); w.Code != 201 {
		t.Fatal(w.Body)
	}
	for i := range 30 {
		r.BMCs[1].Record(wire.EventThermal, 0, fmt.Sprintf("event-%02d", i), wire.Failure{})
	}
	n.until("the events are in the log", func() bool {
		return strings.Contains(fmt.Sprint(texts(n.log("/redfish/v1/Systems/unit-1/LogServices/Log"))), "event-29")
	})
	n.stop()
	mu.Lock()
	down = false
	mu.Unlock()
	n = listen(t, dir, r)
	n.until("all are delivered", func() bool { mu.Lock(); defer mu.Unlock(); return strings.Contains(got.String(), "event-29") })
	mu.Lock()
	defer mu.Unlock()
	at := 0
	for i := range 30 {
		text := fmt.Sprintf(`"Message":"event-%02d"`, i)
		if strings.Count(got.String(), text) != 1 || strings.Index(got.String(), text) < at {
			t.Errorf("event %d: %d times", i, strings.Count(got.String(), text))
		}
		at = strings.Index(got.String(), text)
	}
}

func (n *network) read(uri string, into any) {
	n.Helper()
	w := n.own("GET", uri, "")
	if err := json.Unmarshal(w.Body.Bytes(), into); w.Code != 200 || err != nil {
		n.Fatalf("GET %s: %d %s", uri, w.Code, w.Body)
	}
}

func (n *network) until(what string, f func() bool) {
	n.Helper()
	for end := time.Now().Add(wait); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			n.Fatalf("timed out: %s", what)
		}
	}
}
