// Package gateway is the rack's way out: the device behind one port of the
// switch that gives units an address, names and, where the operator lets them,
// the outside world.
//
//	switch port ── Ethernet frames ── gVisor's TCP/IP stack ─┬─ DHCP, DNS     (gvisor-tap-vsock)
//	                                                         ├─ Listen         services of the simulator
//	                                                         └─ forwarder ── egress policy ── host's sockets
//
// It runs in user space and needs no privileges. DHCP and DNS servers are those
// of gvisor-tap-vsock; its switch and its forwarder are not used, the first
// because it drops multicast and unknown unicast, the second because it would
// connect a unit to whatever the host can reach. What may be reached is decided
// in egress.go.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/containers/gvisor-tap-vsock/pkg/services/dhcp"
	"github.com/containers/gvisor-tap-vsock/pkg/services/dns"
	"github.com/containers/gvisor-tap-vsock/pkg/tap"
	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/racklet/racklet/sim/netswitch"
)

// Zone is the domain under which the gateway answers names itself.
const Zone = "rack.internal"

const (
	nic       = tcpip.NICID(1)
	outFrames = 1024 // frames of the stack waiting for the port
	portDNS   = 53
	mtu       = 1500
)

// Config says what network the gateway serves.
type Config struct {
	Subnet  netip.Prefix          // IPv4, for example 10.77.0.0/24
	Address netip.Addr            // the gateway's own; zero: the subnet's first
	MAC     net.HardwareAddr      // zero: 52:54:00:52:4b:fe
	Leases  map[string]netip.Addr // fixed addresses by MAC, in lower case with colons
	Names   map[string]netip.Addr // names below Zone; "gateway" is always there
	Hosts   []string              // names elsewhere that units find at the gateway, see hosts
	Allow   []netip.AddrPort      // ports of this host and of private ranges that units may reach over TCP
	Log     *slog.Logger
}

// Gateway is a running gateway.
type Gateway struct {
	cfg    Config
	stack  *stack.Stack
	link   *channel.Endpoint
	notify *channel.NotificationHandle
	egress egress
	tcp    *flows
	udp    *flows
	pool   *tap.IPPool

	unplug func()
	closer []io.Closer
	done   sync.WaitGroup
	ctx    context.Context // ends the relays; see Close
	cancel context.CancelFunc
}

// New plugs a gateway into a port and starts its services.
func New(port *netswitch.Port, cfg Config) (*Gateway, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	quiet()
	g := &Gateway{cfg: cfg, egress: egress{subnet: cfg.Subnet, allow: cfg.Allow, named: private, own: hostAddresses},
		tcp: newFlows(maxFlows, unitFlows, tcpIdle), udp: newFlows(maxFlows, unitFlows, udpIdle)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	g.link = channel.New(outFrames, mtu, tcpip.LinkAddress(cfg.MAC))
	if err := g.configure(); err != nil {
		g.Close()
		return nil, err
	}
	g.notify = g.link.AddNotify(sender{g.link, port})
	unplug, err := port.Attach(g.receive)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("plug in gateway: %w", err)
	}
	g.unplug = unplug
	if err := g.serve(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (c *Config) complete() error {
	c.Subnet = c.Subnet.Masked()
	if !c.Subnet.IsValid() || !c.Subnet.Addr().Is4() || c.Subnet.Bits() > 28 {
		return fmt.Errorf("subnet %v: want IPv4 with room for a rack, /28 or larger", c.Subnet)
	}
	if !c.Address.IsValid() {
		c.Address = c.Subnet.Addr().Next()
	}
	if !c.Subnet.Contains(c.Address) {
		return fmt.Errorf("gateway %v is not in subnet %v", c.Address, c.Subnet)
	}
	if len(c.MAC) == 0 {
		c.MAC = net.HardwareAddr{0x52, 0x54, 0x00, 0x52, 0x4b, 0xfe}
	}
	for mac, a := range c.Leases {
		if !c.Subnet.Contains(a) {
			return fmt.Errorf("lease %v of %s is not in subnet %v", a, mac, c.Subnet)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (g *Gateway) configure() error {
	s := g.stack
	if err := s.CreateNIC(nic, ethernet.New(g.link)); err != nil {
		return fmt.Errorf("create interface: %s", err)
	}
	address := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom4(g.cfg.Address.As4()).WithPrefix(),
	}
	if err := s.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("set address %v: %s", g.cfg.Address, err)
	}
	// The forwarder answers in the name of hosts outside; receive() sees to it
	// that nothing else in the stack does.
	s.SetSpoofing(nic, true)
	s.SetPromiscuousMode(nic, true)
	net4, err := tcpip.NewSubnet(tcpip.AddrFrom4(g.cfg.Subnet.Addr().As4()),
		tcpip.MaskFromBytes(net.CIDRMask(g.cfg.Subnet.Bits(), 32)))
	if err != nil {
		return fmt.Errorf("subnet %v: %w", g.cfg.Subnet, err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: net4, NIC: nic}})
	sack := tcpip.TCPSACKEnabled(true)
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 0, 64, g.forwardTCP).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, g.forwardUDP).HandlePacket)
	return nil
}

