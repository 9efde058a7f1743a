package plant_test

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/conformance"
)

// serial is the management computer's end of the line to the RMC of a loop that runs beside the test.
type serial struct {
	mu   sync.Mutex
	in   []byte // to the RMC
	out  *io.PipeReader
	feed *io.PipeWriter
}

func (s *serial) Read(p []byte) (int, error) { return s.out.Read(p) }

func (s *serial) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = append(s.in, p...)
	return len(p), nil
}

// attach runs the loop, ten times as fast as the clock, until the test ends.
func attach(t *testing.T, l *loop) *serial {
	t.Helper()
	s := &serial{}
	s.out, s.feed = io.Pipe()
	said := make(chan []byte, 4096)
	l.silent = true
	l.line = func(p []byte) { said <- append([]byte(nil), p...) }
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				close(said)
				return
			case <-tick.C:
			}
			s.mu.Lock()
			p := s.in
			s.in = nil
			s.mu.Unlock()
			if len(p) > 0 {
				l.rmc.Management(p)
				l.pump()
			}
			l.run(10 * time.Millisecond)
		}
	})
	all.Go(func() {
		for p := range said {
			s.feed.Write(p) // fails once the test is over
		}
	})
	t.Cleanup(func() {
		close(stop)
		s.out.Close()
		all.Wait()
	})
	return s
}

func TestConformanceOfTheRMC(t *testing.T) {
	l := newLoop(t)
	l.run(2 * time.Second)
	l.p.SetPresent(4, false)
	l.run(time.Second)
	conformance.RMC(t, conformance.RMCLines{Management: attach(t, l), Present: []uint8{1, 2, 3}, Empty: 4})
}
