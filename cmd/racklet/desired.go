package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/source"
	"github.com/racklet/racklet/system/redfish/access"
)

// A desiredState finds out what the rack shall be: the newest state that the
// owners signed. It provisions new boards from it, and carries what concerns the
// hardware (power, caps, lights, policies) to the management API, again whenever
// the owners publish. Units read the repository by themselves.
type desiredState struct {
	layout   layout
	external externalRepository
	log      *slog.Logger

	where  rack.Repository
	anchor source.Anchor

	// What the hardware was told last, and the units to which it is still to be said: their BMCs were silent.
	units   []*rack.ComputeUnit
	power   *rack.PowerPolicy
	pending map[string]bool

	// accepted is told of each state that was verified, nil: nobody is.
	accepted func(*source.Verified) error
}

// started is what the virtual rack is built from.
type started struct {
	set          *manifest.Set
	verified     *source.Verified
	provisioning sim.Provisioning
	way          egress
}

func (l layout) accepted() string { return filepath.Join(l.state, "accepted.bundle") }
func (l layout) floors() string   { return filepath.Join(l.state, "floors.json") }
func (l layout) hosted() string   { return filepath.Join(l.sim(), "githost", "git", "rack.git") }

// start verifies the state to begin with. If what is published now is refused,
// it begins with what was accepted last: the units will say why they refuse.
func (d *desiredState) start(ctx context.Context, releases []string) (*started, error) {
	s := new(started)
	root, err := d.locate(s)
	if err != nil {
		return nil, err
	}
	d.anchor = source.Anchor{Repository: d.where, TUFRoot: root}
	if err := d.recallFloors(); err != nil {
		return nil, err
	}
	if d.external.URL == "" {
		if err := d.refreshTimestamp(); err != nil {
			d.log.Warn("the timestamp could not be refreshed", "error", err)
		}
	}
	v, err := d.verify(ctx)
	if err != nil {
		last, lastErr := d.lastAccepted()
		if lastErr != nil {
			return nil, d.explain(err)
		}
		d.log.Warn("what is published now is refused; starting with what was accepted last", "error", err, "sequence", last.Sequence)
		v = last
	}
	s.set, s.verified = v.Set, v
	if err := writeObjects(d.layout, v); err != nil {
		return nil, err
	}
	if s.provisioning, err = sim.Gather(v, d.where, root, releases...); err != nil {
		return nil, err
	}
	if d.external.URL == "" {
		s.provisioning.Seed = d.layout.repository()
	}
	return s, nil
}

// locate says where the repository is and which root is trusted.
func (d *desiredState) locate(s *started) (root []byte, err error) {
	d.where = rack.Repository{URL: builtinRepository, Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef}
	trusted := filepath.Join(d.layout.keys(), "root.json")
	if x := &d.external; x.URL != "" {
		d.where.URL, d.where.TLSPins, d.where.SSHHostKeys = x.URL, pair(x.TLSPins), pair(x.HostKeys)
		if x.Trust != "" {
			trusted = x.Trust
		}
		if x.DeployKey != "" {
			key, err := os.ReadFile(x.DeployKey)
			if err != nil {
				return nil, err
			}
			d.where.DeployKey = string(key)
		}
		if err := d.where.Validate(); err != nil {
			return nil, hint(fmt.Errorf("--repo %s: %w", x.URL, err), "see docs/own-git-host.md")
		}
		if s.way, err = hostEgress(x.URL); err != nil {
			return nil, err
		}
	}
	root, err = os.ReadFile(trusted)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hint(fmt.Errorf("no trusted root metadata in %s", trusted), "name the root.json that \"racklet init\" left with the keys: --trust FILE")
	}
	return root, err
}

// pair doubles a lone pin: BMCs keep pins in pairs, and one that has no
// successor is its own.
func pair(pins []string) []string {
	if len(pins) == 1 {
		return []string{pins[0], pins[0]}
	}
	return pins
}

// An egress is the way from the units to the host of a repository that the
// operator named. It is zero where units need no help.
type egress struct {
	allow    []netip.AddrPort  // over TCP, private addresses among them
	forwards map[uint16]string // ports of the gateway to this machine
	hosts    []string          // names that units find at the gateway
}

