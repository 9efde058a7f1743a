package gateway

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of what units can make this host hold: each flow is a socket, two
// goroutines and two buffers.
const (
	maxFlows    = 512 // of all units, for each of UDP and TCP
	unitFlows   = 64  // of one address
	udpIdle     = 60 * time.Second
	tcpIdle     = 15 * time.Minute
	maxDatagram = 2 << 10 // bytes; longer ones are dropped: the rack's packets have 1500
	tcpBuffer   = 16 << 10
)

// flows are the open relays of one transport. A unit that opens more than its
// share loses its own flow that has been silent for longest; only when all
// shares together are too many, another's.
type flows struct {
	all, each int
	idle      time.Duration

	mu    sync.Mutex
	order list.List // of *flow, the one silent for longest first
	count map[netip.Addr]int
}

func newFlows(all, each int, idle time.Duration) *flows {
	return &flows{all: all, each: each, idle: idle, count: map[netip.Addr]int{}}
}

// flow is one relay. end closes what it holds, and may be called twice.
type flow struct {
	of    *flows
	from  netip.Addr
	end   func()
	timer *time.Timer
	at    *list.Element // nil: it is over
}

// add notes a new flow, and ends another where there are too many.
func (s *flows) add(from netip.Addr, end func()) *flow {
	f := &flow{of: s, from: from, end: end}
	s.mu.Lock()
	var over *flow
	switch {
	case s.count[from] >= s.each:
		for e := s.order.Front(); over == nil; e = e.Next() {
			if other := e.Value.(*flow); other.from == from {
				over = other
			}
		}
	case s.order.Len() >= s.all:
		over = s.order.Front().Value.(*flow)
	}
	if over != nil {
		over.forget()
	}
	f.at = s.order.PushBack(f)
	s.count[from]++
	f.timer = time.AfterFunc(s.idle, f.stop)
	s.mu.Unlock()
	if over != nil {
		over.end()
	}
	return f
}

// touch says that something passed, in whichever direction.
func (f *flow) touch() {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if f.at != nil {
		f.of.order.MoveToBack(f.at)
		f.timer.Reset(f.of.idle)
	}
}

// stop ends the flow.
func (f *flow) stop() {
	f.of.mu.Lock()
	f.forget()
	f.of.mu.Unlock()
	f.end()
}

// forget takes the flow off the list; the caller holds the lock.
func (f *flow) forget() {
	if f.at == nil {
		return
	}
	f.timer.Stop()
	f.of.order.Remove(f.at)
	f.at = nil
	if f.of.count[f.from]--; f.of.count[f.from] == 0 {
		delete(f.of.count, f.from)
	}
}

// guarded is a listener inside the rack whose connections count as flows.
type guarded struct {
	net.Listener
	flows *flows
}

func (g guarded) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	var from netip.Addr
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		from = a.AddrPort().Addr().Unmap()
	}
	return &guardedConn{c, g.flows.add(from, func() { c.Close() })}, nil
}

type guardedConn struct {
	net.Conn
	flow *flow
}

func (c *guardedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.flow.touch()
	}
	return n, err
}

func (c *guardedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.flow.touch()
	}
	return n, err
}

func (c *guardedConn) Close() error {
	c.flow.stop()
	return nil
}
