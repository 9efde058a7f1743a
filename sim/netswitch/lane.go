package netswitch

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is what is wrong with one direction of a cable. The zero Fault is a
// good cable. Random choices come from the switch's seed, one stream per lane.
type Fault struct {
	Down      bool          `json:"down,omitempty"`      // nothing passes
	Loss      float64       `json:"loss,omitempty"`      // probability 0…1 that a frame is lost
	Delay     time.Duration `json:"delay,omitempty"`     // added to each frame, nanoseconds
	Jitter    time.Duration `json:"jitter,omitempty"`    // up to so much more, order kept, nanoseconds
	Reorder   float64       `json:"reorder,omitempty"`   // probability 0…1 that a frame is held back, so that later ones overtake it
	Bandwidth int64         `json:"bandwidth,omitempty"` // bits per second; 0: no limit
}

// holdBack is how long a reordered frame waits beyond its turn.
const holdBack = 20 * time.Millisecond

func (f Fault) check() error {
	switch {
	case f.Loss < 0 || f.Loss > 1 || f.Loss != f.Loss:
		return fmt.Errorf("loss %v: want 0 to 1", f.Loss)
	case f.Reorder < 0 || f.Reorder > 1 || f.Reorder != f.Reorder:
		return fmt.Errorf("reorder %v: want 0 to 1", f.Reorder)
	case f.Delay < 0 || f.Jitter < 0 || f.Delay > time.Hour || f.Jitter > time.Hour:
		return fmt.Errorf("delay %v, jitter %v: want 0 to 1h", f.Delay, f.Jitter)
	case f.Bandwidth < 0:
		return fmt.Errorf("bandwidth %d: want bits per second, not negative", f.Bandwidth)
	}
	return nil
}

// lane carries frames one way: a bounded queue ordered by the time at which
// each frame is due at the other end, and a goroutine that hands them over.
type lane struct {
	limit      int
	sink       func([]byte)
	lost, full atomic.Uint64

	mu      sync.Mutex
	rng     *rand.Rand
	fault   Fault
	queue   schedule
	seq     uint64
	free    time.Time // when the last frame has left a lane of limited bandwidth
	lastDue time.Time
	running bool
	wake    chan struct{} // one token: look at the queue again
	quit    chan struct{}
	done    chan struct{}
}

func newLane(limit int, seed, stream uint64, sink func([]byte)) *lane {
	return &lane{limit: limit, sink: sink, rng: rand.New(rand.NewPCG(seed, stream)), wake: make(chan struct{}, 1)}
}

func (l *lane) setFault(f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
	if f.Down { // what is on the cable is lost with it
		l.lost.Add(uint64(len(l.queue)))
		l.queue = nil
	}
}

func (l *lane) getFault() Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

func (l *lane) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = true
	l.quit, l.done = make(chan struct{}), make(chan struct{})
	go l.run(l.quit, l.done)
}

// stop ends the lane's goroutine and drops what was under way.
func (l *lane) stop() {
	l.mu.Lock()
	l.running = false
	l.queue = nil
	quit, done := l.quit, l.done
	l.mu.Unlock()
	close(quit)
	<-done
}

func (l *lane) push(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running {
		return
	}
	f := l.fault
	if f.Down || f.Loss > 0 && l.rng.Float64() < f.Loss {
		l.lost.Add(1)
		return
	}
	if len(l.queue) >= l.limit {
		l.full.Add(1)
		return
	}
	var due time.Time // zero: at once
	if f != (Fault{}) {
		now := time.Now()
		due = now
		if f.Bandwidth > 0 {
			if l.free.Before(now) {
				l.free = now
			}
			l.free = l.free.Add(time.Duration(int64(len(frame)) * 8 * int64(time.Second) / f.Bandwidth))
			due = l.free
		}
		due = due.Add(f.Delay)
		if f.Jitter > 0 {
			due = due.Add(time.Duration(l.rng.Int64N(int64(f.Jitter))))
		}
		if due.Before(l.lastDue) {
			due = l.lastDue
		}
		l.lastDue = due
		if f.Reorder > 0 && l.rng.Float64() < f.Reorder {
			due = due.Add(holdBack)
		}
	}
	l.seq++
	heap.Push(&l.queue, item{due: due, seq: l.seq, frame: frame})
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) run(quit, done chan struct{}) {
	defer close(done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var frame []byte
		wait := time.Hour
		l.mu.Lock()
		if len(l.queue) > 0 {
			if wait = time.Until(l.queue[0].due); wait <= 0 {
				frame = heap.Pop(&l.queue).(item).frame
			}
		}
		l.mu.Unlock()
		if frame != nil {
			select {
			case <-quit:
				return
			default:
				l.sink(frame)
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-quit:
			return
		case <-l.wake:
		case <-timer.C:
		}
	}
}

type item struct {
	due   time.Time
	seq   uint64
	frame []byte
}

// schedule is a heap of frames, the one due first on top.
type schedule []item

func (s schedule) Len() int { return len(s) }
func (s schedule) Less(i, j int) bool {
	if s[i].due.Equal(s[j].due) {
		return s[i].seq < s[j].seq
	}
	return s[i].due.Before(s[j].due)
}
func (s schedule) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)   { *s = append(*s, x.(item)) }
func (s *schedule) Pop() any {
	old := *s
	last := old[len(old)-1]
	old[len(old)-1] = item{}
	*s = old[:len(old)-1]
	return last
}
