package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/racklet/racklet/sim/netswitch"
)

func TestEgress(t *testing.T) {
	host := netip.MustParseAddr("203.0.113.7")
	port := netip.MustParseAddrPort
	e := egress{
		subnet: netip.MustParsePrefix("10.77.0.0/24"),
		allow:  []netip.AddrPort{port("192.168.7.20:22"), port("127.0.0.1:22"), port("169.254.169.254:22")},
		named:  private,
		own:    func() ([]netip.Addr, error) { return []netip.Addr{host}, nil },
	}
	for to, want := range map[string]bool{
		"1.1.1.1":           true,
		"198.51.100.9":      true,
		"203.0.113.7":       false, // this host
		"192.168.7.20":      true,  // named
		"192.168.8.20":      false,
		"10.0.0.1":          false,
		"10.77.0.1":         false, // the rack
		"10.77.0.200":       false,
		"172.16.0.1":        false,
		"172.32.0.1":        true,
		"100.64.0.1":        false,
		"127.0.0.1":         false, // never, though named
		"127.8.8.8":         false,
		"0.0.0.0":           false,
		"169.254.169.254":   false, // never, though named
		"224.0.0.251":       false,
		"255.255.255.255":   false,
		"::1":               false,
		"2001:db8::1":       false,
		"::ffff:127.0.0.1":  false,
		"::ffff:192.0.2.33": true,
	} {
		err := e.check(overTCP, netip.AddrPortFrom(netip.MustParseAddr(to), 22))
		if (err == nil) != want || err != nil && !errors.Is(err, ErrEgress) {
			t.Errorf("%s: %v, want allowed %v", to, err, want)
		}
	}
	e.allow = append(e.allow, netip.AddrPortFrom(host, 2222))
	for _, c := range []struct {
		over, to string
		want     bool
	}{
		{overTCP, "203.0.113.7:2222", true},
		{overTCP, "203.0.113.7:22", false}, // this host has other ports
		{overUDP, "203.0.113.7:2222", false},
		{overTCP, "192.168.7.20:22", true},
		{overTCP, "192.168.7.20:23", false},
		{overUDP, "192.168.7.20:22", false},
		{overUDP, "1.1.1.1:53", true},
	} {
		if err := e.check(c.over, port(c.to)); (err == nil) != c.want || err != nil && !errors.Is(err, ErrEgress) {
			t.Errorf("%s %s: %v, want allowed %v", c.over, c.to, err, c.want)
		}
	}
	e.own = func() ([]netip.Addr, error) { return nil, os.ErrPermission }
	if err := e.check(overTCP, port("1.1.1.1:443")); !errors.Is(err, ErrEgress) {
		t.Errorf("own addresses unknown: %v, want a refusal", err)
	}
}

func TestConfig(t *testing.T) {
	p := netip.MustParsePrefix
	for name, cfg := range map[string]Config{
		"none":          {},
		"IPv6":          {Subnet: p("fd00::/64")},
		"too small":     {Subnet: p("10.77.0.0/29")},
		"gateway out":   {Subnet: p("10.77.0.0/24"), Address: netip.MustParseAddr("10.78.0.1")},
		"lease outside": {Subnet: p("10.77.0.0/24"), Leases: map[string]netip.Addr{"52:54:00:00:00:01": netip.MustParseAddr("10.78.0.2")}},
	} {
		if g, err := New(netswitch.New(netswitch.Config{}).AddPort("g"), cfg); err == nil {
			g.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

var unitMAC = net.HardwareAddr{0x52, 0x54, 0x00, 0x52, 0x4b, 0x01}

// bench is a gateway and, at another port, a station with a stack of its own.
type bench struct {
	gw      *Gateway
	station *stack.Stack
	frames  chan []byte // what the station hears, beside its stack
	port    *netswitch.Port
}

func newBench(t *testing.T) *bench {
	sw := netswitch.New(netswitch.Config{})
	gw, err := New(sw.AddPort("gateway"), Config{
		Subnet: netip.MustParsePrefix("10.77.0.0/24"),
		Leases: map[string]netip.Addr{unitMAC.String(): netip.MustParseAddr("10.77.0.11")},
		Names:  map[string]netip.Addr{"git": netip.MustParseAddr("10.77.0.1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gw.Close() })
	b := &bench{gw: gw, frames: make(chan []byte, 100), port: sw.AddPort("unit")}
	b.station = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	link := channel.New(100, mtu, tcpip.LinkAddress(unitMAC))
	if err := b.station.CreateNIC(nic, ethernet.New(link)); err != nil {
		t.Fatal(err)
	}
	b.station.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom4([4]byte{10, 77, 0, 11}).WithPrefix()}, stack.AddressProperties{})
	any4, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	if err != nil {
		t.Fatal(err)
	}
	local, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{10, 77, 0, 0}), tcpip.MaskFromBytes([]byte{255, 255, 255, 0}))
	if err != nil {
		t.Fatal(err)
	}
	b.station.SetRouteTable([]tcpip.Route{{Destination: local, NIC: nic}, {Destination: any4, NIC: nic, Gateway: tcpip.AddrFrom4([4]byte{10, 77, 0, 1})}})
	link.AddNotify(sender{link, b.port})
	unplug, err := b.port.Attach(func(f []byte) {
		select {
		case b.frames <- f:
		default:
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(f)})
		link.InjectInbound(0, pkt)
		pkt.DecRef()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unplug(); b.station.Close() })
	return b
}

func (b *bench) dial(t *testing.T, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	to := netip.MustParseAddrPort(address)
	return gonet.DialContextTCP(ctx, b.station, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(to.Addr().As4()), Port: to.Port()}, ipv4.ProtocolNumber)
}

func TestListenAndDial(t *testing.T) {
	b := newBench(t)
	l, err := b.gw.Listen(443)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello from the gateway")
			c.Close()
		}
	}()
	c, err := b.dial(t, "10.77.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello from the gateway" {
		t.Errorf("unit read %q, %v", got, err)
	}
	// The other way.
	ul, err := gonet.ListenTCP(b.station, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := ul.Accept()
		if err == nil {
			io.WriteString(c, "hello from the unit")
			c.Close()
		}
	}()
	c, err = b.gw.DialContext(t.Context(), "tcp", "10.77.0.11:80")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello from the unit" {
		t.Errorf("gateway read %q, %v", got, err)
	}
	for _, bad := range []string{"10.78.0.1:80", "127.0.0.1:80", "[::1]:80", "nonsense"} {
		if _, err := b.gw.DialContext(t.Context(), "tcp", bad); err == nil {
			t.Errorf("gateway dials %s", bad)
		}
	}
}

