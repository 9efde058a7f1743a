package rmc_test

import (
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/wire"
)

// fakeIdentity is an EEPROM with good fields, unless it has an error.
type fakeIdentity struct{ err error }

const goodFields = "\x02\x04Rack\x04\x0412AB\x05\x07Racklet"

func (f *fakeIdentity) ReadIdentity(dst []byte) (int, error) { return copy(dst, goodFields), f.err }

func TestIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		err         error
		table, meta wire.Code
		seen        string
	}{
		"good":    {nil, wire.CodeSuccess, wire.CodeSuccess, ""},
		"absent":  {driver.ErrNoDevice, wire.CodeFRUNoTable, wire.CodeFRUNoMetadata, "no device"},
		"empty":   {driver.ErrEmpty, wire.CodeFRUNoTable, wire.CodeFRUNoMetadata, "nothing was ever written"},
		"damaged": {driver.ErrDamaged, wire.CodeFRUNoTable, wire.CodeFRUNoMetadata, "record is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.identity.err = c.err
			g.start().run(100)
			code, resp := g.call(wire.TypeFRU, wire.CmdGetFRUTable, wire.AppendGetFRUTable(nil))
			meta, described := g.call(wire.TypeFRU, wire.CmdGetFRUMetadata, nil)
			if code != c.table || meta != c.meta {
				t.Errorf("table %v, metadata %v", code, meta)
			}
			seen := ""
			for _, e := range g.events() {
				if e.Kind == wire.EventSensor && e.Failure.Reason.String() == "board.identity" {
					seen += e.Failure.Seen.String()
				}
			}
			if seen != c.seen {
				t.Errorf("the events have seen %q, want %q", seen, c.seen)
			}
			if code != wire.CodeSuccess {
				return
			}
			table, err := wire.ParseFRUTableResponse(resp)
			if err != nil {
				t.Fatal(err)
			}
			fields, err := wire.ParseFRUTable(table)
			if m, e := wire.ParseFRUMetadata(described); err != nil || e != nil || string(fields) != goodFields || m != wire.MakeFRUMetadata(table) {
				t.Errorf("fields %q, %v; metadata %+v, %v", fields, err, m, e)
			}
		})
	}
}
