package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/firmware/wire"
)

// linuxMachine is the running kernel.
type linuxMachine struct{ log *slog.Logger }

var _ Machine = (*linuxMachine)(nil)

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (m *linuxMachine) Uptime() time.Duration { return uptime() }

func (m *linuxMachine) Sync() { unix.Sync() }

func (m *linuxMachine) Inventory() wire.Inventory {
	return takeInventory(os.DirFS("/"), func(name string) []net.Addr {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil
		}
		a, _ := i.Addrs()
		return a
	})
}

func (m *linuxMachine) Load() (Load, error) {
	stat, err := os.Open("/proc/stat")
	if err != nil {
		return Load{}, err
	}
	defer stat.Close()
	mem, err := os.Open("/proc/meminfo")
	if err != nil {
		return Load{}, err
	}
	defer mem.Close()
	return parseLoad(stat, mem)
}

// resolverFile is what /etc/resolv.conf of the read-only root points to.
const resolverFile = "/run/resolv.conf"

// Times of the DHCP client.
const (
	dhcpWait   = time.Second
	dhcpTries  = 4
	leaseRetry = 15 * time.Second
	shortest   = 30 * time.Second // between two renewals, whatever the server says
)

// KeepNetwork renews the lease at half its time (RFC 2131, 4.4.5), from the
// server that gave it and, if that is silent, from any. An address whose time
// is over is given up.
func (m *linuxMachine) KeepNetwork(ctx context.Context, lease *Lease, up func(netip.Addr)) error {
	var err error
	if lease == nil {
		if lease, err = m.request(ctx, nil); err != nil {
			return err
		}
	}
	up(lease.Address.Addr())
	for {
		life := time.Duration(lease.Seconds) * time.Second
		end := lease.Since.Add(life)
		wait := max(time.Until(lease.Since.Add(life/2)), shortest)
		for {
			if err := pause(ctx, wait); err != nil {
				return err
			}
			next, err := m.request(ctx, lease)
			if err == nil {
				if next.Address != lease.Address {
					up(next.Address.Addr())
				}
				lease = next
				break
			}
			m.log.Warn("renew address", "err", err)
			if time.Now().After(end) {
				m.drop(lease)
				return fmt.Errorf("lease of %v is over: %w", lease.Address, err)
			}
			wait = leaseRetry
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request renews old, or asks for a new address, and sets what it gets.
func (m *linuxMachine) request(ctx context.Context, old *Lease) (*Lease, error) {
	link, err := device(ctx, old)
	if err != nil {
		return nil, err
	}
	name := link.Attrs().Name
	c, err := nclient4.New(name, nclient4.WithTimeout(dhcpWait), nclient4.WithRetry(dhcpTries))
	if err != nil {
		return nil, fmt.Errorf("open DHCP client on %s: %w", name, err)
	}
	defer c.Close()
	var got *nclient4.Lease
	mtu := dhcpv4.WithRequestedOptions(dhcpv4.OptionInterfaceMTU)
	if old != nil && old.Server.IsValid() {
		ack, aerr := dhcpv4.New(
			dhcpv4.WithHwAddr(link.Attrs().HardwareAddr),
			dhcpv4.WithYourIP(old.Address.Addr().AsSlice()),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(old.Server.AsSlice())),
		)
		if aerr == nil {
			ack.OpCode = dhcpv4.OpcodeBootReply
			got, err = c.Renew(ctx, &nclient4.Lease{ACK: ack, Offer: ack}, mtu)
		}
	}
	if got == nil {
		if got, err = c.Request(ctx, mtu); err != nil {
			return nil, fmt.Errorf("DHCP on %s: %w", name, err)
		}
	}
	next, err := leaseOf(name, got.ACK)
	if err != nil {
		return nil, err
	}
	if old != nil && old.Address != next.Address {
		m.drop(old)
	}
	return next, apply(link, next)
}

// device is the lease's network device, or the first that has a link.
func device(ctx context.Context, old *Lease) (netlink.Link, error) {
	if old != nil {
		return netlink.LinkByName(old.Interface)
	}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	for range 500 {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, fmt.Errorf("list network devices: %w", err)
		}
		for _, l := range links {
			a := l.Attrs()
			if l.Type() != "device" || a.Flags&net.FlagLoopback != 0 || len(a.HardwareAddr) != 6 {
				continue
			}
			if a.Flags&net.FlagUp == 0 {
				if err := netlink.LinkSetUp(l); err != nil {
					return nil, fmt.Errorf("set %s up: %w", a.Name, err)
				}
			}
			if a.RawFlags&unix.IFF_LOWER_UP != 0 {
				return l, nil
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("no network device has a link")
}

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
	if r := ack.Router(); len(r) > 0 {
		l.Gateway, _ = netip.AddrFromSlice(r[0].To4())
	}
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && len(l.DNS) < 3 {
			l.DNS = append(l.DNS, a)
		}
	}
	l.Server, _ = netip.AddrFromSlice(ack.ServerIdentifier().To4())
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 && mtu <= 9216 {
		l.MTU = int(mtu)
	}
	return l, nil
}

func apply(link netlink.Link, l *Lease) error {
	if l.MTU != 0 && l.MTU != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", l.MTU, err)
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(l)}); err != nil {
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
	if err := os.WriteFile(resolverFile, []byte(conf.String()), 0o644); err != nil {
		return fmt.Errorf("write resolver file: %w", err)
	}
	return nil
}

func (m *linuxMachine) drop(l *Lease) {
	link, err := netlink.LinkByName(l.Interface)
	if err == nil {
		err = netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(l)})
	}
	if err != nil {
		m.log.Warn("give up address", "address", l.Address.String(), "err", err)
	}
}

func ipNet(l *Lease) *net.IPNet {
	return &net.IPNet{IP: l.Address.Addr().AsSlice(), Mask: net.CIDRMask(l.Address.Bits(), 32)}
}
