package fault

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/racklet/racklet/rack"
)

// Outcome is what came of a scenario.
type Outcome struct {
	Scenario string  `json:"scenario" doc:"its name"`
	Teaches  string  `json:"teaches" doc:"what it teaches"`
	State    string  `json:"state" doc:"running, passed or failed"`
	Seconds  float64 `json:"seconds" doc:"since its start, on the rack's clock"`
	Wall     float64 `json:"wallSeconds,omitempty" doc:"that it took here"`

	Checks     []CheckOutcome `json:"checks" doc:"expectations in their order"`
	Invariants []CheckOutcome `json:"invariants" doc:"those that were watched"`
	Faults     []FaultOutcome `json:"faults" doc:"what broke, and how long it took to be noticed and to heal"`
	Record     []Entry        `json:"record" doc:"what the engine did"`
}

// CheckOutcome is what came of one expectation or invariant.
type CheckOutcome struct {
	That  string  `json:"that"`
	Why   string  `json:"why,omitempty"`
	State string  `json:"state" doc:"waiting, holds, passed or failed"`
	At    float64 `json:"at,omitempty" doc:"seconds from the start at which it came true or failed"`
	Seen  string  `json:"seen,omitempty" doc:"what was seen instead"`
}

// FaultOutcome is what came of one fault. Times are in seconds; below 0: not, within the scenario.
type FaultOutcome struct {
	Fault   string  `json:"fault"`
	At      float64 `json:"at" doc:"seconds from the start at which it broke"`
	Noticed float64 `json:"noticed" doc:"seconds until a controller logged it"`
	Healed  float64 `json:"healed" doc:"seconds from its end until all units ran as before; below 0: not within the scenario"`

	id      int
	events  uint64
	over    float64
	running float64
}

// Failed says whether the scenario failed.
func (o *Outcome) Failed() bool { return o.State == "failed" }

type check struct {
	rack.Expectation
	c    rack.Condition
	true bool
	at   time.Duration
	done bool
}

// Run is a scenario that runs on a rack. Step it after the engine, at least every 100 ms of the rack's time.
type Run struct {
	scenario *rack.Scenario
	engine   *Engine
	start    time.Duration
	base     int // entries of the engine's record before the run
	seen     int // entries that were looked at
	events   uint64
	running  float64 // units, at the last look
	checks   []check
	watch    *watch
	out      Outcome
}

