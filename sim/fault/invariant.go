package fault

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/racklet/racklet/rack"
)

// watch keeps what the invariants remember from look to look.
type watch struct {
	invariants []invariant
	before     *View
	lost       time.Duration // since when the inlet's sensor is lost; 0: it is not
	over       time.Duration // since when the rack draws more than its budget
	rails      []rail
}

type rail struct {
	unit string
	at   time.Duration
}

type invariant struct {
	name  string
	holds func(w *watch, v *View, e *Effects) string // what was seen instead; "": it holds
}

var invariants = map[string]func(w *watch, v *View, e *Effects) string{
	"budget-kept":         budgetKept,
	"energy-conserved":    energyConserved,
	"energy-rises":        energyRises,
	"fans-on-sensor-loss": fansOnSensorLoss,
	"floors-never-fall":   floorsNeverFall,
	"nothing-cooks":       nothingCooks,
	"one-slot-trips":      supplyNeverTrips,
	"stagger-kept":        staggerKept,
	"verified-boot":       verifiedBoot,
}

func newWatch(without []string, v *View) *watch {
	w := &watch{before: v}
	for _, known := range rack.Invariants {
		if !slices.Contains(without, known.Name) {
			w.invariants = append(w.invariants, invariant{known.Name, invariants[known.Name]})
		}
	}
	return w
}

func (w *watch) look(v *View, e *Effects, broken func(i int, seen string)) {
	for i, x := range w.invariants {
		if seen := x.holds(w, v, e); seen != "" {
			broken(i, seen)
		}
	}
	w.before = v
}

func budgetKept(w *watch, v *View, _ *Effects) string {
	if !v.RMCAlive || v.RMC.BudgetMilliwatts == 0 {
		w.over = 0
		return ""
	}
	if v.RMC.GrantedMilliwatts > v.RMC.BudgetMilliwatts {
		return fmt.Sprintf("%d mW granted of %d mW", v.RMC.GrantedMilliwatts, v.RMC.BudgetMilliwatts)
	}
	if v.Rack.Watts*1000 <= float64(v.RMC.BudgetMilliwatts) {
		w.over = v.Now
	}
	if w.over != 0 && v.Now-w.over > 8*time.Second {
		return fmt.Sprintf("%.1f W drawn of %d mW", v.Rack.Watts, v.RMC.BudgetMilliwatts)
	}
	return ""
}

func energyConserved(_ *watch, v *View, _ *Effects) string {
	if x := math.Abs(v.Energy.Imbalance()); x > 1e-3*math.Max(v.Energy.Supply, 1) {
		return fmt.Sprintf("%.3g J of %.3g J are missing", x, v.Energy.Supply)
	}
	return ""
}

func energyRises(w *watch, v *View, _ *Effects) string {
	if v.RMCAlive && w.before.RMCAlive && v.Starts == w.before.Starts && v.RMC.Millijoules < w.before.RMC.Millijoules {
		return fmt.Sprintf("the RMC's went from %d to %d mJ", w.before.RMC.Millijoules, v.RMC.Millijoules)
	}
	for i := range v.Units {
		u, b := &v.Units[i], &w.before.Units[i]
		if u.BMC == "alive" && b.BMC == "alive" && u.Starts == b.Starts && u.Said.Millijoules < b.Said.Millijoules {
			return fmt.Sprintf("that of %s went from %d to %d mJ", u.Unit, b.Said.Millijoules, u.Said.Millijoules)
		}
	}
	return ""
}

// fansOnSensorLoss: the RMC's own watchdog in the fan controller takes its time when the RMC hangs, so only a living RMC counts.
func fansOnSensorLoss(w *watch, v *View, e *Effects) string {
	if !e.RMC.Temperature.Absent || !v.RMCAlive || v.RMC.UptimeMillis < 3000 || e.RMC.Fans.Absent {
		w.lost = 0
		return ""
	}
	if w.lost == 0 {
		w.lost = v.Now
	}
	for i, f := range v.Fans {
		if v.Now-w.lost > 3*time.Second && f.Drive < 0.99 {
			return fmt.Sprintf("fan-%d at %.0f %% after %v", i+1, f.Drive*100, v.Now-w.lost)
		}
	}
	return ""
}

func floorsNeverFall(w *watch, v *View, _ *Effects) string {
	for i := range v.Units {
		u, b := &v.Units[i], &w.before.Units[i]
		if u.BMC == "off" {
			u.Said.Floors = b.Said.Floors // nothing is said: remember what was
			continue
		}
		f, g := &u.Said.Floors, &b.Said.Floors
		if f.Sequence < g.Sequence || f.RootVersion < g.RootVersion || f.BootSecurity < g.BootSecurity {
			return fmt.Sprintf("%s: sequence from %d to %d", u.Unit, g.Sequence, f.Sequence)
		}
	}
	return ""
}

func nothingCooks(_ *watch, v *View, _ *Effects) string {
	for i := range v.Units {
		if u := &v.Units[i]; u.Truth.SoC > 105 {
			return fmt.Sprintf("%s at %.0f °C", u.Unit, u.Truth.SoC)
		}
	}
	return ""
}

func supplyNeverTrips(_ *watch, v *View, _ *Effects) string {
	if v.Rack.Tripped {
		return "the supply tripped"
	}
	return ""
}

func staggerKept(w *watch, v *View, _ *Effects) string {
	seen := ""
	for i := range v.Units {
		u := &v.Units[i]
		if !u.Truth.PowerGood || w.before.Units[i].Truth.PowerGood {
			continue
		}
		for _, r := range w.rails {
			if v.Now-r.at < 800*time.Millisecond && r.unit != u.Unit {
				seen = fmt.Sprintf("%s %v after %s", u.Unit, v.Now-r.at, r.unit)
			}
		}
		w.rails = append(w.rails, rail{u.Unit, v.Now})
	}
	return seen
}

func verifiedBoot(_ *watch, v *View, _ *Effects) string {
	for i := range v.Units {
		if v.Units[i].Unverified {
			return v.Units[i].Unit + " did"
		}
	}
	return ""
}