// serve starts DHCP and DNS.
func (g *Gateway) serve() error {
	_, subnet, err := net.ParseCIDR(g.cfg.Subnet.String())
	if err != nil {
		return fmt.Errorf("subnet %v: %w", g.cfg.Subnet, err)
	}
	g.pool = tap.NewIPPool(subnet)
	g.pool.Reserve(net.IP(g.cfg.Address.AsSlice()), g.cfg.MAC.String())
	leases := make(map[string]string)
	for mac, a := range g.cfg.Leases {
		g.pool.Reserve(net.IP(a.AsSlice()), mac)
		leases[a.String()] = mac
	}
	d, err := dhcp.New(&types.Configuration{
		MTU: mtu, Subnet: g.cfg.Subnet.String(), GatewayIP: g.cfg.Address.String(),
		GatewayMacAddress: g.cfg.MAC.String(), DHCPStaticLeases: leases, DNSSearchDomains: []string{Zone},
	}, g.stack, g.pool)
	if err != nil {
		return fmt.Errorf("start DHCP: %w", err)
	}
	g.closer = append(g.closer, d.Underlying)

	zone := types.Zone{Name: Zone + ".", Records: []types.Record{{Name: "gateway", IP: g.cfg.Address.AsSlice()}}}
	for name, a := range g.cfg.Names {
		zone.Records = append(zone.Records, types.Record{Name: name, IP: a.AsSlice()})
	}
	at := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(g.cfg.Address.As4()), Port: portDNS}
	packets, err := gonet.DialUDP(g.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("start DNS: %w", err)
	}
	g.closer = append(g.closer, packets)
	streams, err := g.Listen(portDNS)
	if err != nil {
		return fmt.Errorf("start DNS: %w", err)
	}
	g.closer = append(g.closer, streams)
	n, err := dns.New(&hosts{packets, g.cfg.Hosts, g.cfg.Address}, streams, []types.Zone{zone})
	if err != nil {
		return fmt.Errorf("start DNS: %w", err)
	}
	// They end, with an error that says no more than that, when Close closes
	// what they listen on.
	g.done.Go(func() { _ = d.Serve() })
	g.done.Go(func() { _ = n.Serve() })
	g.done.Go(func() { _ = n.ServeTCP() })
	return nil
}

// Address is the gateway's own address.
func (g *Gateway) Address() netip.Addr { return g.cfg.Address }

// Leases returns who has which address, by MAC.
func (g *Gateway) Leases() map[string]netip.Addr {
	leases := make(map[string]netip.Addr)
	for ip, mac := range g.pool.Leases() {
		if a, err := netip.ParseAddr(ip); err == nil {
			leases[mac] = a
		}
	}
	return leases
}

// Listen opens a TCP port on the gateway's address inside the rack's network.
// The host's own network does not see it. Its connections have the bounds of
// flows: a unit that opens too many loses its own.
func (g *Gateway) Listen(port uint16) (net.Listener, error) {
	l, err := gonet.ListenTCP(g.stack, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(g.cfg.Address.As4()), Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("listen on %v port %d: %w", g.cfg.Address, port, err)
	}
	return guarded{l, g.tcp}, nil
}

// ListenPacket opens a UDP port on the gateway's address inside the rack's
// network. The host's own network does not see it.
func (g *Gateway) ListenPacket(port uint16) (net.PacketConn, error) {
	at := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(g.cfg.Address.As4()), Port: port}
	c, err := gonet.DialUDP(g.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("listen on %v UDP port %d: %w", g.cfg.Address, port, err)
	}
	return c, nil
}

// DialContext connects to a unit as the gateway. network is tcp or tcp4,
// address an IPv4 address and port.
func (g *Gateway) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !to.Addr().Is4() || network != "tcp" && network != "tcp4" {
		return nil, fmt.Errorf("dial %s %s: want tcp and an IPv4 address with port", network, address)
	}
	if !g.cfg.Subnet.Contains(to.Addr()) {
		return nil, fmt.Errorf("dial %s: not in %v", address, g.cfg.Subnet)
	}
	c, err := gonet.DialContextTCP(ctx, g.stack, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(to.Addr().As4()), Port: to.Port()}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}

// Close unplugs the gateway and waits for its goroutines.
func (g *Gateway) Close() error {
	g.cancel()
	if g.unplug != nil {
		g.unplug()
	}
	if g.notify != nil {
		g.link.RemoveNotify(g.notify)
	}
	var errs []error
	for _, c := range g.closer {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	g.stack.Close()
	g.done.Wait()
	return errors.Join(errs...)
}

// receive takes a frame from the switch into the stack. The stack answers for
// every address (it has to, for the forwarder), so what only the gateway itself
// may answer is held back here.
func (g *Gateway) receive(frame []byte) {
	dst := tcpip.LinkAddress(frame[0:6])
	if dst != tcpip.LinkAddress(g.cfg.MAC) && frame[0]&1 == 0 {
		return // flooded, for someone else
	}
	body := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		a := header.ARP(body)
		if !a.IsValid() || a.Op() == header.ARPRequest && [4]byte(a.ProtocolAddressTarget()) != g.cfg.Address.As4() {
			return
		}
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(body)
		if !ip.IsValid(len(body)) {
			return
		}
		if ip.TransportProtocol() == header.ICMPv4ProtocolNumber && ip.DestinationAddress().As4() != g.cfg.Address.As4() {
			return // no ping to the outside, rather than a false answer
		}
	default:
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	g.link.InjectInbound(0, pkt)
	pkt.DecRef()
}

// sender takes what the stack sends to the switch.
type sender struct {
	link *channel.Endpoint
	port *netswitch.Port
}

// WriteNotify implements channel.Notification.
func (s sender) WriteNotify() {
	for pkt := s.link.Read(); pkt != nil; pkt = s.link.Read() {
		view := pkt.ToView()
		s.port.Send(append([]byte(nil), view.AsSlice()...))
		view.Release()
		pkt.DecRef()
	}
}

// quiet keeps gvisor-tap-vsock from writing to the terminal: it logs each
// refused or ended connection through the one logger of logrus.
var quiet = sync.OnceFunc(func() { logrus.SetOutput(io.Discard) })
