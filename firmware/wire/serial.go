package wire

// MCTP over serial: DSP0253 1.0.0, clause 5.2 "MCTP serial packet format".
const (
	frameFlag     = 0x7E // starts and ends a frame
	frameEscape   = 0x7D // within the data: the next byte is complemented in bit 5
	frameInvert   = 0x20
	frameRevision = 0x01
	fcsInitial    = 0xFFFF // FCS-16 of RFC 1662, C.2; DSP0253 sends the register as it is, most significant byte first
)

// MaxPacket is the longest MCTP packet, header included, that the byte count of a
// serial frame can express.
const MaxPacket = 255

// MaxFrame is the longest serial frame: every data byte escaped, and six bytes around.
const MaxFrame = 2*MaxPacket + 6

// fcsTable is the table of RFC 1662, C.2: polynomial x^16 + x^12 + x^5 + 1, bits reversed.
var fcsTable = makeFCSTable()

func makeFCSTable() (t [256]uint16) {
	for i := range t {
		v := uint16(i)
		for range 8 {
			if v&1 != 0 {
				v = v>>1 ^ 0x8408
			} else {
				v >>= 1
			}
		}
		t[i] = v
	}
	return t
}

func fcs(sum uint16, b byte) uint16 { return sum>>8 ^ fcsTable[byte(sum)^b] }

// AppendFrame appends packet as one serial frame. The byte count and the check
// sequence cover the packet before escaping; only packet bytes are escaped.
func AppendFrame(dst, packet []byte) ([]byte, error) {
	if len(packet) > MaxPacket {
		return dst, ErrLong
	}
	n := byte(len(packet))
	sum := fcs(fcs(fcsInitial, frameRevision), n)
	dst = append(dst, frameFlag, frameRevision, n)
	for _, b := range packet {
		sum = fcs(sum, b)
		if b == frameFlag || b == frameEscape {
			dst = append(dst, frameEscape, b^frameInvert)
		} else {
			dst = append(dst, b)
		}
	}
	return append(dst, byte(sum>>8), byte(sum), frameFlag), nil
}

// FrameStats counts what a Deframer has seen.
type FrameStats struct {
	Frames uint32 // good frames
	Errors uint32 // frames given up: check sequence, escape, revision, missing end
	Noise  uint32 // bytes outside of frames
}

// Deframer finds serial frames in a stream of bytes. It recovers from any noise at
// the next flag. The zero value reads a point-to-point line; with Bus set it
// reads the multi-drop bus, where an address byte stands right before each frame
// and frames without one are noise. Memory: this struct.
type Deframer struct {
	Bus   bool
	Stats FrameStats

	phase  phase
	last   byte // the byte before, for the bus address
	addr   byte
	sum    uint16
	got    uint16
	want   int
	n      int
	packet [MaxPacket]byte
}

type phase uint8

const (
	phaseHunt phase = iota
	phaseRevision
	phaseCount
	phaseData
	phaseEscaped
	phaseHigh
	phaseLow
	phaseEnd
)

// Push takes one byte from the line. When that byte completes a good frame, it
// returns the packet and true; the packet is valid until the next call.
func (d *Deframer) Push(b byte) (packet []byte, ok bool) {
	last := d.last
	d.last = b
	switch d.phase {
	case phaseHunt:
		if b != frameFlag {
			if !d.Bus || !IsAddress(b) {
				d.Stats.Noise++
			}
			return nil, false
		}
		d.start(last)
	case phaseRevision:
		if b == frameFlag { // the end of a frame whose start was lost, or an empty one
			d.start(last)
			return nil, false
		}
		if b != frameRevision {
			d.fail()
			return nil, false
		}
		d.sum = fcs(fcsInitial, b)
		d.phase = phaseCount
	case phaseCount:
		d.sum = fcs(d.sum, b)
		d.want, d.n = int(b), 0
		d.phase = phaseData
		if d.want == 0 {
			d.phase = phaseHigh
		}
	case phaseData:
		switch b {
		case frameFlag: // bytes were lost: this may be the start of the next frame
			d.fail()
			d.start(last)
		case frameEscape:
			d.phase = phaseEscaped
		default:
			d.put(b)
		}
	case phaseEscaped:
		b ^= frameInvert
		if b != frameFlag && b != frameEscape {
			d.fail()
			return nil, false
		}
		d.phase = phaseData
		d.put(b)
	case phaseHigh:
		d.got = uint16(b) << 8
		d.phase = phaseLow
	case phaseLow:
		d.got |= uint16(b)
		d.phase = phaseEnd
	case phaseEnd:
		if b != frameFlag || d.got != d.sum {
			d.fail()
			if b == frameFlag {
				d.start(last)
			}
			return nil, false
		}
		d.phase = phaseHunt
		d.Stats.Frames++
		return d.packet[:d.n], true
	}
	return nil, false
}

// Address returns the bus address of the frame that Push returned last.
func (d *Deframer) Address() byte { return d.addr }

// Reset gives up the frame being read, as after silence on the line that is longer
// than a frame may pause.
func (d *Deframer) Reset() {
	if d.phase != phaseHunt {
		d.fail()
	}
	d.last = 0
}

func (d *Deframer) start(last byte) {
	if d.Bus {
		if !IsAddress(last) {
			d.Stats.Noise++
			d.phase = phaseHunt
			return
		}
		d.addr = last
	}
	d.phase = phaseRevision
}

func (d *Deframer) put(b byte) {
	d.sum = fcs(d.sum, b)
	d.packet[d.n] = b
	d.n++
	if d.n == d.want {
		d.phase = phaseHigh
	}
}

func (d *Deframer) fail() {
	d.Stats.Errors++
	d.phase = phaseHunt
}
