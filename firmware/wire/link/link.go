// Package link is the computers' side of the wire: a blocking client for PLDM
// requests over one serial line. The management computer uses it to talk to the
// RMC and, through it, to the BMCs; a compute unit uses it to talk to its own
// BMC in-band. Controllers do not use it: they answer, and have no goroutines.
//
// One Conn serves many callers at once. It sends one request at a time to each
// endpoint, up to eight in all, so that a silent controller delays only those
// who ask for it.
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// ErrTimeout says that an endpoint did not answer, all retries included.
var ErrTimeout = errors.New("no answer")

// ErrClosed says that the line is gone.
var ErrClosed = errors.New("line closed")

// CodeError is a completion code other than success.
type CodeError struct {
	Type, Command uint8
	Code          wire.Code
}

func (e *CodeError) Error() string {
	if e.Type == wire.TypeOEM {
		switch e.Code {
		case wire.CodeWrongSide:
			return fmt.Sprintf("command 0x%02x: not accepted on this line", e.Command)
		case wire.CodeBusy:
			return fmt.Sprintf("command 0x%02x: not possible in this state", e.Command)
		}
	}
	return fmt.Sprintf("command 0x%02x of type %d: %s", e.Command, e.Type, e.Code)
}

// RefusedError is a check that failed on the controller.
type RefusedError struct {
	Failure wire.Failure
}

func (e *RefusedError) Error() string {
	f := &e.Failure
	return fmt.Sprintf("refused: %s: expected %s, seen %s", f.Reason, f.Expected, f.Seen)
}

// Options of a Conn; the zero value is good.
type Options struct {
	Timeout  time.Duration // for one attempt; default one second; commands that write flash or sign wait ten times as long
	Attempts int           // default three
	Unit     int           // transmission unit in bytes; default wire.SerialUnit
}

// Conn is a client on one serial line. Its methods may be called at the same time.
type Conn struct {
	line io.ReadWriteCloser
	own  wire.EID
	o    Options

	write sync.Mutex // one message at a time on the line
	out   []byte

	tags chan uint8 // free message tags

	mu       sync.Mutex
	turns    map[wire.EID]chan struct{} // one token per endpoint
	pending  [8]*pending
	instance uint8
	err      error // why the line is gone
	stats    Stats
	done     chan struct{}
}

type pending struct {
	dest   wire.EID
	header wire.Header
	resp   chan []byte
}

// Stats counts what happened on the line.
type Stats struct {
	Requests uint64 // asked by callers
	Retries  uint64
	Timeouts uint64 // requests without an answer after all retries
	Strays   uint64 // answers that nobody waited for
	Dropped  uint64 // bad frames and packets
}

// New returns a client on line with the endpoint own. It reads from line in a
// goroutine that ends when the line does; Close closes the line and waits for it.
func New(line io.ReadWriteCloser, own wire.EID, o Options) *Conn {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	if o.Unit == 0 {
		o.Unit = wire.SerialUnit
	}
	c := &Conn{
		line: line, own: own, o: o,
		tags: make(chan uint8, 8), turns: map[wire.EID]chan struct{}{}, done: make(chan struct{}),
	}
	for tag := range uint8(8) {
		c.tags <- tag
	}
	go c.read()
	return c
}

// Close closes the line and waits for the reader. Waiting requests fail with ErrClosed.
func (c *Conn) Close() error {
	err := c.line.Close()
	<-c.done
	return err
}

// Done is closed when the line is gone.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Stats returns what happened so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Call sends one request and returns what follows success in the response. Other
// completion codes are a *CodeError, a failed check is a *RefusedError.
// Requests that must not take effect twice (Reset, Restart, WriteConsole, ExtendMeasurement) are not repeated: Call waits
// for them as long as all attempts would take.
func (c *Conn) Call(ctx context.Context, dest wire.EID, kind, command uint8, payload []byte) ([]byte, error) {
	req := append(wire.AppendRequest(make([]byte, 0, wire.HeaderSize+len(payload)), 0, kind, command), payload...)
	resp, err := c.Request(ctx, dest, req)
	if err != nil {
		return nil, err
	}
	_, code, data, err := wire.ParseResponse(resp)
	switch {
	case err != nil:
		return nil, fmt.Errorf("response of endpoint %d: %w", dest, err)
	case kind == wire.TypeOEM && code == wire.CodeRefused:
		f, err := wire.ParseFailure(data)
		if err != nil {
			return nil, fmt.Errorf("refusal of endpoint %d: %w", dest, err)
		}
		return nil, &RefusedError{Failure: f}
	case code != wire.CodeSuccess:
		return nil, &CodeError{Type: kind, Command: command, Code: code}
	}
	return data, nil
}

