package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/racklet/racklet/rack"
)

// places remembers where the fields of one object stand.
type places struct {
	file  string
	lines map[string]int // by path; "" is the object itself
}

// line finds a field, or else the nearest thing that holds it.
func (p *places) line(path string) int {
	for {
		if n, ok := p.lines[path]; ok || path == "" {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

func (p *places) at(path string) string { return fmt.Sprintf("%s:%d", p.file, p.line(path)) }

// A loader collects objects and errors.
type loader struct {
	set    Set
	places map[any]*places // by pointer to the object
	errs   Errors
	broken bool // some object could not be decoded: references may be missing for that reason alone
}

func (l *loader) failf(file string, line int, path, format string, args ...any) {
	l.errs = append(l.errs, &Error{file, line, path, fmt.Sprintf(format, args...)})
}

// fault reports an error of a field of a decoded object.
func (l *loader) fault(object any, path, format string, args ...any) {
	p := l.places[object]
	l.failf(p.file, p.line(path), path, format, args...)
}

// yamlLine finds the line in the text of a syntax error from the YAML parser.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// file decodes all documents of one file.
func (l *loader) file(name string, b []byte, kinds []string) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	for n := 0; ; n++ {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			if n == 0 {
				l.broken = true
				l.failf(name, 1, "", "the file holds no object: want kind %s", orList(kinds))
			}
			return
		}
		if err != nil {
			l.broken = true
			m := yamlLine.FindStringSubmatch(err.Error())
			line := 0
			if m != nil {
				line, _ = strconv.Atoi(m[1])
			}
			l.failf(name, line, "", "not YAML: %s", yamlLine.ReplaceAllString(err.Error(), ""))
			return
		}
		before := len(l.errs)
		l.object(name, &doc, kinds)
		l.broken = l.broken || len(l.errs) > before
	}
}

// object decodes one document.
func (l *loader) object(file string, doc *yaml.Node, kinds []string) {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		l.failf(file, doc.Line, "", "the document holds no object: want kind %s", orList(kinds))
		return
	}
	node := doc.Content[0]
	if node.Kind != yaml.MappingNode {
		l.failf(file, node.Line, "", "want an object with apiVersion, kind, metadata and spec")
		return
	}
	kind, line := "", node.Line
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch key, value := node.Content[i].Value, node.Content[i+1]; key {
		case "kind":
			kind, line = value.Value, value.Line
		case "apiVersion":
			if value.Value != rack.APIVersion {
				l.failf(file, value.Line, "apiVersion", "%q is not known: want %s", value.Value, rack.APIVersion)
				return
			}
		}
	}
	if !slices.Contains(kinds, kind) {
		what := fmt.Sprintf("%q does not belong here", kind)
		if kind == "" {
			what = "missing"
		}
		l.failf(file, line, "kind", "%s: want %s%s", what, orList(kinds), didYouMean(kind, kinds))
		return
	}
	switch kind {
	case rack.KindRack:
		o := new(rack.Rack)
		if !l.decode(file, node, o) {
			return
		}
		if first := l.set.Rack; first != nil {
			l.fault(o, "kind", "a second Rack: the first stands at %s", l.places[first].at("kind"))
			return
		}
		l.set.Rack = o
	case rack.KindComputeUnit:
		o := new(rack.ComputeUnit)
		if !l.decode(file, node, o) {
			return
		}
		if first := l.set.Unit(o.Metadata.Name); first != nil {
			l.duplicate(o, first, o.Metadata.Name)
			return
		}
		l.set.Units = append(l.set.Units, o)
	case rack.KindRelease:
		add(l, file, node, l.set.Releases, func(o *rack.Release) string { return o.Metadata.Name })
	case rack.KindThermalPolicy:
		add(l, file, node, l.set.Thermal, func(o *rack.ThermalPolicy) string { return o.Metadata.Name })
	case rack.KindPowerPolicy:
		add(l, file, node, l.set.Power, func(o *rack.PowerPolicy) string { return o.Metadata.Name })
	}
}

// add decodes an object into a map by name.
func add[T any, P interface {
	*T
	validator
}](l *loader, file string, node *yaml.Node, to map[string]*T, name func(*T) string) {
	o := new(T)
	if !l.decode(file, node, P(o)) {
		return
	}
	if first := to[name(o)]; first != nil {
		l.duplicate(P(o), P(first), name(o))
		return
	}
	to[name(o)] = o
}

func (l *loader) duplicate(o, first any, name string) {
	l.fault(o, "metadata.name", "%q is taken: the first stands at %s", name, l.places[first].at("metadata.name"))
}

type validator interface{ Validate() error }

