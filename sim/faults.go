package sim

import (
	"net/http"
	"strconv"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
)

func (r *Rack) listFaults(http.ResponseWriter, *http.Request) (any, error) {
	return r.faults.engine.List(), nil
}

func (r *Rack) injectFault(_ http.ResponseWriter, req *http.Request) (any, error) {
	f, err := body[rack.FaultSpec](req)
	if err != nil {
		return nil, err
	}
	if err := fault.Check(r.faults, &f); err != nil {
		return nil, bad("%v", err)
	}
	if err := r.faults.ready(&f); err != nil {
		return nil, conflict("%v", err)
	}
	id, err := r.faults.engine.Inject(f)
	if err != nil {
		return nil, bad("%v", err)
	}
	return Injected{id}, nil
}

func (r *Rack) clearFaults(http.ResponseWriter, *http.Request) (any, error) {
	return Cleared{r.faults.stop()}, nil
}

func (r *Rack) clearFault(_ http.ResponseWriter, req *http.Request) (any, error) {
	id, err := strconv.Atoi(req.PathValue("id"))
	if err == nil {
		err = r.faults.engine.Clear(id)
	}
	if err != nil {
		return nil, missing("fault %q: there is none of this number", req.PathValue("id"))
	}
	return nil, nil
}

func (r *Rack) listFaultKinds(http.ResponseWriter, *http.Request) (any, error) {
	return rack.FaultKinds, nil
}

func (r *Rack) getRecord(http.ResponseWriter, *http.Request) (any, error) {
	return r.faults.engine.Record(), nil
}

func (r *Rack) startScenario(_ http.ResponseWriter, req *http.Request) (any, error) {
	s, err := body[rack.Scenario](req)
	if err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, bad("%v", err)
	}
	return nil, r.faults.start(&s)
}

func (r *Rack) getScenario(http.ResponseWriter, *http.Request) (any, error) {
	return outcomeOr(r.faults.outcome())
}

func outcomeOr(o fault.Outcome, err error) (any, error) { return o, err }
