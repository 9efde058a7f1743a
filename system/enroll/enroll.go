// Package enroll admits compute units to the cluster: evidence in, short-lived
// identity out. Nothing joins without it, from the first node on.
//
//	unit ──1 hash of its keys──▶ BMC key register          (in-band)
//	unit ──2 request──▶ Verifier ──3 nonce──▶ Redfish ──▶ BMC
//	                       ▲  │◀──4 measurements, signed by the BMC──┘
//	   states the owners   │  │ 5 examine: register by register
//	   signed ─────────────┘  ▼
//	unit ◀─6 one-hour certificates, peers─┘──▶ authorisation webhook, WireGuard peers
//
// A unit that was admitted is examined again each minute and at every event of
// its BMC that bears on evidence. One that fails, or whose BMC says that it was
// reset, cut off or pulled, is out at once: no peer any more, and every request
// of its node is denied. A BMC that does not answer is not a failure: what was
// issued lives until it runs out, nothing new is admitted, and the state reads
// Unverified with its age.
//
// The package opens no port and dials nothing by itself: it is given the rack's
// Redfish client, and listeners inside the rack's network and on this machine.
// It never talks to a BMC, an RMC or the simulator.
package enroll

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/system/enroll/api"
)

/* Implementation constants */
const (
	// Lifetime of an identity.
	Lifetime = time.Hour
	// Interval between two examinations of an admitted unit.
	Interval = time.Minute
	// resumeEvery is how often a lost event stream is tried again.
	resumeEvery = 500 * time.Millisecond

	admittedFile = "admitted.json"
)

// A Unit is a place in the rack that may enrol.
type Unit struct {
	Name      string
	Slot      uint8
	Address   netip.Addr        // in the rack's network; requests come from here
	DeviceKey ed25519.PublicKey // of its BMC, noted when the board was provisioned
}

// Options of a Verifier.
type Options struct {
	Dir       string       // private directory: node authority, accepted states, admissions
	Units     []Unit       // who may enrol
	Redfish   *http.Client // reaches the rack's management API
	RedfishAt string       // its base address, such as http://rack
	Network   Network
	// Management is the host side of the tunnel as units see it, without
	// NotAfter; nil: there is none.
	Management *api.Peer
	// ClusterCA returns the certificates (PEM) by which nodes know the API
	// server; nil: the node authority's own. Until it succeeds nobody is admitted.
	ClusterCA func() ([]byte, error)
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
	Interval  time.Duration    // 0: Interval
}

// Network says which addresses the cluster has. The network of a unit's pods
// and its tunnel address follow from its slot.
type Network struct {
	Tunnel, Tunnel6     netip.Prefix // WireGuard addresses, /24 and, if valid, /64
	Cluster, Cluster6   netip.Prefix // pods, /16 and /48
	Services, Services6 netip.Prefix
	DNS                 netip.Addr
	Management          netip.Addr // host side of the tunnel
	Server              string     // https address of the API server
	Port                uint16     // of WireGuard, on units
}

// DefaultNetwork is what racks use unless told otherwise.
var DefaultNetwork = Network{
	Tunnel: netip.MustParsePrefix("10.78.0.0/24"), Tunnel6: netip.MustParsePrefix("fd78:0:0:78::/64"),
	Cluster: netip.MustParsePrefix("10.42.0.0/16"), Cluster6: netip.MustParsePrefix("fd78:0:42::/48"),
	Services: netip.MustParsePrefix("10.96.0.0/16"), Services6: netip.MustParsePrefix("fd78:0:96::/112"),
	DNS: netip.MustParseAddr("10.96.0.10"), Management: netip.MustParseAddr("10.78.0.254"),
	Server: "https://10.78.0.254:6443", Port: 51820,
}

