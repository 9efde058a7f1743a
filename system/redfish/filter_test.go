package redfish

import (
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	o := object{
		"Id": "unit-1", "PowerState": volatile{"On"}, "Slot": uint8(3), "Watts": volatile{4.5}, "LED": true, "Null": nil, "Say": "it's",
		"Status": object{"State": "Enabled", "Conditions": []object{}}, "Oem": volatile{object{"Racklet": object{"Stage": "running"}}},
	}
	for text, want := range map[string]bool{
		"Id eq 'unit-1'": true, "Id ne 'unit-1'": false, "'unit-1' eq Id": true, "PowerState eq 'On'": true, "Slot eq 3": true, "Slot gt 2": true,
		"Slot ge 3.5": false, "Watts lt 4.6": true, "Watts le 4.5": true, "Watts gt -1e3": true, "LED eq true": true, "LED": true, "not LED": false,
		"LED eq false": false, "Status/State eq 'Enabled'": true, "Oem/Racklet/Stage eq 'running'": true, "Say eq 'it''s'": true,
		"Nothing eq null": true, "Null eq null": true, "Id eq null": false, "Nothing/Within eq 1": false, "Id/Within eq null": true,
		// Types do not mix.
		"Slot eq '3'": false, "Slot lt 'x'": false, "Id gt 3": false, "Status eq Status": false, "Status/Conditions eq null": false, "Id": false, "1": false,
		// Precedence: not, relation, equality, and, or.
		"true or false and false": true, "(true or false) and false": false, "not false and false": false, "not (false and false)": true,
		"Slot gt 2 eq true": true, "not Slot eq 3": false, "not (Slot eq 3)": false, "not not true": true, "LED and Slot lt 4 and Watts gt 4": true,
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := f(o); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
	for _, text := range []string{"", "eq", "Id eq", "eq 1", "Id eq 'x", "(Id eq 1", "Id eq 1)", "Id eq 1 2", "Id eq eq", "1 lt 2 lt 3", "1 eq 1 eq 1", "Id & 1", "a//b eq 1", "/a eq 1",
		"1x eq 1", "not", "()", "Id eq é", strings.Repeat("(", 40) + "true" + strings.Repeat(")", 40), strings.Repeat("not ", 40) + "true", strings.Repeat("a/", 40) + "a eq 1"} {
		if _, err := parseFilter(text); err == nil {
			t.Errorf("%q passed", text)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"Id eq 'unit-1' and not (Slot gt 2 or LED)", "A/B ne null", "'it''s' le Id", "((((", "not not true"} {
		f.Add(s)
	}
	o := object{"Id": "unit-1", "A": object{"B": volatile{1.5}}, "L": []object{{"x": 1}}}
	f.Fuzz(func(t *testing.T, text string) {
		keep, err := parseFilter(text)
		if err != nil {
			return
		}
		first := keep(o)
		if again := keep(o); first != again {
			t.Errorf("%q: %t, then %t", text, first, again)
		}
		if inverse, err := parseFilter("not (" + text + ")"); err == nil && inverse(o) == first {
			t.Errorf("not (%s) is as %q", text, text)
		}
	})
}
