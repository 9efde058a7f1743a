package rack

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// KindFault is the kind of a single fault on its own.
const KindFault = "Fault"

// Fault is one thing that breaks, on purpose, in a virtual rack.
type Fault struct {
	TypeMeta
	// Name and labels of the fault.
	Metadata Metadata `json:"metadata"`
	// What breaks, where, when and how badly.
	Spec FaultSpec `json:"spec"`
}

// FaultSpec says what breaks, where, when, for how long and how badly.
type FaultSpec struct {
	// What breaks: one of FaultKinds, such as brown-out. racklet fault kinds lists them.
	Kind string `json:"kind"`
	// What it breaks: rack, rmc, a unit's name, fan-1, git or mirror; several units of a partition with + between them.
	Target string `json:"target"`
	// When it breaks, counted from the start of the scenario; at once when left out.
	At Duration `json:"at,omitempty"`
	// Condition at which it breaks, such as unit-2.stage = failed, looked at from at on.
	When string `json:"when,omitempty"`
	// When it heals by itself, counted from when it broke; until it is cleared when left out.
	For Duration `json:"for,omitempty"`
	// Condition at which it heals, such as unit-2.rail = off; beside for, whichever comes first.
	Until string `json:"until,omitempty"`
	// How badly: values with units by the kind's parameters, such as sag and 40%.
	With map[string]string `json:"with,omitempty"`
}

// A FaultKind is a way in which the rack can break.
type FaultKind struct {
	Name       string           `json:"name"`
	Target     string           `json:"target"` // what it breaks: rack, unit, units, rmc, fan, port or service
	Text       string           `json:"text"`   // what happens, half a sentence
	Once       bool             `json:"once"`   // it happens and is over: nothing to clear
	Machines   bool             `json:"machines"`
	Parameters []FaultParameter `json:"parameters"`
}

// A FaultParameter says how badly something breaks.
type FaultParameter struct {
	Name    string   `json:"name"`
	Unit    string   `json:"unit,omitempty"` // "%", "C", "A", "s" (any duration), "bit/s", "B"; none: a plain number
	Min     float64  `json:"min"`            // in Unit
	Max     float64  `json:"max"`            // in Unit
	Default float64  `json:"default"`        // in Unit
	Words   []string `json:"words,omitempty"`
	Text    string   `json:"text"`
}

// Classes of targets.
const (
	OnRack    = "rack"
	OnUnit    = "unit"
	OnUnits   = "units"
	OnRMC     = "rmc"
	OnFan     = "fan"
	OnPort    = "port"
	OnService = "service"
)

func percent(name string, otherwise float64, text string) FaultParameter {
	return FaultParameter{Name: name, Unit: "%", Max: 100, Default: otherwise, Text: text}
}

