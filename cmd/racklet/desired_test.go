package main

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
)

// TestHostEgress shows which ways open for the repository that an operator
// names, and that no other does.
func TestHostEgress(t *testing.T) {
	for _, c := range []struct {
		url, allow, forward, host string
		err                       string // part of it
	}{
		{url: "https://192.168.7.9/rack.git", allow: "192.168.7.9:443"},
		{url: "ssh://git@10.1.2.3:2222/rack.git", allow: "10.1.2.3:2222"},
		{url: "https://203.0.113.7/rack.git", allow: "203.0.113.7:443"},
		{url: "ssh://git@192.168.7.9/rack.git", allow: "192.168.7.9:22"},
		{url: "https://192.168.7.9:0/rack.git", err: "want 1 to 65535"},
		{url: "ssh://git@localhost:2222/rack.git", forward: "127.0.0.1:2222", host: "localhost"},
		{url: "ssh://git@localhost/rack.git", forward: "127.0.0.1:22", host: "localhost"},
		{url: "https://localhost:8443/rack.git", forward: "127.0.0.1:8443", host: "localhost"},
		{url: "https://localhost/rack.git", err: "port 443 of the gateway is taken"},
		{url: "https://127.0.0.1:8443/rack.git", err: "to a unit 127.0.0.1 is the unit itself"},
		{url: "https://[::1]:8443/rack.git", err: "to a unit ::1 is the unit itself"},
		{url: "https://no-such-host.invalid/rack.git", err: "find the host of"},
	} {
		way, err := hostEgress(c.url)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.url, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		var allow []string
		for _, p := range way.allow {
			allow = append(allow, p.String())
		}
		var forwards []string
		for port, to := range way.forwards {
			forwards = append(forwards, to)
			if port == 0 || !strings.HasSuffix(to, c.forward[strings.LastIndex(c.forward, ":"):]) {
				t.Errorf("%s: port %d leads to %s", c.url, port, to)
			}
		}
		if strings.Join(allow, " ") != c.allow || strings.Join(forwards, " ") != c.forward || strings.Join(way.hosts, " ") != c.host {
			t.Errorf("%s: %+v", c.url, way)
		}
	}
}

// TestDesiredState: a unit is told what it shall be, once its BMC answers, and a second time nothing.
func TestDesiredState(t *testing.T) {
	state := t.TempDir()
	_, r := managedRack(t, state)
	b := r.BMCs[1]
	env := &environment{state: state, stderr: io.Discard}
	client, err := env.client()
	if err != nil {
		t.Fatal(err)
	}
	available := func(want bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if units, err := readUnits(t.Context(), client); err == nil && len(units) == 1 && units[0].Available == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the BMC never becomes available: %v", want)
			}
		}
	}
	available(true)
	b.SetFaults(wiretest.Faults{Silent: true})
	available(false)
	unit := &rack.ComputeUnit{Metadata: rack.Metadata{Name: "unit-1"}, Spec: rack.ComputeUnitSpec{Slot: 1, Power: rack.PowerOn, IdentifyLED: true, PowerCap: 7}}
	d := &desiredState{log: slog.New(slog.DiscardHandler)}
	if err := d.apply(t.Context(), client, &manifest.Set{Rack: &rack.Rack{}}, []*rack.ComputeUnit{unit}); err != nil || len(d.pending) != 1 {
		t.Fatalf("with a silent BMC: %d pending, %v", len(d.pending), err)
	}
	b.SetFaults(wiretest.Faults{})
	available(true)
	if err := d.applyPending(t.Context(), client); err != nil || len(d.pending) != 0 {
		t.Fatalf("%d pending, %v", len(d.pending), err)
	}
	st := b.State()
	if st.Power != wire.PowerOn || !st.LED || st.CapMilliwatts != 7000 {
		t.Errorf("the BMC was told %+v", st)
	}
	if err := d.apply(t.Context(), client, &manifest.Set{Rack: &rack.Rack{}}, []*rack.ComputeUnit{unit}); err != nil || b.State().DesiredGeneration != st.DesiredGeneration {
		t.Errorf("told again: generation %d, then %d: %v", st.DesiredGeneration, b.State().DesiredGeneration, err)
	}
}
