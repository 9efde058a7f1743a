package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// Failure is a step that did not succeed: a check that refused, or something
// that is not there (yet).
type Failure struct {
	Reason   string // name in rack.Reasons
	Expected string
	Seen     string
	Final    bool // trying again cannot help
	Err      error
}

func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString(f.Reason)
	if f.Expected != "" || f.Seen != "" {
		fmt.Fprintf(&b, ": expected %s, seen %s", f.Expected, f.Seen)
	}
	if f.Err != nil {
		fmt.Fprintf(&b, ": %v", f.Err)
	}
	return b.String()
}

func (f *Failure) Unwrap() error { return f.Err }

// stop is a failed check; stage 1 stays where it is.
func stop(reason, expected, seen string, err error) *Failure {
	return &Failure{Reason: reason, Expected: expected, Seen: seen, Final: true, Err: err}
}

// retry is a condition that may pass by itself.
func retry(reason, expected, seen string, err error) *Failure {
	return &Failure{Reason: reason, Expected: expected, Seen: seen, Err: err}
}

// asFailure gives every error a name: its own, that of the check of package
// source which refused, or the one that fits the step.
func asFailure(err error, otherwise string) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	var r *source.Refusal
	if errors.As(err, &r) {
		return stop(r.Check, r.Expected, r.Seen, err)
	}
	return retry(otherwise, "", "", err)
}

// cure is the advice that belongs to a failure's name.
func (f *Failure) cure() (text, cure string) {
	if r, ok := rack.LookupReason(f.Reason); ok {
		return r.Text, r.Cure
	}
	return "a step failed", ""
}

// Waiting times between two attempts of a step.
const (
	firstWait = 500 * time.Millisecond
	longest   = 30 * time.Second
)

// persist repeats step until it succeeds, fails for good, or ctx ends. Each
// failure is reported once per change, so that a step that waits for an hour
// leaves one line and not a thousand.
func (b *Boot) persist(ctx context.Context, otherwise string, step func(context.Context) error) error {
	wait, last := firstWait, ""
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		f := asFailure(err, otherwise)
		if f.Final {
			return f
		}
		if ctx.Err() != nil {
			return f
		}
		if line := f.Error(); line != last {
			last = line
			b.report(ctx, b.stage, f)
			b.explain(f, fmt.Sprintf("trying again, at first after %v, then ever less often", wait))
		}
		if err := b.Machine.Wait(ctx, wait); err != nil {
			return f
		}
		wait = min(2*wait, longest)
	}
}
