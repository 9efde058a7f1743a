package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish/access"
)

// Groups of systems: temporary ones are named in the request for an action of the service, persistent ones are aggregates.
const (
	aggregationURI = root + "/AggregationService"
	aggregatesURI  = aggregationURI + "/Aggregates"

	aggregateFile = "aggregates.json"
	maxAggregates = 64
	longestDelay  = 3600 // seconds between two batches
)

// aggregate is a group that is kept.
type aggregate struct {
	ID       string
	Name     string
	Elements []string // names of units
}

// aggregates are all groups. A change is on the disk before it is answered.
type aggregates struct {
	file string // "": nothing is kept

	mu   sync.Mutex
	next int
	all  []aggregate // in the order in which they were made
}

type aggregateDocument struct {
	Version    int
	Next       int
	Aggregates []aggregate
}

func openAggregates(dir string) (*aggregates, error) {
	a := &aggregates{next: 1}
	if dir == "" {
		return a, nil
	}
	a.file = filepath.Join(dir, aggregateFile)
	b, err := os.ReadFile(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read aggregates: %w", err)
	}
	var d aggregateDocument
	if err := json.Unmarshal(b, &d); err != nil || d.Version != 1 || len(d.Aggregates) > maxAggregates {
		return nil, fmt.Errorf("read aggregates: %s is damaged (%v): restore it, or move it away to begin without groups", a.file, err)
	}
	a.next, a.all = d.Next, d.Aggregates
	return a, nil
}

// change replaces all groups by what f makes of them.
func (a *aggregates) change(f func(all []aggregate, next int) ([]aggregate, int, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]aggregate, len(a.all))
	for i, g := range a.all {
		g.Elements = slices.Clone(g.Elements)
		all[i] = g
	}
	all, next, err := f(all, a.next)
	if err != nil {
		return err
	}
	if a.file != "" {
		b, err := json.MarshalIndent(aggregateDocument{Version: 1, Next: next, Aggregates: all}, "", " ")
		if err != nil {
			return err
		}
		if err := access.Replace(a.file, append(b, '\n')); err != nil {
			return fmt.Errorf("keep aggregates: %w", err)
		}
	}
	a.all, a.next = all, next
	return nil
}

// changeOne changes one group.
func (a *aggregates) changeOne(id string, f func(*aggregate)) error {
	return a.change(func(all []aggregate, next int) ([]aggregate, int, error) {
		i := slices.IndexFunc(all, func(g aggregate) bool { return g.ID == id })
		if i < 0 {
			return nil, 0, access.ErrUnknown
		}
		f(&all[i])
		return all, next, nil
	})
}

func (a *aggregates) list() []aggregate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all // replaced as a whole, never changed
}

func (a *aggregates) find(id string) (aggregate, bool) {
	all := a.list()
	i := slices.IndexFunc(all, func(g aggregate) bool { return g.ID == id })
	if i < 0 {
		return aggregate{}, false
	}
	return all[i], true
}