// FaultKinds are all kinds, in order of their names.
var FaultKinds = []FaultKind{
	{Name: "ambient", Target: OnRack, Text: "the room around the rack is hot or cold", Parameters: []FaultParameter{{Name: "temperature", Unit: "C", Min: -40, Max: 80, Default: 40, Text: "of the room"}}},
	{Name: "bmc-hang", Target: OnUnit, Text: "the BMC does and answers nothing; its pins stay as they are"},
	{Name: "bmc-lies-power", Target: OnUnit, Text: "the BMC's current monitor is off by so much", Parameters: []FaultParameter{{Name: "lie", Unit: "A", Min: -10, Max: 10, Default: 3, Text: "added to the current"}}},
	{Name: "bmc-lies-state", Target: OnUnit, Text: "the BMC says another power state than the truth", Parameters: []FaultParameter{{Name: "state", Words: []string{"off", "running"}, Text: "what it says"}}},
	{Name: "bmc-lies-temperature", Target: OnUnit, Text: "the BMC's thermometer is off by so much", Parameters: []FaultParameter{{Name: "lie", Unit: "C", Min: -100, Max: 100, Default: -30, Text: "added to the temperature"}}},
	{Name: "bmc-restart", Target: OnUnit, Text: "the BMC restarts; the unit runs on", Once: true},
	{Name: "bmc-sensor-frozen", Target: OnUnit, Text: "the BMC's thermometer goes on saying what it said"},
	{Name: "bmc-sensor-lost", Target: OnUnit, Text: "the BMC's thermometer does not answer"},
	{Name: "bmc-slow", Target: OnUnit, Text: "the BMC answers late on the bus", Parameters: []FaultParameter{{Name: "delay", Unit: "s", Max: 10, Default: 1, Text: "of each answer"}}},
	{Name: "brown-out", Target: OnRack, Text: "the supply gives too little voltage", Parameters: []FaultParameter{percent("sag", 40, "share of the voltage that is missing")}},
	{Name: "bus-jam", Target: OnRack, Text: "noise on the bus between RMC and BMCs"},
	{Name: "clock-skew", Target: OnUnit, Text: "the unit's own clock is wrong from its next start on", Machines: true, Parameters: []FaultParameter{{Name: "ahead", Unit: "s", Min: -315360000, Max: 315360000, Default: 86400, Text: "of the truth"}}},
	{Name: "disk-flip", Target: OnUnit, Text: "one bit of the unit's data disk flips", Once: true, Machines: true, Parameters: []FaultParameter{{Name: "offset", Unit: "B", Max: 1 << 40, Default: 1 << 20, Text: "byte that it is in"}, {Name: "bit", Max: 7, Text: "within the byte"}}},
	{Name: "disk-full", Target: OnUnit, Text: "the unit's data disk takes no more data; what is on it can be read", Machines: true},
	{Name: "fan-no-tach", Target: OnFan, Text: "the fan turns, but its tachometer wire is off"},
	{Name: "fan-stuck", Target: OnFan, Text: "the fan's rotor is blocked"},
	{Name: "fan-worn", Target: OnFan, Text: "the fan is slower than it should be", Parameters: []FaultParameter{percent("worn", 40, "share of its speed that it lost")}},
	{Name: "flash-flip", Target: OnUnit, Text: "one bit of the BMC's boot flash flips", Once: true, Parameters: []FaultParameter{{Name: "where", Words: []string{"slot-a", "slot-b", "manifest-a", "manifest-b"}, Text: "part of the flash"}, {Name: "offset", Unit: "B", Max: 30 << 20, Default: 100, Text: "byte within that part"}, {Name: "bit", Max: 7, Text: "within the byte"}}},
	{Name: "git-down", Target: OnService, Text: "the Git host does not answer"},
	{Name: "heatsink-off", Target: OnUnit, Text: "the heat sink has come loose", Parameters: []FaultParameter{percent("share", 60, "share of its contact that is lost")}},
	{Name: "inlet-blocked", Target: OnRack, Text: "something covers the rack's air inlet", Parameters: []FaultParameter{percent("share", 80, "share that is covered")}},
	{Name: "link-bandwidth", Target: OnPort, Text: "the cable carries little", Parameters: []FaultParameter{{Name: "rate", Unit: "bit/s", Min: 1000, Max: 1e10, Default: 1e6, Text: "each way"}}},
	{Name: "link-cut", Target: OnPort, Text: "the cable is cut"},
	{Name: "link-delay", Target: OnPort, Text: "the cable is slow", Parameters: []FaultParameter{{Name: "delay", Unit: "s", Max: 3600, Default: 0.2, Text: "of each frame, each way"}, {Name: "jitter", Unit: "s", Max: 3600, Text: "up to so much more"}}},
	{Name: "link-loss", Target: OnPort, Text: "the cable loses frames", Parameters: []FaultParameter{percent("loss", 20, "of the frames, each way")}},
	{Name: "link-one-way", Target: OnPort, Text: "the cable is cut in one direction", Parameters: []FaultParameter{{Name: "direction", Words: []string{"from-device", "to-device"}, Text: "the one that is cut"}}},
	{Name: "link-reorder", Target: OnPort, Text: "frames overtake each other", Parameters: []FaultParameter{percent("share", 20, "of the frames, each way")}},
	{Name: "load", Target: OnUnit, Text: "the unit is that busy (no fault; without machines only)", Parameters: []FaultParameter{percent("cpu", 100, "of all its cores")}},
	{Name: "metadata-replay", Target: OnService, Text: "the Git host serves an older state that the owners signed once"},
	{Name: "mirror-down", Target: OnService, Text: "the mirror of artefacts does not answer"},
	{Name: "overheating", Target: OnRack, Text: "the inlet is covered and the room is hot", Parameters: []FaultParameter{{Name: "temperature", Unit: "C", Min: 20, Max: 80, Default: 45, Text: "of the room"}}},
	{Name: "owner-key-stolen", Target: OnService, Text: "a thief with one owner's key publishes a state of his own"},
	{Name: "partition", Target: OnUnits, Text: "these units reach each other, and nobody else"},
	{Name: "power-cut", Target: OnRack, Text: "the rack loses its supply"},
	{Name: "rmc-hang", Target: OnRMC, Text: "the RMC does nothing; its pins stay as they are"},
	{Name: "rmc-restart", Target: OnRMC, Text: "the RMC restarts", Once: true},
	{Name: "rmc-sensor-lost", Target: OnRMC, Text: "a sensor of the RMC does not answer", Parameters: []FaultParameter{{Name: "chip", Words: []string{"temperature", "power", "fans"}, Text: "which"}}},
	{Name: "tray-pulled", Target: OnUnit, Text: "the tray is pulled out; it is pushed in again when cleared"},
	{Name: "unit-key-stolen", Target: OnUnit, Text: "a thief with this BMC's device key signs evidence and a state with it"},
	{Name: "unit-power-cut", Target: OnUnit, Text: "the unit's power path opens"},
	{Name: "unit-reset", Target: OnUnit, Text: "the unit resets itself, its rail stays on", Once: true},
	{Name: "unit-short", Target: OnUnit, Text: "the unit's rail is shorted to ground"},
	{Name: "unit-silent", Target: OnUnit, Text: "the unit stands still and sends no heartbeat"},
}

