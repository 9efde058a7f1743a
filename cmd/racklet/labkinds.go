package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/sim/headless"
	"github.com/racklet/racklet/sim/plant"
	"github.com/racklet/racklet/source"
)

func readStatusOf(ctx context.Context, env *environment) (*Status, error) {
	client, err := env.client()
	if err != nil {
		return nil, err
	}
	return readStatus(ctx, client)
}

// pick chooses a unit that is there.
func (r *labRun) pick(ctx context.Context) (*UnitStatus, error) {
	s, err := readStatusOf(ctx, r.env)
	if err != nil {
		return nil, err
	}
	var there []*UnitStatus
	for i := range s.Units {
		if u := &s.Units[i]; u.Present && u.Available {
			there = append(there, u)
		}
	}
	if len(there) == 0 {
		return nil, errors.New("no unit of this rack answers")
	}
	rng, err := r.random()
	if err != nil {
		return nil, err
	}
	return there[rng.IntN(len(there))], nil
}

// unit is the status of the unit that the lab is about.
func (r *labRun) unit(ctx context.Context) (*UnitStatus, error) {
	client, err := r.env.client()
	if err != nil {
		return nil, err
	}
	return readUnitByName(ctx, client, r.state.Data["unit"])
}

// power orders a unit's power by a Redfish reset type.
func (r *labRun) power(ctx context.Context, kind string) error {
	client, err := r.env.client()
	if err != nil {
		return err
	}
	return client.post(ctx, systems+"/"+r.state.Data["unit"]+"/Actions/ComputerSystem.Reset", map[string]string{"ResetType": kind})
}

// await waits for something about the unit.
func (r *labRun) await(ctx context.Context, what string, within time.Duration, ok func(*UnitStatus) bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	fmt.Fprintf(r.env.stderr, "racklet: waiting until %s %s\n", r.state.Data["unit"], what)
	done := false
	err := poll(ctx, 500*time.Millisecond, func() (bool, error) {
		u, err := r.unit(ctx)
		done = err == nil && ok(u)
		return done, err
	})
	if err == nil && !done {
		err = fmt.Errorf("%s does not get there: %s", r.state.Data["unit"], what)
	}
	return err
}

// number reads an answer's number; "35%" and "35" are the same.
func number(text string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimRight(strings.ToLower(text), "%jcw°"), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, wrong("%q is no number", text)
	}
	return math.Abs(v), nil
}

// words wants so many of an answer.
func words(answer []string, what ...string) error {
	if len(answer) != len(what) {
		return wrong("the answer is %s", strings.Join(what, ", then "))
	}
	return nil
}

// near compares a name and a number with the truth.
func near(answer []string, name string, truth, within float64) error {
	v, err := number(answer[1])
	switch {
	case err != nil:
		return err
	case answer[0] != name || math.Abs(v-truth) > within:
		return wrong("measure again, both which and how much")
	}
	return nil
}

// The failing fan.

func (r *labRun) fan() (fan int, worn float64, err error) {
	rng, err := r.random()
	if err != nil {
		return 0, 0, err
	}
	return rng.IntN(2), float64(15+rng.IntN(46)) / 100, nil
}

func startFan(ctx context.Context, r *labRun) error {
	fan, worn, err := r.fan()
	if err != nil {
		return err
	}
	s, err := readStatusOf(ctx, r.env)
	if err != nil {
		return err
	}
	var before []string
	for _, f := range s.Rack.Fans {
		before = append(before, fmt.Sprintf("%s %.0f rpm at %.0f %% duty", f.Name, f.RPM, f.DutyPercent))
	}
	r.state.Data["before"] = strings.Join(before, ", ")
	var f plant.Faults
	f.Fan[fan].Worn = worn
	return r.env.simCall(ctx, http.MethodPut, "/sim/v1/plant/faults", &f, nil)
}

func checkFan(_ context.Context, r *labRun, answer []string) error {
	if err := words(answer, "a fan", "the percentage that it has lost"); err != nil {
		return err
	}
	fan, worn, err := r.fan()
	if err != nil {
		return err
	}
	return near(answer, fmt.Sprintf("fan-%d", fan+1), 100*worn, 4)
}

