package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Event is an asynchronous message of the QEMU Machine Protocol.
type Event struct {
	Name string
	Data json.RawMessage
}

// errMonitor is returned when the monitor is gone, which it is with its machine.
var errMonitor = errors.New("machine has ended")

// qmp is a client of the QEMU Machine Protocol (docs/interop/qmp-spec in
// QEMU's sources): one JSON object per message, a greeting first, then
// capabilities, then commands and events.
type qmp struct {
	conn  net.Conn
	event func(Event)
	ready chan struct{} // closed when commands may be sent
	done  chan struct{} // closed at the end of the stream

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
}

type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	ID    *uint64         `json:"id"`
}

// newQMP takes over conn. event is called for each event, by one goroutine,
// and none is called after done is closed.
func newQMP(conn net.Conn, event func(Event)) *qmp {
	q := &qmp{conn: conn, event: event, ready: make(chan struct{}), done: make(chan struct{}), waiting: make(map[uint64]chan message)}
	go q.read()
	return q
}

func (q *qmp) read() {
	defer close(q.done)
	defer q.conn.Close()
	d := json.NewDecoder(q.conn)
	for {
		var m message
		if d.Decode(&m) != nil {
			return
		}
		switch {
		case m.Greeting != nil:
			if _, err := q.conn.Write([]byte(`{"execute":"qmp_capabilities","id":0}` + "\n")); err != nil {
				return
			}
		case m.Event != "":
			q.event(Event{m.Event, m.Data})
		case m.ID != nil && *m.ID == 0:
			if m.Error != nil {
				return
			}
			select {
			case <-q.ready:
			default:
				close(q.ready)
			}
		case m.ID != nil:
			q.mu.Lock()
			c := q.waiting[*m.ID]
			delete(q.waiting, *m.ID)
			q.mu.Unlock()
			if c != nil {
				c <- m
			}
		}
	}
}

// execute runs one command and decodes what it returns into result, if not nil.
func (q *qmp) execute(ctx context.Context, command string, arguments, result any) error {
	select {
	case <-q.ready:
	case <-q.done:
		return fmt.Errorf("%s: %w", command, errMonitor)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
	answer := make(chan message, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.waiting[id] = answer
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err == nil {
		_, err = q.conn.Write(append(b, '\n'))
	}
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.waiting, id)
	}()
	if err != nil {
		return fmt.Errorf("%s: %w: %w", command, errMonitor, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return fmt.Errorf("%s: %s: %s", command, m.Error.Class, m.Error.Desc)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Return, result); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		return nil
	case <-q.done:
		return fmt.Errorf("%s: %w", command, errMonitor)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}
