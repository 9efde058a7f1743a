package redfish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
)

// every calls f at once and then every interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// heard notes whether a controller answered, and tells when that changed.
func (s *Service) heard(c *controller, err error) {
	now := s.clock.Now()
	s.mu.Lock()
	was := c.online
	if err == nil {
		c.seen, c.online = now, true
	} else if now.Sub(c.seen) >= offlineFrom {
		c.online = false
	}
	is, first := c.online, c.seen
	s.mu.Unlock()
	switch {
	case is && !was:
		s.log.Info("controller answers", "controller", c.name)
		s.note(c, wire.EventBus, 1, "controller answers")
	case was && !is:
		s.log.Warn("controller is silent", "controller", c.name, "since", first, "error", err)
		s.note(c, wire.EventBus, 0, "controller is silent")
	}
}

func (s *Service) pollRMC(ctx context.Context) {
	var clock, board time.Time
	told := false
	every(ctx, pollState, func() {
		state, err := s.conn.RackState(ctx)
		if ctx.Err() != nil {
			return
		}
		s.heard(&s.rmc, err)
		if err != nil {
			return
		}
		s.mu.Lock()
		if unmeasuredRack(state) != unmeasuredRack(s.rack) {
			s.answers.changed()
		}
		moved := (state.AnswerMask ^ s.rack.AnswerMask) | (state.PresentMask ^ s.rack.PresentMask)
		s.rack = state
		s.mu.Unlock()
		for _, u := range s.units { // the RMC is the first to see that a BMC came or went
			if moved&(1<<u.slot) != 0 {
				u.look()
			}
		}
		if now := s.clock.Now(); now.Sub(clock) >= setClock || state.Flags&wire.RackClockSet == 0 {
			if s.conn.SetTime(ctx, wire.EIDRMC, s.controllersTime(now)) == nil {
				clock = now
			}
		}
		s.mu.RLock()
		known := s.rules.Generation
		s.mu.RUnlock()
		if !told || state.PolicyGeneration != known {
			told = s.pollPolicies(ctx, told)
		}
		if state.LastEvent != s.rmc.after {
			s.pollEvents(ctx, &s.rmc)
			for _, u := range s.units { // a grant, a fault of the bus: most are about some unit
				u.look()
			}
		}
		board = s.pollBoard(ctx, &s.rmc, board)
	})
}

// pollPolicies reads the policies in force and, the first time, gives the RMC those of the rack's description.
func (s *Service) pollPolicies(ctx context.Context, told bool) bool {
	rules, err := s.conn.Policies(ctx)
	if err != nil {
		return told
	}
	s.mu.Lock()
	s.rules = rules
	s.answers.changed()
	s.mu.Unlock()
	if told {
		return true
	}
	want, ok := policies(rules, s.o)
	if !ok || want == rules {
		return true
	}
	if err := s.setPolicies(ctx, func(p *wire.Policies) { g := p.Generation; *p = want; p.Generation = g }); err != nil {
		s.log.Warn("give the RMC its policies", "error", err)
		return false
	}
	return true
}

func (s *Service) pollUnit(ctx context.Context, u *unit) {
	var clock, report, slots, board time.Time
	end, calm := uint64(0), false
	poll := func() {
		calm = false
		state, err := s.refresh(ctx, u)
		if err != nil {
			return
		}
		now := s.clock.Now()
		calm = steadyState(&state) && s.still(u, now) && state.ConsoleEnd == end
		end = state.ConsoleEnd
		if now.Sub(clock) >= setClock || state.Flags&wire.FlagClockSet == 0 {
			if s.conn.SetTime(ctx, u.eid, s.controllersTime(now)) == nil {
				clock = now
			}
		}
		s.showLED(ctx, u, state.LED)
		events := state.LastEvent != u.after
		if events {
			s.pollEvents(ctx, &u.controller)
		}
		if events || now.Sub(report) >= pollReport {
			if r, err := s.conn.Report(ctx, u.eid); err == nil {
				report = now
				s.mu.Lock()
				if unmeasuredReport(r.Report) != unmeasuredReport(u.report.Report) {
					s.answers.changed()
				}
				u.report, u.asked = r, now
				s.mu.Unlock()
			}
		}
		if events || now.Sub(slots) >= pollSlots {
			if i, err := s.conn.Slots(ctx, u.eid); err == nil {
				slots = now
				s.mu.Lock()
				if u.slots != i {
					s.answers.changed()
				}
				u.slots = i
				s.mu.Unlock()
			}
			if v, err := s.conn.Inventory(ctx, u.eid); err == nil {
				s.mu.Lock()
				if u.inventory != v {
					u.inventory = v
					s.answers.changed()
				}
				s.mu.Unlock()
			}
		}
		board = s.pollBoard(ctx, &u.controller, board)
	}
	for ctx.Err() == nil {
		poll()
		wait := pollState
		if calm {
			wait = pollCalm - rand.N(pollCalm/4) // not all at once
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-u.now:
		case <-t.C:
		}
		t.Stop()
	}
}

