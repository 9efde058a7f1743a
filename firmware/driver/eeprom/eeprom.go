// Package eeprom reads and writes the identity record of a board in a Microchip 24AA025E48, 256 bytes on I²C of which
// the upper half is read only and ends in a factory-programmed EUI-48.
//
// Data sheet: 24AA02E48/24AA025E48/24AA02E64/24AA025E64 2K I2C Serial EEPROMs with EUI-48 or EUI-64 Node Identity,
// DS20002124G (2015). Sections cited below are of that document.
//
// The record fills at most the lower 128 bytes:
//
//	"RKID"      4 bytes
//	version     1 byte, 1
//	length      1 byte, of the fields that follow
//	fields      each: type (1), length (1), value; ascending types, each at most once
//	CRC-32      4 bytes, IEEE 802.3, little endian, over everything before it
//
// Field types are the general FRU record's of DSP0257 (PLDM for FRU Data, 1.0.0, table 5), so that a controller can
// hand the fields on unchanged. Values are ASCII, but for the date, a timestamp104 (DSP0240, table 5). A record with a wrong CRC, an unknown version or a malformed field is
// ErrRecord; an empty chip (all ones) is ErrEmpty.
package eeprom

import (
	"errors"

	"github.com/racklet/racklet/firmware/driver"
)

// Field is the type of one identity field (DSP0257, table 5).
type Field uint8

// The fields in use.
const (
	Model        Field = 0x02
	PartNumber   Field = 0x03
	SerialNumber Field = 0x04
	Manufacturer Field = 0x05
	Date         Field = 0x06 // of manufacture
	Version      Field = 0x0A
	AssetTag     Field = 0x0B
)

// Specification constants.
const (
	pageSize = 16   // write page of the 24AA025E48 (section 6.2)
	euiStart = 0xFA // EUI-48 (section 9.0, figure 9-2)
)

// Implementation constants.
const (
	// DefaultAddress is the address with A0–A2 tied to ground (section 5.0).
	DefaultAddress = 0x50
	// Size is the writable part in bytes.
	Size = 128

	magic   = "RKID"
	version = 1
	header  = 6
	trailer = 4
	dateLen = 13
	// writePolls bounds the acknowledge polling after a page write (section 7.0; a write takes up to 5 ms, a poll at
	// 400 kHz about 25 µs).
	writePolls = 1000
)

var (
	// ErrEmpty reports a chip that was never written.
	ErrEmpty = driver.ErrEmpty
	// ErrRecord reports a damaged or unknown record.
	ErrRecord = driver.ErrDamaged
	// ErrTooLong reports fields that do not fit.
	ErrTooLong = errors.New("eeprom: identity record is too long")
)

// Record is an identity record; it holds its bytes, 128 at most.
type Record struct {
	buf [Size]byte
	n   int // bytes of fields
}

// Get returns the value of a field, or "" where there is none. The string is copied out.
func (r *Record) Get(f Field) string {
	b := r.buf[header : header+r.n]
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return ""
		}
		if Field(b[0]) == f {
			return string(b[2:n])
		}
		b = b[n:]
	}
	return ""
}

// Set appends a field. Types must ascend; the error is ErrTooLong when the record is full and ErrRecord for a type out
// of order or a value that is not printable ASCII (Date: not 13 bytes).
func (r *Record) Set(f Field, value string) error {
	if header+r.n+2+len(value)+trailer > Size {
		return ErrTooLong
	}
	last := -1
	for i := header; i < header+r.n; i += 2 + int(r.buf[i+1]) {
		last = int(r.buf[i])
	}
	if int(f) <= last || !fits(f, value) {
		return ErrRecord
	}
	at := header + r.n
	r.buf[at], r.buf[at+1] = byte(f), byte(len(value))
	copy(r.buf[at+2:], value)
	r.n += 2 + len(value)
	return nil
}

// Fields returns the fields as type-length-value bytes, as DSP0257 sends them. The slice is the record's own.
func (r *Record) Fields() []byte { return r.buf[header : header+r.n] }

// Append appends the record's stored form, header and CRC included.
func (r *Record) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, version, byte(r.n))
	dst = append(dst, r.buf[header:header+r.n]...)
	c := checksum(dst[start:])
	return append(dst, byte(c), byte(c>>8), byte(c>>16), byte(c>>24))
}

