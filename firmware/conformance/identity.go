package conformance

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// identity holds what a controller says of its board: a table that agrees with its description, or neither. A board
// without a readable EEPROM is no fault of the controller.
func identity(t *testing.T, p *probe) {
	p.want(t, wire.CodeInvalidLength, wire.TypeFRU, wire.CmdGetFRUMetadata, []byte{0})
	p.want(t, wire.CodeInvalidLength, wire.TypeFRU, wire.CmdGetFRUTable, nil)
	p.want(t, wire.CodeFRUInvalidTransfer, wire.TypeFRU, wire.CmdGetFRUTable, append(wire.AppendGetFRUTable(nil)[:4], 7))
	meta, described := p.ask(t, wire.TypeFRU, wire.CmdGetFRUMetadata, nil)
	code, resp := p.ask(t, wire.TypeFRU, wire.CmdGetFRUTable, wire.AppendGetFRUTable(nil))
	if meta == wire.CodeFRUNoMetadata && code == wire.CodeFRUNoTable {
		t.Logf("%s: no identity", p.name)
		return
	}
	if meta != wire.CodeSuccess || code != wire.CodeSuccess {
		t.Fatalf("metadata %s (0x%02x), table %s (0x%02x)", meta, uint8(meta), code, uint8(code))
	}
	m, err := wire.ParseFRUMetadata(described)
	if err != nil {
		t.Fatal(err)
	}
	table, err := wire.ParseFRUTableResponse(resp)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := wire.ParseFRUTable(table)
	if err != nil {
		t.Fatal(err)
	}
	if int(m.Length) != len(table)-4 || m.Major != 1 || m.Records == 0 || m.Sets == 0 || m.Checksum != wire.MakeFRUMetadata(table).Checksum {
		t.Errorf("metadata %+v of a table of %d bytes", m, len(table))
	}
	if len(wire.FRUText(fields, wire.FRUSerialNumber)) == 0 || len(wire.FRUText(fields, wire.FRUManufacturer)) == 0 {
		t.Errorf("fields %q: no manufacturer or no serial number", fields)
	}
}
