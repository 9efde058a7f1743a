package fault

import (
	"fmt"
	"math"
	"slices"
	"strings"
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
	Noticed float64 `json:"noticed" doc:"seconds until a controller logged something that can come of it"`
	Healed  float64 `json:"healed" doc:"seconds from its end until as many units ran as at the start; below 0: not within the scenario"`

	id    int
	spec  rack.FaultSpec
	signs int     // that were there before
	over  float64 // seconds from the start at which it ended; below 0: not yet
	ends  bool    // it ends by itself
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
	ids      []int   // of its faults
	seen     int     // entries of the engine's record that were looked at
	before   *View   // the last look
	running  float64 // units, at the start
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
	r := &Run{scenario: s, engine: e, start: view.Now, seen: len(e.Record()), before: view,
		out: Outcome{Scenario: s.Metadata.Name, Teaches: s.Spec.Teaches, State: "running", Checks: []CheckOutcome{}, Invariants: []CheckOutcome{}, Faults: []FaultOutcome{}, Record: []Entry{}}}
	c := rack.Condition{Subject: "units", Field: "running"}
	running, _ := view.Read(&c)
	r.running = running.Number
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
		id, err := e.Inject(f)
		if err != nil {
			r.heal()
			return nil, err
		}
		r.ids = append(r.ids, id)
	}
	return r, nil
}

// heal ends what the scenario broke and did not end itself.
func (r *Run) heal() {
	for _, id := range r.ids {
		_ = r.engine.Clear(id) // most are over by themselves
	}
}

// settled says whether nothing can come any more that the scenario is about.
func (r *Run) settled() bool {
	if r.scenario.Spec.Ends != rack.EndsSettled {
		return false
	}
	for i := range r.checks {
		if !r.checks[i].done {
			return false
		}
	}
	begun := 0
	for i := range r.out.Faults {
		f := &r.out.Faults[i]
		if !slices.Contains(r.ids, f.id) {
			continue
		}
		begun++
		if f.Healed < 0 && (f.over >= 0 || f.ends) {
			return false
		}
	}
	return begun == len(r.ids)
}

// Step looks at the rack; it reports whether the run is over. Then all that it broke is healed.
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
	settled := r.settled()
	if t < time.Duration(r.scenario.Spec.Length) && !settled {
		return false
	}
	r.heal()
	r.follow(t, v)
	r.out.State = "passed"
	if r.scenario.Spec.Ends == rack.EndsSettled && !settled {
		r.out.Checks = append(r.out.Checks, CheckOutcome{That: "settled", Why: "all that ran runs again, and what broke is over", State: "failed", At: t.Seconds(), Seen: "not at its end"})
	}
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
			f := FaultOutcome{Fault: e.Fault.String(), At: e.Seconds, Noticed: -1, Healed: -1, id: e.ID, spec: e.Fault, signs: signs(&e.Fault, r.before), over: -1,
				ends: e.Fault.For > 0 || e.Fault.Until != ""}
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
		if f.Noticed < 0 && signs(&f.spec, v) > f.signs {
			f.Noticed = t.Seconds() - f.At
		}
		if whole := reading.Number >= r.running && v.RMCAlive; f.over >= 0 && t.Seconds() > f.over && f.Healed < 0 && whole {
			f.Healed = t.Seconds() - f.over
		} else if f.Healed >= 0 && !whole && t.Seconds()-f.over < 10 {
			f.Healed = -1 // it looked whole only because nobody had looked yet
		}
	}
	r.before = v
}

// signs counts what controllers have logged that can come of a fault: about a unit, what its BMC says and the RMC of it;
// about cables and services, the checks that units fail at on their way to them; about the rest, everything.
func signs(f *rack.FaultSpec, v *View) (n int) {
	k, _ := rack.LookupFaultKind(f.Kind)
	words := []string{" "} // each word has one before it
	switch k.Target {
	case rack.OnPort, rack.OnUnits:
		words = []string{" network.", " source.", " os."}
	case rack.OnService:
		words = []string{" source.", " tuf.", " rack.", " os."}
	case rack.OnUnit:
	default:
		return int(v.Events)
	}
	for i := range v.Units {
		u := &v.Units[i]
		if k.Target != rack.OnService && f.Target != "gateway" && !slices.Contains(f.Targets(), u.Unit) {
			continue
		}
		for _, w := range words {
			n += strings.Count(u.Log, w)
		}
	}
	return n
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
