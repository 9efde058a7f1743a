package fault

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/racklet/racklet/rack"
)

// calm are the kinds that a storm leaves out: what is no accident, what machines cannot do, what no rack returns from by
// itself.
var calm = []string{"load", "metadata-replay", "owner-key-stolen", "unit-key-stolen", "clock-skew", "disk-flip", "flash-flip", "unit-short", "unit-power-cut", "overheating", "bmc-lies-power", "bmc-lies-temperature"}

// Storm makes a scenario of random faults: the same seed, length, units and fans give the same storm. Every fault heals
// by itself, the last ones a third before the end, and at the end the rack must be as it was: all that ran runs again.
func Storm(seed uint64, length time.Duration, units []string, fans int, needs string) *rack.Scenario {
	rng := rand.New(rand.NewPCG(seed, 0x73746f726d))
	units = slices.Clone(units)
	slices.Sort(units)
	unit := func() string { return units[rng.IntN(len(units))] }
	s := &rack.Scenario{TypeMeta: rack.TypeMeta{APIVersion: rack.APIVersion, Kind: rack.KindScenario}, Metadata: rack.Metadata{Name: fmt.Sprintf("storm-%d", seed%1e9)}}
	s.Spec = rack.ScenarioSpec{Needs: needs, Units: len(units), Seed: uint32(seed), Length: rack.Duration(length),
		Teaches: fmt.Sprintf("A storm of random faults from seed %d: whatever breaks, the rack returns by itself.", seed)}
	kinds := slices.DeleteFunc(slices.Clone(rack.FaultKinds), func(k rack.FaultKind) bool { return k.Machines || slices.Contains(calm, k.Name) })
	for at := time.Second; at < length*6/10; at += time.Duration(1+rng.IntN(10)) * time.Second {
		k := &kinds[rng.IntN(len(kinds))]
		f := rack.FaultSpec{Kind: k.Name, At: rack.Duration(at)}
		switch k.Target {
		case rack.OnUnit:
			f.Target = unit()
		case rack.OnPort:
			f.Target = append(units, "gateway")[rng.IntN(len(units)+1)]
		case rack.OnUnits:
			some := []string{unit()}
			if other := unit(); other != some[0] {
				some = append(some, other)
			}
			f.Target = strings.Join(some, "+")
		case rack.OnFan:
			f.Target = fmt.Sprintf("fan-%d", 1+rng.IntN(fans))
		case rack.OnService:
			f.Target = strings.TrimSuffix(k.Name, "-down")
		default:
			f.Target = k.Target
		}
		for _, p := range k.Parameters {
			if len(p.Words) > 0 {
				if f.With == nil {
					f.With = map[string]string{}
				}
				f.With[p.Name] = p.Words[rng.IntN(len(p.Words))]
			}
		}
		if !k.Once {
			f.For = rack.Duration(time.Duration(1+rng.IntN(15)) * time.Second)
		}
		s.Spec.Faults = append(s.Spec.Faults, f)
	}
	s.Spec.Expect = []rack.Expectation{
		{That: fmt.Sprintf("units.running = %d", len(units)), After: rack.Duration(length * 7 / 10), Within: rack.Duration(length*3/10 - time.Second), Why: "everything has healed"},
	}
	return s
}