// hostEgress opens the way to the host of a repository: to its one port, at a
// private address, or of this machine when it is here. Loopback
// addresses mean something else to a unit, so here it needs a name, which units
// then find at the gateway.
func hostEgress(address string) (way egress, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return way, err
	}
	ips, err := net.LookupHost(u.Hostname())
	if err != nil {
		return way, fmt.Errorf("find the host of %s: %w", u.Redacted(), err)
	}
	for _, text := range ips {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		switch ip = ip.Unmap(); {
		case ip.IsLoopback():
			if err := way.forward(u, ip); err != nil {
				return way, err
			}
		case ip.Is4():
			port, err := repoPort(u)
			if err != nil {
				return way, err
			}
			way.allow = append(way.allow, netip.AddrPortFrom(ip, port))
		}
	}
	return way, nil
}

// repoPort is the port of a repository's host.
func repoPort(u *url.URL) (uint16, error) {
	text := u.Port()
	if text == "" {
		text = map[string]string{"https": "443", "ssh": "22"}[u.Scheme]
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("--repo %s: port %q: want 1 to 65535", u.Redacted(), text)
	}
	return uint16(port), nil
}

// forward leads a port of the gateway to the same port of this machine.
func (e *egress) forward(u *url.URL, to netip.Addr) error {
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return hint(fmt.Errorf("--repo %s: to a unit %v is the unit itself", u.Redacted(), to), "name the host, such as localhost, in the address and in the signed metadata")
	}
	port, err := repoPort(u)
	if err != nil {
		return err
	}
	if port == 443 || port == 53 {
		return hint(fmt.Errorf("--repo %s: port %d of the gateway is taken inside the rack", u.Redacted(), port), "let the host on this machine listen on another port")
	}
	if _, have := e.forwards[port]; have && !to.Is4() {
		return nil // IPv4 first: that is where most servers on a loopback listen
	}
	e.forwards = map[uint16]string{port: netip.AddrPortFrom(to, port).String()}
	e.hosts = []string{u.Hostname()}
	return nil
}

// verify reads what is published now and verifies it as a unit does.
func (d *desiredState) verify(ctx context.Context) (*source.Verified, error) {
	b, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	v, err := d.check(b)
	if err != nil {
		return nil, err
	}
	// Kept for a start at which the newest state is refused or out of reach.
	if err := access.Replace(d.layout.accepted(), b.Marshal()); err != nil {
		return nil, err
	}
	return v, writeJSON(d.layout.floors(), recalledFloors{d.anchor.RackID, d.anchor.Floors})
}

func (d *desiredState) read(ctx context.Context) (*source.Bundle, error) {
	if d.external.URL != "" {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return source.Fetch(ctx, d.where)
	}
	if _, err := os.Stat(filepath.Join(d.layout.hosted(), "refs", "heads", "main")); err == nil {
		return source.ReadBundle(d.layout.hosted(), d.where)
	}
	return source.ReadBundle(d.layout.repository(), d.where)
}

// check verifies a bundle against what was accepted before, and moves that up.
func (d *desiredState) check(b *source.Bundle) (*source.Verified, error) {
	a := d.anchor
	if a.RackID == "" { // the one who runs the rack chooses it; BMCs are bound to it from then on
		id, err := b.Rack()
		if err != nil {
			return nil, err
		}
		a.RackID = id
	}
	v, err := source.Verify(b, a, time.Now())
	if err != nil {
		return nil, err
	}
	statement, _, err := trust.SplitSigned(v.FloorStatement)
	if err != nil {
		return nil, err
	}
	floor, err := trust.ParseFloorStatement(statement)
	if err != nil {
		return nil, err
	}
	a.Floors = floor.Floors() // as a BMC raises its own
	d.anchor = a
	return v, nil
}

// recalledFloors is what the daemon keeps of the anchor over restarts: with it
// an older state is refused although it was signed once.
type recalledFloors struct {
	RackID string       `json:"rackID"`
	Floors trust.Floors `json:"floors"`
}

func (d *desiredState) recallFloors() error {
	var r recalledFloors
	err := readJSON(d.layout.floors(), &r)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	d.anchor.RackID, d.anchor.Floors = r.RackID, r.Floors
	return err
}

func (d *desiredState) lastAccepted() (*source.Verified, error) {
	raw, err := os.ReadFile(d.layout.accepted())
	if err != nil {
		return nil, err
	}
	b, err := source.ParseBundle(raw)
	if err != nil {
		return nil, err
	}
	return d.check(b)
}

// explain adds what to do to the refusal of a first start.
func (d *desiredState) explain(err error) error {
	var r *source.Refusal
	if errors.As(err, &r) {
		if known, ok := rack.LookupReason(r.Check); ok {
			return hint(fmt.Errorf("the rack repository is refused: %w", err), "%s", known.Cure)
		}
	}
	return fmt.Errorf("read the rack repository: %w", err)
}

