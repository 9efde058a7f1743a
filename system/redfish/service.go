// Package redfish is the management API of a rack: a Redfish service (DSP0266)
// over net/http. It is the only process that talks to the rack management
// controller (RMC), by MCTP and PLDM over one serial line, and through it to the
// BMCs; operators, CLI, dashboard and controllers reach the hardware through it.
//
//	clients ──HTTP──▶ Service ──cache──▶ answers
//	                     │  ▲
//	              writes │  │ polls: state, events, console, reports
//	                     ▼  │
//	                 link.Conn ──serial──▶ RMC ──bus──▶ BMCs
//
// Reads come from a cache that pollers keep; its age is told. Writes go through to
// the controller and are read back. A silent controller keeps its last values, with Status.State
// "UnavailableOffline" and their age, and is never dropped; it does not delay the others.
//
// The package opens no port: whoever wires it gives it listeners. ServeLocal is for a private
// socket of the user who owns the rack, ServeTLS for the network, where each request is held
// against the privilege registry (privilege.go) and each change goes to the audit log.
// docs/redfish.md describes the resources and every Oem property.
package redfish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/redfish/access"
	"github.com/racklet/racklet/system/redfish/audit"
)

// Options of a Service.
type Options struct {
	Line  io.ReadWriteCloser  // serial line to the RMC; Run closes it
	Rack  *rack.Rack          // the rack's description
	Units []*rack.ComputeUnit // its compute units; what they shall do, clients say
	// Thermal and Power are the policies that the RMC shall work by. They are given to it when it
	// answers first and has others. Nil: it keeps those it has.
	Thermal *rack.ThermalPolicy
	Power   *rack.PowerPolicy
	// Switch tells how the ports of the rack's network switch are; nil: it cannot be asked.
	Switch  func() []SwitchPort
	Version string       // of this program, as the service's firmware version
	Log     *slog.Logger // never nil
	Clock   Clock        // nil: the system's
	Link    link.Options // zero: 700 ms per attempt, two attempts

	Dir          string      // private directory for accounts, TLS key, audit log and subscriptions; "": nothing is kept
	Hosts        []string    // names and addresses by which ServeTLS is reached, for the certificate
	AllowTLS12   bool        // else TLS 1.3 alone
	PasswordCost access.Cost // zero: access.DefaultCost
}

// Clock tells the time. Tests have their own.
type Clock interface{ Now() time.Time }

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// How often the controllers are asked, and from when on they count as silent.
const (
	pollState   = 250 * time.Millisecond
	pollCalm    = time.Second      // a BMC at which nothing happens
	calmAfter   = 10 * time.Second // since something did
	pollReport  = time.Second
	pollSlots   = 10 * time.Second
	pollConsole = 60 * time.Millisecond // while someone looks at it
	setClock    = time.Hour
	offlineFrom = 3 * time.Second
	writeLimit  = 20 * time.Second // for one change
)

// Service is the Redfish service of one rack. It is an http.Handler.
type Service struct {
	o      Options
	log    *slog.Logger
	clock  Clock
	conn   *link.Conn
	routes router
	start  time.Time

	events    *broadcast
	access    *access.Store
	audit     *audit.Log
	identity  *identity
	chronicle *chronicle
	pushes    *pushes
	groups    *aggregates
	tasks     *tasks
	updates   *updates
	strangers allowance
	meters    *meters
	answers   answers

	mu    sync.RWMutex // guards what follows, and the mutable part of controllers
	rmc   controller
	rack  wire.RackState
	rules wire.Policies
	units []*unit       // by slot
	port  int           // of ServeTLS; 0: it does not listen
	ahead time.Duration // of the controllers' clocks before the service's, as somebody has set them
}

// controller is what the service knows of a BMC or of the RMC itself.
type controller struct {
	eid      wire.EID
	name     string    // of the log's source: the unit's name, or "rmc"
	seen     time.Time // last answer; zero: never
	online   bool
	log      journal
	after    uint32        // sequence of the newest event that was read
	unsure   *keptEvent    // newest event as it was kept, until the controller has shown that it is still the one that logged it
	life     int           // counts controllers that began their log anew in this place
	board    []byte        // fields of its board's FRU record; nil: not known
	firmware string        // version of its own firmware; "": not known
	ahead    time.Duration // of its clock, before the service's
	clocked  bool          // ahead is known
	change   sync.Mutex    // held during a change, so that generations do not race
}

