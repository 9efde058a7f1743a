package redfish_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish"
	"github.com/racklet/racklet/system/redfish/access"
)

// FuzzAppendJSON holds our encoder against the standard library's.
func FuzzAppendJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"b":[1,2.5,-0,1e21,1e-7,1e300],"a":{"":null,"x":[{"y":true}]}}`, `"<&>\u2028\u0000é\ud800"`, `[[],{},"",0.1,123456789012345678]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var v any
		if json.Unmarshal([]byte(s), &v) != nil {
			return
		}
		want, err1 := json.Marshal(v)
		got, err2 := redfish.AppendJSON(v)
		if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s %v, want %s %v", got, err2, want, err1)
		}
	})
}

func TestAppendJSON(t *testing.T) {
	type other struct{ A int }
	for _, v := range []any{nil, true, 7, int64(-7), uint8(7), uint16(7), uint32(7), uint64(math.MaxUint64), float32(0.1), 0.0, math.Copysign(0, -1), 1e20, 1e21, 1e-6, 9e-7,
		"a\"b", "\x7f", "\xff", []string{"x"}, []string(nil), []any(nil), map[string]any(nil), other{1}, []other{{1}}, time.Unix(0, 0).UTC(), map[string]any{"b": 1, "a": other{2}}} {
		want, _ := json.Marshal(v)
		for _, v := range []any{v, redfish.Volatile(v)} {
			if got, err := redfish.AppendJSON(v); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%#v: %s %v, want %s", v, got, err, want)
			}
		}
	}
	for _, v := range []any{math.NaN(), math.Inf(1), []any{math.NaN()}, map[string]any{"a": math.NaN()}} {
		if b, err := redfish.AppendJSON(v); err == nil {
			t.Errorf("%v: %s", v, b)
		}
	}
}

// ticking is a clock that stands still unless it is moved.
type ticking struct {
	mu sync.Mutex
	at time.Time
}

func (c *ticking) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *ticking) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// TestKeptAnswers: an answer is kept for a moment, and never over a change or an event.
func TestKeptAnswers(t *testing.T) {
	clock := &ticking{at: time.Now()}
	o := description(2, "On")
	o.Clock = clock
	s := start(t, o)
	bmc := s.rack.BMCs[1]
	const uri = "/redfish/v1/Systems/unit-1"
	celsius := func() float64 {
		var v struct {
			Oem struct {
				Racklet struct{ TemperatureCelsius float64 }
			}
		}
		s.get(uri, &v)
		return v.Oem.Racklet.TemperatureCelsius
	}
	sensor := func() (v float64) {
		var o struct{ Reading float64 }
		s.get("/redfish/v1/Chassis/tray-1/Sensors/temperature", &o)
		return o.Reading
	}
	// While its clock stands still, a service that has no event keeps what it said; whatever else is asked for.
	settled := 0.0
	s.until("nothing happens any more", func() bool { // events of the start
		bmc.Update(func(st *wire.UnitState) { st.MilliCelsius += 1000 })
		settled = celsius()
		time.Sleep(600 * time.Millisecond) // two polls
		return celsius() == settled
	})
	if v := sensor(); v <= settled {
		t.Errorf("a sensor that was not asked for says %v, the system %v", v, settled)
	}
	clock.pass(101 * time.Millisecond)
	if v := celsius(); v <= settled {
		t.Errorf("after a moment: %v", v)
	}
	// A change, of anything, is seen at once.
	bmc.Update(func(st *wire.UnitState) { st.MilliCelsius = 99_000 })
	s.until("it is read", func() bool { clock.pass(time.Second); return celsius() == 99 })
	bmc.Update(func(st *wire.UnitState) { st.MilliCelsius = 12_000 })
	for range 3 {
		for _, on := range []bool{true, false} {
			resp, b := s.do("PATCH", uri, fmt.Sprintf(`{"LocationIndicatorActive":%v}`, on))
			if resp.StatusCode != http.StatusOK || s.system("unit-1").LocationIndicatorActive != on {
				t.Fatalf("what was written is not read: %d %s", resp.StatusCode, b)
			}
		}
	}
	if v := celsius(); v != 12 {
		t.Errorf("after a change: %v", v)
	}
	// So is what an event tells of.
	bmc.Update(func(st *wire.UnitState) { st.MilliCelsius = 77_000 })
	celsius()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				bmc.Record(wire.EventThermal, 2, "too hot", wire.Failure{})
			}
		}
	}()
	s.stream("", func(_ string, e map[string]any) bool {
		if e["Message"] != "too hot" {
			return false
		}
		if v := celsius(); v != 77 {
			t.Errorf("after its event: %v", v)
		}
		return true
	})
}

// TestKeptFor: what is kept for one account is not given to another.
func TestKeptFor(t *testing.T) {
	n := listen(t, "", nil)
	n.account("ada", access.Administrator)
	n.account("bob", access.ReadOnly)
	const uri = "/redfish/v1/Managers?$expand=.($levels=3)" // leads to what a reader may not read
	token, _ := n.login("ada", password)
	other, _ := n.login("bob", password)
	for range 3 {
		_, all := n.do(n.client, "GET", uri, "", "X-Auth-Token", token)
		resp, some := n.do(n.client, "GET", uri, "", "X-Auth-Token", other)
		if resp.StatusCode != 200 || len(all) < len(some)+300 { // readings change by a few
			t.Fatalf("%d: %d bytes for the administrator, %d for the reader", resp.StatusCode, len(all), len(some))
		}
		if resp, b := n.do(n.client, "GET", uri, ""); resp.StatusCode != 401 {
			t.Errorf("a stranger: %d %.80s", resp.StatusCode, b)
		}
	}
}

// TestManyAsk: one of many who ask at once makes the answer, and odd queries do not fill the memory.
func TestManyAsk(t *testing.T) {
	s := start(t, description(4, "On"))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 200 {
				resp, err := http.Get(s.url + "/redfish/v1/Systems?$expand=.&$select=PowerState&x=" + strings.Repeat("y", i%3))
				if err != nil || resp.StatusCode != 200 {
					t.Error(resp, err)
					return
				}
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	for i := range 3000 {
		if resp, _ := s.do("GET", fmt.Sprintf("/redfish/v1/Systems?x=%d", i), ""); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
}
