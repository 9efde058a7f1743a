package hypervisor

import (
	"context"
	"fmt"
	"log/slog"
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

// Supervisor keeps Runnables running. They do not know of each other.
type Supervisor struct {
	log  *slog.Logger
	jobs []job
}

type job struct {
	name string
	run  Runnable
}

// NewSupervisor returns a supervisor without jobs.
func NewSupervisor(log *slog.Logger) *Supervisor { return &Supervisor{log: log} }

// Add adds a job, before Run.
func (s *Supervisor) Add(name string, r Runnable) { s.jobs = append(s.jobs, job{name, r}) }

// Run runs all jobs until ctx ends and all of them have returned.
func (s *Supervisor) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, j := range s.jobs {
		all.Go(func() { s.keep(ctx, j) })
	}
	all.Wait()
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