// refreshTimestamp gives the published state of the built-in host a fresh
// timestamp when half of its time is over, as the service does that holds the
// online key of a real rack.
func (d *desiredState) refreshTimestamp() error {
	key, err := source.LoadKey(filepath.Join(d.layout.keys(), "online.pem"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := d.layout.repository()
	if _, err := os.Stat(d.layout.hosted()); err == nil {
		dir = d.layout.hosted()
	}
	b, err := source.ReadBundle(dir, d.where)
	if err != nil {
		return err
	}
	if v, err := source.Verify(b, d.anchorFor(b), time.Now()); err == nil && time.Until(v.Expires) > source.TimestampLifetime/2 {
		return nil
	}
	if err := source.RefreshTimestamp(dir, key, time.Time{}); err != nil || dir == d.layout.repository() {
		return err
	}
	if _, err := os.Stat(d.layout.repository()); err != nil {
		return nil
	}
	// The operator's clone follows, so that the next push is a fast-forward.
	return git(context.Background(), d.layout.repository(), "fetch", "-q", dir, "racklet-metadata:racklet-metadata")
}

func (d *desiredState) anchorFor(b *source.Bundle) source.Anchor {
	a := d.anchor
	if id, err := b.Rack(); err == nil {
		a.RackID = id
	}
	return a
}

// connectClone makes the operator's clone push to the built-in Git host.
func (d *desiredState) connectClone(ctx context.Context, r *sim.Rack) error {
	dir := d.layout.repository()
	address, err := url.Parse(r.GitURL())
	if err != nil {
		return err
	}
	// The token goes into a file of git's own credential store, not into the
	// address, where every listing of processes and remotes would show it.
	store := filepath.Join(d.layout.sim(), "githost", "credentials")
	secret := &url.URL{Scheme: address.Scheme, User: address.User, Host: address.Host}
	if err := os.WriteFile(store, []byte(strings.Replace(secret.String(), ":"+address.Port(), "%3a"+address.Port(), 1)+"\n"), 0o600); err != nil {
		return err
	}
	address.User = url.User(address.User.Username())
	server := "https://" + address.Host
	for _, set := range [][2]string{
		{"remote.origin.url", address.String()},
		{"remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"},
		{"credential." + server + ".helper", "store --file=" + shellQuote(store)},
		{"http." + server + "/.sslCAInfo", r.GitCA()},
		{"http." + server + "/.sslCAPath", r.GitCADir()}, // for whom the environment names another file
	} {
		if err := git(ctx, dir, "config", set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// shellQuote makes a word of a shell out of any text; git runs helpers by one.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// followEvery is how often the desired state is looked at.
const (
	followEvery         = 2 * time.Second
	followExternalEvery = 30 * time.Second
	stampEvery          = time.Hour // between looks at the timestamp's age
)

// follow carries every newly published state to the hardware until ctx ends.
func (d *desiredState) follow(ctx context.Context, c *redfishClient, units []*rack.ComputeUnit) error {
	every := followEvery
	if d.external.URL != "" {
		every = followExternalEvery
	}
	var refused string
	published, stamped := d.published(), time.Now()
	return poll(ctx, every, func() (bool, error) {
		if err := d.applyPending(ctx, c); err != nil && ctx.Err() == nil {
			d.log.Warn("desired state could not be applied", "error", err)
		}
		if d.external.URL == "" {
			if time.Since(stamped) > stampEvery {
				stamped = time.Now()
				if err := d.refreshTimestamp(); err != nil {
					d.log.Warn("the timestamp could not be refreshed", "error", err)
				}
			}
			now := d.published()
			if now == published {
				return false, nil
			}
			published = now
		}
		before := d.anchor.Floors
		v, err := d.verify(ctx)
		switch {
		case err != nil && err.Error() != refused:
			refused = err.Error()
			d.log.Warn("the published state is refused", "error", err)
			return false, nil
		case err != nil || v.Sequence == before.Sequence:
			return false, nil
		}
		refused = ""
		if d.accepted != nil {
			if err := d.accepted(v); err != nil {
				d.log.Error("units cannot be admitted by the published state", "error", err)
			}
		}
		d.log.Info("the owners published", "sequence", v.Sequence, "commit", v.Commit)
		if err := writeObjects(d.layout, v); err != nil {
			d.log.Warn("the cluster will not learn of it", "error", err)
		}
		if err := d.apply(ctx, c, v.Set, withObjects(units, v.Set)); err != nil && ctx.Err() == nil {
			d.log.Warn("desired state could not be applied", "error", err)
		}
		return false, nil
	})
}

// published is a fingerprint of the refs of the built-in host.
func (d *desiredState) published() [32]byte {
	h := sha256.New()
	for _, name := range []string{"refs/heads/main", "refs/heads/racklet-metadata", "packed-refs"} {
		b, _ := os.ReadFile(filepath.Join(d.layout.hosted(), name)) // a missing file is part of the fingerprint
		fmt.Fprintf(h, "%d ", len(b))
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// withObjects returns the units of the rack as they are described now.
func withObjects(units []*rack.ComputeUnit, set *manifest.Set) []*rack.ComputeUnit {
	var now []*rack.ComputeUnit
	for _, u := range units {
		if described := set.Unit(u.Metadata.Name); described != nil {
			now = append(now, described)
		}
	}
	return now
}

// apply tells the management API what the objects say of the hardware. What
// already is so causes no action there. Units whose BMC is silent are told when it answers.
func (d *desiredState) apply(ctx context.Context, c *redfishClient, set *manifest.Set, units []*rack.ComputeUnit) error {
	var errs []error
	thermal, power := set.Thermal[set.Rack.Spec.ThermalPolicy], set.Power[set.Rack.Spec.PowerPolicy]
	if thermal != nil && power != nil {
		errs = append(errs, c.patch(ctx, "/redfish/v1/Chassis/rack", policyPatch(&thermal.Spec, &power.Spec)))
	}
	d.units, d.power, d.pending = units, power, map[string]bool{}
	for _, u := range units {
		d.pending[u.Metadata.Name] = true
	}
	return errors.Join(append(errs, d.applyPending(ctx, c))...)
}

// applyPending tells those units what they shall be that were not told yet and whose BMC answers.
func (d *desiredState) applyPending(ctx context.Context, c *redfishClient) error {
	if len(d.pending) == 0 {
		return nil
	}
	present, err := readUnits(ctx, c)
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range d.units {
		i := indexUnit(present, u.Metadata.Name)
		if i < 0 || !present[i].Available || !d.pending[u.Metadata.Name] {
			continue
		}
		if err := applyUnit(ctx, c, u, &present[i], d.power); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(d.pending, u.Metadata.Name)
	}
	return errors.Join(errs...)
}

func indexUnit(units []UnitStatus, name string) int {
	for i := range units {
		if units[i].Name == name {
			return i
		}
	}
	return -1
}

func applyUnit(ctx context.Context, c *redfishClient, u *rack.ComputeUnit, now *UnitStatus, power *rack.PowerPolicy) error {
	path := systems + "/" + url.PathEscape(u.Metadata.Name)
	limit := u.Spec.PowerCap
	if limit == 0 && power != nil {
		limit = power.Spec.UnitCap
	}
	var errs []error
	if limit > 0 {
		errs = append(errs, c.patch(ctx, fmt.Sprintf("/redfish/v1/Chassis/tray-%d/EnvironmentMetrics", u.Spec.Slot),
			map[string]any{"PowerLimitWatts": map[string]any{"SetPoint": float64(limit)}}))
	}
	if u.Spec.IdentifyLED != now.LED {
		errs = append(errs, c.patch(ctx, path, map[string]any{"LocationIndicatorActive": u.Spec.IdentifyLED}))
	}
	switch {
	case u.Spec.Power == now.DesiredPower && !strings.EqualFold(now.State, "faulted"):
	case u.Spec.Power == rack.PowerOn:
		errs = append(errs, c.post(ctx, path+"/Actions/ComputerSystem.Reset", map[string]string{"ResetType": "On"}))
	case u.Spec.Power == rack.PowerOff:
		errs = append(errs, c.post(ctx, path+"/Actions/ComputerSystem.Reset", map[string]string{"ResetType": "GracefulShutdown"}))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", u.Metadata.Name, err)
	}
	return nil
}

func policyPatch(t *rack.ThermalPolicySpec, p *rack.PowerPolicySpec) any {
	var curve []map[string]any
	for _, point := range t.Curve {
		curve = append(curve, map[string]any{"TemperatureCelsius": float64(point.Temperature), "DutyPercent": point.Duty})
	}
	policies := map[string]any{
		"Curve": curve, "ThrottleCelsius": float64(t.Throttle), "ShutdownCelsius": float64(t.Shutdown), "HysteresisCelsius": float64(t.Hysteresis),
		"BudgetWatts": float64(p.Budget), "UnitCapWatts": float64(p.UnitCap), "StaggerMilliseconds": time.Duration(p.Stagger).Milliseconds(),
	}
	return map[string]any{"Oem": map[string]any{"Racklet": map[string]any{"Policies": policies}}}
}
