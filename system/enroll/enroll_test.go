package enroll

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/enroll/api"
	"github.com/racklet/racklet/system/enroll/enrolltest"
)

func parse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIdentity(t *testing.T) {
	b := newBench(t)
	a, id := b.admit("unit-1")
	roots := x509.NewCertPool()
	roots.AddCert(parse(t, id.CA))
	client, serving := parse(t, id.ClientCert), parse(t, id.ServingCert)
	for _, c := range []struct {
		cert  *x509.Certificate
		usage x509.ExtKeyUsage
		name  string
		ok    bool
	}{
		{client, x509.ExtKeyUsageClientAuth, "", true},
		{client, x509.ExtKeyUsageServerAuth, "", false},
		{serving, x509.ExtKeyUsageServerAuth, "unit-1", true},
		{serving, x509.ExtKeyUsageServerAuth, "10.78.0.1", true},
		{serving, x509.ExtKeyUsageServerAuth, "10.78.0.2", false},
		{serving, x509.ExtKeyUsageServerAuth, "unit-2", false},
		{serving, x509.ExtKeyUsageClientAuth, "", false},
	} {
		_, err := c.cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.name, KeyUsages: []x509.ExtKeyUsage{c.usage}})
		if (err == nil) != c.ok {
			t.Errorf("usage %v, name %q: %v", c.usage, c.name, err)
		}
	}
	if client.Subject.CommonName != "system:node:unit-1" || !slices.Equal(client.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("subject %v", client.Subject)
	}
	if !a.Key.PublicKey.Equal(client.PublicKey) {
		t.Error("the certificate is for another key")
	}
	if life := client.NotAfter.Sub(b.now()); life > Lifetime || life < Lifetime-time.Minute || !client.NotAfter.Equal(id.NotAfter) {
		t.Errorf("valid for %v", life)
	}
	c := id.Cluster
	if c.Server != "https://10.78.0.254:6443" || c.PodCIDR.String() != "10.42.1.0/24" || c.TunnelAddress.String() != "10.78.0.1" || c.PodCIDR6.String() != "fd78:0:42:1::/64" {
		t.Errorf("cluster %+v", c)
	}
	if s := b.status("unit-1"); s.Standing != Attested || !s.Trusted || s.Release != "1.0" || s.Sequence != 7 || !s.Emulated || s.Boot != 1 {
		t.Errorf("status %+v", s)
	}
	if s := b.status("unit-2"); s.Standing != Unknown || s.Trusted {
		t.Errorf("status %+v", s)
	}
}

