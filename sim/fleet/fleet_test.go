package fleet

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// start runs a fleet behind a listener.
func start(t testing.TB, units int) (*Fleet, string) {
	t.Helper()
	f, err := New(Options{Units: units, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ready, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := f.Ready(ready); err != nil {
		t.Fatal(err)
	}
	return f, server.URL
}

func get(t testing.TB, url, host string, into any) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// TestFleet: 23 units are three racks; each has its own, they live, and a silent BMC is told with its age without holding up another.
func TestFleet(t *testing.T) {
	f, url := start(t, 23)
	type systems struct {
		Members []struct {
			Status struct{ State string }
			Oem    struct {
				Racklet struct{ AgeSeconds, EnergyJoules float64 }
			}
		}
	}
	look := func(rack int) (s systems) {
		t.Helper()
		if code := get(t, url+"/redfish/v1/Systems?$expand=.", Host(rack), &s); code != http.StatusOK {
			t.Fatalf("rack %d: %d", rack, code)
		}
		return s
	}
	for rack, want := range []int{10, 10, 3} {
		if got := len(look(rack).Members); got != want {
			t.Errorf("rack %d has %d units, want %d", rack, got, want)
		}
	}
	if code := get(t, url+"/redfish/v1/", Host(3), nil); code != http.StatusMisdirectedRequest {
		t.Errorf("a rack that is not there: %d", code)
	}
	f.Silence(1, 4, true)
	var s systems
	var slowest time.Duration
	for end := time.Now().Add(20 * time.Second); s.Members == nil || s.Members[3].Status.State != "UnavailableOffline"; {
		began := time.Now()
		s = look(1)
		slowest = max(slowest, time.Since(began))
		if began.After(end) {
			t.Fatalf("a silent BMC is %+v", s.Members[3])
		}
		time.Sleep(20 * time.Millisecond)
	}
	if age := s.Members[3].Oem.Racklet.AgeSeconds; age < 3 {
		t.Errorf("it is %v s old", age)
	}
	for i := range s.Members {
		if age := s.Members[i].Oem.Racklet.AgeSeconds; i != 3 && (age > 2.5 || s.Members[i].Oem.Racklet.EnergyJoules == 0) {
			t.Errorf("unit %d beside it: %+v", i+1, s.Members[i])
		}
	}
	if slowest > 5*time.Second {
		t.Errorf("a read took %v", slowest)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a fleet of nothing")
	}
	if state := s.Members[0].Status.State; state != "Enabled" {
		t.Errorf("unit 1 is %s", state)
	}
}
