package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// resolverFile moves along with /run.
const resolverFile = "/run/resolv.conf"

// Waiting times of one attempt.
const (
	carrierWait = 5 * time.Second
	dhcpWait    = 400 * time.Millisecond // for the first answer; nclient4 doubles it
	dhcpTries   = 5
)

// networkUp sets up the first network device that has a link, with DHCP for
// IPv4 (RFC 2131). Nothing that a DHCP server says is trusted: it can keep the
// unit from its repository, and no more.
func networkUp(ctx context.Context) (*Lease, error) {
	// With IPv6 any neighbour could give the unit addresses, routes and
	// resolvers by router advertisements, unasked.
	for _, conf := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("switch IPv6 off: %w", err)
		}
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			return nil, fmt.Errorf("set loopback up: %w", err)
		}
	}
	link, err := carrier(ctx)
	if err != nil {
		return nil, err
	}
	name := link.Attrs().Name
	c, err := nclient4.New(name, nclient4.WithTimeout(dhcpWait), nclient4.WithRetry(dhcpTries))
	if err != nil {
		return nil, retry("network.no-lease", "", "", fmt.Errorf("open DHCP client on %s: %w", name, err))
	}
	defer c.Close()
	got, err := c.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionInterfaceMTU))
	if err != nil {
		return nil, retry("network.no-lease", "an answer on "+name, "none", err)
	}
	l, err := leaseOf(name, got.ACK)
	if err != nil {
		return nil, retry("network.no-lease", "", "", err)
	}
	return l, l.apply(link)
}

// carrier sets all Ethernet devices up and waits for one of them to have a link.
func carrier(ctx context.Context) (netlink.Link, error) {
	deadline := time.Now().Add(carrierWait)
	for {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, retry("network.no-device", "", "", fmt.Errorf("list network devices: %w", err))
		}
		some := false
		for _, l := range links {
			a := l.Attrs()
			if l.Type() != "device" || a.Flags&net.FlagLoopback != 0 || len(a.HardwareAddr) != 6 {
				continue
			}
			some = true
			if a.Flags&net.FlagUp == 0 {
				if err := netlink.LinkSetUp(l); err != nil {
					return nil, retry("network.no-carrier", "", "", fmt.Errorf("set %s up: %w", a.Name, err))
				}
			}
			if a.RawFlags&unix.IFF_LOWER_UP != 0 {
				return l, nil
			}
		}
		if time.Now().After(deadline) {
			if !some {
				return nil, retry("network.no-device", "an Ethernet device", "none", errors.New("find network device"))
			}
			return nil, retry("network.no-carrier", "a link", "none", errors.New("wait for link"))
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// leaseOf reads what matters here out of a DHCP acknowledgement.
func leaseOf(name string, ack *dhcpv4.DHCPv4) (*Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	ones, bits := ack.SubnetMask().Size()
	if !ok || bits != 32 {
		return nil, fmt.Errorf("DHCP: address %v with mask %v", ack.YourIPAddr, ack.SubnetMask())
	}
	l := &Lease{
		Interface: name, Address: netip.PrefixFrom(addr, ones), Since: time.Now(),
		Seconds: uint32(ack.IPAddressLeaseTime(time.Hour) / time.Second),
	}
	for _, ip := range ack.Router() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !l.Gateway.IsValid() {
			l.Gateway = a
		}
	}
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && len(l.DNS) < 3 {
			l.DNS = append(l.DNS, a)
		}
	}
	if a, ok := netip.AddrFromSlice(ack.ServerIdentifier().To4()); ok {
		l.Server = a
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 && mtu <= 9216 {
		l.MTU = int(mtu)
	}
	return l, nil
}

func (l *Lease) apply(link netlink.Link) error {
	if l.MTU != 0 && l.MTU != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", l.MTU, err)
		}
	}
	ip := &net.IPNet{IP: l.Address.Addr().AsSlice(), Mask: net.CIDRMask(l.Address.Bits(), 32)}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("set address %v: %w", l.Address, err)
	}
	if l.Gateway.IsValid() {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: l.Gateway.AsSlice()}); err != nil {
			return fmt.Errorf("set gateway %v: %w", l.Gateway, err)
		}
	}
	var conf strings.Builder
	for _, a := range l.DNS {
		fmt.Fprintf(&conf, "nameserver %v\n", a)
	}
	conf.WriteString("options timeout:2 attempts:3\n")
	// The root of the operating system cannot be written to: its /etc/resolv.conf
	// is a link to this file, and so is stage 1's.
	if err := os.WriteFile(resolverFile, []byte(conf.String()), 0o644); err != nil {
		return fmt.Errorf("write resolver file: %w", err)
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	if err := os.Symlink(resolverFile, "/etc/resolv.conf"); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("link resolver file: %w", err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
