package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const dialTimeout = 15 * time.Second

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func destination(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)
}

func origin(id stack.TransportEndpointID) netip.Addr {
	return netip.AddrFrom4(id.RemoteAddress.As4())
}

func (g *Gateway) forwardTCP(r *tcp.ForwarderRequest) {
	from, to := origin(r.ID()), destination(r.ID())
	if err := g.egress.check(overTCP, to); err != nil {
		g.cfg.Log.Debug("connection refused", "from", r.ID().RemoteAddress, "to", to, "err", err)
		r.Complete(true)
		return
	}
	d := net.Dialer{Timeout: dialTimeout}
	out, err := d.DialContext(g.ctx, overTCP, to.String())
	if err != nil {
		r.Complete(true)
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(false)
	if terr != nil {
		out.Close()
		return
	}
	in := gonet.NewTCPConn(&wq, ep)
	f := g.tcp.add(from, func() { in.Close(); out.Close() })
	g.done.Go(func() { g.relay(f, in, out.(*net.TCPConn)) })
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// relay copies both ways until both are done, passing half-closes on.
func (g *Gateway) relay(f *flow, a, b halfCloser) {
	defer f.stop()
	defer context.AfterFunc(g.ctx, f.stop)()
	pump := func(dst, src halfCloser) {
		// The plain interfaces, so that each piece passes through touched.
		_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, touched{src, f}, make([]byte, tcpBuffer))
		_ = dst.CloseWrite()
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		pump(a, b)
	}()
	pump(b, a)
	<-back
}

// touched tells a flow of what is read.
type touched struct {
	r io.Reader
	f *flow
}

func (t touched) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n > 0 {
		t.f.touch()
	}
	return n, err
}

func (g *Gateway) forwardUDP(r *udp.ForwarderRequest) {
	to := destination(r.ID())
	if to.Addr() == broadcast {
		return // the stack hears its own DHCP answers
	}
	if err := g.egress.check(overUDP, to); err != nil {
		g.cfg.Log.Debug("datagram dropped", "from", r.ID().RemoteAddress, "to", to, "err", err)
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		return
	}
	in := gonet.NewUDPConn(&wq, ep)
	out, err := net.DialUDP(overUDP, nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		in.Close()
		return
	}
	f := g.udp.add(origin(r.ID()), func() { in.Close(); out.Close() })
	stop := context.AfterFunc(g.ctx, f.stop)
	pump := func(dst, src net.Conn) {
		defer stop()
		defer f.stop()
		buf := make([]byte, maxDatagram+1)
		for {
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			f.touch()
			if n > maxDatagram {
				continue
			}
			if _, err := dst.Write(buf[:n]); err != nil && !errors.Is(err, io.ErrShortWrite) {
				return
			}
		}
	}
	g.done.Go(func() { pump(in, out) })
	g.done.Go(func() { pump(out, in) })
}
