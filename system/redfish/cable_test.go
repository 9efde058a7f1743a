package redfish_test

import (
	"io"
	"sync"
	"testing"

	"github.com/racklet/racklet/firmware/wire/wiretest"
)

// cable is the line to a fake rack that outlives the services before it.
type cable struct {
	*wiretest.Rack
	data chan []byte
}

func newCable(t *testing.T) *cable {
	c := &cable{wiretest.NewRack(1), make(chan []byte, 1024)}
	go func() {
		defer close(c.data)
		for {
			b := make([]byte, 512)
			n, err := c.Rack.Line().Read(b)
			if err != nil {
				return
			}
			select {
			case c.data <- b[:n]:
			default: // nobody is there
			}
		}
	}()
	t.Cleanup(c.Close)
	return c
}

// plug is one service's end.
type plug struct {
	*cable
	rest   []byte
	closed chan struct{}
	once   sync.Once
}

func (c *cable) Line() io.ReadWriteCloser { return &plug{cable: c, closed: make(chan struct{})} }

func (p *plug) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		select {
		case data, ok := <-p.data:
			if !ok {
				return 0, io.EOF
			}
			p.rest = data
		case <-p.closed:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *plug) Write(b []byte) (int, error) {
	select {
	case <-p.closed:
		return 0, io.ErrClosedPipe
	default:
		return p.Rack.Line().Write(b)
	}
}

func (p *plug) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}