// Of returns what a unit in a slot is told.
func (n *Network) Of(unit string, slot uint8) api.Cluster {
	c := api.Cluster{
		Unit: unit, Slot: slot, Server: n.Server, DNS: n.DNS, TunnelAddress: at(n.Tunnel, slot), TunnelCIDR: n.Tunnel,
		PodCIDR: pods(n.Cluster, slot), ClusterCIDR: n.Cluster, ServiceCIDR: n.Services, Management: n.Management,
	}
	if n.Cluster6.IsValid() {
		c.TunnelAddress6, c.PodCIDR6, c.ClusterCIDR6, c.ServiceCIDR6 = at(n.Tunnel6, slot), pods(n.Cluster6, slot), n.Cluster6, n.Services6
	}
	return c
}

// at is the address with a slot's number at its end.
func at(p netip.Prefix, slot uint8) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-1] = slot
	a, _ := netip.AddrFromSlice(b)
	return a
}

// pods is a slot's part of the pod network: /24 of an IPv4 /16, /64 of an IPv6 /48.
func pods(p netip.Prefix, slot uint8) netip.Prefix {
	b := p.Masked().Addr().AsSlice()
	if len(b) == 4 {
		b[2] = slot
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), 24)
	}
	b[7] = slot
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), 64)
}

// A Standing is how the verifier stands to a unit.
type Standing string

// Standings.
const (
	Unknown    Standing = "Unknown"    // it has not asked yet
	Attested   Standing = "Attested"   // admitted, examined a short while ago
	Unverified Standing = "Unverified" // its BMC does not answer; what was issued lives until it runs out
	Refused    Standing = "Refused"    // out
)

// Verifier admits units. New makes one.
type Verifier struct {
	o         Options
	log       *slog.Logger
	now       func() time.Time
	authority *authority
	rack      *rackAPI
	units     []*unit // by slot

	mu      sync.Mutex
	refs    *references
	version uint64
	changed chan struct{} // closed and replaced at each change
}

// unit is a unit's standing, guarded by Verifier.mu but for what is said.
type unit struct {
	Unit
	wake    chan struct{} // examine now
	quoting chan struct{} // full during an examination: one at a time

	epoch     uint64 // rises when the BMC says that what was measured is over
	admission *admission
	refused   *api.Refusal
	since     time.Time // of the standing
	examined  time.Time // last evidence, good or bad
	silent    string    // why the last quote could not be had; "": it was had
}

// admission is an identity that was issued.
type admission struct {
	Key       [32]byte  `json:"key"` // what the key register holds
	WireGuard string    `json:"wireguard"`
	Boot      uint32    `json:"boot"` // boot count of the BMC
	NotAfter  time.Time `json:"notAfter"`
	Issued    time.Time `json:"issued"`
	Sequence  uint64    `json:"sequence"`
	Commit    string    `json:"commit"`
	Release   string    `json:"release"`
	Emulated  bool      `json:"emulated"`
	Fallback  bool      `json:"fallback"`
	// Certificates are the SHA-256 of the client certificates issued for the key, the newest two.
	Certificates []string `json:"certificates"`
}

// New returns a verifier that goes on where its directory says it stopped.
func New(o Options) (*Verifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Interval == 0 {
		o.Interval = Interval
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	v := &Verifier{o: o, log: o.Log, now: o.Now, changed: make(chan struct{}), version: uint64(o.Now().UnixMilli()),
		rack: &rackAPI{http: o.Redfish, base: o.RedfishAt, component: map[string]string{}}}
	var names []string
	for _, u := range o.Units {
		if len(u.DeviceKey) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("verifier: unit %s: no key of its BMC", u.Name)
		}
		names = append(names, u.Name)
		v.units = append(v.units, &unit{Unit: u, wake: make(chan struct{}, 1), quoting: make(chan struct{}, 1), since: o.Now()})
	}
	slices.SortFunc(v.units, func(a, b *unit) int { return int(a.Slot) - int(b.Slot) })
	var err error
	if v.authority, err = openAuthority(o.Dir, names, o.Network.Tunnel, o.Now()); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	if _, err := ServingPins(o.Dir); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	if v.refs, err = openReferences(o.Dir); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	return v, v.recall()
}