// Request sends the PLDM message req, whose instance ID it fills in, and returns the
// response to it. The error is ErrTimeout, ErrClosed or that of ctx.
func (c *Conn) Request(ctx context.Context, dest wire.EID, req []byte) (resp []byte, err error) {
	h, _, err := wire.ParseHeader(req)
	if err != nil || !h.Request {
		return nil, fmt.Errorf("request to endpoint %d: not a PLDM request", dest)
	}
	turn := c.turn(dest)
	select {
	case <-turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, c.closed()
	}
	defer func() { turn <- struct{}{} }()
	var tag uint8
	select {
	case tag = <-c.tags:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, c.closed()
	}
	defer func() { c.tags <- tag }()

	p := &pending{dest: dest, header: h, resp: make(chan []byte, 1)}
	c.mu.Lock()
	c.instance = (c.instance + 1) & 0x1F
	p.header.Instance = c.instance
	c.pending[tag] = p
	c.stats.Requests++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.pending[tag] = nil
		c.mu.Unlock()
	}()
	req = append(wire.AppendHeader(make([]byte, 0, len(req)), p.header), req[wire.HeaderSize:]...)

	attempts, wait := c.o.Attempts, c.o.Timeout
	if slow(h) {
		wait *= 10
	}
	if once(h) {
		attempts, wait = 1, wait*time.Duration(attempts)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for n := range attempts {
		if n > 0 {
			c.mu.Lock()
			c.stats.Retries++
			c.mu.Unlock()
			timer.Reset(wait)
		}
		if err := c.send(wire.Address{Dest: dest, Source: c.own, Tag: tag, TagOwner: true}, req); err != nil {
			return nil, err
		}
		select {
		case resp := <-p.resp:
			return resp, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.done:
			return nil, c.closed()
		case <-timer.C:
		}
	}
	c.mu.Lock()
	c.stats.Timeouts++
	c.mu.Unlock()
	return nil, fmt.Errorf("endpoint %d: %w", dest, ErrTimeout)
}

// once says which requests must not be repeated.
func once(h wire.Header) bool {
	if h.Type != wire.TypeOEM {
		return false
	}
	switch h.Command {
	case wire.CmdReset, wire.CmdRestart, wire.CmdWriteConsole, wire.CmdExtendMeasurement:
		return true
	}
	return false
}

// slow says which requests make a controller work with its flash or on signatures.
func slow(h wire.Header) bool {
	if h.Type != wire.TypeOEM {
		return false
	}
	switch h.Command {
	case wire.CmdSlotErase, wire.CmdSlotWrite, wire.CmdSlotCommit, wire.CmdGetEvidence, wire.CmdRaiseFloors:
		return true
	}
	return false
}

func (c *Conn) turn(dest wire.EID) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.turns[dest]
	if t == nil {
		t = make(chan struct{}, 1)
		t <- struct{}{}
		c.turns[dest] = t
	}
	return t
}

func (c *Conn) closed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || errors.Is(c.err, io.EOF) || errors.Is(c.err, io.ErrClosedPipe) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, c.err)
}

func (c *Conn) send(a wire.Address, body []byte) (err error) {
	c.write.Lock()
	defer c.write.Unlock()
	c.out, err = wire.AppendMessage(c.out[:0], 0, a, wire.MessagePLDM, body, c.o.Unit)
	if err != nil {
		return fmt.Errorf("request to endpoint %d: %w", a.Dest, err)
	}
	if _, err := c.line.Write(c.out); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return nil
}

// read takes answers from the line until it ends.
func (c *Conn) read() {
	defer close(c.done)
	var frames wire.Deframer
	messages := map[wire.EID]*wire.Assembler{}
	buf := make([]byte, 4096)
	for {
		n, err := c.line.Read(buf)
		for _, b := range buf[:n] {
			if packet, ok := frames.Push(b); ok {
				c.packet(messages, packet)
			}
		}
		dropped := uint64(frames.Stats.Errors)
		for _, a := range messages {
			dropped += uint64(a.Stats.Dropped())
		}
		c.mu.Lock()
		c.stats.Dropped = dropped
		c.err = err
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// packet passes a packet to its sender's assembler: answers of several controllers
// may come interleaved.
func (c *Conn) packet(messages map[wire.EID]*wire.Assembler, packet []byte) {
	p, err := wire.ParsePacket(packet)
	if err != nil {
		return
	}
	a := messages[p.Source]
	if a == nil {
		if len(messages) >= 32 { // more than a rack has: noise
			clear(messages)
		}
		a = &wire.Assembler{Own: c.own}
		messages[p.Source] = a
	}
	if m, ok := a.Push(packet); ok {
		c.answer(m)
	}
}

func (c *Conn) answer(m wire.Message) {
	h, _, err := wire.ParseHeader(m.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending[m.Tag]
	if m.Type != wire.MessagePLDM || err != nil || h.Request || m.TagOwner || p == nil ||
		p.dest != wire.EIDNull && p.dest != m.Source ||
		h.Instance != p.header.Instance || h.Type != p.header.Type || h.Command != p.header.Command {
		c.stats.Strays++
		return
	}
	c.pending[m.Tag] = nil // the answer to a repetition is a stray
	p.resp <- append([]byte(nil), m.Body...)
}
