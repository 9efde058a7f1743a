package redfish

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/racklet/racklet/firmware/wire"
)

// Limits of a console.
const (
	scrollBack  = 64 << 10 // bytes that a new reader sees first
	consoleLag  = 256      // pieces of at most 1 KiB that a slow reader may be behind
	maxConsoles = 16       // readers of one unit
	maxTyped    = 4 << 10  // bytes in one message of a reader
)

// console mirrors the serial console of one unit for its readers.
type console struct {
	mu      sync.Mutex
	next    uint64 // offset at the BMC of the next byte to read
	tail    []byte
	readers map[chan []byte]bool
	closed  bool
	wake    chan struct{} // someone came
}

func newConsole() *console {
	return &console{readers: map[chan []byte]bool{}, wake: make(chan struct{}, 1)}
}

func (c *console) print(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, data...)
	if over := len(c.tail) - scrollBack; over > 0 {
		c.tail = append(c.tail[:0:0], c.tail[over:]...)
	}
	for r := range c.readers {
		select {
		case r <- data:
		default:
			delete(c.readers, r)
			close(r)
		}
	}
}

func (c *console) open() ([]byte, chan []byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.readers) >= maxConsoles {
		return nil, nil, false
	}
	r := make(chan []byte, consoleLag)
	c.readers[r] = true
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return append([]byte(nil), c.tail...), r, true
}

func (c *console) leave(r chan []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readers[r] {
		delete(c.readers, r)
		close(r)
	}
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for r := range c.readers {
		delete(c.readers, r)
		close(r)
	}
}

func (c *console) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.readers)
}

// pollConsole reads what the unit prints: often while someone looks, else along with the state.
func (s *Service) pollConsole(ctx context.Context, u *unit) {
	for ctx.Err() == nil {
		watched := u.console.count() > 0
		s.mu.RLock()
		end, online := u.state.ConsoleEnd, u.online
		s.mu.RUnlock()
		more := false
		if online && (watched || end != u.console.next) {
			more = s.readConsole(ctx, u)
		}
		wait := pollState
		switch {
		case more:
			continue
		case watched:
			wait = pollConsole
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-u.console.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// readConsole takes one piece of output and reports whether there is more.
func (s *Service) readConsole(ctx context.Context, u *unit) bool {
	p, err := s.conn.ReadConsole(ctx, u.eid, u.console.next)
	if err != nil {
		return false
	}
	if p.End < u.console.next { // the BMC lost its memory
		u.console.next = 0
		return p.End > 0
	}
	if len(p.Data) > 0 {
		u.console.print(append([]byte(nil), p.Data...))
	}
	u.console.next = p.From + uint64(len(p.Data))
	return len(p.Data) > 0 && u.console.next < p.End
}

// serveConsole is a WebSocket: what the unit prints comes as binary messages, the
// scroll-back first; what is sent is typed.
func (s *Service) serveConsole(w http.ResponseWriter, r *http.Request, u *unit) {
	old, output, ok := u.console.open()
	if !ok {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, msgUnavailable(5))
		return
	}
	defer u.console.leave(output)
	ws, err := websocket.Accept(w, r, nil) // refuses other origins than our own
	if err != nil {
		return // it has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxTyped)
	ctx, cancel := context.WithCancel(r.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() {
		defer cancel()
		s.typeIn(ctx, ws, u)
	})
	if len(old) > 0 && ws.Write(ctx, websocket.MessageBinary, old) != nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case data, ok := <-output:
			if !ok {
				ws.Close(websocket.StatusTryAgainLater, "too slow, or the service ends")
				return
			}
			if ws.Write(ctx, websocket.MessageBinary, data) != nil {
				return
			}
		}
	}
}

// typeIn passes what a reader types to the BMC, as fast as the BMC takes it.
func (s *Service) typeIn(ctx context.Context, ws *websocket.Conn, u *unit) {
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			return
		}
		for len(data) > 0 {
			n, err := s.conn.WriteConsole(ctx, u.eid, data[:min(len(data), wire.MaxConsoleWrite)])
			if err != nil {
				ws.Close(websocket.StatusInternalError, "the BMC does not answer")
				return
			}
			data = data[min(n, len(data)):]
			if n == 0 && len(data) > 0 { // the unit does not read: wait a little
				select {
				case <-ctx.Done():
					return
				case <-time.After(pollConsole):
				}
			}
			select { // let the echo come soon
			case u.console.wake <- struct{}{}:
			default:
			}
		}
	}
}
