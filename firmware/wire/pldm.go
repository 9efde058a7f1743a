package wire

// PLDM types (DSP0245, table 1).
const (
	TypeBase    uint8 = 0x00
	TypeMonitor uint8 = 0x02 // platform monitoring and control
	TypeFRU     uint8 = 0x04
	TypeUpdate  uint8 = 0x05
	TypeOEM     uint8 = 0x3F
)

// Commands of the base type (DSP0240, table 10 "PLDM messaging control and discovery command codes").
const (
	CmdSetTID      uint8 = 0x01
	CmdGetTID      uint8 = 0x02
	CmdGetVersion  uint8 = 0x03
	CmdGetTypes    uint8 = 0x04
	CmdGetCommands uint8 = 0x05
)

// Code is the completion code of a response.
type Code uint8

// Completion codes of all types (DSP0240, table 4 "Generic PLDM completion codes").
const (
	CodeSuccess       Code = 0x00
	CodeError         Code = 0x01
	CodeInvalidData   Code = 0x02
	CodeInvalidLength Code = 0x03
	CodeNotReady      Code = 0x04
	CodeUnsupported   Code = 0x05 // no such command
	CodeInvalidType   Code = 0x20 // no such PLDM type
)

// Completion codes of the base commands (DSP0240, 9.3 and 9.5).
const (
	CodeBaseInvalidTransfer Code = 0x81 // GetPLDMVersion: INVALID_TRANSFER_OPERATION_FLAG
	CodeBaseUnknownType     Code = 0x83 // INVALID_PLDM_TYPE_IN_REQUEST_DATA
	CodeBaseUnknownVersion  Code = 0x84 // INVALID_PLDM_VERSION_IN_REQUEST_DATA
)

// Completion codes of our vendor-defined commands.
const (
	CodeWrongSide Code = 0x80 // the command is not accepted from this side; not even looked at
	CodeRefused   Code = 0x81 // a check failed; the response carries a Failure
	CodeBusy      Code = 0x82 // not in this state, as writing a slot that is being booted
)

// String returns a lower-case phrase.
func (c Code) String() string {
	switch c {
	case CodeSuccess:
		return "success"
	case CodeError:
		return "error"
	case CodeInvalidData:
		return "invalid data"
	case CodeInvalidLength:
		return "invalid length"
	case CodeNotReady:
		return "not ready"
	case CodeUnsupported:
		return "unsupported command"
	case CodeInvalidType:
		return "unsupported type"
	case 0x80:
		return "command-specific code 0x80"
	case 0x81:
		return "command-specific code 0x81"
	case 0x82:
		return "command-specific code 0x82"
	}
	return "unknown code"
}

// Header is the PLDM message header (DSP0240, 8.1 "PLDM message fields").
type Header struct {
	Request  bool
	Datagram bool  // a request that wants no response
	Instance uint8 // 0 to 31
	Type     uint8 // 0 to 63
	Command  uint8
}

// HeaderSize is the size of a PLDM header; a response has its completion code behind it.
const HeaderSize = 3

// AppendHeader appends the header. In a response the completion code follows.
func AppendHeader(dst []byte, h Header) []byte {
	b := h.Instance & 0x1F
	if h.Request {
		b |= 0x80
	}
	if h.Datagram {
		b |= 0x40
	}
	return append(dst, b, h.Type&0x3F, h.Command) // header version 00
}

// AppendRequest appends the header of a request.
func AppendRequest(dst []byte, instance, kind, command uint8) []byte {
	return AppendHeader(dst, Header{Request: true, Instance: instance, Type: kind, Command: command})
}

// AppendResponse appends the header of the response to a request, and its code.
func AppendResponse(dst []byte, req Header, code Code) []byte {
	req.Request, req.Datagram = false, false
	return append(AppendHeader(dst, req), byte(code))
}

// ParseHeader takes a PLDM message apart. For a response, payload begins with the completion code.
func ParseHeader(b []byte) (h Header, payload []byte, err error) {
	if len(b) < HeaderSize {
		return Header{}, nil, ErrShort
	}
	if b[1]>>6 != 0 || b[0]&0x20 != 0 { // another header version, or the reserved bit
		return Header{}, nil, ErrValue
	}
	h = Header{
		Request: b[0]&0x80 != 0, Datagram: b[0]&0x40 != 0, Instance: b[0] & 0x1F,
		Type: b[1] & 0x3F, Command: b[2],
	}
	if h.Datagram && !h.Request {
		return Header{}, nil, ErrValue
	}
	return h, b[HeaderSize:], nil
}

// ParseResponse takes a response apart: header, completion code, the rest.
func ParseResponse(b []byte) (h Header, code Code, payload []byte, err error) {
	h, payload, err = ParseHeader(b)
	switch {
	case err != nil:
		return Header{}, 0, nil, err
	case h.Request:
		return Header{}, 0, nil, ErrValue
	case len(payload) == 0:
		return Header{}, 0, nil, ErrShort
	}
	return h, Code(payload[0]), payload[1:], nil
}

