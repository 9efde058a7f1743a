package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/wire"
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
		return stop(r.Check, r.Expected, r.Seen, nil)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return retry("network.dns", "an address of "+dns.Name, "none", err)
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
	// patience is how long a step may fail before the BMC is told that the
	// unit is stuck: most things that are not there yet come within seconds.
	patience = 5 * time.Second
)

// persist repeats step until it succeeds, fails for good, or ctx ends.
func (b *Boot) persist(ctx context.Context, otherwise string, step func(context.Context) error) error {
	p := b.patient()
	for {
		err := step(ctx)
		if err == nil {
			p.passed(ctx)
			return nil
		}
		f := asFailure(err, otherwise)
		if f.Final || !p.again(ctx, f) {
			return f
		}
	}
}

// patient paces the attempts of one step. Each failure is told once, so that a
// step that waits for an hour leaves one line and not a thousand.
type patient struct {
	boot   *Boot
	begun  time.Time
	wait   time.Duration
	waited time.Duration
	said   string // on the console
	told   string // to the BMC
}

func (b *Boot) patient() *patient { return &patient{boot: b, begun: time.Now(), wait: firstWait} }

// again waits before the next attempt. It is false when there shall be none.
func (p *patient) again(ctx context.Context, f *Failure) bool {
	line := f.Error()
	if line != p.said {
		p.said = line
		p.boot.explain(f, "trying again, ever less often")
	}
	if line != p.told && (p.waited >= patience || time.Since(p.begun) >= patience) {
		p.told = line
		p.boot.report(ctx, wire.StageFailed, f)
	}
	if err := p.boot.Machine.Wait(ctx, p.wait); err != nil {
		return false
	}
	p.waited += p.wait
	p.wait = min(2*p.wait, longest)
	return true
}

// passed takes back what the BMC was told.
func (p *patient) passed(ctx context.Context) {
	if p.told != "" {
		p.boot.report(ctx, p.boot.stage, nil)
	}
}