func cleanFan(ctx context.Context, r *labRun) error {
	return unlessDown(r.env.simCall(ctx, http.MethodPut, "/sim/v1/plant/faults", &plant.Faults{}, nil))
}

// unlessDown: what a rack has broken is whole when it is started again.
func unlessDown(err error) error {
	if errors.Is(err, errNoRack) {
		return nil
	}
	return err
}

// Energy.

func startEnergy(ctx context.Context, r *labRun) error {
	u, err := r.pick(ctx)
	if err != nil {
		return err
	}
	r.state.Data["unit"], r.state.Data["joules"] = u.Name, fmt.Sprintf("%.0f", u.EnergyJoules)
	r.state.Data["begun"] = time.Now().UTC().Format(time.RFC3339)
	return nil
}

func checkEnergy(ctx context.Context, r *labRun, answer []string) error {
	if err := words(answer, "the energy in joules"); err != nil {
		return err
	}
	v, err := number(answer[0])
	if err != nil {
		return err
	}
	begun, err := time.Parse(time.RFC3339, r.state.Data["begun"])
	if err != nil {
		return err
	}
	if left := time.Minute - time.Since(begun); left > 0 {
		return hint(errors.New("it is too early: a minute has not passed"), "answer in %v; this one did not count", left.Round(time.Second))
	}
	u, err := r.unit(ctx)
	if err != nil {
		return err
	}
	before, _ := strconv.ParseFloat(r.state.Data["joules"], 64)
	if used := u.EnergyJoules - before; used < 1 || math.Abs(v-used) > max(5, used/20) {
		return wrong("the counter says something else")
	}
	return nil
}

// The BMC that lies.

func (r *labRun) lie() (float64, error) {
	rng, err := r.random()
	if err != nil {
		return 0, err
	}
	rng.IntN(16) // the unit's choice
	return float64(12 + rng.IntN(19)), nil
}

func (r *labRun) thermometer(ctx context.Context, lie float64) error {
	return r.env.simCall(ctx, http.MethodPut, fmt.Sprintf("/sim/v1/slots/%s/chips/temperature", r.state.Data["slot"]), &sim.ChipRequest{Lie: lie}, nil)
}

func startLiar(ctx context.Context, r *labRun) error {
	u, err := r.pick(ctx)
	if err != nil {
		return err
	}
	lie, err := r.lie()
	if err != nil {
		return err
	}
	if err := r.env.simCall(ctx, http.MethodPut, fmt.Sprintf("/sim/v1/slots/%d/chips/temperature", u.Slot), &sim.ChipRequest{Lie: -lie}, nil); err != nil {
		return err
	}
	return nil
}

func checkLiar(ctx context.Context, r *labRun, answer []string) error {
	if err := words(answer, "a unit", "the degrees by which its thermometer is off"); err != nil {
		return err
	}
	u, err := r.pick(ctx)
	if err != nil {
		return err
	}
	lie, err := r.lie()
	if err != nil {
		return err
	}
	return near(answer, u.Name, lie, 4)
}

func cleanLiar(ctx context.Context, r *labRun) error {
	s, err := readStatusOf(ctx, r.env)
	if err != nil {
		return unlessDown(err)
	}
	for i := range s.Units {
		r.state.Data["slot"] = strconv.Itoa(s.Units[i].Slot)
		if err := r.thermometer(ctx, 0); err != nil && s.Units[i].Present {
			return unlessDown(err)
		}
	}
	return nil
}

// Why does a unit not boot?

// flips are the bits that the boot lab turns, one in each boot slot: in the images, or in their manifests.
func (r *labRun) flips() ([2]sim.FlipRequest, error) {
	rng, err := r.random()
	if err != nil {
		return [2]sim.FlipRequest{}, err
	}
	rng.IntN(16) // the unit's choice
	starts, span := [2]int64{0, 30 << 20}, int64(12<<20)
	if rng.IntN(2) == 0 {
		starts, span = [2]int64{60 << 20, 60<<20 + 64<<10}, 2000
	}
	off, bit := 64+rng.Int64N(span), uint8(rng.IntN(8))
	return [2]sim.FlipRequest{{Offset: starts[0] + off, Bit: bit}, {Offset: starts[1] + off, Bit: bit}}, nil
}

