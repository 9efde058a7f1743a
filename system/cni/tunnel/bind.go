package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// bind lets WireGuard send and receive through a socket that is not the host's.
type bind struct {
	listen func() (net.PacketConn, error)

	mu sync.Mutex
	pc net.PacketConn
}

var _ conn.Bind = (*bind)(nil)

// Open opens the socket. The port is the socket's own affair.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pc != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	pc, err := b.listen()
	if err != nil {
		return nil, 0, err
	}
	b.pc = pc
	if a, ok := pc.LocalAddr().(*net.UDPAddr); ok {
		port = uint16(a.Port)
	}
	return []conn.ReceiveFunc{func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, err := pc.ReadFrom(packets[0])
		if err != nil {
			return 0, net.ErrClosed
		}
		a, ok := from.(*net.UDPAddr)
		if !ok {
			return 0, nil
		}
		at := a.AddrPort()
		sizes[0], eps[0] = n, endpoint{netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}
		return 1, nil
	}}, port, nil
}

func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pc == nil {
		return nil
	}
	err := b.pc.Close()
	b.pc = nil
	return err
}

func (b *bind) SetMark(uint32) error { return nil }

func (b *bind) Send(packets [][]byte, ep conn.Endpoint) error {
	to, ok := ep.(endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.Lock()
	pc := b.pc
	b.mu.Unlock()
	if pc == nil {
		return net.ErrClosed
	}
	var errs []error
	for _, p := range packets {
		if _, err := pc.WriteTo(p, net.UDPAddrFromAddrPort(to.AddrPort)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	return endpoint{a}, err
}

func (b *bind) BatchSize() int { return 1 }

// endpoint is where a peer is.
type endpoint struct{ netip.AddrPort }

func (endpoint) ClearSrc()           {}
func (endpoint) SrcToString() string { return "" }
func (e endpoint) DstToString() string {
	return e.String()
}
func (e endpoint) DstToBytes() []byte {
	b, err := e.MarshalBinary()
	if err != nil {
		return nil
	}
	return b
}
func (e endpoint) DstIP() netip.Addr { return e.Addr() }
func (endpoint) SrcIP() netip.Addr   { return netip.Addr{} }
