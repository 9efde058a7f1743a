package wire

// PLDM for FRU data (DSP0257, 1.0.0): who made a board, and which one it is. A controller has one table with one general
// record, made of what its board's EEPROM holds.

// Commands of FRU data (DSP0257, table 7 "PLDM for FRU data commands").
const (
	CmdGetFRUMetadata uint8 = 0x01 // GetFRURecordTableMetadata
	CmdGetFRUTable    uint8 = 0x02 // GetFRURecordTable
)

// VersionFRU is the version of the type.
const VersionFRU uint32 = 0xF1F0F000 // 1.0.0

// Completion codes of FRU data (DSP0257, tables 8 and 9).
const (
	CodeFRUInvalidHandle   Code = 0x80
	CodeFRUInvalidTransfer Code = 0x81
	CodeFRUNoMetadata      Code = 0x83 // there is no table
	CodeFRUNoTable         Code = 0x85
)

// FRUField is the type of a field of a general record (DSP0257, table 5).
type FRUField uint8

// Fields of a general record. All are texts but the date, a timestamp104 (DSP0240, table 5).
const (
	FRUModel           FRUField = 0x02
	FRUPartNumber      FRUField = 0x03
	FRUSerialNumber    FRUField = 0x04
	FRUManufacturer    FRUField = 0x05
	FRUManufactureDate FRUField = 0x06
	FRUVersion         FRUField = 0x0A
	FRUAssetTag        FRUField = 0x0B
)

// Specification and implementation constants of FRU tables.
const (
	MaxFRUFields = 128             // bytes of fields in our one record
	MaxFRUTable  = 5 + 128 + 3 + 4 // record header, fields, padding, checksum

	fruGeneral   = 1 // record type (DSP0257, table 4)
	fruASCII     = 1 // encoding (DSP0257, table 3)
	fruSet       = 1 // our one record set
	fruHeader    = 5
	fruTimestamp = 13
)

// AppendFRUTable appends a table with one general record: its header, fields, zeros up to a multiple of four bytes, and
// the CRC-32 of all that. Fields are type (1 byte), length (1), value each. ErrValue: they are not, or there are none;
// ErrLong: they are longer than MaxFRUFields.
func AppendFRUTable(dst, fields []byte) ([]byte, error) {
	if len(fields) > MaxFRUFields {
		return dst, ErrLong
	}
	count := uint8(0)
	for rest := fields; len(rest) > 0; count++ {
		var ok bool
		if _, _, rest, ok = cutFRUField(rest); !ok {
			return dst, ErrValue
		}
	}
	if count == 0 {
		return dst, ErrValue
	}
	at := len(dst)
	dst = append(le.AppendUint16(dst, fruSet), fruGeneral, count, fruASCII)
	dst = append(dst, fields...)
	for (len(dst)-at)%4 != 0 {
		dst = append(dst, 0)
	}
	return le.AppendUint32(dst, crc32(dst[at:])), nil
}

// cutFRUField takes one field off the front.
func cutFRUField(b []byte) (kind FRUField, value, rest []byte, ok bool) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return 0, nil, nil, false
	}
	n := 2 + int(b[1])
	return FRUField(b[0]), b[2:n], b[n:], true
}

// ParseFRUTable checks a table and returns the fields of its first general record, a view of b for [FRUText]. Other
// records are passed over. ErrValue: the checksum is wrong, or there is no such record.
func ParseFRUTable(b []byte) (fields []byte, err error) {
	if len(b) < fruHeader+4 {
		return nil, ErrShort
	}
	records := b[:len(b)-4]
	if crc32(records) != le.Uint32(b[len(records):]) {
		return nil, ErrValue
	}
	for len(records) >= fruHeader {
		kind, count, encoding := records[2], records[3], records[4]
		body := records[fruHeader:]
		rest := body
		for range count {
			var ok bool
			if _, _, rest, ok = cutFRUField(rest); !ok {
				return nil, ErrValue
			}
		}
		if kind == fruGeneral && encoding == fruASCII && count > 0 {
			return body[:len(body)-len(rest)], nil
		}
		records = rest
	}
	return nil, ErrValue
}