// TestAuthorityIsNarrow: even the authority's key can make no certificate that
// passes for something else than a node of this rack.
func TestAuthorityIsNarrow(t *testing.T) {
	b := newBench(t)
	_, id := b.admit("unit-1")
	roots := x509.NewCertPool()
	roots.AddCert(parse(t, id.CA))
	for _, c := range []struct {
		unit, address string
		ok            bool
	}{{"unit-2", "10.78.0.2", true}, {"kubernetes.default.svc", "10.78.0.2", false}, {"unit-2", "10.96.0.1", false}} {
		_, serving, err := b.v.authority.issue(c.unit, netip.MustParseAddr(c.address), &enrolltest.NewApplicant(t, "unit-2").Key.PublicKey, b.now(), b.now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		_, err = parse(t, string(serving)).Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if (err == nil) != c.ok {
			t.Errorf("%s at %s: %v", c.unit, c.address, err)
		}
	}
}

// mismatches are all the ways in which evidence can be wrong, and the check
// that has to name each.
var mismatches = []struct {
	name, check, seen string
	alter             func(m *enrolltest.BMC)
}{
	{"another device key", "evidence.signature", "another one", func(m *enrolltest.BMC) { m.Device = ed25519.NewKeyFromSeed(make([]byte, 32)) }},
	{"another nonce", "evidence.signature", "another one", func(m *enrolltest.BMC) {
		old := append([]byte(nil), mustQuote(m)...)
		m.Alter = func([]byte) []byte { return old }
	}},
	{"no evidence", "evidence.format", "length", func(m *enrolltest.BMC) { m.Alter = func([]byte) []byte { return []byte("nonsense") } }},
	{"a flipped bit", "evidence.signature", "", func(m *enrolltest.BMC) { m.Alter = func(b []byte) []byte { b[120] ^= 4; return b } }},
	{"another slot", "evidence.slot", "slot 2", func(m *enrolltest.BMC) { m.Evidence.Slot = 2 }},
	{"void", "evidence.rail", "void", func(m *enrolltest.BMC) { m.Evidence.Flags |= trust.EvidenceVoid }},
	{"a reset", "evidence.rail", "2 entries", func(m *enrolltest.BMC) { m.Register(2).Extend(rackSum(trust.RailReset)) }},
	{"BMC restarted", "evidence.rail", "1 entries", func(m *enrolltest.BMC) { m.Register(2).Reset(); m.Register(2).Extend(rackSum(trust.RailAdopted)) }},
	{"rail off", "evidence.rail", "0 entries", func(m *enrolltest.BMC) { m.Off(); m.Evidence.Slot = 1 }},
	{"another boot image", "evidence.slot", "", func(m *enrolltest.BMC) { m.Register(0).Extend(rackSum("x")) }},
	{"another tree", "evidence.tree", "", func(m *enrolltest.BMC) { m.Register(8).Reset(); m.Register(8).Extend(rackSum("x")) }},
	{"no tree", "evidence.tree", "nothing measured", func(m *enrolltest.BMC) { m.Register(8).Reset() }},
	{"another system", "evidence.os", "", func(m *enrolltest.BMC) { m.Register(9).Extend(rackSum("x")) }},
	{"another root", "evidence.root-hash", "", func(m *enrolltest.BMC) { m.Register(10).Extend(rackSum("x")) }},
	{"another handover", "evidence.handover", "", func(m *enrolltest.BMC) { m.Register(11).Extend(rackSum("x")) }},
	{"no handover", "evidence.handover", "nothing measured", func(m *enrolltest.BMC) { m.Register(11).Reset() }},
	{"an asserted register that claims to be observed", "evidence.format", "none", func(m *enrolltest.BMC) { m.Register(10).Kind = trust.Observed }},
	{"an observed register that is only asserted", "evidence.format", "none", func(m *enrolltest.BMC) { m.Register(2).Kind = trust.Asserted }},
	{"a register missing", "evidence.format", "none", func(m *enrolltest.BMC) { m.Evidence.Registers = m.Evidence.Registers[:7] }},
	{"a floor above the state", "evidence.floor", "sequence 7", func(m *enrolltest.BMC) { m.Evidence.Floors.Sequence = 8 }},
	{"a boot floor above the release", "evidence.floor", "5", func(m *enrolltest.BMC) { m.Evidence.Floors.BootSecurity = 6 }},
}

func mustQuote(b *enrolltest.BMC) []byte {
	b.Evidence.Nonce = [32]byte{1}
	signed, err := trust.AppendSignedEvidence(nil, b.Device, &b.Evidence)
	if err != nil {
		panic(err)
	}
	return signed
}

func rackSum(s string) [32]byte {
	sum, _ := enrolltest.Digest(s).Sum()
	return sum
}

// TestRefusals: each mismatch is refused by name at enrolment, and evicts a
// unit that was admitted; after a clean boot the same unit is admitted.
func TestRefusals(t *testing.T) {
	for _, c := range mismatches {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			m := b.rack.BMCs["unit-1"]
			named := func(r *api.Refusal) {
				t.Helper()
				if r == nil || r.Check != c.check || !strings.Contains(r.Seen, c.seen) || r.Expected == "" {
					t.Errorf("refusal %+v, want %s with %q", r, c.check, c.seen)
				}
				if _, ok := rack.LookupReason(r.Check); !ok {
					t.Errorf("%s has no cure", r.Check)
				}
			}
			a, _ := b.admit("unit-1")
			m.Change(func() { c.alter(m) })
			s := b.until("unit-1", "refused", func(s Status) bool { return s.Standing == Refused })
			named(s.Refusal)
			if s.Trusted || b.v.holds("unit-1", "") {
				t.Error("still trusted")
			}
			_, err := b.ask(a)
			var r *api.Refusal
			if !errors.As(err, &r) {
				t.Fatalf("asked again: %v", err)
			}
			named(r)

			m.Change(func() { m.Alter, m.Device = nil, enrolltest.NewBMC(1).Device })
			m.Boot(of(b.v.refs.newest(), r1))
			b.admit("unit-1")
		})
	}
}