func (s *Service) addAggregation(t *router) {
	action := func(uri, name string) object { return object{"target": uri + "/Actions/" + name} }
	t.add(aggregationURI, resource{get: func([]string) object {
		reset := action(aggregationURI, "AggregationService.Reset")
		reset["@Redfish.ActionInfo"] = aggregationURI + "/ResetActionInfo"
		reset["ResetType@Redfish.AllowableValues"] = resetTypes
		return object{
			"@odata.type": "#AggregationService.v1_0_3.AggregationService", "@odata.id": aggregationURI, "Id": "AggregationService", "Name": "Groups of systems",
			"ServiceEnabled": true, "Status": enabled(), "Aggregates": ref(aggregatesURI),
			"Actions": object{
				"#AggregationService.Reset":               reset,
				"#AggregationService.SetDefaultBootOrder": action(aggregationURI, "AggregationService.SetDefaultBootOrder"),
			},
		}
	}})
	t.add(aggregationURI+"/ResetActionInfo", resource{get: func([]string) object {
		return actionInfo(aggregationURI+"/ResetActionInfo", "ResetActionInfo", "Reset", append(batchParameters, parameter{"TargetURIs", true, "StringArray", nil})...)
	}})
	t.add(aggregationURI+"/Actions/AggregationService.Reset", resource{post: s.postGroupReset})
	t.add(aggregationURI+"/Actions/AggregationService.SetDefaultBootOrder", resource{post: s.postGroupBoot})
	t.add(aggregatesURI, resource{get: func([]string) object {
		var ids []string
		for _, g := range s.groups.list() {
			ids = append(ids, g.ID)
		}
		return members("AggregateCollection", aggregatesURI, "Groups of systems", ids)
	}, post: s.postAggregate})
	one := aggregatesURI + "/*"
	t.add(one, resource{get: s.ofAggregate(s.aggregateObject), patch: s.patchAggregate, remove: s.deleteAggregate})
	t.add(one+"/ResetActionInfo", resource{get: s.ofAggregate(func(g aggregate) object {
		return actionInfo(aggregatesURI+"/"+g.ID+"/ResetActionInfo", "ResetActionInfo", "Reset", batchParameters...)
	})})
	t.add(one+"/Actions/Aggregate.Reset", resource{post: s.withAggregate(s.postAggregateReset)})
	t.add(one+"/Actions/Aggregate.SetDefaultBootOrder", resource{post: s.withAggregate(s.postAggregateBoot)})
	t.add(one+"/Actions/Aggregate.AddElements", resource{post: s.withAggregate(s.postElements("Aggregate.AddElements", func(have, more []string) []string {
		return append(have, slices.DeleteFunc(more, func(name string) bool { return slices.Contains(have, name) })...)
	}))})
	t.add(one+"/Actions/Aggregate.RemoveElements", resource{post: s.withAggregate(s.postElements("Aggregate.RemoveElements", func(have, less []string) []string {
		return slices.DeleteFunc(have, func(name string) bool { return slices.Contains(less, name) })
	}))})
}

var batchParameters = []parameter{
	{"ResetType", true, "String", resetTypes}, {"BatchSize", false, "Number", nil}, {"DelayBetweenBatchesInSeconds", false, "Number", nil},
}

func (s *Service) ofAggregate(get func(aggregate) object) func([]string) object {
	return func(p []string) object {
		if g, ok := s.groups.find(p[0]); ok {
			return get(g)
		}
		return nil
	}
}

func (s *Service) withAggregate(post func(http.ResponseWriter, *http.Request, aggregate, object)) func(http.ResponseWriter, *http.Request, []string, object) {
	return func(w http.ResponseWriter, r *http.Request, p []string, body object) {
		g, ok := s.groups.find(p[0])
		if !ok {
			fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
			return
		}
		post(w, r, g, body)
	}
}

func (s *Service) aggregateObject(g aggregate) object {
	uri := aggregatesURI + "/" + g.ID
	elements := []object{}
	for _, name := range g.Elements {
		if u := s.byName(name); u != nil { // a unit that has left the rack comes back into its groups with it
			elements = append(elements, ref(systemURI(u)))
		}
	}
	action := func(name string) object { return object{"target": uri + "/Actions/Aggregate." + name} }
	reset := action("Reset")
	reset["@Redfish.ActionInfo"] = uri + "/ResetActionInfo"
	reset["ResetType@Redfish.AllowableValues"] = resetTypes
	return object{
		"@odata.type": "#Aggregate.v1_0_3.Aggregate", "@odata.id": uri, "Id": g.ID, "Name": g.Name,
		"Elements": elements, "Elements@odata.count": len(elements), "ElementsCount": len(elements),
		"Actions": object{
			"#Aggregate.Reset": reset, "#Aggregate.SetDefaultBootOrder": action("SetDefaultBootOrder"),
			"#Aggregate.AddElements": action("AddElements"), "#Aggregate.RemoveElements": action("RemoveElements"),
		},
	}
}

