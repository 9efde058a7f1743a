package wire

import (
	"encoding/binary"
	"errors"
)

// Errors of the decoders. They are values without detail, so that refusing costs
// no memory; the caller knows what it was decoding.
var (
	ErrShort    = errors.New("message too short")
	ErrTrailing = errors.New("message too long")
	ErrValue    = errors.New("value out of range")
	ErrLong     = errors.New("packet too long for a frame")
)

var le = binary.LittleEndian

// cursor reads a message from front to back. After the first short read all
// reads give zero and done reports ErrShort.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b = nil
		if c.err == nil {
			c.err = ErrShort
		}
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8() uint8 {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if p := c.take(2); p != nil {
		return le.Uint16(p)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return le.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return le.Uint64(p)
	}
	return 0
}

// boolean reads a byte that must be 0 or 1.
func (c *cursor) boolean() bool { return c.max(1) == 1 }

// max reads a byte that must not exceed limit.
func (c *cursor) max(limit uint8) uint8 {
	v := c.u8()
	if v > limit {
		c.bad()
		return 0
	}
	return v
}

// bad remembers that a value is out of range.
func (c *cursor) bad() {
	if c.err == nil {
		c.err = ErrValue
	}
}

func (c *cursor) copy(dst []byte) {
	if p := c.take(len(dst)); p != nil {
		copy(dst, p)
	}
}

// text reads a length byte and that many bytes, limit at most.
func (c *cursor) text(limit int) []byte {
	n := int(c.u8())
	if n > limit {
		c.bad()
		return nil
	}
	return c.take(n)
}

// data reads a 16-bit length and that many bytes, limit at most. The result
// is a view of the message.
func (c *cursor) data(limit int) []byte {
	n := int(c.u16())
	if n > limit {
		c.bad()
		return nil
	}
	return c.take(n)
}

// done reports the first error, or ErrTrailing if bytes are left.
func (c *cursor) done() error {
	if c.err == nil && len(c.b) > 0 {
		return ErrTrailing
	}
	return c.err
}

func appendText(dst, text []byte) []byte {
	return append(append(dst, uint8(len(text))), text...)
}

func appendData(dst, data []byte) []byte {
	return append(le.AppendUint16(dst, uint16(len(data))), data...)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}