// AuthorityFile is the certificate of the node authority, for the API server.
func (v *Verifier) AuthorityFile() string { return filepath.Join(v.o.Dir, caCertFile) }

// Accept makes a state that the owners signed one that units may run, and
// examines all units again.
func (v *Verifier) Accept(s *State) error {
	v.mu.Lock()
	err := v.refs.accept(s)
	v.mu.Unlock()
	if err != nil {
		return err
	}
	v.examineAll()
	return nil
}

// Run examines units until ctx ends.
func (v *Verifier) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, u := range v.units {
		all.Go(func() { v.watch(ctx, u) })
	}
	for ctx.Err() == nil {
		err := v.rack.follow(ctx, v.examineAll, v.happened)
		if ctx.Err() == nil {
			v.log.Warn("events of the rack", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(resumeEvery):
		}
	}
	return nil
}

func (v *Verifier) examineAll() {
	for _, u := range v.units {
		u.examine()
	}
}

func (u *unit) examine() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// happened weighs an event. Power lost, a reset and a pulled tray end an
// identity by the controller's word; other events are a reason to look again.
func (v *Verifier) happened(h happening) {
	for _, u := range v.units {
		if h.unit != u.Name && (h.slot == 0 || h.slot != u.Slot) {
			continue
		}
		switch {
		case h.kind == "rail" && h.code == 0:
			v.end(u, refuse("evidence.boot", "the boot that was examined", "the rail went off"))
		case h.kind == "reset":
			v.end(u, refuse("evidence.rail", "one boot, watched since the rail came on", "a reset"))
		case h.kind == "presence" && h.code == 0:
			v.end(u, refuse("evidence.boot", "the tray that was examined", "the tray was pulled"))
		case slices.Contains([]string{"rail", "presence", "restart", "key", "measurement", "floors", "bus"}, h.kind):
			u.examine()
		}
	}
}

// end takes the identity from a unit.
func (v *Verifier) end(u *unit, r *api.Refusal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	u.epoch++
	v.refuseLocked(u, r)
}

func (v *Verifier) refuseLocked(u *unit, r *api.Refusal) {
	if u.admission == nil && u.refused != nil && *u.refused == *r {
		return
	}
	if u.admission != nil {
		v.log.Warn("a unit is out", "unit", u.Name, "check", r.Check, "expected", r.Expected, "seen", r.Seen)
	}
	u.refused, u.since = r, v.now()
	had := u.admission != nil
	u.admission = nil
	v.tellLocked(had)
}

// tellLocked wakes those who wait for news, and writes down who is admitted if that changed.
func (v *Verifier) tellLocked(admissions bool) {
	v.version++
	close(v.changed)
	v.changed = make(chan struct{})
	if !admissions {
		return
	}
	all := map[string]*admission{}
	for _, u := range v.units {
		if u.admission != nil {
			all[u.Name] = u.admission
		}
	}
	b, err := json.Marshal(all)
	if err == nil {
		err = replaceFile(filepath.Join(v.o.Dir, admittedFile), b)
	}
	if err != nil {
		v.log.Error("note admissions", "error", err)
	}
}

// recall takes up identities that an earlier run issued. They are examined
// again before anything else happens.
func (v *Verifier) recall() error {
	b, err := os.ReadFile(filepath.Join(v.o.Dir, admittedFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	all := map[string]*admission{}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return fmt.Errorf("verifier: read admissions: %w", err)
	}
	for _, u := range v.units {
		if a := all[u.Name]; a != nil && v.now().Before(a.NotAfter) {
			u.admission, u.silent = a, "the verifier was restarted"
		}
	}
	return nil
}

// watch examines one unit when there is a reason to, and when time passes.
func (v *Verifier) watch(ctx context.Context, u *unit) {
	for {
		v.mu.Lock()
		wait := v.o.Interval
		if u.admission != nil {
			wait = max(0, min(wait, u.admission.NotAfter.Sub(v.now())))
		}
		v.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-u.wake:
			t.Stop()
		}
		v.examine(ctx, u)
	}
}