// turn turns the bits that are not as they shall be; which are is kept, as turning twice heals.
func (r *labRun) turn(ctx context.Context, broken bool) error {
	flips, err := r.flips()
	if err != nil {
		return err
	}
	for i, name := range []string{"turned-a", "turned-b"} {
		if (r.state.Data[name] != "") == broken {
			continue
		}
		if err := r.env.simCall(ctx, http.MethodPost, fmt.Sprintf("/sim/v1/slots/%s/flash/flip", r.state.Data["slot"]), &flips[i], nil); err != nil {
			return err
		}
		delete(r.state.Data, name)
		if broken {
			r.state.Data[name] = "yes"
		}
		if err := r.keep(); err != nil {
			return err
		}
	}
	return nil
}

// mark keeps how far the unit's log has come, since only what follows can be an answer.
func (r *labRun) mark(ctx context.Context) error {
	log, err := r.log(ctx)
	if err != nil || len(log) == 0 {
		return err
	}
	r.state.Data["log"] = log[len(log)-1].ID
	return nil
}

// log is what the unit's BMC has logged since the mark.
func (r *labRun) log(ctx context.Context) ([]LogEntry, error) {
	client, err := r.env.client()
	if err != nil {
		return nil, err
	}
	all, err := readEvents(ctx, client, r.state.Data["unit"])
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(e LogEntry) bool { return e.ID == r.state.Data["log"] }); i >= 0 {
		all = all[i+1:]
	}
	return all, nil
}

// refusal checks the name of a check and the entry that has it against what the unit is refused for now.
func (r *labRun) refusal(ctx context.Context, check, id string) (*LogEntry, error) {
	u, err := r.unit(ctx)
	if err != nil {
		return nil, err
	}
	if u.Reason == "" || u.running() {
		return nil, wrong("%s has not refused anything yet: switch it on, and wait", u.Name)
	}
	log, err := r.log(ctx)
	if err != nil {
		return nil, err
	}
	for i := range log {
		if e := &log[i]; e.ID == id && e.Reason == check && check == u.Reason {
			return e, nil
		}
	}
	return nil, wrong("that check, in that entry, is not why %s does not run", u.Name)
}

func startBoot(ctx context.Context, r *labRun) error {
	u, err := r.pick(ctx)
	if err != nil {
		return err
	}
	r.state.Data["unit"], r.state.Data["slot"] = u.Name, strconv.Itoa(u.Slot)
	if err := r.power(ctx, "ForceOff"); err != nil {
		return err
	}
	if err := r.await(ctx, "is off", time.Minute, func(u *UnitStatus) bool { return u.Power == "Off" }); err != nil {
		return err
	}
	if err := r.mark(ctx); err != nil {
		return err
	}
	return r.turn(ctx, true)
}

func checkBoot(ctx context.Context, r *labRun, answer []string) error {
	if err := words(answer, "the name of the check", "the id of the log's entry"); err != nil {
		return err
	}
	_, err := r.refusal(ctx, answer[0], answer[1])
	return err
}

func cleanBoot(ctx context.Context, r *labRun) error {
	if r.state.Data["slot"] == "" {
		return nil
	}
	if err := r.turn(ctx, false); errors.Is(err, errNoRack) {
		return hint(errors.New("the bits of the flash are still turned"), "start the rack first: racklet up")
	} else if err != nil {
		return err
	}
	return r.restart(ctx)
}

// restart lets a unit boot again after what kept it from that is healed.
func (r *labRun) restart(ctx context.Context) error {
	u, err := r.unit(ctx)
	if err != nil || u.running() {
		return unlessDown(err)
	}
	if u.Power != "Off" {
		if err := r.power(ctx, "ForceOff"); err != nil {
			return err
		}
		if err := r.await(ctx, "is off", time.Minute, func(u *UnitStatus) bool { return u.Power == "Off" }); err != nil {
			return err
		}
	}
	return r.power(ctx, "On") // whether it comes up is for the user to see
}

