package wiretest

import (
	"fmt"

	"github.com/racklet/racklet/firmware/wire"
)

// Identity is what the fake of a slot (0: of the RMC) says of its board, type-length-value fields of a FRU record: made by
// Acme, serial number FAKE and the slot in two digits.
func Identity(slot uint8) []byte {
	var b []byte
	field := func(f wire.FRUField, text string) { b = append(append(b, byte(f), byte(len(text))), text...) }
	field(wire.FRUModel, "Fake board")
	field(wire.FRUPartNumber, "FK-1")
	field(wire.FRUSerialNumber, fmt.Sprintf("FAKE%02d", slot))
	field(wire.FRUManufacturer, "Acme")
	field(wire.FRUManufactureDate, string(wire.AppendFRUDate(nil, 2026, 2, 28)))
	field(wire.FRUVersion, "C")
	return b
}

// SetIdentity sets what the BMC says of its board; nil: it has no readable EEPROM.
func (b *BMC) SetIdentity(fields []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.identity = fields
}

// identify answers FRU data.
func identify(h wire.Header, p, resp, fields []byte) []byte {
	fail := func(c wire.Code) []byte { return wire.AppendResponse(resp, h, c) }
	table, err := wire.AppendFRUTable(nil, fields)
	switch h.Command {
	case wire.CmdGetFRUMetadata:
		switch {
		case len(p) != 0:
			return fail(wire.CodeInvalidLength)
		case err != nil:
			return fail(wire.CodeFRUNoMetadata)
		}
		return wire.AppendFRUMetadata(fail(wire.CodeSuccess), wire.MakeFRUMetadata(table))
	case wire.CmdGetFRUTable:
		switch _, flag, bad := wire.ParseGetFRUTable(p); {
		case bad != nil:
			return fail(codeOf(bad))
		case flag != wire.TransferFirst:
			return fail(wire.CodeFRUInvalidTransfer)
		case err != nil:
			return fail(wire.CodeFRUNoTable)
		}
		return wire.AppendFRUTableResponse(fail(wire.CodeSuccess), table)
	}
	return fail(wire.CodeUnsupported)
}