// setSystems takes a list of systems, each as URI or as reference.
func (s *Service) setSystems(f func([]string)) field {
	return field{set: func(v any, name, pointer string) *message {
		raw, ok := v.([]any)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		names := []string{}
		for i, e := range raw {
			if o, is := e.(map[string]any); is && len(o) == 1 {
				e = o["@odata.id"]
			}
			uri, _ := e.(string)
			u := s.byName(strings.TrimPrefix(strings.TrimSuffix(uri, "/"), root+"/Systems/"))
			if u == nil || !strings.HasPrefix(uri, root) {
				m := about(pointer+"/"+strconv.Itoa(i), base("ResourceNotFound", fmt.Sprintf("The requested resource of type ComputerSystem named '%s' was not found.", shorten(uri)),
					"Name systems by their URIs, such as "+root+"/Systems/unit-1.", "ComputerSystem", shorten(uri)))
				return &m
			}
			if !slices.Contains(names, u.name) {
				names = append(names, u.name)
			}
		}
		f(names)
		return nil
	}}
}

func (s *Service) postAggregate(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	var g aggregate
	if !created(w, body, map[string]field{
		"Elements": s.setSystems(func(v []string) { g.Elements = v }), "Name": setText(func(v string) { g.Name = shorten(v) }),
		"ElementsCount": {set: func(any, string, string) *message { return nil }}, // as in the standard's examples: what it is follows from Elements
	}, "Elements") {
		return
	}
	err := s.groups.change(func(all []aggregate, next int) ([]aggregate, int, error) {
		if len(all) >= maxAggregates {
			return nil, 0, access.ErrFull
		}
		g.ID = strconv.Itoa(next)
		if g.Name == "" {
			g.Name = "Group " + g.ID
		}
		return append(all, g), next + 1, nil
	})
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	w.Header().Set("Location", aggregatesURI+"/"+g.ID)
	s.mu.RLock()
	o := s.aggregateObject(g)
	s.mu.RUnlock()
	s.write(w, r, http.StatusCreated, o)
}

