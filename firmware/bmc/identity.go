package bmc

import (
	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/wire"
)

// identityTries is how often the board's EEPROM is read at the start before it counts as absent. It may still be busy
// with a write that a restart cut off.
const identityTries = 3

// readIdentity reads who made the board, once, at the start. A board that does not say works as well as any other.
func (b *BMC) readIdentity() {
	if b.ports.Identity == nil {
		return
	}
	var fields [wire.MaxFRUFields]byte
	n, err := b.ports.Identity.ReadIdentity(fields[:])
	for i := 1; i < identityTries && err != nil; i++ {
		n, err = b.ports.Identity.ReadIdentity(fields[:])
	}
	if err == nil {
		var table []byte
		if table, err = wire.AppendFRUTable(b.fru[:0], fields[:n]); err == nil {
			b.fruLen = len(table)
			return
		}
		err = driver.ErrDamaged
	}
	f := wire.MakeFailure("board.identity", "an identity record in the board's EEPROM", err.Error())
	b.event(wire.EventSensor, 0, "identity record", &f)
}

func getFRUMetadata(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	if b.fruLen == 0 {
		return dst, wire.CodeFRUNoMetadata
	}
	return wire.AppendFRUMetadata(dst, wire.MakeFRUMetadata(b.fru[:b.fruLen])), wire.CodeSuccess
}

func getFRUTable(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	_, flag, err := wire.ParseGetFRUTable(req) // the handle of a first part says nothing
	switch {
	case err != nil:
		return dst, badRequest(err)
	case flag != wire.TransferFirst:
		return dst, wire.CodeFRUInvalidTransfer
	case b.fruLen == 0:
		return dst, wire.CodeFRUNoTable
	}
	return wire.AppendFRUTableResponse(dst, b.fru[:b.fruLen]), wire.CodeSuccess
}
