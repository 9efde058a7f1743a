package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/artifact/hosttool"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/system/redfish"
)

// newSimulate is the daemon behind `up`: the virtual rack and, beside it as on a
// management unit, the management API. People do not call it.
func newSimulate(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:    "simulate",
		Short:  "Run the virtual rack of a state directory in the foreground",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			starter := newStarter()
			err := env.simulate(c.Context(), starter)
			starter.tell(err)
			return err
		},
	}
}

// A starter is the pipe on which `up` waits for one line.
type starter struct{ w io.WriteCloser }

// newStarter takes file 3 if it is a pipe.
func newStarter() *starter {
	var st syscall.Stat_t
	if syscall.Fstat(3, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return &starter{}
	}
	syscall.CloseOnExec(3)
	return &starter{os.NewFile(3, "starter")}
}

// tell reports readiness or the error that prevents it, the first time it is called.
func (s *starter) tell(err error) {
	if s.w == nil {
		return
	}
	line := []byte("ready")
	if err != nil {
		line, _ = json.Marshal(map[string]string{"error": err.Error(), "hint": hintFor(err)})
	}
	s.w.Write(append(line, '\n'))
	s.w.Close()
	s.w = nil
}

func (env *environment) simulate(ctx context.Context, ready *starter) error {
	l := layout{env.state}
	lock, err := takeLock(l.lock())
	if err != nil {
		return err
	}
	defer lock.Close()
	log := slog.New(slog.NewTextHandler(env.stderr, nil))
	var cfg daemonConfig
	if err := readJSON(l.config(), &cfg); err != nil {
		return fmt.Errorf("read what the rack was started with: %w", err)
	}
	desired := &desiredState{layout: l, external: cfg.External, log: log}
	d, err := desired.start(ctx, cfg.Releases)
	if err != nil {
		return err
	}
	units := firstUnits(d.set.Units, cfg.Units)
	qemu, err := hosttool.Path(hosttool.QEMU)
	if err != nil {
		return fmt.Errorf("emulate compute units: %w", err)
	}
	enrolment, err := newEnrolment(l, d.set.Rack)
	if err != nil {
		return err
	}
	rackConfig := sim.Config{
		Dir: l.sim(), QEMU: qemu, Rack: d.set.Rack, Units: units, Provisioning: d.provisioning, Releases: cfg.Releases,
		Egress: d.way.allow, Forwards: d.way.forwards, Hosts: d.way.hosts, Enrolment: enrolment.told, Log: log.With("part", "sim"),
	}
	rackConfig.Stolen.Owner, rackConfig.Stolen.Online = l.stolen()
	r, err := sim.New(rackConfig)
	if err != nil {
		return err
	}
	if cfg.External.URL == "" {
		if err := desired.connectClone(ctx, r); err != nil {
			return err
		}
	}
	network, hosts, err := openNetwork(cfg.Listen)
	if err != nil {
		return err
	}
	if network != nil {
		defer network.Close()
	}
	if err := privateDir(l.redfish()); err != nil {
		return err
	}
	service, err := redfish.New(redfish.Options{
		Dir: l.redfish(), Switch: switchPorts(r), Hosts: hosts, Line: r.ManagementLine(), Rack: d.set.Rack, Units: units, Version: version, Log: log.With("part", "redfish"),
		Thermal: d.set.Thermal[d.set.Rack.Spec.ThermalPolicy], Power: d.set.Power[d.set.Rack.Spec.PowerPolicy],
	})
	if err != nil {
		return err
	}

	if err := enrolment.open(r, d.set.Rack, units, log.With("part", "enroll")); err != nil {
		return err
	}
	defer enrolment.close()
	if err := enrolment.accept(d.verified); err != nil {
		return err
	}
	desired.accepted = enrolment.accept
	control, err := newControlPlane(l, d.set.Rack, log.With("part", "kubernetes"))
	if err != nil {
		return err
	}

	// The rack outlives ctx by the time its units need to shut down.
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop(nil)
	part := func(name string, f func(context.Context) error) {
		all.Go(func() {
			if err := f(running); err != nil && running.Err() == nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part("virtual rack", r.Run)
	part("management API", service.Run)
	for _, s := range []struct {
		name  string
		serve func(context.Context, net.Listener) error
	}{{"redfish", service.ServeLocal}, {"sim", func(ctx context.Context, l net.Listener) error { return serve(ctx, l, r.Handler()) }}} {
		listener, err := listenPrivate(l, s.name)
		if err != nil {
			return err
		}
		part(s.name, func(ctx context.Context) error { return s.serve(ctx, listener) })
	}
	if err := enrolment.serve(part); err != nil {
		return err
	}
	if network != nil {
		part("network", func(ctx context.Context) error { return service.ServeTLS(ctx, network) })
		log.Info("the management API listens", "address", network.Addr())
	}
	if control != nil {
		part("kubernetes", control.run)
	}
	client, err := env.client()
	if err != nil {
		return err
	}
	if err := client.awaitUnits(running, len(units), log); err != nil {
		return err
	}
	if err := desired.apply(running, client, d.set, units); err != nil {
		return err
	}
	part("desired state", func(ctx context.Context) error { return desired.follow(ctx, client, units) })
	ready.tell(nil)
	log.Info("rack is up", "units", len(units))

	select {
	case <-running.Done():
		return context.Cause(running)
	case <-ctx.Done():
	}
	log.Info("shutting units down")
	orderly, cancel := context.WithTimeout(running, shutdownGrace)
	defer cancel()
	if err := shutDown(orderly, client); err != nil {
		log.Warn("units were cut off", "error", err)
	}
	return nil
}

// switchPorts tells the management API how the ports of the virtual switch are.
func switchPorts(r *sim.Rack) func() []redfish.SwitchPort {
	return func() (ports []redfish.SwitchPort) {
		for _, p := range r.Ports() {
			c := p.Counters
			ports = append(ports, redfish.SwitchPort{
				Name: p.Name, Up: p.Plugged && !p.FromDevice.Down && !p.ToDevice.Down, Undersized: c.Runts, Oversized: c.Oversize,
				RX: redfish.SwitchCounters{Frames: c.ReceivedFrames, Bytes: c.ReceivedBytes, Discards: c.ReceivedFull},
				TX: redfish.SwitchCounters{Frames: c.SentFrames, Bytes: c.SentBytes, Discards: c.SentFull},
			})
		}
		return ports
	}
}

// shutdownGrace is how long units may take to shut down before their power is
// cut: a little more than the BMC's own grace.
const shutdownGrace = 45 * time.Second

// firstUnits returns the first n units in the order of their slots, or all.
func firstUnits(all []*rack.ComputeUnit, n int) []*rack.ComputeUnit {
	if n <= 0 || n >= len(all) {
		return all
	}
	return all[:n]
}

// listenPrivate listens on one of the rack's sockets, for this user alone. The
// lock is held, so a socket that is there is a dead daemon's.
func listenPrivate(l layout, name string) (net.Listener, error) {
	socket, err := l.socket(name)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(socket, 0o600)
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// awaitUnits waits until every BMC has answered the management API once, and
// gives up on silent ones after a while: a rack starts without them.
func (c *redfishClient) awaitUnits(ctx context.Context, n int, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var last error
	heard := 0
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		units, err := readUnits(ctx, c)
		if last = err; err != nil {
			return false, nil // the socket or the service is not there yet
		}
		heard = 0
		for i := range units {
			if units[i].Available && units[i].Present {
				heard++
			}
		}
		return heard >= n, nil
	})
	switch {
	case err != nil:
		return err
	case last != nil && ctx.Err() != nil:
		return fmt.Errorf("the management API does not come up: %w", last)
	case heard < n:
		log.Warn("not all BMCs answer", "heard", heard, "units", n)
	}
	return nil
}

// shutDown asks every unit to stop and waits until all rails are off.
func shutDown(ctx context.Context, c *redfishClient) error {
	units, err := readUnits(ctx, c)
	if err != nil {
		return err
	}
	for i := range units {
		if u := &units[i]; u.Power != "Off" && u.Available {
			kind := "GracefulShutdown"
			if !u.running() {
				kind = "ForceOff" // nobody is there who could stop in order
			}
			if err := c.post(ctx, systems+"/"+u.Name+"/Actions/ComputerSystem.Reset", map[string]string{"ResetType": kind}); err != nil {
				return fmt.Errorf("shut %s down: %w", u.Name, err)
			}
		}
	}
	on := 0
	err = poll(ctx, 100*time.Millisecond, func() (bool, error) {
		units, err := readUnits(ctx, c)
		on = 0
		for i := range units {
			if units[i].Power != "Off" && units[i].Available {
				on++
			}
		}
		return on == 0, err
	})
	if err == nil && on > 0 {
		return fmt.Errorf("%d units did not stop in time", on)
	}
	return err
}

// git runs git on the operator's clone.
func git(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s in %s: %w: %s", args[0], filepath.Base(dir), err, out)
	}
	return nil
}

// gitSays runs git in a directory and returns what it prints.
func gitSays(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s in %s: %w", args[0], filepath.Base(dir), err)
	}
	return strings.TrimSpace(string(out)), nil
}
