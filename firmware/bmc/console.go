package bmc

// consoleRing is the scroll-back of the unit's UART. Offsets count all bytes since the BMC started.
type consoleRing struct {
	end uint64
	buf [consoleSize]byte
}

func (c *consoleRing) write(p []byte) {
	for len(p) > 0 {
		n := copy(c.buf[c.end%consoleSize:], p)
		c.end += uint64(n)
		p = p[n:]
	}
}

// read appends up to limit bytes from offset on, or from the oldest byte held if offset is older than that, and returns
// where they begin. An offset beyond the end reads nothing: at the end.
func (c *consoleRing) read(dst []byte, offset uint64, limit int) (out []byte, start uint64) {
	if c.end > consoleSize && offset < c.end-consoleSize {
		offset = c.end - consoleSize
	}
	if offset > c.end {
		offset = c.end
	}
	start = offset
	for limit > 0 && offset < c.end {
		at := offset % consoleSize
		n := min(uint64(limit), c.end-offset, consoleSize-at)
		dst = append(dst, c.buf[at:at+n]...)
		offset += n
		limit -= int(n)
	}
	return dst, start
}

// inputRing holds what was typed until the unit's UART takes it.
type inputRing struct {
	head, tail uint32
	buf        [consoleInSize]byte
}

// write takes what fits and returns how much that was.
func (r *inputRing) write(p []byte) int {
	n := 0
	for n < len(p) && r.tail-r.head < consoleInSize {
		r.buf[r.tail%consoleInSize] = p[n]
		r.tail++
		n++
	}
	return n
}

func (r *inputRing) read(dst []byte) int {
	n := 0
	for n < len(dst) && r.head != r.tail {
		dst[n] = r.buf[r.head%consoleInSize]
		r.head++
		n++
	}
	return n
}

// ConsoleInput takes bytes that the unit printed on its UART.
func (b *BMC) ConsoleInput(p []byte) { b.console.write(p) }

// ConsoleOutput moves bytes that an operator typed to dst, for the unit's UART, and returns how many.
func (b *BMC) ConsoleOutput(dst []byte) int { return b.input.read(dst) }
