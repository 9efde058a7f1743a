package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
)

// A fact is told by Redfish, by OpenMetrics and by `racklet status -o json`.
type fact struct {
	redfish string  // property, A/B for one within another
	metric  string  // without racklet_unit_ or racklet_rack_; {LABEL} means: the label of the series whose value is 1
	status  string  // "": status does not show it
	scale   float64 // of the metric over Redfish; 0: the same unit
}

// unitFacts and rackFacts are all that the three share.
var unitFacts = []fact{
	{"Oem/Racklet/Available", "available", "available", 0},
	{"Oem/Racklet/Present", "present", "present", 0},
	{"Oem/Racklet/AgeSeconds", "age_seconds", "ageSeconds", 0},
	{"Oem/Racklet/State", "state{state}", "state", 0},
	{"Oem/Racklet/Stage", "stage{stage}", "stage", 0},
	{"Oem/Racklet/BootSlot", "boot_slot{slot}", "bootSlot", 0},
	{"Oem/Racklet/Slot", "info{slot}", "slot", 0},
	{"Oem/Racklet/Watts", "power_watts", "watts", 0},
	{"Oem/Racklet/EnergyJoules", "energy_joules_total", "energyJoules", 0},
	{"Oem/Racklet/Volts", "rail_volts", "", 0},
	{"Oem/Racklet/Amperes", "rail_amperes", "", 0},
	{"Oem/Racklet/TemperatureCelsius", "temperature_celsius", "temperatureCelsius", 0},
	{"Oem/Racklet/PowerGrantWatts", "power_grant_watts", "", 0},
	{"Oem/Racklet/PowerCapWatts", "power_cap_watts", "", 0},
	{"Oem/Racklet/RailSeconds", "rail_seconds", "railSeconds", 0},
	{"Oem/Racklet/BootCount", "boots_total", "bootCount", 0},
	{"Oem/Racklet/Resets", "resets", "", 0},
	{"Oem/Racklet/DesiredGeneration", "desired_generation", "", 0},
	{"Oem/Racklet/ObservedGeneration", "observed_generation", "", 0},
	{"Oem/Racklet/Floors/Sequence", "floor_sequence", "", 0},
	{"Oem/Racklet/CPUPercent", "cpu_percent", "cpuPercent", 0},
	{"Oem/Racklet/MemoryUsedMiB", "memory_used_bytes", "memoryMiB", 1 << 20},
	{"Oem/Racklet/MemoryTotalMiB", "memory_total_bytes", "", 1 << 20},
	{"Oem/Racklet/ReportAgeSeconds", "report_age_seconds", "", 0},
	{"Oem/Racklet/EvidenceVoid", "condition/evidence-void", "evidenceVoid", 0},
	{"Oem/Racklet/FallbackSlot", "condition/fallback-slot", "fallbackSlot", 0},
	{"Oem/Racklet/Stale", "condition/stale", "stale", 0},
	{"Oem/Racklet/SensorLost", "condition/sensor-lost", "", 0},
	{"Oem/Racklet/Capped", "condition/capped", "", 0},
	{"Oem/Racklet/HeartbeatLost", "condition/heartbeat-lost", "", 0},
	{"Oem/Racklet/WaitingForGrant", "condition/waiting-for-grant", "", 0},
	{"Oem/Racklet/StoreWorn", "condition/store-worn", "", 0},
}

var rackFacts = []fact{
	{"Oem/Racklet/Available", "available", "", 0},
	{"Oem/Racklet/AgeSeconds", "age_seconds", "ageSeconds", 0},
	{"Oem/Racklet/Watts", "power_watts", "watts", 0},
	{"Oem/Racklet/EnergyJoules", "energy_joules_total", "energyJoules", 0},
	{"Oem/Racklet/SupplyVolts", "supply_volts", "supplyVolts", 0},
	{"Oem/Racklet/InletCelsius", "inlet_celsius", "inletCelsius", 0},
	{"Oem/Racklet/BudgetWatts", "budget_watts", "budgetWatts", 0},
	{"Oem/Racklet/GrantedWatts", "granted_watts", "", 0},
	{"Oem/Racklet/Failsafe", "failsafe", "", 0},
	{"Oem/Racklet/Throttling", "throttling", "", 0},
	{"Oem/Racklet/SensorLost", "sensor_lost", "", 0},
	{"Oem/Racklet/OverBudget", "over_budget", "", 0},
	{"Oem/Racklet/FrameErrors", "frame_errors_total", "", 0},
}

