package netswitch

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// pcapng, as draft-ietf-opsawg-pcapng describes it; all little-endian.
const (
	blockSection   = 0x0A0D0D0A // 4.1
	blockInterface = 1          // 4.2
	blockStats     = 5          // 4.6
	blockPacket    = 6          // 4.3
	byteOrder      = 0x1A2B3C4D
	linkEthernet   = 1

	optIfName  = 2 // 4.2
	optIfTSRes = 9
	optFlags   = 2 // 4.3: bits 0-1: 1 inbound, 2 outbound
	optIfDrop  = 5 // 4.6: packets the capture itself lost
)

// captureQueue is how many blocks wait for a slow reader; later ones are lost
// and counted.
const captureQueue = 4096

type capture struct {
	one   *Port // nil: all ports
	ports int   // how many of them the capture's head names
	queue chan []byte

	mu   sync.Mutex
	lost uint64
}

// Capture writes what passes the switch to w as pcapng until ctx ends or w
// fails. With a port it shows both directions of that port's cable, as its
// device sees them; with nil it shows all ports, each frame once, where it
// enters the switch. It never slows the switch: when w is slow, frames are
// missing from the capture and counted in its last block.
func (s *Switch) Capture(ctx context.Context, w io.Writer, port *Port) error {
	s.mu.Lock()
	ports := slices.Clone(s.ports)
	c := &capture{one: port, ports: len(ports), queue: make(chan []byte, captureQueue)}
	s.captures = append(s.captures, c)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.captures = slices.DeleteFunc(s.captures, func(x *capture) bool { return x == c })
	}()

	head := appendBlock(nil, blockSection, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, byteOrder)
		b = binary.LittleEndian.AppendUint16(b, 1) // version 1.0
		b = binary.LittleEndian.AppendUint16(b, 0)
		return binary.LittleEndian.AppendUint64(b, ^uint64(0)) // length unknown
	})
	for _, p := range ports {
		head = appendBlock(head, blockInterface, func(b []byte) []byte {
			b = binary.LittleEndian.AppendUint16(b, linkEthernet)
			b = binary.LittleEndian.AppendUint16(b, 0)
			b = binary.LittleEndian.AppendUint32(b, 0) // no snap length
			b = appendOption(b, optIfName, []byte(p.name))
			b = appendOption(b, optIfTSRes, []byte{9}) // nanoseconds
			return appendOption(b, 0, nil)
		})
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	for {
		select {
		case block := <-c.queue:
			if _, err := w.Write(block); err != nil {
				return fmt.Errorf("write capture: %w", err)
			}
		case <-ctx.Done():
			return c.finish(w)
		}
	}
}

func (c *capture) finish(w io.Writer) error {
	for {
		select {
		case block := <-c.queue:
			if _, err := w.Write(block); err != nil {
				return fmt.Errorf("write capture: %w", err)
			}
			continue
		default:
		}
		break
	}
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	_, err := w.Write(appendBlock(nil, blockStats, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = appendTime(b, time.Now())
		b = appendOption(b, optIfDrop, binary.LittleEndian.AppendUint64(nil, lost))
		return appendOption(b, 0, nil)
	}))
	if err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// record shows a frame to the captures that want it. The caller holds s.mu.
func (s *Switch) record(p *Port, frame []byte, inbound bool, now time.Time) {
	for _, c := range s.captures {
		if c.one != p && (c.one != nil || !inbound) {
			continue
		}
		if p.index >= c.ports {
			continue // added after the capture had named its interfaces
		}
		flags := uint32(1)
		if c.one != nil && inbound { // seen from the device, it went out
			flags = 2
		}
		block := appendBlock(make([]byte, 0, len(frame)+48), blockPacket, func(b []byte) []byte {
			b = binary.LittleEndian.AppendUint32(b, uint32(p.index))
			b = appendTime(b, now)
			b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
			b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
			b = pad(append(b, frame...))
			b = appendOption(b, optFlags, binary.LittleEndian.AppendUint32(nil, flags))
			return appendOption(b, 0, nil)
		})
		select {
		case c.queue <- block:
		default:
			c.mu.Lock()
			c.lost++
			c.mu.Unlock()
		}
	}
}

func appendTime(b []byte, t time.Time) []byte {
	ns := uint64(t.UnixNano())
	b = binary.LittleEndian.AppendUint32(b, uint32(ns>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(ns))
}

// appendBlock appends a block: type, length, body, length again (3.1).
func appendBlock(dst []byte, kind uint32, body func([]byte) []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, kind)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = body(dst)
	n := uint32(len(dst) - start + 4)
	binary.LittleEndian.PutUint32(dst[start+4:], n)
	return binary.LittleEndian.AppendUint32(dst, n)
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...))
}

// pad fills up to 32 bits. Blocks and options start at such a border, so the
// length of the whole buffer tells.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
