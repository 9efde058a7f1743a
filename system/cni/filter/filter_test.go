//go:build linux

package filter_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/system/cni/endpoint"
	"github.com/racklet/racklet/system/cni/filter"
	"github.com/racklet/racklet/system/cni/nettest"
	"github.com/racklet/racklet/system/cni/policy"
)

func TestMain(m *testing.M) { nettest.Main(m) }

const (
	passes = 15 * time.Second
	blocks = 300 * time.Millisecond // a dropped packet is never answered: any time will do
)

// unit is a namespace that stands for a unit: pods on it, a device named as
// WireGuard's to another unit's pod, and an uplink to a gateway.
type unit struct {
	*testing.T
	host, remote, gateway *nettest.Space
	pods                  map[string]*nettest.Space
	records               map[string]endpoint.Record
	filter                filter.Filter
}

func (u *unit) do(s *nettest.Space, f func() error) {
	u.Helper()
	if err := s.Do(f); err != nil {
		u.Fatal(err)
	}
}

// cable joins two spaces by devices with addresses.
func (u *unit) cable(a *nettest.Space, nameA, addressA string, b *nettest.Space, nameB, addressB string) {
	u.Helper()
	u.do(a, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nameA
		v := netlink.NewVeth(attrs)
		v.PeerName, v.PeerNamespace = nameB, netlink.NsFd(b.Fd())
		return netlink.LinkAdd(v)
	})
	for _, end := range []struct {
		s             *nettest.Space
		name, address string
	}{{a, nameA, addressA}, {b, nameB, addressB}} {
		u.do(end.s, func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return err
			}
			address, err := netlink.ParseAddr(end.address)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, address); err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		})
	}
}

func route(to, by string) func() error {
	return func() error {
		dst, err := netlink.ParseIPNet(to)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: netip.MustParseAddr(by).AsSlice()})
	}
}

func newUnit(t *testing.T) *unit {
	u := &unit{T: t, host: nettest.New(t), remote: nettest.New(t), gateway: nettest.New(t), pods: map[string]*nettest.Space{}, records: map[string]endpoint.Record{}}
	u.do(u.host, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(lo), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644), os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
	})
	u.cable(u.host, "wg0", "10.78.0.1/24", u.remote, "wg0", "10.78.0.2/24")
	u.cable(u.host, "eth0", "10.77.0.11/24", u.gateway, "eth0", "10.77.0.1/24")
	u.do(u.host, route("10.42.0.0/16", "10.78.0.2"))
	u.do(u.host, route("203.0.113.0/24", "10.77.0.1"))
	u.do(u.remote, route("10.42.1.0/24", "10.78.0.1"))
	u.do(u.gateway, route("10.42.1.0/24", "10.77.0.11"))
	for s, address := range map[*nettest.Space]string{u.remote: "10.42.2.2/32", u.gateway: "203.0.113.9/32"} {
		u.do(s, func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(address)
			if err != nil {
				return err
			}
			return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, a))
		})
	}
	store := endpoint.Store{Dir: t.TempDir()}
	for _, name := range []string{"web", "db"} {
		pod := nettest.New(t)
		r, err := store.Allocate(endpoint.Record{ContainerID: name, IfName: "eth0", Netns: pod.Path(), Namespace: "n", Pod: name},
			netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("fd78:0:42:1::/64"))
		if err != nil {
			t.Fatal(err)
		}
		u.do(u.host, func() error { return endpoint.Attach(r, 1420) })
		u.pods[name], u.records[name] = pod, r
		for _, p := range []int{80, 81} {
			pod.Echo(t, fmt.Sprintf("%v:%d", r.Address, p), name)
			pod.Echo(t, fmt.Sprintf("[%v]:%d", r.Address6, p), name)
		}
	}
	u.remote.Echo(t, "10.42.2.2:80", "remote")
	u.gateway.Echo(t, "203.0.113.9:443", "outside")
	for _, p := range []int{443, 22} {
		u.gateway.Echo(t, fmt.Sprintf("10.77.0.1:%d", p), "gateway")
	}
	u.host.Echo(t, "0.0.0.0:10250", "kubelet")
	u.host.Echo(t, "0.0.0.0:22", "host")
	u.filter.NetNS = u.host.Fd()
	return u
}