// TestKey: a key that is not in the BMC's register gets nothing, and takes
// nothing from who is admitted.
func TestKey(t *testing.T) {
	b := newBench(t)
	b.admit("unit-1")
	thief := enrolltest.NewApplicant(t, "unit-1")
	_, err := b.v.Identify(t.Context(), &thief.Request, netip.MustParseAddr("10.77.0.11"))
	var r *api.Refusal
	if !errors.As(err, &r) || r.Check != "evidence.key" {
		t.Errorf("thief: %v", err)
	}
	if !b.status("unit-1").Trusted {
		t.Error("a stranger's request evicted a unit")
	}
	// From another unit's address nobody is even asked.
	asked := b.rack.BMCs["unit-2"].Asked
	_, err = b.v.Identify(t.Context(), &enrolltest.NewApplicant(t, "unit-2").Request, netip.MustParseAddr("10.77.0.11"))
	if !errors.As(err, &r) || r.Check != "enroll.request" || b.rack.BMCs["unit-2"].Asked != asked {
		t.Errorf("from another address: %v", err)
	}
	if _, err := b.v.Identify(t.Context(), &enrolltest.NewApplicant(t, "unit-9").Request, netip.MustParseAddr("10.77.0.11")); !errors.As(err, &r) || r.Check != "enroll.unit" {
		t.Errorf("unknown unit: %v", err)
	}
	// A changed key register: the boot goes on, the identity does not.
	b.admit("unit-2")
	m := b.rack.BMCs["unit-2"]
	m.Change(func() { m.Register(trust.RegisterUnitKey).Set([32]byte{1}) })
	if s := b.until("unit-2", "out", func(s Status) bool { return !s.Trusted }); s.Refusal.Check != "evidence.key" {
		t.Errorf("%+v", s.Refusal)
	}
}

// TestWireGuardKeyIsItsOwn: a unit cannot draw another one's traffic by claiming
// its WireGuard key, which is no secret.
func TestWireGuardKeyIsItsOwn(t *testing.T) {
	b := newBench(t)
	one, _ := b.admit("unit-1")
	two := enrolltest.NewApplicant(t, "unit-2")
	var r *api.Refusal
	if _, err := b.ask(two.Claim(t, one.WireGuard)); !errors.As(err, &r) || r.Check != "enroll.request" {
		t.Errorf("claimed: %v", err)
	}
	if !b.status("unit-1").Trusted || b.status("unit-2").Trusted {
		t.Error("the claim changed who is admitted")
	}
	if _, err := b.ask(two); err != nil {
		t.Errorf("with its own key: %v", err)
	}
	if _, err := b.ask(one); err != nil {
		t.Errorf("renewal with the same key: %v", err)
	}
}

