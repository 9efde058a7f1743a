package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// ErrEgress is wrapped by every refusal of a way out.
var ErrEgress = errors.New("egress not allowed")

// Never reachable through the gateway, whatever the operator allows: this host
// itself and what only has a meaning on one link.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network (RFC 791, 3.2)
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback (RFC 1122, 3.2.1.3)
	netip.MustParsePrefix("169.254.0.0/16"), // link local (RFC 3927), clouds' metadata services too
	netip.MustParsePrefix("224.0.0.0/4"),    // multicast (RFC 5771)
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved (RFC 1112, 4), broadcast (RFC 919)
}

// Reachable only where the operator names address and port.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), // RFC 1918
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared by carriers (RFC 6598)
	netip.MustParsePrefix("192.0.0.0/24"),  // protocol assignments (RFC 6890)
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks (RFC 2544)
}

// egress decides where a unit may connect to outside the rack:
//
//	the rack's own subnet       no: that is the switch's business
//	loopback, link local, …     never
//	an address of this host     only TCP, and only a port that is in Config.Allow
//	a private range             likewise
//	any other                   yes
type egress struct {
	subnet netip.Prefix
	allow  []netip.AddrPort             // over TCP
	named  []netip.Prefix               // ranges in which only allow counts
	own    func() ([]netip.Addr, error) // the host's addresses at this moment
}

// Transports, as net.Dial calls them.
const (
	overTCP = "tcp4"
	overUDP = "udp4"
)

func (e egress) check(over string, port netip.AddrPort) error {
	to := port.Addr().Unmap()
	holds := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(to) })
	}
	switch {
	case !to.Is4() || holds(never):
		return fmt.Errorf("%w: %v is never reachable through the gateway", ErrEgress, to)
	case e.subnet.Contains(to):
		return fmt.Errorf("%w: %v is inside the rack", ErrEgress, to)
	case over == overTCP && slices.Contains(e.allow, netip.AddrPortFrom(to, port.Port())):
		return nil
	case holds(e.named):
		return fmt.Errorf("%w: %v is in a private range, where %s port %d was not allowed", ErrEgress, to, over, port.Port())
	}
	own, err := e.own()
	if err != nil {
		return fmt.Errorf("%w: this host's addresses are unknown: %w", ErrEgress, err)
	}
	if slices.Contains(own, to) {
		return fmt.Errorf("%w: %v is an address of this host", ErrEgress, to)
	}
	return nil
}

// hostAddresses are the addresses of this host's interfaces. They are asked for
// anew each time, because a laptop wanders.
func hostAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own, nil
}
