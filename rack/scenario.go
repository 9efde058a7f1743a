package rack

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// KindScenario is the kind of a scenario.
const KindScenario = "Scenario"

// What a scenario needs to run.
const (
	NeedsFirmware = "firmware" // physics, chips and the real BMCs and RMC; units are ghosts, time is as fast as it goes
	NeedsMachines = "machines" // a virtual rack whose units really boot
)

// When a scenario is over.
const (
	EndsLength  = "length"
	EndsSettled = "settled"
)

// Scenario is a story of things that break, and of what must hold meanwhile: a test.
type Scenario struct {
	TypeMeta
	// Name and labels of the scenario.
	Metadata Metadata `json:"metadata"`
	// What happens and what must hold.
	Spec ScenarioSpec `json:"spec"`
}

// ScenarioSpec says what breaks when, and what must hold.
type ScenarioSpec struct {
	// What the scenario teaches, in one sentence.
	Teaches string `json:"teaches"`
	// What it needs: firmware (no machine boots, simulated time) or machines (a rack that really boots).
	Needs string `json:"needs" enum:"firmware,machines"`
	// Units of the rack; 4 when left out.
	Units int `json:"units,omitempty" min:"1" max:"9"`
	// Seed of tolerances, noise and random losses.
	Seed uint32 `json:"seed,omitempty"`
	// How long it runs after its units have started, or may run: see ends.
	Length Duration `json:"length"`
	// When it is over: after its length, or, settled, as soon as what broke has ended, all that ran runs again and every expectation is decided; length when left out.
	Ends string `json:"ends,omitempty" enum:"length,settled"`
	// Whether units are on at its start; on when left out.
	Start string `json:"start,omitempty" enum:"on,off"`
	// What breaks.
	Faults []FaultSpec `json:"faults,omitempty" max:"1000"`
	// What must hold.
	Expect []Expectation `json:"expect,omitempty" max:"200"`
	// Invariants that this scenario breaks by its nature and that are not watched, by name. All others always are.
	Without []string `json:"without,omitempty" max:"20"`
}

// Expectation is a condition that must come true in time, and stay.
type Expectation struct {
	// The condition: subject.field, one of = != < <= > >=, and a value, such as unit-2.state = faulted.
	That string `json:"that"`
	// When it is first looked at, counted from the start of the scenario.
	After Duration `json:"after,omitempty"`
	// How long it may take from then to come true; at once when left out.
	Within Duration `json:"within,omitempty"`
	// How long it must then stay true.
	For Duration `json:"for,omitempty"`
	// Why it must, for people.
	Why string `json:"why,omitempty"`
}

// An Invariant holds at every moment of every scenario.
type Invariant struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Invariants are all invariants, in order of their names.
var Invariants = []Invariant{
	{"budget-kept", "grants never exceed the budget, and the rack draws more for at most 8 s"},
	{"energy-conserved", "the supply's energy is accounted for within 0.1 %"},
	{"energy-rises", "no controller's energy counter goes backwards while it has power"},
	{"fans-on-sensor-loss", "fans are at full speed within 3 s of the loss of the inlet's sensor"},
	{"floors-never-fall", "no BMC's floors ever fall"},
	{"nothing-cooks", "no SoC is above 105 °C"},
	{"one-slot-trips", "the supply never trips"},
	{"stagger-kept", "no two units' rails come up within 800 ms"},
	{"verified-boot", "no unit boots an image that is not, bit for bit, one the owners signed"},
}

// Validate checks a scenario by itself.
func (s *Scenario) Validate() error {
	var c checker
	c.oneOf("kind", s.Kind, KindScenario)
	if !ValidName(s.Metadata.Name) {
		c.failf("metadata.name", "%q is not a name: want 1 to %d lower-case letters, digits and inner hyphens", s.Metadata.Name, MaxName)
	}
	p := &s.Spec
	if len(p.Teaches) < 10 || len(p.Teaches) > 400 {
		c.failf("spec.teaches", "want one sentence of 10 to 400 characters")
	}
	c.oneOf("spec.needs", p.Needs, NeedsFirmware, NeedsMachines)
	if p.Length <= 0 || p.Length > longest {
		c.failf("spec.length", "want more than 0s, at most 24h")
	}
	if p.Ends != "" {
		c.oneOf("spec.ends", p.Ends, EndsLength, EndsSettled)
	}
	for i := range p.Faults {
		f := &p.Faults[i]
		f.check(&c, fmt.Sprintf("spec.faults[%d].", i))
		if k, ok := LookupFaultKind(f.Kind); ok && k.Machines && p.Needs == NeedsFirmware {
			c.failf(fmt.Sprintf("spec.faults[%d].kind", i), "%s needs machines", f.Kind)
		}
	}
	for i, e := range p.Expect {
		path := fmt.Sprintf("spec.expect[%d].", i)
		if _, err := ParseCondition(e.That); err != nil {
			c.failf(path+"that", "%v", err)
		}
		if e.After < 0 || e.Within < 0 || e.For < 0 || e.After+e.Within+e.For > p.Length {
			c.failf(path+"after", "after, within and for reach beyond the scenario's %v", time.Duration(p.Length))
		}
	}
	for i, name := range p.Without {
		if !slices.ContainsFunc(Invariants, func(v Invariant) bool { return v.Name == name }) {
			c.failf(fmt.Sprintf("spec.without[%d]", i), "%q is no invariant", name)
		}
	}
	return c.err()
}

