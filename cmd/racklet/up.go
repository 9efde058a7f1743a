package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

type upOptions struct {
	releases []string
	detach   bool
	units    int
	timeout  time.Duration
	external externalRepository
	listen   string
}

// An externalRepository is a rack repository on a Git host of the operator's
// own, and what makes it trusted. The zero value means the built-in one.
type externalRepository struct {
	URL       string   `json:"url,omitempty"`
	Trust     string   `json:"trust,omitempty"` // file: TUF root metadata
	TLSPins   []string `json:"tlsPins,omitempty"`
	HostKeys  []string `json:"sshHostKeys,omitempty"`
	DeployKey string   `json:"deployKey,omitempty"` // file: OpenSSH private key, read-only at the host
}

func newUp(env *environment) *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:     "up",
		GroupID: "rack",
		Short:   "Start a virtual rack and watch it boot",
		Long: `Up starts the virtual rack of the state directory: BMCs, RMC, switch, Git host and
one emulated machine per compute unit. If there is no rack repository yet, it
makes one, with keys, as "racklet init" does. It shows the rack until all units run,
prints where the time went, and ends; the rack stays. Interrupting it stops the rack.

With --repo the units obey a repository on a Git host of yours. Its address must be
the one that its signed metadata names, and the keys of its host must be pinned: give
two, so that one can be changed.

With --listen the management API is on the network too, at the address that is named and by
TLS alone. Up prints the pin of its key and, when there is no account yet, makes "admin" and
prints its password, which must be changed at the first login.`,
		Example: `  racklet up
  racklet up --units 1
  racklet up --state /tmp/other -d
  racklet up --release bin/release --release bin/next
  racklet up --listen 127.0.0.1:8443
  racklet up --repo ssh://git@git.example/rack.git --trust root.json \
    --host-key "ssh-ed25519 AAAA..." --deploy-key id_ed25519
  racklet up --repo https://git.example/rack.git --trust root.json \
    --tls-pin sha256//AAAA...=`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return env.up(c.Context(), &o) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.releases, "release", nil, "`directory` of a release for the mirror; repeatable, a new repository names the first (default: release, beside this program)")
	f.BoolVarP(&o.detach, "detach", "d", false, "return as soon as the rack has power")
	f.IntVar(&o.units, "units", 0, "start only the first `N` compute units (default: all)")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "give up waiting after this time; the rack stays")
	f.StringVar(&o.external.URL, "repo", "", "`URL` of the rack repository, https:// or ssh:// (default: the built-in Git host)")
	f.StringVar(&o.external.Trust, "trust", "", "`file` with the TUF root metadata that is trusted (with --repo)")
	f.StringArrayVar(&o.external.TLSPins, "tls-pin", nil, "`pin` of the HTTPS host's public key, sha256//BASE64; repeatable (with --repo)")
	f.StringArrayVar(&o.external.HostKeys, "host-key", nil, "SSH host `key`, as in known_hosts without the host; repeatable (with --repo)")
	f.StringVar(&o.external.DeployKey, "deploy-key", "", "`file` with the read-only SSH key for the units (with --repo)")
	f.StringVar(&o.listen, "listen", "", "`address` HOST:PORT at which the management API listens on the network (default: it does not)")
	c.MarkFlagDirname("release")
	return c
}

func (env *environment) up(ctx context.Context, o *upOptions) error {
	if o.units < 0 {
		return &usageError{fmt.Errorf("--units %d: want 1 or more", o.units)}
	}
	if o.external.URL == "" && (o.external.Trust != "" || len(o.external.TLSPins)+len(o.external.HostKeys) > 0 || o.external.DeployKey != "") {
		return &usageError{errors.New("--trust, --tls-pin, --host-key and --deploy-key go with --repo")}
	}
	if err := checkListen(o.listen); err != nil {
		return &usageError{err}
	}
	client, err := env.client()
	if err != nil {
		return err
	}
	start := time.Now()
	switch err := env.startDaemon(ctx, o); {
	case errors.Is(err, errRunning):
		fmt.Fprintf(env.stderr, "racklet: the rack in %s is running already\n", env.state)
	case err != nil:
		return err
	}
	if o.listen != "" {
		if err := env.welcome(ctx, client, o.listen); err != nil {
			return err
		}
	}
	if o.detach {
		return nil
	}
	return env.watchBoot(ctx, client, o.timeout, start)
}