// Replayed metadata.

// own refuses labs that change the repository where there is none beside the rack.
func (r *labRun) own(ctx context.Context) error {
	var cfg daemonConfig
	if err := readJSON(r.layout.config(), &cfg); err != nil {
		return err
	}
	if cfg.External.URL != "" || !exists(r.layout.keys()) {
		return errors.New("this lab needs a rack with the built-in Git host and its keys beside it")
	}
	if out, err := gitSays(ctx, r.layout.repository(), "status", "--porcelain"); err != nil || out != "" {
		return hint(errors.Join(fmt.Errorf("%s has changes that are not committed", r.layout.repository()), err), "commit or undo them first")
	}
	return nil
}

func startReplay(ctx context.Context, r *labRun) error {
	if err := r.own(ctx); err != nil {
		return err
	}
	u, err := r.pick(ctx)
	if err != nil {
		return err
	}
	dir := r.layout.repository()
	old, err := gitSays(ctx, r.layout.hosted(), "rev-parse", "refs/heads/racklet-metadata")
	if err != nil {
		return err
	}
	r.state.Data["unit"] = u.Name
	online, err := source.LoadKey(filepath.Join(r.layout.keys(), "online.pem"))
	if err != nil {
		return err
	}
	for i := range 2 {
		key, err := source.LoadKey(filepath.Join(r.layout.keys(), fmt.Sprintf("owner-%d.pem", i+1)))
		if err != nil {
			return err
		}
		if _, err := source.Sign(dir, key, source.SignOptions{Renew: i == 0, Online: &online}); err != nil {
			return fmt.Errorf("publish a new sequence: %w", err)
		}
	}
	if err := git(ctx, dir, "push", "-q", "origin", "main", "racklet-metadata"); err != nil {
		return err
	}
	if err := r.power(ctx, "PowerCycle"); err != nil {
		return err
	}
	boots := u.BootCount
	if err := r.await(ctx, "runs what is new", 4*time.Minute, func(u *UnitStatus) bool { return u.BootCount > boots && u.running() }); err != nil {
		return err
	}
	if err := r.mark(ctx); err != nil {
		return err
	}
	r.state.Data["replayed"] = "yes"
	if err := r.keep(); err != nil {
		return err
	}
	return git(ctx, dir, "push", "-q", "--force", "origin", old+":refs/heads/racklet-metadata")
}

var digits = regexp.MustCompile(`[0-9]+`)

func checkReplay(ctx context.Context, r *labRun, answer []string) error {
	if err := words(answer, "the name of the check", "the id of the log's entry", "the lowest sequence"); err != nil {
		return err
	}
	e, err := r.refusal(ctx, answer[0], answer[1])
	if err != nil {
		return err
	}
	if want := digits.FindString(e.Expected); want == "" || want != answer[2] {
		return wrong("that is not the lowest sequence that it accepts")
	}
	return nil
}

func cleanReplay(ctx context.Context, r *labRun) error {
	if r.state.Data["replayed"] == "" {
		return nil
	}
	if err := git(ctx, r.layout.repository(), "push", "-q", "origin", "racklet-metadata"); err != nil {
		return hint(err, "the rack must run: racklet up")
	}
	return r.restart(ctx)
}

// A lost owner key.

const lost = ".lost"

func startOwnerKey(ctx context.Context, r *labRun) error {
	if err := r.own(ctx); err != nil {
		return err
	}
	rng, err := r.random()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("owner-%d", 1+rng.IntN(3))
	r.state.Data["key"], r.state.Data["token"] = name, fmt.Sprintf("t%08x", rng.Uint32())
	r.state.Data["repository"], r.state.Data["keys"] = r.layout.repository(), r.layout.keys()
	if err := r.keep(); err != nil {
		return err
	}
	file := filepath.Join(r.layout.keys(), name+".pem")
	return os.Rename(file, file+lost)
}

