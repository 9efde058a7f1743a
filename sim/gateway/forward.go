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

const (
	dialTimeout = 15 * time.Second
	udpIdle     = 60 * time.Second
	maxDatagram = 64 << 10
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func destination(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)
}

func (g *Gateway) forwardTCP(r *tcp.ForwarderRequest) {
	to := destination(r.ID())
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
	g.done.Go(func() { g.relay(in, out.(*net.TCPConn)) })
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// relay copies both ways until both are done, passing half-closes on.
func (g *Gateway) relay(a, b halfCloser) {
	defer a.Close()
	defer b.Close()
	defer context.AfterFunc(g.ctx, func() { a.Close(); b.Close() })()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(a, b)
		_ = a.CloseWrite()
	}()
	_, _ = io.Copy(b, a)
	_ = b.CloseWrite()
	<-back
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
	stop := context.AfterFunc(g.ctx, func() { in.Close(); out.Close() })
	// One flow ends when it has been silent, in both directions, for udpIdle.
	pump := func(dst, src net.Conn) {
		defer stop()
		defer dst.Close()
		defer src.Close()
		buf := make([]byte, maxDatagram)
		for {
			_ = src.SetReadDeadline(time.Now().Add(udpIdle))
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			if _, err := dst.Write(buf[:n]); err != nil && !errors.Is(err, io.ErrShortWrite) {
				return
			}
		}
	}
	g.done.Go(func() { pump(in, out) })
	g.done.Go(func() { pump(out, in) })
}