// A Condition compares what can be seen of the rack with a value.
type Condition struct {
	Subject, Field, Op, Value string
	number                    float64
}

// A Reading is what a subject's field is: a word or a number.
type Reading struct {
	Word   string
	Number float64
	IsWord bool
}

// conditionFields are the fields by class of subject; "w" is a word, other texts the unit of a number.
var conditionFields = map[string]map[string]string{
	"unit": {"state": "w", "stage": "w", "reason": "w", "rail": "w", "power": "w", "available": "w", "bmc": "w", "evidence": "w", "fallback": "w",
		"sensor": "w", "slot": "w", "heat": "w", "log": "w", "present": "w", "machine": "w",
		"age": "s", "watts": "W", "grant": "W", "celsius": "C", "soc": "C", "boots": "", "resets": "", "sequence": "", "starts": ""},
	"units": {"running": "", "on": "", "available": "", "faulted": ""},
	"rack": {"failsafe": "w", "throttling": "w", "over-budget": "w", "sensor": "w", "standby": "w", "tripped": "w", "log": "w", "rmc": "w",
		"watts": "W", "volts": "V", "inlet": "C", "granted": "W", "budget": "W", "starts": ""},
	"fan": {"duty": "%", "rpm": "rpm", "health": "w"},
}

var errCondition = errors.New(`want SUBJECT.FIELD OP VALUE, such as "unit-2.state = faulted"`)

// ParseCondition reads a condition: subject.field, operator and value with blanks between them. Subjects are
// rack, units (counts), fan-1 … and unit names.
func ParseCondition(s string) (Condition, error) {
	parts := strings.Fields(s)
	if len(parts) != 3 {
		return Condition{}, fmt.Errorf("condition %q: %w", s, errCondition)
	}
	c := Condition{Op: parts[1], Value: parts[2]}
	var ok bool
	if c.Subject, c.Field, ok = strings.Cut(parts[0], "."); !ok || !ValidName(c.Subject) {
		return c, fmt.Errorf("condition %q: %w", s, errCondition)
	}
	class := "unit"
	switch _, fan := FanNumber(c.Subject); {
	case fan:
		class = "fan"
	case c.Subject == "rack" || c.Subject == "units":
		class = c.Subject
	}
	unit, ok := conditionFields[class][c.Field]
	if !ok {
		var names []string
		for n := range conditionFields[class] {
			names = append(names, n)
		}
		slices.Sort(names)
		return c, fmt.Errorf("condition %q: %s has no field %q: want %s", s, class, c.Field, list(names))
	}
	ops := []string{"=", "!=", "<", "<=", ">", ">="}
	if unit == "w" {
		ops = ops[:2]
	}
	if !slices.Contains(ops, c.Op) {
		return c, fmt.Errorf("condition %q: operator %q: want %s", s, c.Op, list(ops))
	}
	if unit == "w" {
		return c, nil
	}
	var err error
	if unit == "s" {
		var d time.Duration
		d, err = time.ParseDuration(c.Value)
		c.number = d.Seconds()
	} else {
		c.number, err = strconv.ParseFloat(strings.TrimSuffix(c.Value, unit), 64)
	}
	if err != nil {
		return c, fmt.Errorf("condition %q: %q is no number of %s", s, c.Value, unit)
	}
	return c, nil
}

// Holds compares a reading. Of a log, whose Word holds all that was logged between blanks, = means "has" and != "has not".
func (c *Condition) Holds(r Reading) bool {
	if r.IsWord {
		same := r.Word == c.Value
		if c.Field == "log" {
			same = strings.Contains(r.Word, " "+c.Value+" ")
		}
		return same == (c.Op == "=")
	}
	v := r.Number
	switch c.Op {
	case "=":
		return v == c.number
	case "!=":
		return v != c.number
	case "<":
		return v < c.number
	case "<=":
		return v <= c.number
	case ">":
		return v > c.number
	}
	return v >= c.number
}

// String is the condition as it was written.
func (c *Condition) String() string { return c.Subject + "." + c.Field + " " + c.Op + " " + c.Value }
