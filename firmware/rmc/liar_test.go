package rmc_test

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// A BMC whose answers contradict themselves is asked again before it is granted anything, but it does not get the bus
// for itself: the others are polled as ever.
func TestLiarDoesNotHoldTheBus(t *testing.T) {
	g := newRig(t)
	g.start()
	policies := func(budget uint32) {
		g.set(func(p *wire.Policies) { p.BudgetMilliwatts, p.ReserveMilliwatts, p.StaggerMillis = budget, 15_000, 100 })
	}
	policies(55_000)
	for _, b := range g.bmcs[:2] {
		b.wants = true
	}
	g.run(5_000)
	liar, honest := g.bmcs[0], g.bmcs[1]
	if liar.State != wire.StateRunning || honest.State != wire.StateRunning {
		t.Fatalf("not both run: %v, %v", liar.State, honest.State)
	}
	asked := map[*bmc]int{}
	for _, b := range []*bmc{liar, honest} {
		b.echo = func(*wire.Message) { asked[b]++ }
	}
	g.run(2_000)
	before := asked[honest]
	clear(asked)
	liar.State = wire.StateOff // but goes on drawing power
	liar.offAt = g.now + 1<<40
	g.r.Step(g.now)
	liar.Milliwatts = 6_000
	for range 200 { // as its own step would take the power away
		g.now += 10
		honest.step(g.now)
		if g.now%1000 == 0 {
			policies(20_000 + uint32(g.now%2000)*10) // grants change
		}
		g.r.Step(g.now)
		g.pump()
	}
	if asked[liar] > 4*before || asked[honest]*2 < before {
		t.Errorf("in 2 s the liar was asked %d times, the honest one %d; before, each %d", asked[liar], asked[honest], before)
	}
}
