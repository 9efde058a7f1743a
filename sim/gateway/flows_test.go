package gateway

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

func TestFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFlows(4, 2, time.Minute)
		var mu sync.Mutex
		ended := map[string]int{}
		add := func(name string, unit byte) *flow {
			return s.add(netip.AddrFrom4([4]byte{10, 77, 0, unit}), func() {
				mu.Lock()
				defer mu.Unlock()
				ended[name]++
			})
		}
		over := func(names ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(ended) != len(names) {
				t.Errorf("ended %v, want %v", ended, names)
			}
			for _, n := range names {
				if ended[n] == 0 {
					t.Errorf("%s is not over: %v", n, ended)
				}
			}
		}
		a1 := add("a1", 1)
		add("b1", 2)
		add("a2", 1)
		a1.touch()
		over()
		add("a3", 1) // its own share is used up: its own that is silent for longest
		over("a2")
		add("c1", 3)
		over("a2")
		add("d1", 4) // all shares are: anybody's
		over("a2", "b1")
		a1.touch() // of one that is there still
		a1.stop()
		a1.touch() // and of one that is over
		over("a2", "b1", "a1")
		time.Sleep(59 * time.Second)
		over("a2", "b1", "a1")
		d := add("d2", 4)
		time.Sleep(30 * time.Second)
		d.touch()
		over("a2", "b1", "a1", "a3", "c1", "d1")
		time.Sleep(59 * time.Second)
		over("a2", "b1", "a1", "a3", "c1", "d1")
		time.Sleep(2 * time.Second)
		over("a2", "b1", "a1", "a3", "c1", "d1", "d2")
		if s.order.Len() != 0 || len(s.count) != 0 {
			t.Errorf("%d flows, counts %v left", s.order.Len(), s.count)
		}
	})
}

// outside is an address of this host that a gateway may relay to.
func outside(t *testing.T) netip.Addr {
	t.Helper()
	own, err := hostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if a.Is4() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			return a
		}
	}
	t.Skip("this host has no address besides loopback")
	return netip.Addr{}
}

// TestFloodUDP: a unit sends from ever new ports. The host holds no more than
// its share, and the newest flow works.
func TestFloodUDP(t *testing.T) {
	b := newBench(t)
	server, err := net.ListenPacket("udp4", netip.AddrPortFrom(outside(t), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		p := make([]byte, 4096)
		for {
			n, from, err := server.ReadFrom(p)
			if err != nil {
				return
			}
			server.WriteTo(p[:n], from)
		}
	}()
	to := netip.MustParseAddrPort(server.LocalAddr().String())
	// As if it were anywhere: the policy would let no unit send datagrams here.
	b.gw.egress.own = func() ([]netip.Addr, error) { return nil, nil }
	b.gw.egress.named = nil
	before := runtime.NumGoroutine()
	const n = 300
	for range n {
		c, err := gonet.DialUDP(b.station, nil, &tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(to.Addr().As4()), Port: to.Port()}, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		p := make([]byte, 16)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(p); err != nil || string(p[:got]) != "hello" {
			t.Fatalf("the newest flow: %q, %v", p[:got], err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before+3*unitFlows && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if more := runtime.NumGoroutine() - before; more > 3*unitFlows {
		t.Errorf("%d goroutines for %d flows of one unit", more, n)
	}
}

// TestFloodTCP: a unit opens connections and lets them lie, to the outside and
// to a service of the gateway.
func TestFloodTCP(t *testing.T) {
	b := newBench(t)
	t.Run("outside", func(t *testing.T) {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(outside(t), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		b.gw.egress.allow = []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}
		b.flood(t, l, l.Addr().String())
	})
	t.Run("service", func(t *testing.T) {
		l, err := b.gw.Listen(443)
		if err != nil {
			t.Fatal(err)
		}
		b.flood(t, l, "10.77.0.1:443")
	})
}

func (b *bench) flood(t *testing.T, l net.Listener, address string) {
	t.Helper()
	defer l.Close()
	var open atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Add(-1)
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	for range 3 * unitFlows {
		c, err := b.dial(t, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		p := make([]byte, 5)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil || string(p) != "hello" {
			t.Fatalf("the newest connection: %q, %v", p, err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for open.Load() > unitFlows && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if got := open.Load(); got > unitFlows {
		t.Errorf("%d connections of one unit are open", got)
	}
}