// TestRollout: a push evicts nobody, N and N-1 coexist, N-2 is out, and so is
// whatever the owners' floor forbids.
func TestRollout(t *testing.T) {
	b := newBench(t)
	both := []string{"unit-1", "unit-2"}
	b.admit("unit-1")
	accept := func(s *State) {
		t.Helper()
		if err := b.v.Accept(s); err != nil {
			t.Fatal(err)
		}
	}
	examined := func() {
		t.Helper()
		m := b.rack.BMCs["unit-1"]
		var was int
		m.Change(func() { was = m.Asked })
		for start := time.Now(); ; time.Sleep(time.Millisecond) {
			var is int
			if m.Change(func() { is = m.Asked }); is > was+2 {
				return
			}
			if !b.status("unit-1").Trusted || time.Since(start) > patience {
				t.Fatalf("not examined: %+v", b.status("unit-1"))
			}
		}
	}
	accept(state(8, 5, r1, both...)) // another commit, same release
	examined()
	s9 := state(9, 5, r2, both...)
	accept(s9) // the next release
	examined()
	b.rack.BMCs["unit-2"].Boot(of(s9, r2))
	b.admit("unit-2")
	if s := b.status("unit-1"); s.Release != "1.0" || s.Sequence != 7 || !s.Trusted {
		t.Errorf("N-1: %+v", s)
	}
	if err := b.v.Accept(state(8, 5, r2, both...)); err == nil {
		t.Error("an older state was accepted")
	}
	if err := b.v.Accept(state(9, 4, r2, both...)); err != nil { // the same floor: known
		t.Error(err)
	}
	r3 := enrolltest.Release("3.0", 6)
	accept(state(10, 5, r3, both...))
	if s := b.until("unit-1", "N-2 out", func(s Status) bool { return !s.Trusted }); s.Refusal.Check != "evidence.slot" {
		t.Errorf("N-2: %+v", s.Refusal)
	}
	if s := b.status("unit-2"); !s.Trusted {
		t.Errorf("N-1: %+v", s)
	}
	accept(state(11, 6, r3, both...)) // the floor rises above r2
	b.until("unit-2", "below the floor", func(s Status) bool { return !s.Trusted })
	s11 := b.v.refs.newest()
	b.rack.BMCs["unit-2"].Boot(of(s11, r3))
	b.admit("unit-2")
}

// TestKexec: the other path of the handover is measured otherwise.
func TestKexec(t *testing.T) {
	b := newBench(t)
	r := enrolltest.Release("4.0", 5)
	r.OS.Kernel, r.OS.Initramfs = enrolltest.Digest("another kernel"), enrolltest.Digest("initramfs")
	s := state(12, 5, r, "unit-1", "unit-2")
	if err := b.v.Accept(s); err != nil {
		t.Fatal(err)
	}
	b.rack.BMCs["unit-1"].Boot(of(s, r))
	b.admit("unit-1")
	// A release that does not fix what is measured admits nobody.
	r = enrolltest.Release("4.1", 5)
	r.Boot.CommandLine = ""
	s = state(13, 5, r, "unit-1", "unit-2")
	if err := b.v.Accept(s); err != nil {
		t.Fatal(err)
	}
	b.rack.BMCs["unit-2"].Boot(of(s, r))
	_, err := b.ask(enrolltest.NewApplicant(t, "unit-2"))
	var refused *api.Refusal
	if !errors.As(err, &refused) || refused.Check != "evidence.handover" {
		t.Errorf("%v", err)
	}
}

// TestSilence: a BMC that does not answer is not a failed quote.
func TestSilence(t *testing.T) {
	b := newBench(t)
	b.admit("unit-1")
	for _, m := range b.rack.BMCs {
		m.Change(func() { m.Silent = true })
	}
	s := b.until("unit-1", "Unverified", func(s Status) bool { return s.Standing == Unverified })
	if !s.Trusted || s.Reason == "" {
		t.Errorf("%+v", s)
	}
	b.later(50 * time.Minute)
	if s := b.status("unit-1"); !s.Trusted || s.Age < 49*60 {
		t.Errorf("after 50 minutes: %+v", s)
	}
	if _, err := b.ask(enrolltest.NewApplicant(t, "unit-2")); !errors.Is(err, errSilent) {
		t.Errorf("a new unit: %v", err)
	}
	if s := b.status("unit-2"); s.Standing != Unverified || s.Trusted {
		t.Errorf("%+v", s)
	}
	b.later(11 * time.Minute)
	s = b.until("unit-1", "expired", func(s Status) bool { return !s.Trusted })
	if s.Refusal == nil || s.Refusal.Check != "enroll.expired" {
		t.Errorf("%+v", s)
	}
	for _, m := range b.rack.BMCs {
		m.Change(func() { m.Silent = false })
	}
	b.admit("unit-1")
	if s := b.status("unit-1"); s.Standing != Attested || s.Age > 60 {
		t.Errorf("%+v", s)
	}
}