// unit is a compute unit and its BMC.
type unit struct {
	controller
	spec     *rack.ComputeUnit
	slot     uint8
	state    wire.UnitState
	slots    [2]wire.SlotInfo
	report   link.AgedReport
	asked    time.Time // when the report was asked for
	console  *console
	quoted   time.Time     // when it gave evidence last
	movedAt  time.Time     // when its state changed last, but for what is measured
	now      chan struct{} // ask its BMC at once
	updating bool          // its idle slot is being written by this service
	stageAt  time.Time     // when the present stage was first seen
	boot     bootTimes

	inventory wire.Inventory // what the unit says that it is made of; zero: it has not said
}

// New returns a service for the rack. It asks nothing yet: Run does.
func New(o Options) (*Service, error) {
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Link == (link.Options{}) {
		o.Link = link.Options{Timeout: 700 * time.Millisecond, Attempts: 2}
	}
	if o.Version == "" {
		o.Version = "devel"
	}
	s := &Service{o: o, log: o.Log, clock: o.Clock, start: o.Clock.Now()}
	s.meters = newMeters(s)
	s.events = newBroadcast()
	s.rmc = controller{eid: wire.EIDRMC, name: "rmc"}
	s.rack.SlotAgeMillis = never()
	taken := map[uint8]string{}
	for _, spec := range o.Units {
		slot := uint8(spec.Spec.Slot)
		if slot < 1 || slot > wire.MaxSlots {
			return nil, fmt.Errorf("unit %s: slot %d is not between 1 and %d", spec.Metadata.Name, slot, wire.MaxSlots)
		}
		if other := taken[slot]; other != "" {
			return nil, fmt.Errorf("unit %s: slot %d is taken by %s", spec.Metadata.Name, slot, other)
		}
		taken[slot] = spec.Metadata.Name
		u := &unit{spec: spec, slot: slot, console: newConsole(), now: make(chan struct{}, 1)}
		u.eid, u.name = wire.BMC(slot), spec.Metadata.Name
		u.state = wire.UnitState{Slot: slot, BootSlot: wire.SlotNone, BootOverride: wire.SlotNone}
		u.report.Age = wire.AgeNever
		s.units = append(s.units, u)
	}
	sortUnits(s.units)
	var err error
	if s.access, err = access.Open(access.Options{Dir: o.Dir, Clock: o.Clock, Cost: o.PasswordCost}); err != nil {
		return nil, err
	}
	if s.audit, err = audit.Open(o.Dir); err != nil {
		return nil, err
	}
	if s.identity, err = newIdentity(o.Dir, o.Hosts, o.Clock); err != nil {
		return nil, err
	}
	if s.chronicle, err = openChronicle(s); err != nil {
		return nil, err
	}
	if s.pushes, err = openPushes(s); err != nil {
		return nil, err
	}
	s.restore()
	if s.tasks, err = openTasks(s); err != nil {
		return nil, err
	}
	s.updates = newUpdates()
	if err = s.openTapes(); err != nil {
		return nil, err
	}
	if s.groups, err = openAggregates(o.Dir); err != nil {
		return nil, err
	}
	s.routes = s.table()
	s.conn = link.New(o.Line, wire.EIDManagement, o.Link)
	return s, nil
}

func never() (ages [wire.MaxSlots]uint32) {
	for i := range ages {
		ages[i] = wire.AgeNever
	}
	return ages
}

func sortUnits(units []*unit) {
	for i := range units {
		for j := i; j > 0 && units[j].slot < units[j-1].slot; j-- {
			units[j], units[j-1] = units[j-1], units[j]
		}
	}
}

// Run keeps the cache until ctx ends, which is no error, or the line to the RMC does,
// which is. It closes the line.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() { s.pollRMC(ctx) })
	wait.Go(func() { s.pushes.run(ctx) })
	wait.Go(func() { s.tasks.run(ctx) })
	for _, u := range s.units {
		wait.Go(func() { s.pollUnit(ctx, u) })
		wait.Go(func() { s.pollConsole(ctx, u) })
	}
	var err error
	select {
	case <-ctx.Done():
	case <-s.conn.Done():
		err = errors.New("the line to the RMC ended")
	}
	cancel()
	s.conn.Close()
	wait.Wait()
	s.events.close()
	s.audit.Close()
	s.chronicle.close()
	for _, u := range s.units {
		u.console.close()
	}
	return err
}