// examine holds an admitted unit against fresh evidence.
func (v *Verifier) examine(ctx context.Context, u *unit) {
	v.mu.Lock()
	a := u.admission
	if a != nil && !v.now().Before(a.NotAfter) {
		v.refuseLocked(u, refuse("enroll.expired", "an identity renewed within the hour", "it ended at "+a.NotAfter.UTC().Format(time.RFC3339)))
		a = nil
	}
	v.mu.Unlock()
	if a == nil {
		return
	}
	if !u.begin(ctx) {
		return
	}
	defer u.done()
	e, s, err := v.attest(ctx, u, a.Key)
	v.mu.Lock()
	defer v.mu.Unlock()
	if u.admission != a || ctx.Err() != nil {
		return // replaced or ended meanwhile
	}
	var r *api.Refusal
	if err == nil && e.BootCount != a.Boot {
		err = refuse("evidence.boot", fmt.Sprintf("boot %d", a.Boot), fmt.Sprintf("boot %d", e.BootCount))
	}
	switch {
	case errors.As(err, &r):
		u.examined, u.silent = v.now(), ""
		v.refuseLocked(u, r)
	case err != nil:
		v.silentLocked(u, err)
	default:
		changed := u.silent != "" || a.Sequence != s.Sequence
		u.examined, u.silent = v.now(), ""
		a.Sequence, a.Commit = s.Sequence, s.Commit
		if changed {
			u.since = v.now()
			v.tellLocked(true)
		}
	}
}

func (v *Verifier) silentLocked(u *unit, err error) {
	first := u.silent == ""
	u.silent = err.Error()
	if first {
		v.log.Warn("no evidence", "unit", u.Name, "error", err)
		u.since = v.now()
		v.tellLocked(false)
	}
}

// attest gets fresh evidence and examines it. The error is an *api.Refusal
// when the unit fails, else what kept the evidence from coming.
func (v *Verifier) attest(ctx context.Context, u *unit, key [32]byte) (*trust.Evidence, *State, error) {
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, nil, err
	}
	signed, err := v.rack.quote(ctx, u.Name, nonce)
	if err != nil {
		return nil, nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e, s, r := examine(board{u.Name, u.Slot, u.DeviceKey}, v.refs, key, nonce, signed)
	if r != nil {
		return e, nil, r
	}
	return e, s, nil
}

