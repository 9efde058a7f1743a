//go:build linux

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/racklet/racklet/system/enroll/api"
)

// tunnel brings WireGuard's device, its peers and the routes by it to what
// enrolment says.
func (a *agent) tunnel(c *api.Cluster, key []byte, peers []api.Peer) error {
	l, err := netlink.LinkByName(tunnelDevice)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = tunnelDevice, tunnelMTU
		if err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("add %s: %w", tunnelDevice, err)
		}
		l, err = netlink.LinkByName(tunnelDevice)
	}
	if err != nil {
		return err
	}
	wg, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer wg.Close()
	have, err := wg.Device(tunnelDevice)
	if err != nil {
		return fmt.Errorf("read %s: %w", tunnelDevice, err)
	}
	private, err := wgtypes.ParseKey(strings.TrimSpace(string(key)))
	if err != nil {
		return fmt.Errorf("the unit's WireGuard key: %w", err)
	}
	set, err := changes(have, private, peers)
	if err != nil {
		return err
	}
	if set != nil {
		if err := wg.ConfigureDevice(tunnelDevice, *set); err != nil {
			return fmt.Errorf("configure %s: %w", tunnelDevice, err)
		}
		a.log.Info("peers", "number", len(peers), "changed", len(set.Peers))
	}
	a.mu.Lock()
	a.peers = slices.Clone(peers)
	a.mu.Unlock()
	return addresses(l, c)
}

// changes is what has to be told to the device; nil: nothing. Peers that stay
// keep their sessions.
func changes(have *wgtypes.Device, private wgtypes.Key, peers []api.Peer) (*wgtypes.Config, error) {
	var set wgtypes.Config
	changed := false
	if have.PrivateKey != private {
		set.PrivateKey, changed = &private, true
	}
	if port := wireGuard; have.ListenPort != port {
		set.ListenPort, changed = &port, true
	}
	want := map[wgtypes.Key]bool{}
	var add []wgtypes.PeerConfig
	for _, p := range peers {
		raw, err := base64.StdEncoding.DecodeString(p.PublicKey)
		if err != nil || len(raw) != wgtypes.KeyLen {
			return nil, fmt.Errorf("peer %s: bad public key", p.Unit)
		}
		key := wgtypes.Key(raw)
		want[key] = true
		var allowed []net.IPNet
		for _, a := range p.AllowedIPs {
			allowed = append(allowed, *ipNet(a))
		}
		i := slices.IndexFunc(have.Peers, func(h wgtypes.Peer) bool { return h.PublicKey == key })
		if i >= 0 && same(have.Peers[i].AllowedIPs, allowed) {
			continue // where it is, WireGuard knows better by now
		}
		add = append(add, wgtypes.PeerConfig{PublicKey: key, Endpoint: net.UDPAddrFromAddrPort(p.Endpoint), ReplaceAllowedIPs: true, AllowedIPs: allowed})
	}
	for _, h := range have.Peers { // first: their addresses may be another's by now
		if !want[h.PublicKey] {
			set.Peers = append(set.Peers, wgtypes.PeerConfig{PublicKey: h.PublicKey, Remove: true})
		}
	}
	set.Peers = append(set.Peers, add...)
	if !changed && len(set.Peers) == 0 {
		return nil, nil
	}
	return &set, nil
}

func same(a, b []net.IPNet) bool {
	text := func(list []net.IPNet) (out []string) {
		for _, n := range list {
			out = append(out, n.String())
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(text(a), text(b))
}

// addresses gives the device its addresses and routes.
func addresses(l netlink.Link, c *api.Cluster) error {
	six := c.TunnelAddress6.IsValid() && haveIPv6()
	if six {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+tunnelDevice+"/disable_ipv6", []byte("0"), 0o644)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	type way struct {
		own, source   netip.Addr
		through, hole netip.Prefix
	}
	ways := []way{{c.TunnelAddress, c.TunnelAddress, c.ClusterCIDR, c.PodCIDR}}
	if six {
		ways = append(ways, way{c.TunnelAddress6, c.TunnelAddress6, c.ClusterCIDR6, c.PodCIDR6})
	}
	for _, w := range ways {
		if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(w.own, w.own.BitLen())), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("address %v: %w", w.own, err)
		}
		routes := []*netlink.Route{{LinkIndex: l.Attrs().Index, Dst: ipNet(w.through), Src: w.source.AsSlice(), Scope: netlink.SCOPE_LINK}}
		if w.own.Is4() {
			routes = append(routes, &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(c.TunnelCIDR), Src: w.source.AsSlice(), Scope: netlink.SCOPE_LINK})
		}
		// What is for a pod of this unit that is not there goes nowhere.
		routes = append(routes, &netlink.Route{Dst: ipNet(w.hole), Type: unix.RTN_BLACKHOLE})
		for _, r := range routes {
			if err := netlink.RouteReplace(r); err != nil {
				return fmt.Errorf("route %v: %w", r.Dst, err)
			}
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// peerStatistics is what the kernel counted for one peer.
type peerStatistics struct {
	unit           string
	received, sent int64
	handshake      time.Time
}

func (a *agent) statistics() ([]peerStatistics, error) {
	wg, err := wgctrl.New()
	if err != nil {
		return nil, err
	}
	defer wg.Close()
	d, err := wg.Device(tunnelDevice)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []peerStatistics
	for _, p := range d.Peers {
		for _, known := range a.peers {
			if known.PublicKey == p.PublicKey.String() {
				all = append(all, peerStatistics{known.Unit, p.ReceiveBytes, p.TransmitBytes, p.LastHandshakeTime})
			}
		}
	}
	slices.SortFunc(all, func(x, y peerStatistics) int { return strings.Compare(x.unit, y.unit) })
	return all, nil
}