// facts holds what Redfish, OpenMetrics and status say at the same time against each other. Readings move meanwhile: Redfish
// is asked before and after the others, and what they say must lie between. A fact that agrees once of twenty times
// does; one in another unit never would.
func facts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: facts")
	}
	open := map[string]string{"all": "not compared yet"}
	for try := 0; len(open) > 0 && try < 20; try++ {
		now, err := compareFacts(ts)
		ts.Check(err)
		if try == 0 {
			open = now
		}
		for name := range open {
			if _, still := now[name]; !still {
				delete(open, name)
			} else {
				open[name] = now[name]
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	for name, why := range open {
		ts.Logf("%s: %s", name, why)
	}
	if len(open) > 0 {
		ts.Fatalf("%d facts disagree", len(open))
	}
}

type tellers struct {
	before, after map[string]any // Redfish: of the resources' URIs
	metrics       []string
	status        struct {
		Rack  map[string]any
		Units []map[string]any
	}
}

func compareFacts(ts *testscript.TestScript) (wrong map[string]string, err error) {
	var t tellers
	read := func() (map[string]any, error) {
		all := map[string]any{}
		for _, uri := range []string{"/redfish/v1/Systems?$expand=.", "/redfish/v1/Chassis/rack"} {
			b, err := racklet(ts, "api", uri)
			if err != nil {
				return nil, err
			}
			var o map[string]any
			if err := json.Unmarshal(b, &o); err != nil {
				return nil, err
			}
			members, _ := o["Members"].([]any)
			for _, m := range append(members, o) {
				m := m.(map[string]any)
				all[m["@odata.id"].(string)] = m
			}
		}
		return all, nil
	}
	if t.before, err = read(); err != nil {
		return nil, err
	}
	text, err := racklet(ts, "api", "/metrics")
	if err != nil {
		return nil, err
	}
	t.metrics = strings.Split(string(text), "\n")
	if text, err = racklet(ts, "status", "-o", "json"); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &t.status); err != nil {
		return nil, err
	}
	if t.after, err = read(); err != nil {
		return nil, err
	}
	return t.compare()
}

func (t *tellers) compare() (map[string]string, error) {
	wrong := map[string]string{}
	check := func(who, uri, prefix, label string, f fact, status map[string]any) {
		first, last := at(t.before[uri], f.redfish), at(t.after[uri], f.redfish)
		metric, err := series(t.metrics, prefix+f.metric, label)
		if err != nil {
			wrong[who+" "+f.redfish] = err.Error()
			return
		}
		if !between(metric, first, last, max(f.scale, 1), f.redfish) {
			wrong[who+" "+f.redfish] = fmt.Sprintf("Redfish says %v, then %v, OpenMetrics %v", first, last, metric)
		}
		if f.status == "" {
			return
		}
		v, ok := status[f.status]
		if !ok || !between(v, first, last, 1, f.redfish) {
			wrong[who+" "+f.status] = fmt.Sprintf("Redfish says %v, then %v, status %v", first, last, v)
		}
	}
	if len(t.status.Units) == 0 {
		return nil, fmt.Errorf("no units")
	}
	for _, u := range t.status.Units {
		name := fmt.Sprint(u["name"])
		for _, f := range unitFacts {
			check(name, "/redfish/v1/Systems/"+name, "racklet_unit_", `unit="`+name+`"`, f, u)
		}
	}
	for _, f := range rackFacts {
		check("rack", "/redfish/v1/Chassis/rack", "racklet_rack_", `rack="`, f, t.status.Rack)
	}
	fans, _ := at(t.after["/redfish/v1/Chassis/rack"], "Oem/Racklet/Fans").([]any)
	told, _ := t.status.Rack["fans"].([]any)
	if len(fans) == 0 || len(fans) != len(told) {
		wrong["fans"] = fmt.Sprintf("Redfish has %d, status %d", len(fans), len(told))
		return wrong, nil
	}
	for i := range fans {
		name := fmt.Sprint(at(fans[i], "Name"))
		for _, f := range []fact{{"RPM", "speed_rpm", "rpm", 0}, {"DutyPercent", "duty_percent", "dutyPercent", 0}} {
			first := at(at(t.before["/redfish/v1/Chassis/rack"], "Oem/Racklet/Fans").([]any)[i], f.redfish)
			metric, err := series(t.metrics, "racklet_fan_"+f.metric, `fan="`+name+`"`)
			if err != nil || !between(metric, first, at(fans[i], f.redfish), 1, f.redfish) || !between(at(told[i], f.status), first, at(fans[i], f.redfish), 1, f.redfish) {
				wrong[name+" "+f.redfish] = fmt.Sprintf("Redfish says %v, OpenMetrics %v (%v), status %v", fans[i], metric, err, told[i])
			}
		}
	}
	return wrong, nil
}

// at looks a property up.
func at(v any, path string) any {
	for name := range strings.SplitSeq(path, "/") {
		o, _ := v.(map[string]any)
		v = o[name]
	}
	return v
}

var sampleLine = regexp.MustCompile(`^([a-z_]+)\{(.*)\} (\S+)$`)

// series finds the value of a series, or the label of the one that is 1.
func series(lines []string, name, label string) (any, error) {
	name, which, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
	name, condition, isCondition := strings.Cut(name, "/")
	for _, l := range lines {
		m := sampleLine.FindStringSubmatch(l)
		if m == nil || m[1] != name || !strings.Contains(m[2], label) || isCondition && !strings.Contains(m[2], `condition="`+condition+`"`) {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		if which == "" {
			return v, nil
		}
		if v == 1 {
			_, text, _ := strings.Cut(m[2], which+`="`)
			text, _, _ = strings.Cut(text, `"`)
			return text, nil
		}
	}
	if which != "" {
		return "", nil // none
	}
	return nil, fmt.Errorf("no series %s{%s}", name, label)
}

// between says whether v, in units of which scale make one of Redfish's, lies between two looks at the same fact.
func between(v, first, last any, scale float64, name string) bool {
	if text, ok := v.(string); ok && scale == 1 {
		return text == fmt.Sprint(first) || text == fmt.Sprint(last)
	}
	n, ok1 := number(v)
	a, ok2 := number(first)
	b, ok3 := number(last)
	if !ok1 || !ok2 || !ok3 {
		return false
	}
	n /= scale
	slack := 1e-9
	switch {
	case scale > 1:
		slack = 1 // Redfish cuts to whole MiB
	case strings.HasSuffix(name, "AgeSeconds"):
		return n >= 0 && math.Abs(n-a) < 3 && math.Abs(n-b) < 3 // it falls to 0 whenever the controller answers
	}
	return n >= math.Min(a, b)-slack && n <= math.Max(a, b)+slack
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// renamed are facts whose metric has another name than Redfish's, and why.
var renamed = map[string]string{
	"BootCount":       "OpenMetrics: a counter ends in _total",
	"MemoryUsedMiB":   "OpenMetrics: bytes",
	"MemoryTotalMiB":  "OpenMetrics: bytes",
	"Volts":           "rail_: of the rail, as Redfish's sensor says",
	"Amperes":         "rail_: of the rail",
	"Watts":           "power_: a unit alone is no name",
	"Floors/Sequence": "one word of two",
}

// TestFactNames: the same fact has the same name in all three, but for the forms of each, and every exception has a reason.
func TestFactNames(t *testing.T) {
	used := map[string]bool{}
	for _, f := range slices.Concat(unitFacts, rackFacts) {
		name := strings.TrimPrefix(f.redfish, "Oem/Racklet/")
		if _, ok := renamed[name]; ok {
			used[name] = true
		} else {
			metric, _, _ := strings.Cut(strings.TrimSuffix(f.metric, "_total"), "{")
			_, condition, isCondition := strings.Cut(metric, "/")
			if isCondition {
				metric = strings.ReplaceAll(condition, "-", "_")
			}
			if want := snake(name); metric != want && metric != "info" {
				t.Errorf("%s is %s in OpenMetrics, want %s", name, metric, want)
			}
		}
		if f.status != "" && !strings.EqualFold(f.status, name) && name != "MemoryUsedMiB" {
			t.Errorf("%s is %s in status", name, f.status)
		}
	}
	for name := range renamed {
		if !used[name] {
			t.Errorf("%s needs no exception", name)
		}
	}
}

// snake turns RailSeconds into rail_seconds and CPUPercent into cpu_percent.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		next := i+1 < len(s) && unicode.IsLower(rune(s[i+1]))
		if i > 0 && unicode.IsUpper(r) && (next || unicode.IsLower(rune(s[i-1]))) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// TestFactsDisagree is the negative control: another unit, another name and an old value are seen.
func TestFactsDisagree(t *testing.T) {
	var v tellers
	resource := func(watts float64) map[string]any {
		unit := map[string]any{"Oem": map[string]any{"Racklet": map[string]any{"Watts": watts, "Stage": "running", "AgeSeconds": 0.1}}}
		return map[string]any{"/redfish/v1/Systems/unit-1": unit}
	}
	v.before, v.after = resource(3.1), resource(3.3)
	v.status.Units = []map[string]any{{"name": "unit-1", "watts": 3.2, "stage": "os", "ageSeconds": 9.0}}
	v.metrics = []string{`racklet_unit_power_watts{unit="unit-1"} 3200.0`, `racklet_unit_stage{stage="running",unit="unit-1"} 1.0`, `racklet_unit_age_seconds{unit="unit-1"} 0.2`}
	wrong, err := v.compare()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"unit-1 Oem/Racklet/Watts": true, "unit-1 watts": false, "unit-1 Oem/Racklet/Stage": false, "unit-1 stage": true,
		"unit-1 Oem/Racklet/AgeSeconds": false, "unit-1 ageSeconds": true, "unit-1 Oem/Racklet/Volts": true, "fans": true} {
		if _, is := wrong[name]; is != want {
			t.Errorf("%s is wrong: %v, want %v", name, is, want)
		}
	}
}