// Identify admits a unit or says why not: with an *api.Refusal, or with another
// error when the decision could not be made and may be asked for again.
func (v *Verifier) Identify(ctx context.Context, req *api.IdentityRequest, from netip.Addr) (*api.Identity, error) {
	u := v.unit(req.Unit)
	if u == nil {
		return nil, refuse("enroll.unit", "a unit of this rack", shorten(req.Unit))
	}
	if u.Address.IsValid() && from != u.Address {
		return nil, refuse("enroll.request", fmt.Sprintf("a request from %v", u.Address), fmt.Sprintf("one from %v", from))
	}
	key, digest, err := parseRequest(req)
	if err != nil {
		return nil, refuse("enroll.request", "a key request signed by its own P-256 key", shorten(err.Error()))
	}
	ca := v.authority.pem
	if v.o.ClusterCA != nil {
		if ca, err = v.o.ClusterCA(); err != nil {
			return nil, fmt.Errorf("the cluster has no certificate yet: %w", err)
		}
	}
	if !u.begin(ctx) {
		return nil, ctx.Err()
	}
	defer u.done()
	v.mu.Lock()
	epoch := u.epoch
	v.mu.Unlock()
	e, s, err := v.attest(ctx, u, digest)

	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	var r *api.Refusal
	switch {
	case errors.As(err, &r):
		u.examined, u.silent = now, ""
		v.log.Warn("a unit is refused", "unit", u.Name, "check", r.Check, "expected", r.Expected, "seen", r.Seen)
		// A request alone takes nothing from who is admitted: fresh evidence about that one does.
		if u.admission == nil {
			v.refuseLocked(u, r)
		} else {
			u.examine()
		}
		return nil, r
	case err != nil:
		v.silentLocked(u, err)
		return nil, err
	case epoch != u.epoch:
		return nil, errAgain
	case v.takenLocked(u, req.WireGuardKey):
		// Two peers of one key would draw each other's traffic.
		return nil, refuse("enroll.request", "a WireGuard key of its own", "the key of another peer")
	}
	a := &admission{Key: digest, WireGuard: req.WireGuardKey, Boot: e.BootCount, Issued: now, NotAfter: now.Add(Lifetime).Truncate(time.Second),
		Sequence: s.Sequence, Commit: s.Commit, Release: s.Releases[s.Units[u.Name]].Version,
		Emulated: e.Flags&trust.EvidenceEmulated != 0, Fallback: e.Flags&trust.EvidenceFallback != 0}
	cluster := v.o.Network.Of(u.Name, u.Slot)
	client, serving, err := v.authority.issue(u.Name, cluster.TunnelAddress, key, now, a.NotAfter)
	if err != nil {
		return nil, err
	}
	if old := u.admission; old != nil && old.Key == a.Key {
		a.Certificates = old.Certificates[max(0, len(old.Certificates)-1):]
	}
	a.Certificates = append(a.Certificates, fingerprint(client))
	u.admission, u.refused, u.examined, u.silent, u.since = a, nil, now, "", now
	v.log.Info("a unit is admitted", "unit", u.Name, "release", a.Release, "sequence", a.Sequence, "boot", a.Boot, "until", a.NotAfter)
	v.tellLocked(true)
	return &api.Identity{CA: string(ca), ClientCert: string(client), ServingCert: string(serving), NotAfter: a.NotAfter, Cluster: cluster}, nil
}

// takenLocked reports whether a peer other than u has the WireGuard key.
func (v *Verifier) takenLocked(u *unit, key string) bool {
	if m := v.o.Management; m != nil && m.PublicKey == key {
		return true
	}
	return slices.ContainsFunc(v.units, func(o *unit) bool { return o != u && o.admission != nil && o.admission.WireGuard == key })
}

// errAgain asks a unit to ask again: its BMC told of a reset or worse while it
// was examined.
var errAgain = errors.New("the unit changed while it was examined: ask again")

