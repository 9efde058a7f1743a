package sim

import (
	"context"
	"sync"
	"time"
)

// baud is the speed of the multi-drop bus in bits per second, ten bits to a
// byte. It is what a microcontroller's UART and a common RS-485 transceiver
// carry over the length of a rack.
const baud = 6_000_000

// inbox collects bytes for a controller until its goroutine takes them. It is
// bounded as a UART's buffer is: what does not fit is lost.
type inbox struct {
	mu    sync.Mutex
	bytes []byte
	wake  chan struct{}
}

const inboxSize = 64 << 10

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (i *inbox) put(p []byte) {
	i.mu.Lock()
	i.bytes = append(i.bytes, p[:min(len(p), inboxSize-len(i.bytes))]...)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *inbox) take(dst []byte) []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	dst = append(dst[:0], i.bytes...)
	i.bytes = i.bytes[:0]
	return dst
}

// bus is the RS-485 pair that joins RMC and BMCs. Everybody but the sender
// hears a transmission when it has ended. Two at the same time garble each
// other: whoever hears them finds bad frames.
type bus struct {
	queue chan transmission

	mu       sync.Mutex
	stations []*inbox
	jammed   bool
	stats    BusStats
}

type transmission struct {
	from  *inbox
	bytes []byte
	at    time.Time
}

// BusStats counts what passed the multi-drop bus.
type BusStats struct {
	Bytes      uint64 `json:"bytes"`
	Collisions uint64 `json:"collisions"`
	Jammed     bool   `json:"jammed"`
}

func newBus() *bus { return &bus{queue: make(chan transmission, 1024)} }

func (b *bus) connect(i *inbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stations = append(b.stations, i)
}

// send puts bytes on the pair; p is copied.
func (b *bus) send(from *inbox, p []byte) {
	select {
	case b.queue <- transmission{from, append([]byte(nil), p...), time.Now()}:
	default: // nobody sends that much
	}
}

func (b *bus) jam(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jammed = on
}

func (b *bus) statistics() BusStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Jammed = b.jammed
	return s
}

func duration(n int) time.Duration { return time.Duration(n) * 10 * time.Second / baud }

// run carries transmissions until ctx ends.
func (b *bus) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var air []transmission // at the same time on the pair
	var end time.Time
	for {
		wait := time.Hour
		if len(air) > 0 {
			wait = time.Until(end)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case t := <-b.queue:
			if len(air) == 0 {
				end = t.at
			} else if last := air[len(air)-1]; last.from == t.from && len(air) == 1 {
				// The same sender goes on where it was.
				air[0].bytes = append(air[0].bytes, t.bytes...)
				end = end.Add(duration(len(t.bytes)))
				continue
			}
			if e := t.at.Add(duration(len(t.bytes))); e.After(end) {
				end = e
			}
			air = append(air, t)
		case <-timer.C:
			b.deliver(air)
			air = nil
		}
	}
}

func (b *bus) deliver(air []transmission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	garbled := len(air) > 1 || b.jammed
	if len(air) > 1 {
		b.stats.Collisions++
	}
	for _, t := range air {
		b.stats.Bytes += uint64(len(t.bytes))
		if garbled {
			for i := range t.bytes {
				t.bytes[i] ^= byte(i*7) | 1
			}
		}
		for _, s := range b.stations {
			if s != t.from {
				s.put(t.bytes)
			}
		}
	}
}