// TestHostIsOutOfReach has a server on the host's loopback, and on all its
// addresses, that no unit may reach; and, as the control, lets the unit reach
// it by an address of the host that the operator allowed.
func TestHostIsOutOfReach(t *testing.T) {
	b := newBench(t)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "secret")
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var tries sync.WaitGroup
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "10.77.0.1", "10.77.0.99", "169.254.169.254"} {
		tries.Go(func() { // at once: what is dropped takes its time
			if c, err := b.dial(t, net.JoinHostPort(host, port)); err == nil {
				t.Errorf("unit reaches %s", host)
				c.Close()
			}
		})
	}
	tries.Wait()
	own, err := hostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if !a.Is4() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			continue
		}
		to := net.JoinHostPort(a.String(), port)
		if c, err := b.dial(t, to); err == nil {
			t.Errorf("unit reaches the host at %s", to)
			c.Close()
		}
		b.gw.egress.allow = []netip.AddrPort{netip.MustParseAddrPort(net.JoinHostPort(a.String(), "1"))}
		if c, err := b.dial(t, to); err == nil {
			t.Errorf("unit reaches the host at %s, where another port was allowed", to)
			c.Close()
		}
		b.gw.egress.allow = []netip.AddrPort{netip.MustParseAddrPort(to)}
		c, err := b.dial(t, to)
		if err != nil {
			t.Errorf("allowed %s: %v", to, err)
			continue
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "secret" {
			t.Errorf("allowed %s: read %q, %v", to, got, err)
		}
	}
}

func TestDHCP(t *testing.T) {
	b := newBench(t)
	// A client without address speaks from a socket of its own stack.
	for _, tt := range []struct {
		mac  string
		want string
	}{{unitMAC.String(), "10.77.0.11"}, {"52:54:00:00:00:99", "10.77.0.2"}} {
		mac, err := net.ParseMAC(tt.mac)
		if err != nil {
			t.Fatal(err)
		}
		d, err := dhcpv4.NewDiscovery(mac)
		if err != nil {
			t.Fatal(err)
		}
		c, err := gonet.DialUDP(b.station, &tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4([4]byte{10, 77, 0, 11}), Port: 68}, nil, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		d.ClientIPAddr = net.IPv4(10, 77, 0, 11) // so that the answer finds us
		if _, err := c.WriteTo(d.ToBytes(), &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67}); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 1500)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		offer, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		if offer.YourIPAddr.String() != tt.want || len(offer.DNS()) != 1 || offer.DNS()[0].String() != "10.77.0.1" || offer.Router()[0].String() != "10.77.0.1" {
			t.Errorf("%s: offered %v, DNS %v, router %v", tt.mac, offer.YourIPAddr, offer.DNS(), offer.Router())
		}
		c.Close()
		if got := b.gw.Leases()[tt.mac]; got.String() != tt.want {
			t.Errorf("%s: lease %v, want %s", tt.mac, got, tt.want)
		}
	}
}

func TestDNS(t *testing.T) {
	b := newBench(t)
	c, err := gonet.DialUDP(b.station, nil, &tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4([4]byte{10, 77, 0, 1}), Port: 53}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, want := range map[string]string{"git.rack.internal.": "10.77.0.1", "gateway.rack.internal.": "10.77.0.1", "nobody.rack.internal.": ""} {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		in, err := (&dns.Conn{Conn: c}), error(nil)
		if err = in.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		r, err := in.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(r.Answer) == 1 {
			got = r.Answer[0].(*dns.A).A.String()
		}
		if got != want || (want == "") != (r.Rcode == dns.RcodeNameError) {
			t.Errorf("%s: %q with code %d, want %q", name, got, r.Rcode, want)
		}
	}
}

// TestARP asks for addresses as a station does that looks for a duplicate of
// its own: the gateway answers for itself alone.
func TestARP(t *testing.T) {
	b := newBench(t)
	ask := func(last byte) {
		f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unitMAC...)
		f = append(f, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
		f = append(f, unitMAC...)
		f = append(f, 10, 77, 0, 11, 0, 0, 0, 0, 0, 0, 10, 77, 0, last)
		b.port.Send(f)
	}
	ask(50)
	ask(1) // the answer to this one would come after an answer to the first
	select {
	case f := <-b.frames:
		if f[13] != 0x06 || f[31] != 1 {
			t.Errorf("answered with % x", f)
		}
	case <-time.After(10 * time.Second):
		t.Error("no answer for the gateway's own address")
	}
}