func (s *Service) patchAggregate(w http.ResponseWriter, r *http.Request, p []string, body object) {
	g, ok := s.groups.find(p[0])
	if !ok {
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	s.mu.RLock()
	current := s.aggregateObject(g)
	s.mu.RUnlock()
	if !patched(w, body, current, map[string]field{
		"Elements": s.setSystems(func(v []string) { g.Elements = v }), "Name": setText(func(v string) { g.Name = shorten(v) }),
	}) {
		return
	}
	s.keepAggregate(w, r, g.ID, func(now *aggregate) { now.Elements, now.Name = g.Elements, g.Name })
}

// keepAggregate changes a group and answers with it.
func (s *Service) keepAggregate(w http.ResponseWriter, r *http.Request, id string, f func(*aggregate)) {
	if err := s.groups.changeOne(id, f); err != nil {
		s.failAccess(w, r, err)
		return
	}
	s.answer(w, r, func() object { g, _ := s.groups.find(id); return s.aggregateObject(g) })
}

func (s *Service) deleteAggregate(w http.ResponseWriter, r *http.Request, p []string) {
	err := s.groups.change(func(all []aggregate, next int) ([]aggregate, int, error) {
		less := slices.DeleteFunc(all, func(g aggregate) bool { return g.ID == p[0] })
		if len(less) == len(all) {
			return nil, 0, access.ErrUnknown
		}
		return less, next, nil
	})
	if err != nil {
		s.failAccess(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) postElements(action string, combine func(have, given []string) []string) func(http.ResponseWriter, *http.Request, aggregate, object) {
	return func(w http.ResponseWriter, r *http.Request, g aggregate, body object) {
		var given []string
		if !parameters(w, body, action, map[string]field{"Elements": s.setSystems(func(v []string) { given = v })}, "Elements") {
			return
		}
		if err := s.groups.changeOne(g.ID, func(now *aggregate) { now.Elements = combine(now.Elements, given) }); err != nil {
			s.failAccess(w, r, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// batches says how a group is reset: so many at a time, with a pause between.
type batches struct {
	kind  string
	size  int // 0: all at once
	delay time.Duration
}

func (b *batches) fields() map[string]field {
	return map[string]field{
		"ResetType":                    setEnum(resetTypes, func(v string) { b.kind = v }),
		"BatchSize":                    whole(0, 1_000_000, func(v int) { b.size = v }),
		"DelayBetweenBatchesInSeconds": whole(0, longestDelay, func(v int) { b.delay = time.Duration(v) * time.Second }),
	}
}

func (s *Service) postGroupReset(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	const action = "AggregationService.Reset"
	var b batches
	var names []string
	allowed := b.fields()
	allowed["TargetURIs"] = s.setSystems(func(v []string) { names = v })
	if parameters(w, body, action, allowed, "ResetType", "TargetURIs") {
		s.resetGroup(w, r, "Reset of a group", names, b)
	}
}

func (s *Service) postAggregateReset(w http.ResponseWriter, r *http.Request, g aggregate, body object) {
	var b batches
	if parameters(w, body, "Aggregate.Reset", b.fields(), "ResetType") {
		s.resetGroup(w, r, "Reset of "+g.Name, g.Elements, b)
	}
}

// resetGroup resets systems as a task: those of one batch at the same time, whatever becomes of the others.
func (s *Service) resetGroup(w http.ResponseWriter, r *http.Request, name string, names []string, b batches) {
	var units []*unit
	for _, n := range names {
		if u := s.byName(n); u != nil {
			units = append(units, u)
		}
	}
	owner := ""
	if who := by(r); who != nil {
		owner = who.account
	}
	e, err := s.tasks.begin(name, owner, func(ctx context.Context, p *progress) error { return s.resetBatches(ctx, p, units, b) })
	switch {
	case errors.Is(err, access.ErrFull), errors.Is(err, errNotRunning):
		w.Header().Set("Retry-After", "30")
		fail(w, http.StatusServiceUnavailable, msgUnavailable(30))
	case err != nil:
		s.failAccess(w, r, err)
	default:
		s.accept(w, r, e)
	}
}

func (s *Service) resetBatches(ctx context.Context, p *progress, units []*unit, b batches) error {
	size := b.size
	if size == 0 {
		size = max(len(units), 1)
	}
	var failed *taskError
	done := 0
	for batch := range slices.Chunk(units, size) {
		if done > 0 && b.delay > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(b.delay):
			}
		}
		results := make([]error, len(batch))
		var wait sync.WaitGroup
		for i, u := range batch {
			wait.Go(func() {
				limited, cancel := context.WithTimeout(ctx, writeLimit)
				defer cancel()
				results[i] = s.reset(limited, u, b.kind)
			})
		}
		wait.Wait()
		for i, err := range results {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				m, _, _ := controllerMessage(bmcID(batch[i]), err)
				p.say(m)
				failed = &taskError{m}
				continue
			}
			p.say(base("Success", "The request completed successfully.", "None: "+systemURI(batch[i])+" was told "+b.kind+"."))
		}
		done += len(batch)
		p.at(done * 100 / len(units))
	}
	if failed != nil {
		return failed
	}
	return nil
}

func (s *Service) postGroupBoot(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	var names []string
	if parameters(w, body, "AggregationService.SetDefaultBootOrder", map[string]field{"Systems": s.setSystems(func(v []string) { names = v })}, "Systems") {
		s.defaultBoot(w, r, names)
	}
}

func (s *Service) postAggregateBoot(w http.ResponseWriter, r *http.Request, g aggregate, body object) {
	if parameters(w, body, "Aggregate.SetDefaultBootOrder", nil) {
		s.defaultBoot(w, r, g.Elements)
	}
}

// defaultBoot takes back what systems were told about their boot slots: each boots the newest valid one.
func (s *Service) defaultBoot(w http.ResponseWriter, r *http.Request, names []string) {
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	errs := make([]error, len(names))
	var wait sync.WaitGroup
	for i, name := range names {
		if u := s.byName(name); u != nil {
			wait.Go(func() {
				errs[i] = s.desire(ctx, u, wire.Desired{Mask: wire.DesiredBoot, BootMode: wire.BootDisabled, BootSlot: wire.SlotNone})
			})
		}
	}
	wait.Wait()
	for i, err := range errs {
		if err != nil {
			failController(w, bmcID(s.byName(names[i])), err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