// still says that nothing has moved at a unit for a while.
func (s *Service) still(u *unit, now time.Time) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return now.Sub(u.movedAt) >= calmAfter
}

// look has a unit's BMC asked at once.
func (u *unit) look() {
	select {
	case u.now <- struct{}{}:
	default:
	}
}

// steadyState says that a unit is where it may stay for long.
func steadyState(st *wire.UnitState) bool {
	switch st.State {
	case wire.StateOff, wire.StateFaulted:
		return st.ObservedGeneration == st.DesiredGeneration
	case wire.StateRunning:
		return st.ObservedGeneration == st.DesiredGeneration && (st.Stage == wire.StageRunning || st.Stage == wire.StageFailed)
	}
	return false
}

// refresh asks a BMC for its state.
func (s *Service) refresh(ctx context.Context, u *unit) (wire.UnitState, error) {
	state, err := s.conn.UnitState(ctx, u.eid)
	if err == nil && state.Slot != u.slot {
		err = fmt.Errorf("the BMC in slot %d says that it is in slot %d", u.slot, state.Slot)
	}
	if ctx.Err() != nil {
		return state, ctx.Err()
	}
	s.heard(&u.controller, err)
	if err != nil {
		return state, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state.Stage != u.state.Stage || u.stageAt.IsZero() {
		u.stageAt = s.clock.Now()
	}
	if unmeasured(state) != unmeasured(u.state) {
		s.answers.changed()
		u.movedAt = s.clock.Now()
	}
	u.state = state
	return state, nil
}

// unmeasured is a state without what is measured and counted all the time: what ETags are made of, and what kept answers
// are not to be older than.
func unmeasured(st wire.UnitState) wire.UnitState {
	st.Milliwatts, st.Millivolts, st.Milliamps, st.MilliCelsius, st.Millijoules, st.RailMillis, st.ConsoleEnd = 0, 0, 0, 0, 0, 0, 0
	return st
}

func unmeasuredRack(st wire.RackState) wire.RackState {
	st.Milliwatts, st.Millijoules, st.SupplyMillivolts, st.InletMilliCelsius, st.UptimeMillis, st.FrameErrors = 0, 0, 0, 0, 0, 0
	st.SlotAgeMillis = [wire.MaxSlots]uint32{}
	for i := range st.Fans {
		st.Fans[i].RPM, st.Fans[i].DutyPercent = 0, 0
	}
	return st
}

func unmeasuredReport(r wire.Report) wire.Report {
	r.UptimeSeconds, r.CPUPermille, r.MemoryUsedKiB = 0, 0, 0
	return r
}

// pollEvents reads what a controller has logged since.
func (s *Service) pollEvents(ctx context.Context, c *controller) {
	for range 64 { // a ring has an end; a lying controller may not
		after := c.after
		if c.unsure != nil {
			after-- // to see that the newest event that was kept is still there, and the same
		}
		page, err := s.conn.ReadEvents(ctx, c.eid, after)
		if err != nil {
			return
		}
		if page.Newest < c.after || !c.recognizes(&page) { // another controller, or one that lost its memory
			s.log.Warn("a controller's log begins anew", "controller", c.name, "newest", page.Newest, "was", c.after)
			c.after, c.unsure = 0, nil
			c.life++
			continue
		}
		fresh := page.Events
		for len(fresh) > 0 && fresh[0].Sequence <= c.after && c.unsure != nil {
			fresh = fresh[1:]
		}
		c.unsure = nil
		rising := 0
		for rising < len(fresh) && fresh[rising].Sequence > c.after {
			c.after = fresh[rising].Sequence
			rising++
		}
		s.record(c, fresh[:rising])
		if rising < len(fresh) {
			return // a controller that repeats itself
		}
		if len(fresh) == 0 || c.after >= page.Newest {
			c.after = max(c.after, page.Newest)
			return
		}
	}
}

// recognizes says whether a page comes from the controller whose newest event was kept. One whose ring has moved on is
// believed.
func (c *controller) recognizes(page *link.EventPage) bool {
	if c.unsure == nil || len(page.Events) == 0 || page.Events[0].Sequence > c.after {
		return true
	}
	return *keepEvent(&page.Events[0]) == *c.unsure
}
