package netswitch

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrPlugged is returned by Attach when something is plugged in already.
var ErrPlugged = errors.New("port has a cable already")

// Port is one socket of the switch with the cable in it.
type Port struct {
	sw    *Switch
	name  string
	index int

	in, out *lane // in: from the device to the switch
	count   counts

	mu      sync.Mutex
	plugged bool
	group   int                // guarded by sw.mu
	device  func(frame []byte) // called by the out lane
}

type counts struct {
	rxFrames, rxBytes, txFrames, txBytes atomic.Uint64
	flooded, runts, oversize             atomic.Uint64
}

// Counters are a port's counters since the switch was made. Received is what
// reached the switch from the device, sent is what reached the device.
type Counters struct {
	ReceivedFrames uint64 `json:"receivedFrames"`
	ReceivedBytes  uint64 `json:"receivedBytes"`
	SentFrames     uint64 `json:"sentFrames"`
	SentBytes      uint64 `json:"sentBytes"`
	Flooded        uint64 `json:"flooded"`      // received frames that went to more than one port
	Runts          uint64 `json:"runts"`        // shorter than an Ethernet header
	Oversize       uint64 `json:"oversize"`     // longer than the MTU allows
	ReceivedLost   uint64 `json:"receivedLost"` // eaten by a fault on the way in
	SentLost       uint64 `json:"sentLost"`     // eaten by a fault on the way out
	ReceivedFull   uint64 `json:"receivedFull"` // dropped because the lane's queue was full
	SentFull       uint64 `json:"sentFull"`
}

func newPort(s *Switch, name string, index int) *Port {
	p := &Port{sw: s, name: name, index: index}
	p.in = newLane(s.cfg.Queue, s.cfg.Seed, uint64(index)<<1, p.arrived)
	p.out = newLane(s.cfg.Queue, s.cfg.Seed, uint64(index)<<1|1, p.deliver)
	return p
}

// Name returns the name given to AddPort.
func (p *Port) Name() string { return p.name }

// Plugged reports whether a device is attached.
func (p *Port) Plugged() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plugged
}

// Counters returns the port's counters.
func (p *Port) Counters() Counters {
	c := &p.count
	return Counters{
		ReceivedFrames: c.rxFrames.Load(), ReceivedBytes: c.rxBytes.Load(),
		SentFrames: c.txFrames.Load(), SentBytes: c.txBytes.Load(),
		Flooded: c.flooded.Load(), Runts: c.runts.Load(), Oversize: c.oversize.Load(),
		ReceivedLost: p.in.lost.Load(), SentLost: p.out.lost.Load(),
		ReceivedFull: p.in.full.Load(), SentFull: p.out.full.Load(),
	}
}

// Attach plugs a device in. The switch calls device for each frame that
// arrives at it, one at a time; device must not keep or change the frame's
// bytes after it returned. The returned function unplugs: it waits for a call
// of device that is under way and must not be called from within it.
func (p *Port) Attach(device func(frame []byte)) (unplug func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plugged {
		return nil, ErrPlugged
	}
	p.plugged, p.device = true, device
	p.in.start()
	p.out.start()
	return sync.OnceFunc(func() {
		p.in.stop()
		p.out.stop()
		p.sw.forget(p)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.plugged, p.device = false, nil
	}), nil
}

// Send is the device's side: it puts one Ethernet frame (without FCS) on the
// cable towards the switch. The switch keeps frame; the caller must not touch
// it again.
func (p *Port) Send(frame []byte) {
	switch {
	case len(frame) < headerLen:
		p.count.runts.Add(1)
		return
	case len(frame) > p.sw.maxFrame(frame):
		p.count.oversize.Add(1)
		return
	}
	p.in.push(frame)
}

// maxFrame is the longest form that frame may have; a tagged one is four bytes
// longer (IEEE 802.3-2018, 3.2.7).
func (s *Switch) maxFrame(frame []byte) int {
	n := headerLen + s.cfg.MTU
	if t := uint16(frame[12])<<8 | uint16(frame[13]); t == 0x8100 || t == 0x88a8 {
		n += tagLen
	}
	return n
}

func (p *Port) arrived(frame []byte) {
	p.count.rxFrames.Add(1)
	p.count.rxBytes.Add(uint64(len(frame)))
	p.sw.forward(p, frame)
}

func (p *Port) deliver(frame []byte) {
	p.count.txFrames.Add(1)
	p.count.txBytes.Add(uint64(len(frame)))
	p.sw.mu.Lock()
	p.sw.record(p, frame, false, time.Now())
	p.sw.mu.Unlock()
	p.device(frame) // set before the lane started, cleared after it stopped
}

// Direction names one lane of a cable.
type Direction int

// The two lanes, seen from the device at the cable's end.
const (
	FromDevice Direction = iota
	ToDevice
)

// SetFault replaces the fault on one lane; the zero Fault heals it. Frames
// already under way keep their schedule. A cut (Down) in both directions makes
// the switch forget what it learned there.
func (p *Port) SetFault(d Direction, f Fault) error {
	if err := f.check(); err != nil {
		return err
	}
	if d == FromDevice {
		p.in.setFault(f)
	} else {
		p.out.setFault(f)
	}
	if p.in.getFault().Down && p.out.getFault().Down {
		p.sw.forget(p)
	}
	return nil
}

// Fault returns the fault on one lane.
func (p *Port) Fault(d Direction) Fault {
	if d == FromDevice {
		return p.in.getFault()
	}
	return p.out.getFault()
}

// SetGroup puts a port into a group: the switch forwards only between ports of the same group, as two switches do that
// lost the cable between them. All ports begin in group 0.
func (p *Port) SetGroup(n int) {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	p.group = n
}
