package redfish

import (
	"bytes"
	"context"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// pollBoard asks a controller who made its board, what firmware runs on it and what time it has, when the last answer is
// old; it returns when that was.
func (s *Service) pollBoard(ctx context.Context, c *controller, last time.Time) time.Time {
	now := s.clock.Now()
	if !last.IsZero() && now.Sub(last) < pollSlots {
		return last
	}
	fields, err := s.conn.Identity(ctx, c.eid)
	if err != nil {
		return last
	}
	firmware, _ := s.conn.Firmware(ctx, c.eid) // an older one does not know
	s.pollTime(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(c.board, fields) || c.firmware != firmware {
		s.answers.changed()
	}
	c.board, c.firmware = fields, firmware
	return now
}

// boardFields are the standard's properties that say who made a thing, and the fields they come from. A computer system
// has no Version.
var boardFields = []struct {
	name  string
	field wire.FRUField
}{
	{"Manufacturer", wire.FRUManufacturer}, {"Model", wire.FRUModel}, {"PartNumber", wire.FRUPartNumber},
	{"SerialNumber", wire.FRUSerialNumber}, {"Version", wire.FRUVersion},
}

// identified adds to a chassis or system what the EEPROM of its board says. A board that does not say has none of it.
func identified(c *controller, o object) object {
	for _, f := range boardFields {
		v := wire.FRUText(c.board, f.field)
		if len(v) > 0 && (f.field != wire.FRUVersion || o["ChassisType"] != nil) {
			o[f.name] = string(v)
		}
	}
	return o
}