// Versions of the types, as GetPLDMVersion spells them (DSP0240, 9.3: ver32,
// major, minor, update in BCD with upper nibble F, alpha 0).
const (
	VersionBase    uint32 = 0xF1F1F000 // 1.1.0
	VersionMonitor uint32 = 0xF1F2F000 // 1.2.0
	VersionOEM     uint32 = 0xF1F0F000 // 1.0.0
)

// Transfer flags (DSP0240, 9.3; DSP0248, 26.2).
const (
	TransferNext        uint8 = 0x00
	TransferFirst       uint8 = 0x01
	TransferStartAndEnd uint8 = 0x05
)

// AppendGetVersionRequest appends the request for a type's version.
func AppendGetVersionRequest(dst []byte, kind uint8) []byte {
	return append(le.AppendUint32(dst, 0), TransferFirst, kind)
}

// ParseGetVersionRequest returns the transfer flag and the type asked for.
func ParseGetVersionRequest(b []byte) (flag, kind uint8, err error) {
	c := cursor{b: b}
	c.u32()
	flag, kind = c.u8(), c.u8()
	return flag, kind, c.done()
}

// AppendGetVersionResponse appends the one version of a type and its checksum.
func AppendGetVersionResponse(dst []byte, version uint32) []byte {
	dst = append(le.AppendUint32(dst, 0), TransferStartAndEnd)
	// ver32 stands with its alpha byte first (DSP0240, 7.1); the checksum is the CRC-32 of DSP0240, 9.3.
	at := len(dst)
	dst = le.AppendUint32(dst, version)
	return le.AppendUint32(dst, crc32(dst[at:]))
}

// ParseGetVersionResponse returns the version; more than one version is ErrTrailing.
func ParseGetVersionResponse(b []byte) (version uint32, err error) {
	c := cursor{b: b}
	c.u32()
	if c.u8() != TransferStartAndEnd {
		c.bad()
	}
	data := c.take(4)
	sum := c.u32()
	if err := c.done(); err != nil {
		return 0, err
	}
	if crc32(data) != sum {
		return 0, ErrValue
	}
	return le.Uint32(data), nil
}

// crc32 is the CRC-32 of IEEE 802.3 by halves of a byte: sixteen words of table
// are enough for a checksum that is computed once in a session.
func crc32(p []byte) uint32 {
	sum := ^uint32(0)
	for _, b := range p {
		sum ^= uint32(b)
		sum = sum>>4 ^ crcTable[sum&15]
		sum = sum>>4 ^ crcTable[sum&15]
	}
	return ^sum
}

var crcTable = makeCRCTable()

func makeCRCTable() (t [16]uint32) {
	for i := range t {
		v := uint32(i)
		for range 4 {
			if v&1 != 0 {
				v = v>>1 ^ 0xEDB88320
			} else {
				v >>= 1
			}
		}
		t[i] = v
	}
	return t
}

// Bits is a set of types (0 to 63) or commands (0 to 255) as GetPLDMTypes and
// GetPLDMCommands carry it.
type Bits [32]byte

// Set adds v.
func (s *Bits) Set(v uint8) { s[v/8] |= 1 << (v % 8) }

// Has reports whether v is in the set.
func (s *Bits) Has(v uint8) bool { return s[v/8]&(1<<(v%8)) != 0 }

// AppendGetTypesResponse appends the set of types.
func AppendGetTypesResponse(dst []byte, types *Bits) []byte { return append(dst, types[:8]...) }

// ParseGetTypesResponse returns the set of types.
func ParseGetTypesResponse(b []byte) (types Bits, err error) {
	c := cursor{b: b}
	c.copy(types[:8])
	return types, c.done()
}

// AppendGetCommandsRequest appends the request for the commands of a type.
func AppendGetCommandsRequest(dst []byte, kind uint8, version uint32) []byte {
	return le.AppendUint32(append(dst, kind), version)
}

// ParseGetCommandsRequest returns type and version asked for.
func ParseGetCommandsRequest(b []byte) (kind uint8, version uint32, err error) {
	c := cursor{b: b}
	kind, version = c.u8(), c.u32()
	return kind, version, c.done()
}

// AppendGetCommandsResponse appends the set of commands.
func AppendGetCommandsResponse(dst []byte, commands *Bits) []byte { return append(dst, commands[:]...) }

// ParseGetCommandsResponse returns the set of commands.
func ParseGetCommandsResponse(b []byte) (commands Bits, err error) {
	c := cursor{b: b}
	c.copy(commands[:])
	return commands, c.done()
}

// AppendTID appends a terminus ID, as in SetTID and the response of GetTID.
func AppendTID(dst []byte, tid uint8) []byte { return append(dst, tid) }

// ParseTID returns a terminus ID; 0 and 0xFF are reserved (DSP0240, 9.1).
func ParseTID(b []byte) (tid uint8, err error) {
	c := cursor{b: b}
	tid = c.u8()
	return tid, c.done()
}