// begin waits for the turn to examine a unit.
func (u *unit) begin(ctx context.Context) bool {
	select {
	case u.quoting <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (u *unit) done() { <-u.quoting }

func (v *Verifier) unit(name string) *unit {
	i := slices.IndexFunc(v.units, func(u *unit) bool { return u.Name == name })
	if i < 0 {
		return nil
	}
	return v.units[i]
}

// Peers returns with whom a unit may talk; for the host side (api.Management)
// all admitted units. It waits until the version is above after, or ctx ends.
func (v *Verifier) Peers(ctx context.Context, who string, after uint64) api.Peers {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.awaitLocked(ctx, after)
	p := api.Peers{Version: v.version, Peers: []api.Peer{}}
	if m := v.o.Management; m != nil && who != api.Management {
		peer := *m
		peer.NotAfter = v.now().Add(Lifetime).Truncate(time.Second)
		p.Peers = append(p.Peers, peer)
	}
	for _, u := range v.units {
		if u.admission == nil || u.Name == who {
			continue
		}
		c := v.o.Network.Of(u.Name, u.Slot)
		allowed := []netip.Prefix{netip.PrefixFrom(c.TunnelAddress, c.TunnelAddress.BitLen()), c.PodCIDR}
		if c.PodCIDR6.IsValid() {
			allowed = append(allowed, netip.PrefixFrom(c.TunnelAddress6, 128), c.PodCIDR6)
		}
		p.Peers = append(p.Peers, api.Peer{Unit: u.Name, PublicKey: u.admission.WireGuard, Endpoint: netip.AddrPortFrom(u.Address, v.o.Network.Port),
			AllowedIPs: allowed, NotAfter: u.admission.NotAfter})
	}
	return p
}

func (v *Verifier) awaitLocked(ctx context.Context, after uint64) {
	for v.version == after && ctx.Err() == nil {
		changed := v.changed
		v.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		v.mu.Lock()
	}
}

// holds reports whether a client certificate, by its SHA-256 in hexadecimal, is
// one of an identity in force. An empty fingerprint asks for the unit alone.
func (v *Verifier) holds(name, fingerprint string) bool {
	u := v.unit(name)
	if u == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	a := u.admission
	return a != nil && v.now().Before(a.NotAfter) && (fingerprint == "" || slices.Contains(a.Certificates, fingerprint))
}

// A Status is how the verifier stands to one unit, for people and controllers.
type Status struct {
	Unit     string       `json:"unit"`
	Slot     uint8        `json:"slot"`
	Standing Standing     `json:"standing"`
	Trusted  bool         `json:"trusted"` // it has an identity in force
	Since    time.Time    `json:"since"`   // of the standing
	Age      float64      `json:"ageSeconds"`
	Reason   string       `json:"reason,omitempty"`   // why there is no evidence
	Refusal  *api.Refusal `json:"refusal,omitempty"`  // what refused it last
	Release  string       `json:"release,omitempty"`  // asserted by stage 1, compared with what the owners signed
	Sequence uint64       `json:"sequence,omitempty"` // likewise
	Commit   string       `json:"commit,omitempty"`   // likewise
	Boot     uint32       `json:"boot,omitempty"`     // observed by the BMC
	NotAfter time.Time    `json:"notAfter,omitzero"`
	// Emulated: the BMC's key lives in a simulator or an unfused chip; the
	// signature proves the software, not the hardware.
	Emulated bool `json:"emulated,omitempty"`
	Fallback bool `json:"fallback,omitempty"` // booted from the slot that was not preferred
}

// Units returns the standings by slot, and their version. It waits as Peers does.
func (v *Verifier) Units(ctx context.Context, after uint64) ([]Status, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.awaitLocked(ctx, after)
	var all []Status
	for _, u := range v.units {
		s := Status{Unit: u.Name, Slot: u.Slot, Standing: Unknown, Since: u.since, Refusal: u.refused, Reason: u.silent}
		if !u.examined.IsZero() {
			s.Age = v.now().Sub(u.examined).Seconds()
		}
		switch a := u.admission; {
		case a != nil:
			s.Standing, s.Trusted = Attested, true
			s.Release, s.Sequence, s.Commit, s.Boot, s.NotAfter, s.Emulated, s.Fallback = a.Release, a.Sequence, a.Commit, a.Boot, a.NotAfter, a.Emulated, a.Fallback
			if u.silent != "" {
				s.Standing = Unverified
			}
		case u.refused != nil:
			s.Standing = Refused
		case u.silent != "":
			s.Standing = Unverified
		}
		all = append(all, s)
	}
	return all, v.version
}

func shorten(s string) string {
	if len(s) > 100 {
		return s[:97] + "…"
	}
	return s
}

// wireGuardKey decodes a public key.
func wireGuardKey(s string) (key [32]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(key) {
		return key, errors.New("the WireGuard key is not the base64 of 32 bytes")
	}
	return [32]byte(b), nil
}

func fingerprint(pemCert []byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(derOf(pemCert)))
}