// Start injects a scenario's faults; view is the rack as it is. The error says which fault cannot be.
func Start(s *rack.Scenario, e *Engine, view *View) (*Run, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	for i := range s.Spec.Faults {
		if err := Check(e.body, &s.Spec.Faults[i]); err != nil {
			return nil, fmt.Errorf("faults[%d]: %w", i, err)
		}
	}
	r := &Run{scenario: s, engine: e, start: view.Now, base: len(e.Record()), events: view.Events,
		out: Outcome{Scenario: s.Metadata.Name, Teaches: s.Spec.Teaches, State: "running", Checks: []CheckOutcome{}, Invariants: []CheckOutcome{}, Faults: []FaultOutcome{}, Record: []Entry{}}}
	c := rack.Condition{Subject: "units", Field: "running"}
	running, _ := view.Read(&c)
	r.running = running.Number
	r.seen = r.base
	for i, x := range s.Spec.Expect {
		c, err := rack.ParseCondition(x.That)
		if err != nil {
			return nil, err
		}
		if _, ok := view.Read(&c); !ok {
			return nil, fmt.Errorf("expect[%d]: no %s in this rack", i, c.Subject)
		}
		r.checks = append(r.checks, check{Expectation: x, c: c})
		r.out.Checks = append(r.out.Checks, CheckOutcome{That: x.That, Why: x.Why, State: "waiting"})
	}
	r.watch = newWatch(s.Spec.Without, view)
	for _, v := range r.watch.invariants {
		r.out.Invariants = append(r.out.Invariants, CheckOutcome{That: v.name, State: "holds"})
	}
	for _, f := range s.Spec.Faults {
		if _, err := e.Inject(f); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Step looks at the rack; it reports whether the run is over.
func (r *Run) Step(v *View) (over bool) {
	if r.out.State != "running" {
		return true
	}
	t := v.Now - r.start
	r.out.Seconds = t.Seconds()
	for i := range r.checks {
		r.check(i, t, v)
	}
	r.watch.look(v, r.engine.Effects(), func(i int, seen string) {
		if o := &r.out.Invariants[i]; o.State == "holds" {
			o.State, o.At, o.Seen = "failed", t.Seconds(), seen
		}
	})
	r.follow(t, v)
	if t < time.Duration(r.scenario.Spec.Length) {
		return false
	}
	r.out.State = "passed"
	for i := range r.out.Checks {
		if o := &r.out.Checks[i]; o.State != "passed" {
			r.out.State = "failed"
		}
	}
	for i := range r.out.Invariants {
		if o := &r.out.Invariants[i]; o.State == "holds" {
			o.State = "passed"
		} else {
			r.out.State = "failed"
		}
	}
	return true
}

func (r *Run) check(i int, t time.Duration, v *View) {
	x, o := &r.checks[i], &r.out.Checks[i]
	if x.done || t < time.Duration(x.After) {
		return
	}
	reading, _ := v.Read(&x.c)
	holds := x.c.Holds(reading)
	fail := func() {
		x.done = true
		o.State, o.At, o.Seen = "failed", t.Seconds(), describe(&x.c, reading)
	}
	switch {
	case !x.true && holds:
		x.true, x.at = true, t
		o.State, o.At = "holds", t.Seconds()
	case !x.true && t > time.Duration(x.After+x.Within):
		fail()
		return
	case x.true && !holds:
		fail()
		return
	}
	if x.true && t >= min(x.at+time.Duration(x.For), time.Duration(r.scenario.Spec.Length)) {
		x.done = true
		o.State = "passed"
	}
}

func describe(c *rack.Condition, r rack.Reading) string {
	s := fmt.Sprintf("%.4g", r.Number)
	if r.IsWord {
		s = r.Word
		if c.Field == "log" {
			s = "a log of:" + s
		}
	}
	return c.Subject + "." + c.Field + " was " + s
}

// follow keeps, for each fault, when it was noticed and when the rack was whole again.
func (r *Run) follow(t time.Duration, v *View) {
	record := r.engine.Record()
	c := rack.Condition{Subject: "units", Field: "running"}
	reading, _ := v.Read(&c)
	for ; r.seen < len(record); r.seen++ {
		e := record[r.seen]
		e.Seconds -= r.start.Seconds()
		r.out.Record = append(r.out.Record, e)
		if e.Event == "breaks" {
			f := FaultOutcome{Fault: e.Fault.String(), At: e.Seconds, Noticed: -1, Healed: -1, id: e.ID, events: r.events, over: -1, running: r.running}
			if k, _ := rack.LookupFaultKind(e.Fault.Kind); k.Once {
				f.over = e.Seconds
			}
			r.out.Faults = append(r.out.Faults, f)
			continue
		}
		for i := range r.out.Faults {
			if f := &r.out.Faults[i]; f.id == e.ID {
				f.over = e.Seconds
			}
		}
	}
	for i := range r.out.Faults {
		f := &r.out.Faults[i]
		if f.Noticed < 0 && v.Events > f.events {
			f.Noticed = t.Seconds() - f.At
		}
		if whole := reading.Number >= f.running && v.RMCAlive; f.over >= 0 && t.Seconds() > f.over && f.Healed < 0 && whole {
			f.Healed = t.Seconds() - f.over
		} else if f.Healed >= 0 && !whole && t.Seconds()-f.over < 10 {
			f.Healed = -1 // it looked whole only because nobody had looked yet
		}
	}
	r.events, r.running = v.Events, reading.Number
}

// Stop ends a run before its time.
func (r *Run) Stop() {
	if r.out.State == "running" {
		r.out.State = "failed"
	}
}

// Outcome returns what came of the run so far.
func (r *Run) Outcome() Outcome {
	o := r.out
	o.Checks, o.Invariants = slices.Clone(o.Checks), slices.Clone(o.Invariants)
	o.Faults, o.Record = slices.Clone(o.Faults), slices.Clone(o.Record)
	for i := range o.Faults {
		f := &o.Faults[i]
		f.At, f.Noticed, f.Healed = round(f.At), round(f.Noticed), round(f.Healed)
	}
	return o
}

func round(s float64) float64 { return math.Round(s*1000) / 1000 }
