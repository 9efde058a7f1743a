package redfish

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// TestMessages holds what people read of an event.
func TestMessages(t *testing.T) {
	for want, e := range map[string]wire.Event{
		"stage bootstrap":                    {Kind: wire.EventStage, Code: uint16(wire.StageBootstrap)},
		"thermometer lost":                   {Kind: wire.EventSensor, Text: wire.MakeText64("thermometer")},
		"thermometer back":                   {Kind: wire.EventSensor, Code: 1, Text: wire.MakeText64("thermometer")},
		"fan 2 stalled":                      {Kind: wire.EventFan, Text: wire.MakeText64("fan 2")},
		"fan 2 turns again":                  {Kind: wire.EventFan, Code: 1, Text: wire.MakeText64("fan 2")},
		"rail off":                           {Kind: wire.EventRail},
		"boot slot B written":                {Kind: wire.EventSlot, Code: 1, Text: wire.MakeText64("written")},
		"floors raised":                      {Kind: wire.EventFloors, Code: 1, Text: wire.MakeText64("raised")},
		"granted 15.0 W":                     {Kind: wire.EventPower, Code: 1, Text: wire.MakeText64("15.0 W")},
		"root 0.1.0":                         {Kind: wire.EventMeasurement, Code: 10, Text: wire.MakeText64("root 0.1.0")},
		"fan control at full speed: silence": {Kind: wire.EventFan, Code: 2, Text: wire.MakeText64("silence")},
	} {
		if got := (&entry{event: e}).message(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