// Parse reads a stored record into r. Bytes after the record are ignored, as the chip is longer than most records.
func (r *Record) Parse(b []byte) error {
	r.n = 0
	if len(b) < header+trailer {
		return ErrRecord
	}
	if string(b[:4]) != magic {
		for _, c := range b[:header] {
			if c != 0xFF {
				return ErrRecord
			}
		}
		return ErrEmpty
	}
	n := int(b[5])
	end := header + n
	if b[4] != version || end+trailer > Size || len(b) < end+trailer {
		return ErrRecord
	}
	t := b[end : end+trailer]
	if checksum(b[:end]) != uint32(t[0])|uint32(t[1])<<8|uint32(t[2])<<16|uint32(t[3])<<24 {
		return ErrRecord
	}
	last := -1
	for f := b[header:end]; len(f) > 0; {
		if len(f) < 2 || int(f[0]) <= last || len(f) < 2+int(f[1]) || !fits(Field(f[0]), string(f[2:2+int(f[1])])) {
			return ErrRecord
		}
		last = int(f[0])
		f = f[2+int(f[1]):]
	}
	copy(r.buf[:], b[:end])
	r.n = n
	return nil
}

// Device is one EEPROM.
type Device struct {
	bus  driver.Bus
	addr uint16
	w    [1 + pageSize]byte
}

// New returns a driver for the chip at addr (0: DefaultAddress) of bus. It does not touch the bus.
func New(bus driver.Bus, addr uint16) *Device {
	if addr == 0 {
		addr = DefaultAddress
	}
	return &Device{bus: bus, addr: addr}
}

// ReadAt reads len(p) bytes from offset off (section 8.2, random read).
func (d *Device) ReadAt(p []byte, off uint8) error {
	if int(off)+len(p) > 256 {
		return driver.ErrOutOfRange
	}
	d.w[0] = off
	return d.bus.Tx(d.addr, d.w[:1], p)
}

// WriteAt writes p page by page from offset off of the writable half, waiting for each page by acknowledge polling.
func (d *Device) WriteAt(p []byte, off uint8) error {
	if int(off)+len(p) > Size {
		return driver.ErrOutOfRange
	}
	for len(p) > 0 {
		n := min(pageSize-int(off)%pageSize, len(p))
		d.w[0] = off
		copy(d.w[1:], p[:n])
		if err := d.bus.Tx(d.addr, d.w[:1+n], nil); err != nil {
			return err
		}
		p, off = p[n:], off+uint8(n)
		err := d.bus.Tx(d.addr, d.w[:1], nil)
		for i := 0; err != nil && i < writePolls; i++ {
			err = d.bus.Tx(d.addr, d.w[:1], nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadRecord reads and checks the identity record. Errors: ErrEmpty, ErrRecord, else the bus's own.
func (d *Device) ReadRecord(r *Record) error {
	var b [Size]byte
	if err := d.ReadAt(b[:], 0); err != nil {
		return err
	}
	return r.Parse(b[:])
}

// WriteRecord writes the identity record and reads it back.
func (d *Device) WriteRecord(r *Record) error {
	if err := d.WriteAt(r.Append(make([]byte, 0, Size)), 0); err != nil {
		return err
	}
	var back Record
	if err := d.ReadRecord(&back); err != nil {
		return err
	}
	if back.n != r.n || string(back.Fields()) != string(r.Fields()) {
		return ErrRecord
	}
	return nil
}

// EUI48 reads the chip's factory-programmed unique address (section 9.0). All ones or all zeros is driver.ErrNoDevice.
func (d *Device) EUI48() (eui [6]byte, err error) {
	var b [6]byte
	if err := d.ReadAt(b[:], euiStart); err != nil {
		return eui, err
	}
	if b == ([6]byte{}) || b == ([6]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}) {
		return eui, driver.ErrNoDevice
	}
	return b, nil
}

// ReadIdentity is driver.Identity.
func (d *Device) ReadIdentity(dst []byte) (int, error) {
	var r Record
	if err := d.ReadRecord(&r); err != nil {
		return 0, err
	}
	if len(dst) < r.n {
		return 0, driver.ErrOutOfRange
	}
	return copy(dst, r.Fields()), nil
}

// fits says whether a field may have a value.
func fits(f Field, value string) bool {
	if f == Date {
		return len(value) == dateLen
	}
	return printable(value)
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7E {
			return false
		}
	}
	return true
}

// checksum is CRC-32 (IEEE 802.3), bit by bit: it runs once per record and a table would cost 1 KiB of a
// microcontroller's memory.
func checksum(b []byte) uint32 {
	c := ^uint32(0)
	for _, x := range b {
		c ^= uint32(x)
		for range 8 {
			c = c>>1 ^ 0xEDB88320&-(c&1)
		}
	}
	return ^c
}