// likely is a hint at kinds that share a word with a name that is none.
func likely(name string) string {
	var some []string
	for _, k := range FaultKindNames() {
		for part := range strings.SplitSeq(name, "-") {
			if len(part) > 2 && strings.Contains(k, part) && !slices.Contains(some, k) {
				some = append(some, k)
			}
		}
	}
	if len(some) == 0 || len(some) > 8 {
		return ""
	}
	return ": perhaps " + list(some)
}

// LookupFaultKind finds a kind by its name.
func LookupFaultKind(name string) (*FaultKind, bool) {
	i, ok := slices.BinarySearchFunc(FaultKinds, name, func(k FaultKind, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return nil, false
	}
	return &FaultKinds[i], true
}

// FaultKindNames lists the names of all kinds.
func FaultKindNames() []string {
	names := make([]string, len(FaultKinds))
	for i := range FaultKinds {
		names[i] = FaultKinds[i].Name
	}
	return names
}

// Range describes a parameter's values in words: "0 to 100 %, 40 if not given".
func (p *FaultParameter) Range() string {
	if len(p.Words) > 0 {
		return list(p.Words)
	}
	u := p.Unit
	if u == "s" {
		return fmt.Sprintf("%v to %v", seconds(p.Min), seconds(p.Max))
	}
	return strings.TrimSpace(fmt.Sprintf("%s to %s %s", short(p.Min), short(p.Max), u))
}

// Standard is the value where none is given.
func (p *FaultParameter) Standard() string {
	switch {
	case len(p.Words) > 0:
		return p.Words[0]
	case p.Unit == "s":
		return seconds(p.Default).String()
	}
	return short(p.Default) + p.Unit
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func short(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// parse reads a value in the parameter's unit.
func (p *FaultParameter) parse(s string) (float64, error) {
	bad := fmt.Errorf("%q is not allowed: want %s, such as %s", s, p.Range(), p.Standard())
	if len(p.Words) > 0 {
		if !slices.Contains(p.Words, s) {
			return 0, bad
		}
		return 0, nil
	}
	var v float64
	if p.Unit == "s" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, bad
		}
		v = d.Seconds()
	} else {
		digits, ok := strings.CutSuffix(s, p.Unit)
		if !ok || !decimal(digits) {
			return 0, bad
		}
		var err error
		if v, err = strconv.ParseFloat(digits, 64); err != nil {
			return 0, bad
		}
	}
	if v < p.Min || v > p.Max {
		return 0, bad
	}
	return v, nil
}

// parameter finds a parameter of the fault's kind; it must be one.
func (f *FaultSpec) parameter(name string) *FaultParameter {
	if k, ok := LookupFaultKind(f.Kind); ok {
		for i := range k.Parameters {
			if k.Parameters[i].Name == name {
				return &k.Parameters[i]
			}
		}
	}
	panic("rack: " + f.Kind + " has no parameter " + name)
}

// Number is a parameter's value in its unit, shares (%) from 0 to 1. f must be valid.
func (f *FaultSpec) Number(name string) float64 {
	p := f.parameter(name)
	v := p.Default
	if s, ok := f.With[name]; ok {
		if n, err := p.parse(s); err == nil {
			v = n
		}
	}
	if p.Unit == "%" {
		v /= 100
	}
	return v
}

// Word is the value of a parameter that is one of several words. f must be valid.
func (f *FaultSpec) Word(name string) string {
	if s, ok := f.With[name]; ok {
		return s
	}
	return f.parameter(name).Words[0]
}

// Targets are the names in Target.
func (f *FaultSpec) Targets() []string { return strings.Split(f.Target, "+") }

// String is the fault as one types it: kind, target and parameters.
func (f *FaultSpec) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", f.Kind, f.Target)
	keys := make([]string, 0, len(f.With))
	for k := range f.With {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%s", k, f.With[k])
	}
	if f.When != "" {
		fmt.Fprintf(&b, " when %s", f.When)
	}
	if f.For > 0 {
		fmt.Fprintf(&b, " for %v", time.Duration(f.For))
	}
	if f.Until != "" {
		fmt.Fprintf(&b, " until %s", f.Until)
	}
	return b.String()
}

