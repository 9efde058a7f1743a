package headless

import (
	"slices"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/sim/plant"
)

// A sight is what a probe compares: the rack at one moment, by its copper and chips.
type sight struct {
	view   *fault.View
	slot   plant.Slot
	heat   int32 // °mC by the BMC's thermometer
	heatOK bool
	bit    byte
}

func (r *Rack) sight() sight {
	s := sight{view: r.Look(), slot: r.plant.Slot(1)}
	var err error
	s.heat, err = tmp117.New(r.trays[0].chips, 0).ReadTemperature()
	s.heatOK = err == nil
	b := make([]byte, 1)
	if r.trays[0].flash.ReadAt(b, 100) == nil {
		s.bit = b[0]
	}
	return s
}

// probes say, for each kind of fault, whether its effect is there: not that somebody noticed it.
var probes = map[string]struct {
	fault rack.FaultSpec
	there func(r *Rack, before, now sight) bool
}{
	"ambient":  {rack.FaultSpec{Target: "rack", With: map[string]string{"temperature": "60C"}}, func(r *Rack, b, n sight) bool { return n.view.Rack.Inlet > b.view.Rack.Inlet+1 }},
	"bmc-hang": {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].alive() == nil }},
	"bmc-lies-power": {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool {
		return n.view.Units[0].Said.Milliamps > b.view.Units[0].Said.Milliamps+2000
	}},
	"bmc-lies-state":       {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.view.Units[0].Said.State == wire.StateOff }},
	"bmc-lies-temperature": {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.heatOK && n.heat < b.heat-20_000 }},
	"bmc-restart":          {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.view.Units[0].Starts > b.view.Units[0].Starts }},
	"bmc-sensor-lost":      {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return !n.heatOK }},
	"bmc-slow":             {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return len(r.late) > 0 }},
	"brown-out":            {rack.FaultSpec{Target: "rack"}, func(r *Rack, b, n sight) bool { return n.view.Rack.Volts < 0.7*b.view.Rack.Volts }},
	"bus-jam":              {rack.FaultSpec{Target: "rack"}, func(r *Rack, b, n sight) bool { return n.view.RMC.SlotAgeMillis[0] > 500 }},
	"fan-no-tach":          {rack.FaultSpec{Target: "fan-1"}, func(r *Rack, b, n sight) bool { return n.view.Fans[0].RPM == 0 }},
	"fan-stuck":            {rack.FaultSpec{Target: "fan-1"}, func(r *Rack, b, n sight) bool { return n.view.Fans[0].RPM < 0.5*b.view.Fans[0].RPM }},
	"fan-worn":             {rack.FaultSpec{Target: "fan-1"}, func(r *Rack, b, n sight) bool { return n.view.Fans[0].RPM < 0.9*b.view.Fans[0].RPM }},
	"flash-flip":           {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.bit != b.bit }},
	"git-down":             {rack.FaultSpec{Target: "git"}, func(r *Rack, b, n sight) bool { return r.effects.Git == fault.ServiceDown }},
	"heatsink-off":         {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.slot.SoC > b.slot.SoC+0.1 }},
	"inlet-blocked":        {rack.FaultSpec{Target: "rack"}, func(r *Rack, b, n sight) bool { return n.view.Rack.Flow < 0.6*b.view.Rack.Flow }},
	"link-bandwidth":       {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.travel(r.effects, 1e6) > 1000 }},
	"link-cut":             {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.link(r.effects) == "network.no-carrier" }},
	"link-delay":           {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.travel(r.effects, 0) > 1000 }},
	"link-loss":            {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.travel(r.effects, 1e6) > 50 }},
	"link-one-way":         {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.link(r.effects) == "network.no-lease" }},
	"link-reorder":         {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.travel(r.effects, 1e6) > 10 }},
	"load":                 {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.slot.Watts > 1.3*b.slot.Watts }},
	"metadata-replay":      {rack.FaultSpec{Target: "git"}, func(r *Rack, b, n sight) bool { return r.effects.Git == fault.ServiceReplays }},
	"mirror-down":          {rack.FaultSpec{Target: "mirror"}, func(r *Rack, b, n sight) bool { return r.effects.Mirror == fault.ServiceDown }},
	"overheating":          {rack.FaultSpec{Target: "rack"}, func(r *Rack, b, n sight) bool { return n.view.Rack.Flow < 0.3*b.view.Rack.Flow }},
	"owner-key-stolen":     {rack.FaultSpec{Target: "git"}, func(r *Rack, b, n sight) bool { return r.effects.Git == fault.ServiceForged }},
	"partition":            {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.link(r.effects) == "network.no-lease" }},
	"power-cut":            {rack.FaultSpec{Target: "rack"}, func(r *Rack, b, n sight) bool { return !n.view.Rack.Standby && !n.slot.PowerGood }},
	"rmc-hang":             {rack.FaultSpec{Target: "rmc"}, func(r *Rack, b, n sight) bool { return !n.view.RMCAlive }},
	"rmc-restart":          {rack.FaultSpec{Target: "rmc"}, func(r *Rack, b, n sight) bool { return n.view.Starts > b.view.Starts }},
	"rmc-sensor-lost": {rack.FaultSpec{Target: "rmc"}, func(r *Rack, b, n sight) bool {
		_, err := tmp117.New(r.chips, 0).ReadTemperature()
		return err != nil
	}},
	"tray-pulled":     {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return !n.slot.Present && n.view.Units[0].BMC == "off" }},
	"unit-key-stolen": {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.trays[0].ghost.stolen }},
	"unit-power-cut":  {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return !n.slot.PowerGood }},
	"unit-reset":      {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return n.view.Units[0].Machine == "boot ROM" }},
	"unit-short":      {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return !n.slot.PowerGood }},
	"unit-silent":     {rack.FaultSpec{Target: "unit-1"}, func(r *Rack, b, n sight) bool { return r.now > r.trays[0].ghost.due+100 }},
}

