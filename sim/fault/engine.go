// Package fault breaks a virtual rack on purpose, and watches what it makes of it.
//
//	scenario ──▶ Engine ── Effects, by what changed ──▶ Body (sim.Rack, headless.Rack)
//	   │            │ what began and healed, when          │
//	   │            ▼                                      ▼ View
//	   └─────────▶ Run: expectations, invariants, time to notice, time to heal
//
// The vocabulary is package rack's (FaultKinds, Scenario). An Engine knows which faults are active and which are due; at
// each change it adds up what all active ones do together (Effects) and hands the rack old and new. So two faults on one
// cable add up, and healing one leaves the other. What happens once (a restart, a flipped bit) is handed over by itself.
//
// Time is what Step was given. Faults that are due at the same time happen in the order in which they were injected, so
// the same scenario has the same order of events, every time. Everything is recorded and can be replayed.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/racklet/racklet/rack"
)

// A Body is a rack that can be broken. Its methods are called one at a time.
type Body interface {
	Site
	// Apply makes the rack's state follow from before to after.
	Apply(before, after *Effects) error
	// Once makes happen what happens once.
	Once(f *rack.FaultSpec) error
	// Look returns what can be seen now.
	Look() *View
}

// Active is a fault that was injected.
type Active struct {
	ID    int            `json:"id" doc:"number, from 1"`
	Fault rack.FaultSpec `json:"fault" doc:"as injected"`
	State string         `json:"state" doc:"waiting or active"`
	Began float64        `json:"began" doc:"when it breaks or broke: seconds of the rack's clock"`
	Left  float64        `json:"left,omitempty" doc:"seconds until it heals by itself"`

	at, ends    time.Duration // ends: 0 is never
	when, until *rack.Condition
}

// Entry is one thing that the engine did.
type Entry struct {
	Seconds float64        `json:"seconds" doc:"of the rack's clock"`
	Event   string         `json:"event" doc:"breaks, heals or cleared"`
	ID      int            `json:"id" doc:"of the fault"`
	Fault   rack.FaultSpec `json:"fault" doc:"as injected"`
	Error   string         `json:"error,omitempty" doc:"why it could not be done"`
}

// Line is the entry as one line of text.
func (e *Entry) Line() string {
	s := fmt.Sprintf("%9.3fs  #%-3d %-7s %s", e.Seconds, e.ID, e.Event, e.Fault.String())
	if e.Error != "" {
		s += ": " + e.Error
	}
	return s
}

// Limits of an engine.
const (
	maxActive = 1000
	maxRecord = 10000
)

// ErrUnknown is returned for a fault that is not there.
var ErrUnknown = errors.New("no such fault")

// Engine injects, schedules, heals and records faults. Its methods may be called from several goroutines.
type Engine struct {
	body Body

	mu      sync.Mutex
	now     time.Duration
	next    int
	waiting []*Active // by time, then by ID
	active  []*Active // by ID
	effects *Effects
	record  []Entry
}

// New returns an engine for a rack that is whole.
func New(body Body) *Engine { return &Engine{body: body, effects: &Effects{}} }

// Check says whether a fault is valid and its target is in the rack.
func Check(site Site, f *rack.FaultSpec) error {
	if err := f.Validate(); err != nil {
		return err
	}
	k, _ := rack.LookupFaultKind(f.Kind)
	switch k.Target {
	case rack.OnUnit, rack.OnUnits:
		for _, name := range f.Targets() {
			if site.SlotOf(name) == 0 {
				return fmt.Errorf("target: no unit %q in this rack", name)
			}
		}
	case rack.OnFan:
		if n, _ := rack.FanNumber(f.Target); n > site.FanCount() {
			return fmt.Errorf("target: no %s: the rack has %d fans", f.Target, site.FanCount())
		}
	case rack.OnPort:
		if !slices.Contains(site.Ports(), f.Target) {
			return fmt.Errorf("target: no port %q: the switch has %s", f.Target, strings.Join(site.Ports(), ", "))
		}
	}
	for name, text := range map[string]string{"when": f.When, "until": f.Until} {
		if c := condition(text); c != nil && !there(site, c.Subject) {
			return fmt.Errorf("%s: no %s in this rack", name, c.Subject)
		}
	}
	return nil
}

// there says whether a condition's subject is in the rack.
func there(site Site, subject string) bool {
	if n, fan := rack.FanNumber(subject); fan {
		return n >= 1 && n <= site.FanCount()
	}
	return subject == "rack" || subject == "units" || site.SlotOf(subject) != 0
}

// condition reads one that was checked; nil for none.
func condition(text string) *rack.Condition {
	if c, err := rack.ParseCondition(text); err == nil {
		return &c
	}
	return nil
}