func (u *unit) lay() {
	u.Helper()
	if err := u.filter.Lay(filter.Network{Uplink: "eth0", Tunnel: "wg0", Subnet: netip.MustParsePrefix("10.77.0.0/24"), Gateway: netip.MustParseAddr("10.77.0.1"),
		Management: netip.MustParseAddr("10.78.0.254"), Pods: netip.MustParsePrefix("10.42.1.0/24"), WireGuardPort: 51820,
		Egress: []filter.Service{{Protocol: unix.IPPROTO_TCP, Port: 443}}}); err != nil {
		u.Fatal(err)
	}
}

// police writes the rules of web and db.
func (u *unit) police(web, db policy.Verdicts) {
	u.Helper()
	var pods []filter.Pod
	for name, v := range map[string]policy.Verdicts{"web": web, "db": db} {
		r := u.records[name]
		pods = append(pods, filter.Pod{Addresses: []netip.Addr{r.Address, r.Address6}, Verdicts: v})
	}
	if err := u.filter.Police("eth0", pods); err != nil {
		u.Fatal(err)
	}
}

func (u *unit) reach(s *nettest.Space, address, who string) {
	u.Helper()
	if got, err := s.Dial(address, passes); err != nil || got != who {
		u.Errorf("%s: %q %v, want %s", address, got, err, who)
	}
}

func (u *unit) blocked(s *nettest.Space, address string) {
	u.Helper()
	if got, err := s.Dial(address, blocks); err == nil {
		u.Errorf("%s answered as %s", address, got)
	}
}

var open policy.Verdicts

func TestUnit(t *testing.T) {
	u := newUnit(t)
	web, db := u.pods["web"], u.pods["db"]
	at := func(name string, port int) string {
		return netip.AddrPortFrom(u.records[name].Address, uint16(port)).String()
	}
	at6 := func(name string, port int) string {
		return netip.AddrPortFrom(u.records[name].Address6, uint16(port)).String()
	}
	// Without a filter all of this passes: what is blocked below is blocked by it.
	u.reach(web, at("db", 80), "db")
	u.reach(web, at6("db", 80), "db")
	u.reach(web, "10.42.2.2:80", "remote")
	u.reach(web, "203.0.113.9:443", "outside")
	u.reach(u.gateway, "10.77.0.11:22", "host")
	u.reach(u.host, "10.77.0.1:22", "gateway")
	u.reach(u.gateway, at("web", 80), "web")
	u.reach(u.remote, "10.78.0.1:22", "host")

	u.lay()
	u.police(open, open)
	u.reach(web, at("db", 80), "db")
	u.reach(web, at6("db", 80), "db")
	u.reach(web, "10.42.2.2:80", "remote")
	u.reach(u.remote, at("web", 80), "web")
	u.reach(u.host, at("web", 80), "web") // a probe
	u.reach(u.host, "10.77.0.1:443", "gateway")
	u.reach(web, "10.78.0.1:10250", "kubelet")
	u.blocked(web, "203.0.113.9:443") // outwards by permission alone
	u.blocked(u.gateway, "10.77.0.11:22")
	u.blocked(u.gateway, "10.77.0.11:10250")
	u.blocked(u.host, "10.77.0.1:22")
	u.blocked(u.gateway, at("web", 80))
	u.blocked(u.remote, "10.78.0.1:22")
	u.blocked(web, "10.78.0.1:22")

	tcp := func(p uint16) []policy.PortRange { return []policy.PortRange{{Protocol: 6, From: p, To: p}} }
	only := func(a ...netip.Addr) (r policy.Ranges) {
		for _, x := range a {
			r = append(r, policy.Range{From: x, To: x})
		}
		return r
	}
	w := u.records["web"]
	// Deny all, then one peer on one port, then a range, then a block.
	u.police(open, policy.Verdicts{Ingress: &policy.Chain{}})
	u.blocked(web, at("db", 80))
	u.blocked(web, at6("db", 80))
	u.reach(db, at("web", 80), "web")
	u.reach(u.host, at("db", 80), "db")
	u.police(open, policy.Verdicts{Ingress: &policy.Chain{Allow: []policy.Allow{{Peers: only(w.Address, w.Address6), Ports: tcp(80)}}}})
	u.reach(web, at("db", 80), "db")
	u.reach(web, at6("db", 80), "db")
	u.blocked(web, at("db", 81))
	u.blocked(u.remote, at("db", 80))
	u.police(open, policy.Verdicts{Ingress: &policy.Chain{Allow: []policy.Allow{{Any: true, Ports: []policy.PortRange{{Protocol: 6, From: 81, To: 90}}}}}})
	u.blocked(web, at("db", 80))
	u.reach(web, at("db", 81), "db")
	u.reach(u.remote, at("db", 81), "db")
	u.police(policy.Verdicts{Egress: &policy.Chain{Allow: []policy.Allow{{Peers: policy.Ranges{{From: netip.MustParseAddr("203.0.113.0"), To: netip.MustParseAddr("203.0.113.255")}}, Ports: tcp(443)}}}}, open)
	u.reach(web, "203.0.113.9:443", "outside")
	u.blocked(web, at("db", 80))
	u.blocked(web, "10.42.2.2:80")
	u.blocked(db, "203.0.113.9:443")
	u.blocked(web, "10.77.0.1:443") // the network between the units, never

	drops, err := u.filter.Drops()
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"input", "output", "forward", "egress", "outside"} {
		if drops[reason] == 0 {
			t.Errorf("nothing counted as %s: %v", reason, drops)
		}
	}
	// A pod that nobody knows is cut off.
	if err := u.filter.Police("eth0", nil); err != nil {
		t.Fatal(err)
	}
	u.blocked(web, at("db", 80))
	u.blocked(u.remote, at("web", 80))
}

