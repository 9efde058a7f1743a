package wire_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

func fruText(dst []byte, f wire.FRUField, text string) []byte {
	return append(append(dst, byte(f), byte(len(text))), text...)
}

func fruFields() []byte {
	b := fruText(nil, wire.FRUModel, "Tray")
	b = fruText(b, wire.FRUPartNumber, "RK-TRAY-1")
	b = fruText(b, wire.FRUSerialNumber, "52414301")
	b = fruText(b, wire.FRUManufacturer, "Racklet")
	b = fruText(b, wire.FRUManufactureDate, string(wire.AppendFRUDate(nil, 2026, 11, 23)))
	return fruText(b, wire.FRUVersion, "A")
}

func fruTable() []byte {
	table, err := wire.AppendFRUTable(nil, fruFields())
	if err != nil {
		panic(err)
	}
	return table
}

func TestFRUTable(t *testing.T) {
	table := fruTable()
	if len(table)%4 != 0 || len(table) > wire.MaxFRUTable {
		t.Errorf("%d bytes", len(table))
	}
	fields, err := wire.ParseFRUTable(table)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(wire.FRUText(fields, wire.FRUSerialNumber)); s != "52414301" {
		t.Errorf("serial number %q", s)
	}
	if s := wire.FRUText(fields, wire.FRUAssetTag); s != nil {
		t.Errorf("asset tag %q", s)
	}
	if y, m, d := wire.FRUDate(fields, wire.FRUManufactureDate); y != 2026 || m != 11 || d != 23 {
		t.Errorf("made %d-%d-%d", y, m, d)
	}
	if y, _, _ := wire.FRUDate(fields, wire.FRUModel); y != 0 {
		t.Errorf("a model is of the year %d", y)
	}
	for i := range table { // the checksum covers everything
		bad := bytes.Clone(table)
		bad[i] ^= 0x10
		if _, err := wire.ParseFRUTable(bad); err == nil {
			t.Errorf("byte %d flipped, and accepted", i)
		}
	}
	whole := wire.AppendFRUTableResponse(nil, table)
	if got, err := wire.ParseFRUTableResponse(whole); err != nil || !bytes.Equal(got, table) {
		t.Errorf("response: %x, %v", got, err)
	}
	whole[4] = 0 // start of several parts
	if _, err := wire.ParseFRUTableResponse(whole); err == nil {
		t.Error("a table in parts is accepted")
	}
	if _, err := wire.ParseFRUTableResponse(whole[:4]); err == nil {
		t.Error("a response without flag is accepted")
	}
}

func TestFRUFieldsRefused(t *testing.T) {
	long := fruText(nil, wire.FRUModel, string(make([]byte, wire.MaxFRUFields-1)))
	for name, fields := range map[string][]byte{
		"none": {}, "half a header": {2}, "value cut": {2, 5, 'x'}, "too long": long,
	} {
		if b, err := wire.AppendFRUTable([]byte("before"), fields); err == nil || string(b) != "before" {
			t.Errorf("%s: accepted as %x", name, b)
		}
	}
	if b, err := wire.AppendFRUTable(nil, long[:0:0]); err == nil {
		t.Errorf("no fields: %x", b)
	}
	if b, err := wire.AppendFRUTable(nil, fruText(nil, wire.FRUModel, string(make([]byte, wire.MaxFRUFields-2)))); err != nil || len(b) > wire.MaxFRUTable {
		t.Errorf("the longest: %d bytes, %v", len(b), err)
	}
}

func FuzzParseFRUMetadata(f *testing.F) { fuzzCodec(f, "fru-metadata") }
func FuzzParseGetFRUTable(f *testing.F) { fuzzCodec(f, "get-fru-table") }

// FuzzParseFRUTable: what a table says is a table again. The fuzzer cannot guess checksums: it is put right for it.
func FuzzParseFRUTable(f *testing.F) {
	f.Add(fruTable())
	f.Add([]byte{1, 0, 254, 0, 1, 1, 0, 1, 1, 1, 2, 1, 'x', 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := wire.ParseFRUTableResponse(b); err == nil && b[4] != wire.TransferStartAndEnd {
			t.Error("a part is accepted as a whole")
		}
		if n := len(b) - 4; n > 0 {
			b = binary.LittleEndian.AppendUint32(bytes.Clone(b[:n]), crc32.ChecksumIEEE(b[:n]))
		}
		fields, err := wire.ParseFRUTable(b)
		if err != nil || len(fields) > wire.MaxFRUFields {
			return
		}
		table, err := wire.AppendFRUTable(nil, fields)
		if err != nil {
			t.Fatalf("fields %x: %v", fields, err)
		}
		if again, err := wire.ParseFRUTable(table); err != nil || !bytes.Equal(again, fields) {
			t.Errorf("%x comes back as %x, %v", fields, again, err)
		}
	})
}