func checkOwnerKey(_ context.Context, r *labRun, answer []string) error {
	if len(answer) > 0 {
		return wrong("there is nothing to say; the rack's Git host is looked at")
	}
	where := rack.Repository{URL: builtinRepository, Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef}
	b, err := source.ReadBundle(r.layout.hosted(), where)
	if err != nil {
		return err
	}
	root, err := os.ReadFile(filepath.Join(r.layout.keys(), "root.json"))
	if err != nil {
		return err
	}
	id, err := b.Rack()
	if err != nil {
		return wrong("what is published is no rack: %v", err)
	}
	v, err := source.Verify(b, source.Anchor{RackID: id, Repository: where, TUFRoot: root}, time.Now())
	switch {
	case err != nil:
		return wrong("what is published would be refused: %v", err)
	case v.Set.Rack.Metadata.Labels["lab"] != r.state.Data["token"]:
		return wrong("what the owners have published does not have the label")
	case slices.Contains(v.Signers, r.state.Data["key"]):
		return wrong("%s has signed it, and that key is lost", r.state.Data["key"])
	}
	return nil
}

func cleanOwnerKey(_ context.Context, r *labRun) error { return foundKeys(r.layout) }

// foundKeys brings back the keys that a lab has hidden.
func foundKeys(l layout) error {
	names, err := filepath.Glob(filepath.Join(l.keys(), "*"+lost))
	for _, name := range names {
		err = errors.Join(err, os.Rename(name, strings.TrimSuffix(name, lost)))
	}
	return err
}

// An own scenario.

// subjects are the faults that the scenario lab asks for: each is seen by somebody.
var subjects = []struct{ kind, target string }{
	{"bmc-hang", "unit-%d"}, {"tray-pulled", "unit-%d"}, {"bmc-sensor-lost", "unit-%d"}, {"unit-power-cut", "unit-%d"}, {"fan-stuck", "fan-%d"},
}

func (r *labRun) subject() (kind, target string, err error) {
	rng, err := r.random()
	if err != nil {
		return "", "", err
	}
	s, n := subjects[rng.IntN(len(subjects))], 1+rng.IntN(4)
	if s.kind == "fan-stuck" {
		n = 1 + n%2
	}
	return s.kind, fmt.Sprintf(s.target, n), nil
}

func startScenario(_ context.Context, r *labRun) (err error) {
	r.state.Data["kind"], r.state.Data["target"], err = r.subject()
	return err
}

func checkScenario(ctx context.Context, r *labRun, answer []string) error {
	if err := words(answer, "the name of your file"); err != nil {
		return err
	}
	kind, target, err := r.subject()
	if err != nil {
		return err
	}
	s, err := readScenario(answer[0])
	if err != nil {
		return wrong("%v", err)
	}
	about := func(f rack.FaultSpec) bool { return f.Kind == kind && f.Target == target }
	i := slices.IndexFunc(s.Spec.Faults, about)
	const second = rack.Duration(time.Second)
	switch {
	case s.Spec.Needs != rack.NeedsFirmware:
		return wrong("it needs %s, and should need firmware", s.Spec.Needs)
	case s.Spec.Length > 600*second:
		return wrong("it takes more than ten minutes")
	case i < 0:
		return wrong("%s does not break %s in it", kind, target)
	case s.Spec.Faults[i].At < 10*second || s.Spec.Faults[i].At > 20*second:
		return wrong("%s does not begin between second 10 and second 20", kind)
	case s.Spec.Faults[i].Until != "" || s.Spec.Faults[i].For > 0 && s.Spec.Faults[i].For < 10*second:
		return wrong("%s does not last 10 seconds for certain", kind)
	case len(s.Spec.Expect) < 2:
		return wrong("it expects fewer than two things")
	}
	o, err := headless.Run(ctx, s, "")
	if err != nil {
		return err
	}
	if o.Failed() {
		return wrong("it does not pass: try racklet fault run %s", answer[0])
	}
	s.Spec.Faults = slices.DeleteFunc(slices.Clone(s.Spec.Faults), about)
	if o, err = headless.Run(ctx, s, ""); err != nil {
		return err
	}
	if !o.Failed() {
		return wrong("it passes without the fault as well: none of its expectations is about it")
	}
	return nil
}