// Inject takes a fault. It breaks at now + At, at the next Step; from then on For counts. It returns the fault's number.
func (e *Engine) Inject(f rack.FaultSpec) (int, error) {
	if err := Check(e.body, &f); err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting)+len(e.active) >= maxActive {
		return 0, fmt.Errorf("%d faults are there already: clear some", maxActive)
	}
	e.next++
	a := &Active{ID: e.next, Fault: f, at: e.now + time.Duration(f.At)}
	a.when, a.until = condition(f.When), condition(f.Until)
	i, _ := slices.BinarySearchFunc(e.waiting, a, func(x, y *Active) int {
		if x.at != y.at {
			return int(min(max(x.at-y.at, -1), 1))
		}
		return x.ID - y.ID
	})
	e.waiting = slices.Insert(e.waiting, i, a)
	return a.ID, nil
}

// Clear heals one fault, or forgets one that waits.
func (e *Engine) Clear(id int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, a := range e.waiting {
		if a.ID == id {
			e.waiting = slices.Delete(e.waiting, i, i+1)
			return nil
		}
	}
	for i, a := range e.active {
		if a.ID == id {
			e.active = slices.Delete(e.active, i, i+1)
			e.note("cleared", a, e.apply())
			return nil
		}
	}
	return fmt.Errorf("fault %d: %w", id, ErrUnknown)
}

// ClearAll heals everything and forgets what waits. It returns how many faults that were.
func (e *Engine) ClearAll() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.waiting) + len(e.active)
	gone := e.active
	e.waiting, e.active = nil, nil
	err := e.apply()
	for _, a := range gone {
		e.note("cleared", a, err)
		err = nil
	}
	return n
}

// Step lets the engine act: now is the rack's clock.
func (e *Engine) Step(now time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = now
	var view *View
	holds := func(c *rack.Condition) bool {
		if view == nil {
			view = e.body.Look()
		}
		r, ok := view.Read(c)
		return ok && c.Holds(r)
	}
	for i := 0; i < len(e.active); {
		a := e.active[i]
		if over := a.ends > 0 && now >= a.ends || a.until != nil && holds(a.until); !over {
			i++
			continue
		}
		e.active = slices.Delete(e.active, i, i+1)
		e.note("heals", a, e.apply())
	}
	for i := 0; i < len(e.waiting) && e.waiting[i].at <= now; {
		a := e.waiting[i]
		if a.when != nil && !holds(a.when) {
			i++
			continue
		}
		e.waiting = slices.Delete(e.waiting, i, i+1)
		a.at = now
		if k, _ := rack.LookupFaultKind(a.Fault.Kind); k.Once {
			e.note("breaks", a, e.body.Once(&a.Fault))
			continue
		}
		if a.Fault.For > 0 {
			a.ends = now + time.Duration(a.Fault.For)
		}
		e.active = append(e.active, a)
		e.note("breaks", a, e.apply())
	}
}

// apply makes the rack follow the active faults. The caller holds e.mu.
func (e *Engine) apply() error {
	after := compose(e.body, e.active)
	err := e.body.Apply(e.effects, after)
	e.effects = after
	return err
}

func (e *Engine) note(event string, a *Active, err error) {
	entry := Entry{Seconds: e.now.Seconds(), Event: event, ID: a.ID, Fault: a.Fault}
	if err != nil {
		entry.Error = err.Error()
	}
	if len(e.record) < maxRecord {
		e.record = append(e.record, entry)
	}
}

// List returns what is active or waits, in the order in which it was injected.
func (e *Engine) List() []Active {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []Active{}
	for _, a := range e.active {
		x := *a
		x.State, x.Began = "active", a.at.Seconds()
		if a.ends > 0 {
			x.Left = (a.ends - e.now).Seconds()
		}
		all = append(all, x)
	}
	for _, a := range e.waiting {
		x := *a
		x.State, x.Began = "waiting", a.at.Seconds()
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Active) int { return a.ID - b.ID })
	return all
}

// Effects returns what all active faults do together. It must not be changed.
func (e *Engine) Effects() *Effects {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.effects
}

// Record returns what the engine did so far, at most the first 10000 entries.
func (e *Engine) Record() []Entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Entry{}, e.record...)
}

// Recorded makes faults to replay out of a record: each with the time and the duration that it had.
func Recorded(record []Entry) []rack.FaultSpec {
	faults := []rack.FaultSpec{}
	index := map[int]int{}
	var start float64
	for _, r := range record {
		round := func(s float64) rack.Duration {
			return rack.Duration(time.Duration(s * float64(time.Second)).Round(time.Millisecond))
		}
		switch r.Event {
		case "breaks":
			if len(faults) == 0 {
				start = r.Seconds
			}
			f := r.Fault
			f.At, f.When = round(r.Seconds-start), ""
			index[r.ID] = len(faults)
			faults = append(faults, f)
		default:
			if i, ok := index[r.ID]; ok {
				faults[i].For = max(round(r.Seconds-start)-faults[i].At, rack.Duration(time.Millisecond))
				faults[i].Until = ""
			}
		}
	}
	return faults
}
