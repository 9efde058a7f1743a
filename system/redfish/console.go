package redfish

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish/tape"
)

// Limits of a console.
const (
	scrollBack   = 64 << 10 // bytes that a new reader sees first
	consoleLag   = 256      // pieces of at most 1 KiB that a slow reader may be behind
	maxConsoles  = 16       // readers of one unit
	maxTyped     = 4 << 10  // bytes in one message of a reader
	consolePing  = 30 * time.Second
	consoleStall = 10 * time.Second // for a reader to take a message
)

// consoleProtocol is the WebSocket subprotocol by which the service also tells, in text messages, who types.
const consoleProtocol = "racklet.console"

// console mirrors the serial console of one unit for its readers, of whom one at a time types.
type console struct {
	mu      sync.Mutex
	next    uint64 // offset at the BMC of the next byte to read
	tail    []byte
	readers map[*seat]bool
	writer  *seat // nil: whoever types first
	closed  bool
	wake    chan struct{} // someone came
	tape    *tape.Tape
}

// seat is one client of a console.
type seat struct {
	who    string
	output chan []byte
	told   chan string // names of those who type instead
}

func newConsole() *console {
	return &console{readers: map[*seat]bool{}, wake: make(chan struct{}, 1)}
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
		case r.output <- data:
		default:
			c.drop(r)
		}
	}
}

// open gives a client a seat.
func (c *console) open(who string) ([]byte, *seat, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.readers) >= maxConsoles {
		return nil, nil, false
	}
	r := &seat{who, make(chan []byte, consoleLag), make(chan string, 1)}
	c.readers[r] = true
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return append([]byte(nil), c.tail...), r, true
}

// takeOver lets a client type instead of whoever does.
func (c *console) takeOver(r *seat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.readers[r] {
		return
	}
	if c.writer != nil && c.writer != r {
		c.writer.tell(r.who)
	}
	c.writer = r
}

// tell says who types instead. What was said before and not yet read is out of date.
func (r *seat) tell(who string) {
	select {
	case <-r.told:
	default:
	}
	r.told <- who
}

// mayType says whether a client types; the first that wants to does.
func (c *console) mayType(r *seat) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writer == nil && c.readers[r] {
		c.writer = r
	}
	if c.writer == r {
		return true
	}
	if c.writer != nil {
		r.tell(c.writer.who)
	}
	return false
}

// drop ends a client's seat. The lock is held.
func (c *console) drop(r *seat) {
	if c.readers[r] {
		delete(c.readers, r)
		close(r.output)
	}
	if c.writer == r {
		c.writer = nil
	}
}

func (c *console) leave(r *seat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(r)
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for r := range c.readers {
		c.drop(r)
	}
	c.tape.Close()
}

func (c *console) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.readers)
}

// openTapes begins to record all consoles.
func (s *Service) openTapes() error {
	dir := s.o.Dir
	if dir != "" {
		dir = filepath.Join(dir, "console")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("record consoles: %w", err)
		}
	}
	for _, u := range s.units {
		t, err := tape.Open(dir, url.PathEscape(u.name), s.clock.Now)
		if err != nil {
			return err
		}
		u.console.tape = t
	}
	return nil
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
		u.console.tape.Note("the BMC began anew")
		return p.End > 0
	}
	switch lost := p.From - min(u.console.next, p.From); {
	case u.console.next == 0 && len(p.Data) > 0:
		u.console.tape.Note("the service started; first what the BMC still has")
	case lost > 0:
		u.console.tape.Note(fmt.Sprintf("%d bytes are lost", lost))
	}
	if len(p.Data) > 0 {
		u.console.print(append([]byte(nil), p.Data...))
		if err := u.console.tape.Print(p.Data); err != nil {
			s.log.Warn("a console cannot be recorded", "unit", u.name, "error", err)
		}
	}
	u.console.next = p.From + uint64(len(p.Data))
	return len(p.Data) > 0 && u.console.next < p.End
}

// serveRecording sends what the console has printed, as lines of text that are safe to print.
func (s *Service) serveRecording(w http.ResponseWriter, r *http.Request, u *unit) {
	h := w.Header()
	h.Del("OData-Version")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if _, err := u.console.tape.WriteTo(w); err != nil {
		s.log.Warn("send the recording of a console", "unit", u.name, "error", err)
	}
}

// serveConsole is a WebSocket: what the unit prints comes as binary messages, the
// scroll-back first; what is sent is typed, by one client at a time: the first that types, or one that comes
// with ?takeover. With the subprotocol others are told who does; without it they are closed when they type.
func (s *Service) serveConsole(w http.ResponseWriter, r *http.Request, u *unit) {
	takeOver := r.URL.Query().Has("takeover")
	if rec, ok := w.(*recorder); ok && takeOver {
		rec.entry.What = "takeover"
	}
	who := "somebody"
	if p := by(r); p != nil {
		who = p.name
	}
	old, seat, ok := u.console.open(who)
	if !ok {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, msgUnavailable(5))
		return
	}
	defer u.console.leave(seat)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{consoleProtocol}}) // refuses other origins than our own
	if err != nil {
		return // it has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxTyped)
	if takeOver {
		u.console.takeOver(seat)
	}
	ctx, cancel := context.WithCancel(r.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() {
		defer cancel()
		s.typeIn(ctx, ws, u, seat)
	})
	send := func(kind websocket.MessageType, data []byte) bool {
		ctx, cancel := context.WithTimeout(ctx, consoleStall)
		defer cancel()
		return ws.Write(ctx, kind, data) == nil
	}
	if len(old) > 0 && !send(websocket.MessageBinary, old) {
		return
	}
	ping := time.NewTicker(consolePing)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case data, ok := <-seat.output:
			if !ok {
				ws.Close(websocket.StatusTryAgainLater, "too slow, or the service ends")
				return
			}
			if !send(websocket.MessageBinary, data) {
				return
			}
		case name := <-seat.told:
			if ws.Subprotocol() != consoleProtocol {
				ws.Close(websocket.StatusPolicyViolation, "somebody else types: connect with ?takeover")
				return
			}
			b, _ := json.Marshal(object{"Writer": name})
			if !send(websocket.MessageText, b) {
				return
			}
		case <-ping.C: // a client that is gone frees its seat
			alive, cancel := context.WithTimeout(ctx, consoleStall)
			err := ws.Ping(alive)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// typeIn passes what a reader types to the BMC, as fast as the BMC takes it.
func (s *Service) typeIn(ctx context.Context, ws *websocket.Conn, u *unit, seat *seat) {
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			return
		}
		for len(data) > 0 && u.console.mayType(seat) {
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
