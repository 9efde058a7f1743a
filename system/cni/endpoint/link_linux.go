package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The way out of a pod: addresses that mean something on its link alone
// (RFC 3927, RFC 4291 2.5.6), with the host's device as fixed neighbour.
var (
	gateway  = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Attach makes the devices of an attachment. On an error nothing stays.
func Attach(r Record, mtu int) (err error) {
	ns, err := os.Open(r.Netns)
	if err != nil {
		return fmt.Errorf("open the pod's network: %w", err)
	}
	defer ns.Close()
	if err := Detach(r); err != nil { // left by a request that was cut off
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = r.Device, mtu
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace, veth.PeerMTU = r.IfName, netlink.NsFd(int(ns.Fd())), uint32(mtu)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add device %s: %w", r.Device, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Detach(r))
		}
	}()
	host, err := netlink.LinkByName(r.Device)
	if err != nil {
		return err
	}
	var mac net.HardwareAddr
	if err := within(ns, func() error {
		var err error
		mac, err = inside(r, host.Attrs().HardwareAddr)
		return err
	}); err != nil {
		return fmt.Errorf("set up the pod's device: %w", err)
	}
	return outside(r, host, mac)
}

// inside sets up the pod's end, in the pod's namespace.
func inside(r Record, hostMAC net.HardwareAddr) (net.HardwareAddr, error) {
	l, err := netlink.LinkByName(r.IfName)
	if err != nil {
		return nil, err
	}
	ipv6(r.IfName, r.Address6.IsValid())
	if err := netlink.LinkSetUp(l); err != nil {
		return nil, err
	}
	for _, a := range []struct{ own, way netip.Addr }{{r.Address, gateway}, {r.Address6, gateway6}} {
		if !a.own.IsValid() {
			continue
		}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: single(a.own), Flags: unix.IFA_F_NODAD}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("address %v: %w", a.own, err)
		}
		if err := neighbour(l, a.way, hostMAC); err != nil {
			return nil, err
		}
		if a.way.Is4() {
			if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: single(a.way), Scope: netlink.SCOPE_LINK}); err != nil {
				return nil, fmt.Errorf("route to %v: %w", a.way, err)
			}
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: a.way.AsSlice(), Dst: all(a.way)}); err != nil {
			return nil, fmt.Errorf("default route by %v: %w", a.way, err)
		}
	}
	return l.Attrs().HardwareAddr, nil
}

// outside sets up the host's end.
func outside(r Record, l netlink.Link, mac net.HardwareAddr) error {
	ipv6(r.Device, r.Address6.IsValid())
	// A pod speaks for its own address alone; the filter says the same for IPv6.
	for name, value := range map[string]string{"rp_filter": "1", "accept_redirects": "0", "send_redirects": "0", "proxy_arp": "0", "forwarding": "1"} {
		if err := sysctl("ipv4", r.Device, name, value); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, a := range []netip.Addr{r.Address, r.Address6} {
		if !a.IsValid() {
			continue
		}
		if err := neighbour(l, a, mac); err != nil {
			return err
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: single(a), Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("route to %v: %w", a, err)
		}
	}
	return nil
}

// Detach removes the devices of an attachment, if they are there.
func Detach(r Record) error {
	l, err := netlink.LinkByName(r.Device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("remove device %s: %w", r.Device, err)
	}
	return nil
}

// Check says what of an attachment is missing.
func Check(r Record) error {
	l, err := netlink.LinkByName(r.Device)
	if err != nil {
		return fmt.Errorf("the host's device %s: %w", r.Device, err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("the host's device %s is down", r.Device)
	}
	for _, a := range []netip.Addr{r.Address, r.Address6} {
		if !a.IsValid() {
			continue
		}
		family := netlink.FAMILY_V4
		if a.Is6() {
			family = netlink.FAMILY_V6
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: l.Attrs().Index, Dst: single(a)}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
		if err != nil || len(routes) == 0 {
			return fmt.Errorf("no route to %v by %s", a, r.Device)
		}
	}
	ns, err := os.Open(r.Netns)
	if err != nil {
		return fmt.Errorf("open the pod's network: %w", err)
	}
	defer ns.Close()
	return within(ns, func() error {
		l, err := netlink.LinkByName(r.IfName)
		if err != nil {
			return fmt.Errorf("the pod's device %s: %w", r.IfName, err)
		}
		for _, a := range []netip.Addr{r.Address, r.Address6} {
			if !a.IsValid() {
				continue
			}
			have, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			ok := false
			for _, h := range have {
				ok = ok || h.IP.Equal(a.AsSlice())
			}
			if !ok {
				return fmt.Errorf("the pod's device %s lacks the address %v", r.IfName, a)
			}
		}
		return nil
	})
}

// MAC is the hardware address of the host's end.
func MAC(r Record) string {
	l, err := netlink.LinkByName(r.Device)
	if err != nil {
		return ""
	}
	return l.Attrs().HardwareAddr.String()
}

// within runs f in another network namespace, on a thread that ends with it.
func within(ns *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is of no use to anybody else
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the pod's network: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

func neighbour(l netlink.Link, a netip.Addr, mac net.HardwareAddr) error {
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	err := netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("neighbour %v: %w", a, err)
	}
	return nil
}

// ipv6 opens or shuts IPv6 on a device. A kernel without has nothing to shut.
func ipv6(device string, on bool) {
	value := "1"
	if on {
		value = "0"
	}
	_ = sysctl("ipv6", device, "accept_ra", "0")
	_ = sysctl("ipv6", device, "disable_ipv6", value)
}

func sysctl(family, device, name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys/net", family, "conf", device, name), []byte(value), 0o644)
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func all(a netip.Addr) *net.IPNet {
	if a.Is4() {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}