// TestEvents: the BMC's word takes an identity at once, without waiting for
// the next examination, and also when no quote can be had any more.
func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name, source, kind string
		code, slot         int
		check              string
	}{
		{"reset", "unit-1", "reset", 0, 0, "evidence.rail"},
		{"rail off", "unit-1", "rail", 0, 0, "evidence.boot"},
		{"tray pulled", "rmc", "presence", 0, 1, "evidence.boot"},
		{"key set", "unit-1", "key", 0, 0, "evidence.key"},
		{"BMC restarted", "unit-1", "restart", 0, 0, "evidence.rail"},
		{"one more measurement", "unit-1", "measurement", 10, 0, "evidence.root-hash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.admit("unit-1")
			b.admit("unit-2")
			b.rest()
			b.until("unit-1", "the event stream", func(Status) bool { return b.rack.Followed() == 1 })
			m := b.rack.BMCs["unit-1"]
			m.Change(func() {
				switch c.kind {
				case "key":
					m.Register(trust.RegisterUnitKey).Set([32]byte{9})
				case "restart":
					m.Evidence.Flags |= trust.EvidenceVoid
				case "measurement":
					m.Register(10).Extend(rackSum("x"))
				default:
					m.Silent = true
				}
			})
			_, version := b.v.Units(t.Context(), 0)
			start := time.Now()
			b.rack.Event(c.source, c.kind, c.code, c.slot)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for b.status("unit-1").Trusted && ctx.Err() == nil {
				_, version = b.v.Units(ctx, version)
			}
			s := b.status("unit-1")
			if s.Trusted || s.Refusal == nil || s.Refusal.Check != c.check {
				t.Fatalf("%+v %+v", s, s.Refusal)
			}
			t.Logf("out after %v", time.Since(start))
			if !b.status("unit-2").Trusted {
				t.Error("the other unit is out, too")
			}
		})
	}
}

// TestEpoch: a reset that happens while evidence is on its way voids the answer.
func TestEpoch(t *testing.T) {
	b := newBench(t)
	m := b.rack.BMCs["unit-1"]
	m.Change(func() {
		m.Alter = func(p []byte) []byte {
			b.v.happened(happening{unit: "unit-1", kind: "reset"})
			return p
		}
	})
	if id, err := b.ask(enrolltest.NewApplicant(t, "unit-1")); id != nil || !errors.Is(err, errAgain) {
		t.Errorf("%v %v", id, err)
	}
}

// TestRestart: another verifier on the same directory goes on.
func TestRestart(t *testing.T) {
	b := newBench(t)
	b.admit("unit-1")
	b.admit("unit-2")
	before := b.v.Peers(t.Context(), api.Management, 0)
	m := b.rack.BMCs["unit-2"]
	b.rest()
	m.Change(func() { m.Register(10).Extend(rackSum("x")) }) // while nobody looks
	b.start(time.Hour)
	if got := b.v.Peers(t.Context(), api.Management, 0); got.Version <= before.Version {
		t.Errorf("version %d after %d", got.Version, before.Version)
	}
	b.until("unit-2", "examined after the restart", func(s Status) bool { return !s.Trusted })
	if s := b.until("unit-1", "attested", func(s Status) bool { return s.Standing == Attested }); s.Sequence != 7 {
		t.Errorf("%+v", s)
	}
}

func TestPeers(t *testing.T) {
	b := newBench(t)
	a1, _ := b.admit("unit-1")
	b.admit("unit-2")
	p := b.v.Peers(t.Context(), "unit-2", 0)
	if len(p.Peers) != 2 || p.Peers[0].Unit != api.Management || p.Peers[1].Unit != "unit-1" || p.Peers[1].PublicKey != a1.Request.WireGuardKey ||
		p.Peers[1].Endpoint.String() != "10.77.0.11:51820" || !slices.Contains(p.Peers[1].AllowedIPs, netip.MustParsePrefix("10.42.1.0/24")) {
		t.Errorf("%+v", p)
	}
	if p := b.v.Peers(t.Context(), api.Management, 0); len(p.Peers) != 2 {
		t.Errorf("%+v", p)
	}
	go b.v.happened(happening{unit: "unit-1", kind: "reset"})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(p.Peers) == 2 && ctx.Err() == nil {
		p = b.v.Peers(ctx, "unit-2", p.Version)
	}
	if len(p.Peers) != 1 {
		t.Errorf("%+v", p)
	}
}