// FRUText returns the value of a field in place, nil if there is none.
func FRUText(fields []byte, f FRUField) []byte {
	for {
		kind, value, rest, ok := cutFRUField(fields)
		if !ok {
			return nil
		}
		if kind == f {
			return value
		}
		fields = rest
	}
}

// FRUDate returns the day of a field that holds a timestamp104, zeros if there is none.
func FRUDate(fields []byte, f FRUField) (year uint16, month, day uint8) {
	t := FRUText(fields, f)
	if len(t) != fruTimestamp || t[8] == 0 || t[8] > 31 || t[9] == 0 || t[9] > 12 {
		return 0, 0, 0
	}
	return le.Uint16(t[10:]), t[9], t[8]
}

// AppendFRUDate appends a day as a timestamp104 (DSP0240, table 5): no time zone, resolution one day.
func AppendFRUDate(dst []byte, year uint16, month, day uint8) []byte {
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, day, month)
	return append(le.AppendUint16(dst, year), 0x0B)
}

// FRUMetadata is the response of GetFRURecordTableMetadata.
type FRUMetadata struct {
	Major, Minor uint8  // of the format
	MaxSize      uint32 // 0: the table cannot be written
	Length       uint32 // of the table, padding included, checksum not
	Sets         uint16
	Records      uint16
	Checksum     uint32
}

// MakeFRUMetadata describes a table of AppendFRUTable.
func MakeFRUMetadata(table []byte) FRUMetadata {
	n := len(table) - 4
	return FRUMetadata{Major: 1, Length: uint32(n), Sets: 1, Records: 1, Checksum: le.Uint32(table[n:])}
}

// AppendFRUMetadata appends the response of GetFRURecordTableMetadata.
func AppendFRUMetadata(dst []byte, m FRUMetadata) []byte {
	dst = le.AppendUint32(append(dst, m.Major, m.Minor), m.MaxSize)
	dst = le.AppendUint32(dst, m.Length)
	dst = le.AppendUint16(le.AppendUint16(dst, m.Sets), m.Records)
	return le.AppendUint32(dst, m.Checksum)
}

// ParseFRUMetadata is the reverse of AppendFRUMetadata.
func ParseFRUMetadata(b []byte) (m FRUMetadata, err error) {
	c := cursor{b: b}
	m.Major, m.Minor, m.MaxSize, m.Length = c.u8(), c.u8(), c.u32(), c.u32()
	m.Sets, m.Records, m.Checksum = c.u16(), c.u16(), c.u32()
	return m, c.done()
}

// AppendGetFRUTable appends the request for a table from its beginning.
func AppendGetFRUTable(dst []byte) []byte { return append(le.AppendUint32(dst, 0), TransferFirst) }

// ParseGetFRUTable returns handle and flag of the request for a table.
func ParseGetFRUTable(b []byte) (handle uint32, flag uint8, err error) {
	c := cursor{b: b}
	handle, flag = c.u32(), c.u8()
	return handle, flag, c.done()
}

// AppendFRUTableResponse appends the response with the whole table: it fits into one part.
func AppendFRUTableResponse(dst, table []byte) []byte {
	return append(append(le.AppendUint32(dst, 0), TransferStartAndEnd), table...)
}

// ParseFRUTableResponse returns the table. One that comes in parts is longer than ours may be: ErrValue.
func ParseFRUTableResponse(b []byte) (table []byte, err error) {
	c := cursor{b: b}
	c.u32()
	if c.u8() != TransferStartAndEnd {
		c.bad()
	}
	table = c.take(len(c.b))
	return table, c.done()
}

// FRUSides tells from which sides a controller accepts a command of FRU data. A unit may know on which board it is.
func FRUSides(command uint8) SideMask {
	switch command {
	case CmdGetFRUMetadata, CmdGetFRUTable:
		return FromAll
	}
	return 0
}
