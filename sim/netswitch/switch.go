// Package netswitch is the rack's network switch: a learning layer-2 switch
// in user space, whose cables can be measured, tapped and cut.
//
//	QEMU ── unix stream, 4-byte length ──┐
//	QEMU ────────────────────────────────┤ Port  in ─► learn, look up ─► out  Port ├── gateway
//	QEMU ────────────────────────────────┘        lane                  lane
//
// Every port has two lanes, one per direction. A lane is the cable: it holds a
// bounded queue and a Fault, so loss, delay, reorder, bandwidth and one-way
// cuts happen there and the switch itself stays a plain switch. It learns
// source addresses, ages them, floods what it does not know, broadcast and
// multicast, and never looks behind the two addresses: a VLAN tag passes as it
// came. It is no router and speaks no protocol of its own.
//
// Only sim's top and its gateway call it.
package netswitch

import (
	"log/slog"
	"slices"
	"sync"
	"time"
)

// From IEEE 802.3-2018.
const (
	headerLen = 14 // destination, source, type (3.1.1)
	tagLen    = 4  // one VLAN tag (IEEE 802.1Q-2018, 9.5)
)

// Our own choices.
const (
	defaultMTU    = 1500
	defaultAgeing = 300 * time.Second // as IEEE 802.1Q-2018, 8.8.3 recommends
	defaultQueue  = 1024              // frames per lane
	defaultTable  = 4096              // learned addresses
)

// Config says what a switch is like. The zero value of each field stands for
// the default named beside it.
type Config struct {
	MTU    int           // longest payload in bytes, without Ethernet header and tag: 1500
	Ageing time.Duration // a source not heard for so long is forgotten: 300 s
	Queue  int           // frames waiting per lane, later ones are dropped: 1024
	Table  int           // addresses remembered, later ones are not learned: 4096
	Seed   uint64        // of the lanes' random faults
	Log    *slog.Logger
}

// MAC is an Ethernet address in the order of transmission.
type MAC [6]byte

// group reports whether a names a group (I/G bit, IEEE 802.3-2018, 3.2.3).
func (a MAC) group() bool { return a[0]&1 == 1 }

type learned struct {
	port *Port
	seen time.Time
}

// Switch forwards frames between its ports. Its methods may be called from
// several goroutines.
type Switch struct {
	cfg Config

	mu       sync.Mutex
	ports    []*Port
	table    map[MAC]learned
	captures []*capture
}

// New returns a switch without ports.
func New(cfg Config) *Switch {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Ageing == 0 {
		cfg.Ageing = defaultAgeing
	}
	if cfg.Queue == 0 {
		cfg.Queue = defaultQueue
	}
	if cfg.Table == 0 {
		cfg.Table = defaultTable
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Switch{cfg: cfg, table: make(map[MAC]learned)}
}

// AddPort adds a port with nothing plugged in. Names are for people and for
// captures; ports are numbered in the order in which they are added.
func (s *Switch) AddPort(name string) *Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := newPort(s, name, len(s.ports))
	s.ports = append(s.ports, p)
	return p
}

// Ports returns all ports in their order.
func (s *Switch) Ports() []*Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ports)
}

// Port returns the port of that name, nil when there is none.
func (s *Switch) Port(name string) *Port {
	for _, p := range s.Ports() {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Learned is one row of the address table.
type Learned struct {
	Address MAC
	Port    string
	Age     time.Duration
}

// Table returns what the switch has learned and not yet forgotten, by address.
func (s *Switch) Table() []Learned {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []Learned
	for a, l := range s.table {
		if age := now.Sub(l.seen); age < s.cfg.Ageing {
			rows = append(rows, Learned{Address: a, Port: l.port.name, Age: age})
		}
	}
	slices.SortFunc(rows, func(x, y Learned) int { return slices.Compare(x.Address[:], y.Address[:]) })
	return rows
}

// forward takes a frame that came in by a port's lane to where it belongs.
// Nobody may write to frame any more: it is shared by all receivers.
func (s *Switch) forward(from *Port, frame []byte) {
	dst, src := MAC(frame[0:6]), MAC(frame[6:12])
	now := time.Now()

	s.mu.Lock()
	s.record(from, frame, true, now)
	s.learn(from, src, now)
	var to []*Port
	if l, ok := s.table[dst]; ok && !dst.group() && now.Sub(l.seen) < s.cfg.Ageing {
		if l.port != from && l.port.group == from.group { // else the receiver is on the cable it came from, or cut off
			to = append(to, l.port)
		}
	} else {
		to = make([]*Port, 0, len(s.ports))
		for _, p := range s.ports {
			if p != from && p.group == from.group {
				to = append(to, p)
			}
		}
	}
	s.mu.Unlock()

	if len(to) > 1 {
		from.count.flooded.Add(1)
	}
	for _, p := range to {
		p.out.push(frame)
	}
}

func (s *Switch) learn(from *Port, src MAC, now time.Time) {
	if src.group() || src == (MAC{}) {
		return // no station sends from such an address
	}
	if _, known := s.table[src]; !known && len(s.table) >= s.cfg.Table {
		for a, l := range s.table {
			if now.Sub(l.seen) >= s.cfg.Ageing {
				delete(s.table, a)
			}
		}
		if len(s.table) >= s.cfg.Table {
			return // full: the address stays unknown and is flooded
		}
	}
	s.table[src] = learned{port: from, seen: now}
}

// forget drops what was learned on a port, as a switch does when its link falls.
func (s *Switch) forget(p *Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.table {
		if l.port == p {
			delete(s.table, a)
		}
	}
}
