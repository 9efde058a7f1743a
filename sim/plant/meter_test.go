package plant_test

import (
	"math"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/plant"
)

// A day of loads from 1 to 25 W: each unit's meter is within one percent of the truth, and what the rack's meter saw less
// what units, fans, switch and controllers took is the loss.
func TestMetersOverADay(t *testing.T) {
	board := plant.Board{Idle: 1, Dynamic: 24, SoC: 0.1, Sink: 3}
	p, err := plant.New(plant.Config{Seed: 5, Supply: plant.Supply{Amps: 8}, Slots: []plant.Board{board, board, board, board}})
	if err != nil {
		t.Fatal(err)
	}
	fans(p, 1)
	bus := chip.NewBus()
	meters := make([]*ina228.Device, 5) // the last one is the rack's
	for i := range meters {
		addr := uint16(0x40 + i)
		if i < 4 {
			bus.Attach(addr, chip.NewINA228(0.005, p.Slot(i+1).Gain, func() chip.Rail {
				s := p.Slot(i + 1)
				return chip.Rail{Volts: s.Volts, Amps: s.Amps, Joules: s.Joules}
			}))
		} else {
			bus.Attach(addr, chip.NewINA228(0.005, 1, func() chip.Rail {
				r := p.Rack()
				return chip.Rail{Volts: r.Volts, Amps: r.Amps, Joules: r.Joules}
			}))
		}
		if meters[i], err = ina228.New(bus, ina228.Config{Address: addr, ShuntMicroohms: 5000, MaxMilliamps: 10_000}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(i int) driver.Power {
		v, err := meters[i].ReadPower()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for n := 1; n <= 4; n++ {
		p.SetSwitch(n, true)
	}
	p.Step(time.Second)
	bus.Advance(time.Second)
	var from [5]uint64
	for i := range meters {
		from[i] = read(i).Millijoules
	}
	e0, rack0 := p.Energy(), p.Rack().Joules
	low, high := 100.0, 0.0
	for s := range 24 * 3600 {
		for n := 1; n <= 4; n++ {
			p.SetActivity(n, plant.Activity{Running: true, CPU: float64((s/7*n*31+n*17)%101) / 100})
		}
		p.Step(time.Second)
		bus.Advance(time.Second)
		if s%10 == 0 {
			i := s / 10 % 4
			v, truth := read(i), p.Slot(i+1)
			low, high = min(low, truth.Watts), max(high, truth.Watts)
			if math.Abs(float64(v.Milliwatts)-truth.Watts*1000) > truth.Watts*10+2 {
				t.Fatalf("meter %d reads %d mW of %.3f W", i+1, v.Milliwatts, truth.Watts)
			}
		}
	}
	e := p.Energy()
	var unitsSeen float64
	for i := range 4 {
		got, want := float64(read(i).Millijoules-from[i])/1000, e.Unit[i]-e0.Unit[i]
		unitsSeen += got
		if math.Abs(got-want) > want*0.01 {
			t.Errorf("unit %d took %.0f J, its meter saw %.0f", i+1, want, got)
		}
	}
	rack := float64(read(4).Millijoules-from[4]) / 1000
	rest := e.Fans + e.Switch + e.Ctrl - e0.Fans - e0.Switch - e0.Ctrl
	droop := (e.Supply - e0.Supply) - (p.Rack().Joules - rack0) // lost before the rack's meter
	loss := e.Loss - e0.Loss - droop
	if got := rack - unitsSeen - rest; math.Abs(got-loss) > (e.Supply-e0.Supply)*0.01 {
		t.Errorf("rack meter less everything is %.0f J, the losses behind it are %.0f J", got, loss)
	}
	t.Logf("units %.0f J of %.0f J, loss %.1f %%, loads %.1f to %.1f W", unitsSeen, e.Supply-e0.Supply, 100*(e.Loss-e0.Loss)/(e.Supply-e0.Supply), low, high)
}