// decode fills o and checks it by itself; false when something was wrong.
func (l *loader) decode(file string, node *yaml.Node, o validator) bool {
	p := &places{file, map[string]int{"": node.Line}}
	l.places[o] = p
	d := decoder{file: file, places: p}
	d.object(node, o)
	if len(d.errs) == 0 { // otherwise Validate would judge fields that were not filled
		for _, err := range rack.Fields(o.Validate()) {
			d.errs = append(d.errs, &Error{file, p.line(err.Path), err.Path, err.Text})
		}
	}
	l.errs = append(l.errs, d.errs...)
	return len(d.errs) == 0
}

// check compares the objects with each other.
func (l *loader) check() {
	s := &l.set
	slots := map[rack.SlotID]*rack.ComputeUnit{}
	for _, u := range s.Units {
		if first := slots[u.Spec.Slot]; first != nil {
			l.fault(u, "spec.slot", "slot %d is taken by unit %s at %s%s", u.Spec.Slot, first.Metadata.Name, l.places[first].at("spec.slot"), l.freeSlots())
		} else {
			slots[u.Spec.Slot] = u
		}
		if !l.broken || len(s.Releases) > 0 {
			refer(l, u, "spec.release", "release", u.Spec.Release, s.Releases)
		}
	}
	if s.Rack == nil {
		if !l.broken {
			l.failf(Root+"/rack.yaml", 0, "", "no such file: a rack repository holds one object of kind Rack")
		}
		return
	}
	spec := &s.Rack.Spec
	for _, u := range s.Units {
		switch {
		case int(u.Spec.Slot) > int(spec.Slots):
			l.fault(u, "spec.slot", "the rack has no slot %d%s", u.Spec.Slot, l.freeSlots())
		case u.Spec.Slot == spec.Management():
			l.fault(u, "spec.slot", "slot %d is the management unit's (%s)%s", u.Spec.Slot, l.places[s.Rack].at("spec.managementSlot"), l.freeSlots())
		}
	}
	refer(l, s.Rack, "spec.thermalPolicy", "ThermalPolicy", spec.ThermalPolicy, s.Thermal)
	refer(l, s.Rack, "spec.powerPolicy", "PowerPolicy", spec.PowerPolicy, s.Power)
	if policy := s.Power[spec.PowerPolicy]; policy != nil {
		l.budget(policy)
	}
}

// refer checks that a name is a key of the objects it refers to.
func refer[T any](l *loader, o any, path, kind, name string, to map[string]T) {
	if _, ok := to[name]; ok {
		return
	}
	known := slices.Sorted(maps.Keys(to))
	if len(known) == 0 {
		if !l.broken { // else the object is there and was refused already
			l.fault(o, path, "there is no %s %q, and no other: add one", kind, name)
		}
		return
	}
	if l.broken && didYouMean(name, known) == "" {
		return
	}
	l.fault(o, path, "there is no %s %q: want %s%s", kind, name, orList(known), didYouMean(name, known))
}

// freeSlots names the slots that a unit could take.
func (l *loader) freeSlots() string {
	if l.set.Rack == nil {
		return ""
	}
	spec := &l.set.Rack.Spec
	var free []string
	for slot := rack.SlotID(1); int(slot) <= int(spec.Slots); slot++ {
		if slot != spec.Management() && l.set.InSlot(slot) == nil {
			free = append(free, strconv.Itoa(int(slot)))
		}
	}
	if len(free) == 0 {
		return "; no slot is free"
	}
	return "; free: " + strings.Join(free, ", ")
}

// budget checks that the supply can feed what is switched on. A unit that is
// off draws nothing and does not count.
func (l *loader) budget(policy *rack.PowerPolicy) {
	power := &l.set.Rack.Spec.Power
	var sum rack.Watts
	var parts []string
	for _, u := range l.set.Units {
		if u.Spec.Power != rack.PowerOn {
			continue
		}
		watts := u.Spec.Cap(&policy.Spec)
		sum += watts
		parts = append(parts, fmt.Sprintf("%s %v", u.Metadata.Name, watts))
	}
	slices.Sort(parts)
	units := strings.Join(parts, ", ")
	const cure = "lower powerCap or unitCap, or switch a unit off"
	switch {
	case sum+power.Reserve > power.Supply:
		l.fault(l.set.Rack, "spec.power.supply", "%v cannot feed the rack: the caps of its units (%s) are %v, with the reserve of %v that makes %v: %s, or fit a larger supply",
			power.Supply, units, sum, power.Reserve, sum+power.Reserve, cure)
	case sum > policy.Spec.Budget:
		l.fault(policy, "spec.budget", "%v cannot feed the units: their caps (%s) are %v: raise the budget up to %v, %s",
			policy.Spec.Budget, units, sum, power.Supply-power.Reserve, cure)
	}
	if free := power.Supply - power.Reserve; policy.Spec.Budget > free {
		l.fault(policy, "spec.budget", "%v is more than supply minus reserve: want at most %v", policy.Spec.Budget, free)
	}
}
