package bmc

import (
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/wire"
)

// fakeIdentity is an EEPROM with good fields, unless it has an error; the first busy reads fail.
type fakeIdentity struct {
	fields []byte
	err    error
	busy   int
	reads  int
}

const goodFields = "\x02\x04Tray\x04\x0412AB\x05\x07Racklet"

func (f *fakeIdentity) ReadIdentity(dst []byte) (int, error) {
	if f.reads++; f.reads <= f.busy {
		return 0, driver.ErrNoDevice
	}
	if f.err != nil {
		return 0, f.err
	}
	if f.fields == nil {
		return copy(dst, goodFields), nil
	}
	return copy(dst, f.fields), nil
}

// sensorEvents are the failures of events about the identity record.
func identityEvents(b *BMC) (all []string) {
	for i := range b.events {
		if e := &b.events[i]; e.Kind == wire.EventSensor && e.Text.String() == "identity record" {
			all = append(all, e.Failure.Reason.String()+": "+e.Failure.Seen.String())
		}
	}
	return all
}

func TestIdentity(t *testing.T) {
	r := newRig(t)
	r.step(1)
	for side := wire.SideInBand; side <= wire.SideDebug; side++ {
		code, resp := r.callType(side, wire.TypeFRU, wire.CmdGetFRUTable, wire.AppendGetFRUTable(nil))
		table, err := wire.ParseFRUTableResponse(resp)
		if code != wire.CodeSuccess || err != nil {
			t.Fatalf("%v: %v, %v", side, code, err)
		}
		fields, err := wire.ParseFRUTable(table)
		if err != nil || string(fields) != goodFields {
			t.Errorf("%v: fields %q, %v", side, fields, err)
		}
		code, resp = r.callType(side, wire.TypeFRU, wire.CmdGetFRUMetadata, nil)
		if m, err := wire.ParseFRUMetadata(resp); code != wire.CodeSuccess || err != nil || m != wire.MakeFRUMetadata(table) {
			t.Errorf("%v: %v, %+v, %v", side, code, m, err)
		}
	}
	next := append(wire.AppendGetFRUTable(nil)[:4], wire.TransferNext)
	if code, _ := r.callType(wire.SideBus, wire.TypeFRU, wire.CmdGetFRUTable, next); code != wire.CodeFRUInvalidTransfer {
		t.Errorf("a next part: %v", code)
	}
	if e := identityEvents(r.b); len(e) != 0 || r.identity.reads != 1 {
		t.Errorf("read %d times, events %q", r.identity.reads, e)
	}
}

// TestIdentityLost: a board without a readable record says so once, with a reason, and works.
func TestIdentityLost(t *testing.T) {
	for name, c := range map[string]struct {
		fake fakeIdentity
		want string // the event; "": none
	}{
		"absent":          {fakeIdentity{err: driver.ErrNoDevice}, "board.identity: no device"},
		"empty":           {fakeIdentity{err: driver.ErrEmpty}, "board.identity: nothing was ever written"},
		"damaged":         {fakeIdentity{err: driver.ErrDamaged}, "board.identity: record is damaged"},
		"bus":             {fakeIdentity{err: errors.New("arbitration lost")}, "board.identity: arbitration lost"},
		"field too long":  {fakeIdentity{fields: []byte{4, 9, 'x'}}, "board.identity: record is damaged"},
		"no fields":       {fakeIdentity{fields: []byte{}}, "board.identity: record is damaged"},
		"busy at first":   {fakeIdentity{busy: identityTries - 1}, ""},
		"busy for longer": {fakeIdentity{busy: identityTries}, "board.identity: no device"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.identity = c.fake
			r.runUnit()
			e := identityEvents(r.b)
			code, _ := r.callType(wire.SideBus, wire.TypeFRU, wire.CmdGetFRUTable, wire.AppendGetFRUTable(nil))
			meta, _ := r.callType(wire.SideBus, wire.TypeFRU, wire.CmdGetFRUMetadata, nil)
			if c.want == "" {
				if len(e) != 0 || code != wire.CodeSuccess || meta != wire.CodeSuccess {
					t.Errorf("events %q, table %v, metadata %v", e, code, meta)
				}
				return
			}
			if len(e) != 1 || e[0] != c.want || code != wire.CodeFRUNoTable || meta != wire.CodeFRUNoMetadata {
				t.Errorf("events %q, table %v, metadata %v, want %q", e, code, meta, c.want)
			}
			if s := r.b.UnitState(); s.State != wire.StateRunning || !s.Failure.IsZero() {
				t.Errorf("the unit is %v, failure %v", s.State, s.Failure.Reason)
			}
		})
	}
}