// healingTime is how long failed units may still heal: stage 1 tries again by
// itself where that can help.
const healingTime = 15 * time.Second

// watchBoot shows the rack until every unit that shall be on runs or has failed.
func (env *environment) watchBoot(ctx context.Context, client *redfishClient, timeout time.Duration, start time.Time) error {
	deadline, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out := env.stdout
	if env.output == "json" || env.output == "yaml" {
		out = env.stderr
	}
	screen := newScreen(out)
	defer screen.close()
	record := newStopwatch(env, client)
	var last *Status
	var failedSince time.Time
	err := poll(deadline, 200*time.Millisecond, func() (bool, error) {
		s, err := readStatus(deadline, client)
		if err != nil {
			return false, err
		}
		last = s
		record.note(deadline, s)
		screen.show(s, time.Since(start))
		settled, failed := bootOutcome(s)
		if settled && failed > 0 && failedSince.IsZero() {
			failedSince = time.Now()
		}
		if !settled {
			failedSince = time.Time{}
		}
		return settled && (failed == 0 || time.Since(failedSince) > healingTime), nil
	})
	switch {
	case ctx.Err() != nil:
		screen.close()
		fmt.Fprintln(env.stderr, "\nracklet: interrupted, shutting the rack down")
		if err := env.stopDaemon(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		return exitCode(130)
	case err != nil:
		return err
	case deadline.Err() != nil:
		err = hint(fmt.Errorf("not all units run after %v", timeout), "see which and why with: racklet status; racklet why UNIT")
	}
	if last == nil {
		return err
	}
	if _, failed := bootOutcome(last); failed > 0 {
		err = explainFailures(env.stderr, last)
	}
	if env.output == "json" || env.output == "yaml" {
		if e := env.print(last, nil); e != nil {
			return e
		}
		return err
	}
	if e := record.finish(ctx); e != nil {
		fmt.Fprintf(env.stderr, "racklet: no times: %v\n", e)
	}
	record.write(env.stdout)
	if err == nil {
		env.nextSteps()
	}
	return err
}

// bootOutcome tells whether every unit that shall be on has arrived somewhere,
// and how many of them failed.
func bootOutcome(s *Status) (settled bool, failed int) {
	wanted := 0
	settled = true
	for i := range s.Units {
		u := &s.Units[i]
		if !u.Present || u.DesiredPower != "On" {
			continue
		}
		wanted++
		switch {
		case u.failed():
			failed++
		case !u.running():
			settled = false
		}
	}
	return settled && wanted > 0, failed
}

func explainFailures(w io.Writer, s *Status) error {
	n := 0
	for i := range s.Units {
		if u := &s.Units[i]; u.failed() {
			n++
			writeExplanation(w, explain(u))
		}
	}
	return fmt.Errorf("%d of %d units did not come up", n, len(s.Units))
}

func (env *environment) nextSteps() {
	l := layout{env.state}
	fmt.Fprintf(env.stdout, "\nThe rack is up. Next:\n  racklet status\n  racklet unit console unit-1\n  racklet why unit-1\n  racklet down\n")
	if _, err := os.Stat(l.repository()); err == nil {
		fmt.Fprintf(env.stdout, "Its repository is in %s, the owners' keys in %s.\n", l.repository(), l.keys())
	}
}

func newDown(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		GroupID: "rack",
		Short:   "Stop the virtual rack",
		Long: `Down asks the units to shut down, cuts their power and stops the virtual rack. Flash,
disks and the repository stay in the state directory: "racklet up" continues there.`,
		Example: "  racklet down",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return env.stopDaemon(c.Context()) },
	}
}