// setPolicies changes the policies in force by a new generation and reads them back.
func (s *Service) setPolicies(ctx context.Context, change func(*wire.Policies)) error {
	s.rmc.change.Lock()
	defer s.rmc.change.Unlock()
	p, err := s.conn.Policies(ctx)
	if err != nil {
		return err
	}
	was := p
	if change(&p); p == was { // said already
		return nil
	}
	p.Generation++
	if _, err := s.conn.SetPolicies(ctx, &p); err != nil {
		return err
	}
	back, err := s.conn.Policies(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.rules = back
	s.rack.PolicyGeneration, s.rack.BudgetMilliwatts = back.Generation, back.BudgetMilliwatts
	s.mu.Unlock()
	return nil
}

// desire sets the desired state of a unit under a new generation and reads it back.
func (s *Service) desire(ctx context.Context, u *unit, d wire.Desired) error {
	u.change.Lock()
	defer u.change.Unlock()
	state, err := s.conn.UnitState(ctx, u.eid)
	if err != nil {
		return err
	}
	if d.Mask = news(&d, &state); d.Mask == 0 {
		return nil
	}
	d.Generation = state.DesiredGeneration + 1
	g, err := s.conn.SetDesired(ctx, u.eid, &d)
	if err != nil {
		return err
	}
	if g.Desired != d.Generation {
		return fmt.Errorf("desired generation %d: the BMC holds %d", d.Generation, g.Desired)
	}
	_, err = s.refresh(ctx, u)
	u.look() // for what follows
	return err
}

// news are the parts of a desired state that the BMC does not have yet. Power is always told: the unit may have stopped by itself.
func news(d *wire.Desired, has *wire.UnitState) uint8 {
	mask := d.Mask
	if d.LED == has.LED {
		mask &^= wire.DesiredLED
	}
	if d.CapMilliwatts == has.CapMilliwatts {
		mask &^= wire.DesiredCap
	}
	if d.BootMode == has.BootMode && d.BootSlot == has.BootOverride {
		mask &^= wire.DesiredBoot
	}
	return mask
}

// showLED has the light at the slot, which is the RMC's, follow the one on the tray.
func (s *Service) showLED(ctx context.Context, u *unit, on bool) {
	s.mu.RLock()
	differs := s.rmc.online && s.rack.PresentMask&(1<<u.slot) != 0 && (s.rack.LEDMask&(1<<u.slot) != 0) != on
	s.mu.RUnlock()
	if differs {
		s.setLED(ctx, u, on)
	}
}

// setLED switches the light at a unit's slot.
func (s *Service) setLED(ctx context.Context, u *unit, on bool) error {
	if err := s.conn.SetLED(ctx, u.slot, on); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rack.LEDMask &^= 1 << u.slot
	if on {
		s.rack.LEDMask |= 1 << u.slot
	}
	return nil
}

// byName finds a unit.
func (s *Service) byName(name string) *unit {
	for _, u := range s.units {
		if u.name == name {
			return u
		}
	}
	return nil
}

// policies turns the rack's description into what an RMC works by.
func policies(have wire.Policies, o Options) (wire.Policies, bool) {
	if o.Thermal == nil && o.Power == nil {
		return have, false
	}
	p := have
	if o.Thermal != nil {
		t := &o.Thermal.Spec
		p.CurveCount = uint8(min(len(t.Curve), wire.MaxCurvePoints))
		p.Curve = [wire.MaxCurvePoints]wire.CurvePoint{}
		for i := range p.Curve[:p.CurveCount] {
			p.Curve[i] = wire.CurvePoint{MilliCelsius: int32(milliSigned(float64(t.Curve[i].Temperature))), DutyPercent: uint8(t.Curve[i].Duty)}
		}
		p.ThrottleMilliCelsius = int32(milliSigned(float64(t.Throttle)))
		p.ShutdownMilliCelsius = int32(milliSigned(float64(t.Shutdown)))
		p.HysteresisMilliCelsius = int32(milliSigned(float64(t.Hysteresis)))
	}
	if o.Power != nil {
		w := &o.Power.Spec
		p.ReserveMilliwatts = milli(float64(o.Rack.Spec.Power.Reserve))
		p.BudgetMilliwatts = milli(float64(w.Budget)) + p.ReserveMilliwatts
		p.UnitCapMilliwatts = milli(float64(w.UnitCap))
		p.StaggerMillis = uint32(time.Duration(w.Stagger).Milliseconds())
		p.SlotCapMilliwatts = [wire.MaxSlots]uint32{}
		for _, u := range o.Units {
			p.SlotCapMilliwatts[u.Spec.Slot-1] = milli(float64(u.Spec.PowerCap))
		}
	}
	return p, true
}

// milli turns a quantity of the rack's description into thousandths, rounded.
func milli(v float64) uint32 { return uint32(max(milliSigned(v), 0)) }

func milliSigned(v float64) int64 {
	if v < 0 {
		return int64(v*1000 - 0.5)
	}
	return int64(v*1000 + 0.5)
}
