package hypervisor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A Runnable does one job until ctx ends. One that returns before that is
// started again, after a pause that grows with every failure.
type Runnable func(ctx context.Context) error

// Pauses between two starts of a Runnable.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
	healthy      = time.Minute // having run that long counts as a fresh start
)

// Supervisor keeps Runnables running. They do not know of each other. All
// start at once; they stop in the reverse order of their levels, a level when
// all above it have ended.
type Supervisor struct {
	log  *slog.Logger
	jobs []job
}

type job struct {
	level int
	name  string
	run   Runnable
}

// NewSupervisor returns a supervisor without jobs.
func NewSupervisor(log *slog.Logger) *Supervisor { return &Supervisor{log: log} }

// Add adds a job at level 0, before Run.
func (s *Supervisor) Add(name string, r Runnable) { s.AddLevel(0, name, r) }

// AddLevel adds a job that may need those of lower levels until it has ended.
func (s *Supervisor) AddLevel(level int, name string, r Runnable) {
	s.jobs = append(s.jobs, job{level, name, r})
}

// Run runs all jobs until ctx ends and all of them have returned.
func (s *Supervisor) Run(ctx context.Context) {
	type group struct {
		stop context.CancelFunc
		jobs sync.WaitGroup
	}
	groups := map[int]*group{}
	var levels []int
	for _, j := range s.jobs {
		if groups[j.level] == nil {
			groups[j.level] = new(group)
			levels = append(levels, j.level)
		}
	}
	slices.Sort(levels)
	for _, level := range levels {
		g := groups[level]
		var own context.Context
		own, g.stop = context.WithCancel(context.WithoutCancel(ctx))
		for _, j := range s.jobs {
			if j.level == level {
				g.jobs.Go(func() { s.keep(own, j) })
			}
		}
	}
	<-ctx.Done()
	for _, level := range slices.Backward(levels) {
		groups[level].stop()
		groups[level].jobs.Wait()
	}
}

func (s *Supervisor) keep(ctx context.Context, j job) {
	pause := firstPause
	for {
		start := time.Now()
		err := guarded(ctx, j.run)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) >= healthy {
			pause = firstPause
		}
		s.log.Warn("service ended", "service", j.name, "err", err, "again", pause)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// guarded turns a panic of a job into its error: one job's mistake must not
// end PID 1, and with it all others.
func guarded(ctx context.Context, r Runnable) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r(ctx)
}
