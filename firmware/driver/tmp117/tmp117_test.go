package tmp117

import (
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
)

// The data sheet's own examples (SNOSD82D, table 7-2), and one of each border.
func TestConversion(t *testing.T) {
	for _, c := range []struct {
		raw   uint16
		milli int32
	}{{0x8000, -256000}, {0xF380, -25000}, {0xFFF0, -125}, {0xFFFF, -7}, {0, 0}, {1, 7}, {0x0010, 125}, {0x0080, 1000}, {0x0C80, 25000}, {0x3200, 100000}, {0x7FFF, 255992}} {
		if got := fromRaw(c.raw); got != c.milli {
			t.Errorf("%04x: %d m°C, want %d", c.raw, got, c.milli)
		}
	}
}

// noBus fails every transfer.
type noBus struct{ err error }

func (b noBus) Tx(uint16, []byte, []byte) error { return b.err }

func TestBusErrorsPassUp(t *testing.T) {
	want := errors.New("arbitration lost")
	if _, err := New(noBus{want}, 0).ReadTemperature(); err != want {
		t.Errorf("%v, want the bus's own error", err)
	}
	if _, err := New(noBus{}, 0).ReadTemperature(); !errors.Is(err, driver.ErrNoDevice) {
		t.Errorf("a bus that reads zeros: %v, want ErrNoDevice", err)
	}
}