// Validate checks a fault by itself. Whether its target is in a rack is known there.
func (f *FaultSpec) Validate() error {
	var c checker
	f.check(&c, "")
	return c.err()
}

// Validate checks the object.
func (f *Fault) Validate() error {
	var c checker
	c.oneOf("kind", f.Kind, KindFault)
	if !ValidName(f.Metadata.Name) {
		c.failf("metadata.name", "%q is not a name: want 1 to %d lower-case letters, digits and inner hyphens", f.Metadata.Name, MaxName)
	}
	f.Spec.check(&c, "spec.")
	return c.err()
}

// longest is the longest time in a fault or scenario.
const longest = Duration(24 * time.Hour)

func (f *FaultSpec) check(c *checker, path string) {
	k, ok := LookupFaultKind(f.Kind)
	if !ok {
		c.failf(path+"kind", "%q is no kind of fault (racklet fault kinds lists all)%s", f.Kind, likely(f.Kind))
		return
	}
	f.checkTarget(c, path, k)
	if f.At < 0 || f.At > longest {
		c.failf(path+"at", "want 0s to 24h")
	}
	if f.For < 0 || f.For > longest {
		c.failf(path+"for", "want 0s to 24h")
	}
	if k.Once && (f.For != 0 || f.Until != "") {
		c.failf(path+"for", "%s happens and is over: it has no end", f.Kind)
	}
	for name, text := range map[string]string{"when": f.When, "until": f.Until} {
		if text == "" {
			continue
		}
		if _, err := ParseCondition(text); err != nil {
			c.failf(path+name, "%v", err)
		}
	}
	for name, value := range f.With {
		i := slices.IndexFunc(k.Parameters, func(p FaultParameter) bool { return p.Name == name })
		if i < 0 {
			var names []string
			for _, p := range k.Parameters {
				names = append(names, p.Name)
			}
			if names == nil {
				c.failf(path+"with."+name, "%s has no parameters", f.Kind)
			} else {
				c.failf(path+"with."+name, "%s has no such parameter: want %s", f.Kind, list(names))
			}
			continue
		}
		if _, err := k.Parameters[i].parse(value); err != nil {
			c.failf(path+"with."+name, "%v", err)
		}
	}
}

func (f *FaultSpec) checkTarget(c *checker, path string, k *FaultKind) {
	want := ""
	switch k.Target {
	case OnRack, OnRMC:
		want = k.Target
	case OnService:
		want = "git"
		if k.Name == "mirror-down" {
			want = "mirror"
		}
	case OnFan:
		if n, ok := FanNumber(f.Target); !ok || n < 1 || n > 5 {
			c.failf(path+"target", "%q is no fan: want fan-1, fan-2 …", f.Target)
		}
		return
	default:
		for _, name := range f.Targets() {
			if !ValidName(name) || name == OnRack || name == OnRMC {
				c.failf(path+"target", "%q is no %s: want a name such as unit-1", name, k.Target)
			}
		}
		if k.Target != OnUnits && strings.Contains(f.Target, "+") {
			c.failf(path+"target", "%s breaks one %s at a time", f.Kind, k.Target)
		}
		return
	}
	if f.Target != want {
		c.failf(path+"target", "%q is not allowed: %s wants %s", f.Target, f.Kind, want)
	}
}

// FanNumber reads the number of a fan, from 1, out of its name.
func FanNumber(name string) (int, bool) {
	s, ok := strings.CutPrefix(name, "fan-")
	n, err := strconv.Atoi(s)
	return n, ok && err == nil
}