// TestSpoofing: a pod that takes another address is not heard.
func TestSpoofing(t *testing.T) {
	u := newUnit(t)
	u.lay()
	u.police(open, open)
	web := u.pods["web"]
	u.reach(web, "10.42.2.2:80", "remote")
	u.do(web, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		old, err := netlink.ParseAddr(u.records["web"].Address.String() + "/32")
		if err != nil {
			return err
		}
		fresh, err := netlink.ParseAddr("10.42.1.77/32")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, fresh), netlink.AddrDel(l, old))
	})
	u.blocked(web, "10.42.2.2:80")
}

// TestAtomic: while the rules are replaced again and again, what is allowed
// always passes and what is not never does.
func TestAtomic(t *testing.T) {
	u := newUnit(t)
	u.lay()
	w := u.records["web"]
	v := policy.Verdicts{Ingress: &policy.Chain{Allow: []policy.Allow{{Peers: policy.Ranges{{From: w.Address, To: w.Address}}, Ports: []policy.PortRange{{Protocol: 6, From: 80, To: 80}}}}}}
	u.police(open, v)
	stop, done := make(chan struct{}), make(chan error, 1)
	rounds := 0
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			var pods []filter.Pod
			for name, verdicts := range map[string]policy.Verdicts{"web": open, "db": v} {
				r := u.records[name]
				pods = append(pods, filter.Pod{Addresses: []netip.Addr{r.Address, r.Address6}, Verdicts: verdicts})
			}
			if err := u.filter.Police("eth0", pods); err != nil {
				done <- err
				return
			}
			rounds++
		}
	}()
	for range 100 {
		u.reach(u.pods["web"], netip.AddrPortFrom(u.records["db"].Address, 80).String(), "db")
	}
	for range 3 {
		u.blocked(u.pods["web"], netip.AddrPortFrom(u.records["db"].Address, 81).String())
	}
	close(stop)
	if err := <-done; err != nil || rounds < 3 {
		t.Errorf("%d rounds: %v", rounds, err)
	}
}