// TestEveryKindLandsWithinASecond: from its time on, each fault takes less than a second of the rack's time to change what it
// is about, and nothing else has changed that before. Those that need machines are in e2e's scenarios.
func TestEveryKindLandsWithinASecond(t *testing.T) {
	racktest.Tool(t, "git")
	r, err := New(Options{Units: 2, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	r.PowerOn()
	if err := r.settle(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	e := fault.New(r)
	step := func() {
		e.Step(r.Now())
		if err := r.Step(); err != nil {
			t.Fatal(err)
		}
	}
	var all []float64
	for i := range rack.FaultKinds {
		k := &rack.FaultKinds[i]
		if k.Machines || k.Name == "bmc-sensor-frozen" {
			continue // a thermometer that converts once a second looks frozen in between: the scenario lying-thermometer
		}
		p, ok := probes[k.Name]
		if !ok {
			t.Errorf("%s has no probe", k.Name)
			continue
		}
		before := r.sight()
		for range 100 {
			step()
			if p.there(r, before, r.sight()) {
				t.Errorf("%s: its effect is there before it", k.Name)
				break
			}
		}
		before = r.sight()
		f := p.fault
		f.Kind = k.Name
		start := r.Now()
		if _, err := e.Inject(f); err != nil {
			t.Fatal(k.Name, err)
		}
		for r.Now() < start+2*time.Second && !p.there(r, before, r.sight()) {
			step()
		}
		took := (r.Now() - start).Seconds()
		all = append(all, took)
		if took > 1 {
			t.Errorf("%s: not after %.2f s", k.Name, took)
		}
		e.ClearAll()
		for end := r.Now() + 90*time.Second; r.Now() < end; {
			step()
			u := r.trays[0]
			if r.Now() > start+8*time.Second && u.bmc != nil && u.bmc.UnitState().Stage == wire.StageRunning && r.plant.Slot(1).PowerGood && r.rmc != nil {
				break
			}
		}
	}
	t.Logf("%d kinds, the slowest after %.2f s", len(all), slices.Max(all))
}
