package headless

import (
	"context"
	"fmt"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
)

// settleMost is how long a rack gets to start all its units before a scenario begins with those that run; peace is how
// long they then run undisturbed.
const (
	settleMost = 2 * time.Minute
	peace      = 45 * time.Second
)

// Run runs a scenario on a rack of its own. The error says why it could not run; what failed is in the outcome.
func Run(ctx context.Context, s *rack.Scenario, defect string) (*fault.Outcome, error) {
	if s.Spec.Needs != rack.NeedsFirmware {
		return nil, fmt.Errorf("scenario %s needs %s", s.Metadata.Name, s.Spec.Needs)
	}
	begin := time.Now()
	r, err := New(Options{Units: s.Spec.Units, Seed: uint64(s.Spec.Seed), Defect: defect})
	if err != nil {
		return nil, err
	}
	if s.Spec.Start != "off" {
		r.PowerOn()
	}
	if err := r.settle(ctx, s.Spec.Start != "off"); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Metadata.Name, err)
	}
	r.forget()
	e := fault.New(r)
	e.Step(r.Now())
	run, err := fault.Start(s, e, r.Look())
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Metadata.Name, err)
	}
	for {
		e.Step(r.Now())
		if r.Now()%lookEvery == 0 && run.Step(r.Look()) {
			break
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := r.Step(); err != nil {
			return nil, fmt.Errorf("scenario %s at %v: %w", s.Metadata.Name, r.Now(), err)
		}
	}
	o := run.Outcome()
	o.Wall = time.Since(begin).Seconds()
	return &o, nil
}

// PowerOn has the management computer ask for power for all units.
func (r *Rack) PowerOn() { r.wanted, r.generation = true, r.generation+1 }

// settle lets the rack start.
func (r *Rack) settle(ctx context.Context, units bool) error {
	quiet := time.Duration(0)
	for quiet < peace {
		if err := r.Step(); err != nil {
			return err
		}
		if r.Now() > settleMost {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		quiet += tick
		for _, t := range r.trays {
			if units && (t.bmc == nil || t.bmc.UnitState().Stage != wire.StageRunning) {
				quiet = 0
			}
		}
		if !units && quiet > 5*time.Second {
			return nil
		}
	}
	return nil
}
