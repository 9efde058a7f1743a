package rack

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Physical quantities. In text, JSON and YAML each is a string of a decimal
// number and its unit without a space: "30W", "45C", "1200rpm", "12J". Only
// temperatures may be negative. The Go values are in the unit of their name.
type (
	// Watts is power.
	Watts float64
	// Celsius is temperature, or a difference of temperatures.
	Celsius float64
	// RPM is the speed of a fan in revolutions per minute.
	RPM float64
	// Joules is energy.
	Joules float64
	// Volts is voltage.
	Volts float64
	// Amperes is current.
	Amperes float64
)

// Duration is a length of time, written as Go does: "250ms", "30s", "2m".
type Duration time.Duration

// A unit tells how one quantity is written.
type unit struct {
	name, suffix, example string
	min                   float64
}

var (
	watts   = unit{"power", "W", "30W", 0}
	celsius = unit{"temperature", "C", "45C", -273.15}
	rpm     = unit{"fan speed", "rpm", "1200rpm", 0}
	joules  = unit{"energy", "J", "12J", 0}
	volts   = unit{"voltage", "V", "5.1V", 0}
	amperes = unit{"current", "A", "2.5A", 0}
)

// maxQuantity bounds each number, so that sums and conversions to milli-units
// stay exact in 64 bits.
const maxQuantity = 1e12

// QuantityError says that a text is not a quantity, and which form is.
type QuantityError struct {
	Text    string // as given
	Name    string // what it should have been: "power"
	Form    string // the allowed form in words
	Example string // a text that would do
}

func (e *QuantityError) Error() string {
	return fmt.Sprintf("bad %s %q: want %s, such as %q", e.Name, e.Text, e.Form, e.Example)
}

func (u unit) parse(s string) (float64, error) {
	form := "a decimal number followed by " + u.suffix
	if u.min == 0 {
		form = "a decimal number, not negative, followed by " + u.suffix
	}
	bad := &QuantityError{s, u.name, form, u.example}
	digits, ok := strings.CutSuffix(s, u.suffix)
	if !ok || !decimal(digits) {
		return 0, bad
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || v < u.min || v > maxQuantity {
		return 0, bad
	}
	return v + 0, nil // + 0 turns -0 into 0
}

func (u unit) format(v float64) string {
	return strconv.FormatFloat(v, 'f', -1, 64) + u.suffix
}

func (u unit) marshal(v float64) ([]byte, error) {
	if math.IsNaN(v) || v < u.min || v > maxQuantity {
		return nil, fmt.Errorf("%s %v is out of range", u.name, v)
	}
	return []byte(u.format(v)), nil
}

// decimal reports whether s is an optional minus, digits, and optionally a
// point with more digits.
func decimal(s string) bool {
	s = strings.TrimPrefix(s, "-")
	whole, fraction, point := strings.Cut(s, ".")
	return digits(whole) && (!point || digits(fraction))
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != "" && len(s) <= 24
}

// ParseWatts reads a power such as "30W".
func ParseWatts(s string) (Watts, error) { v, err := watts.parse(s); return Watts(v), err }

// ParseCelsius reads a temperature such as "45C".
func ParseCelsius(s string) (Celsius, error) { v, err := celsius.parse(s); return Celsius(v), err }

// ParseRPM reads a fan speed such as "1200rpm".
func ParseRPM(s string) (RPM, error) { v, err := rpm.parse(s); return RPM(v), err }

// ParseJoules reads an energy such as "12J".
func ParseJoules(s string) (Joules, error) { v, err := joules.parse(s); return Joules(v), err }

// ParseVolts reads a voltage such as "5.1V".
func ParseVolts(s string) (Volts, error) { v, err := volts.parse(s); return Volts(v), err }

// ParseAmperes reads a current such as "2.5A".
func ParseAmperes(s string) (Amperes, error) { v, err := amperes.parse(s); return Amperes(v), err }

func (v Watts) String() string   { return watts.format(float64(v)) }
func (v Celsius) String() string { return celsius.format(float64(v)) }
func (v RPM) String() string     { return rpm.format(float64(v)) }
func (v Joules) String() string  { return joules.format(float64(v)) }
func (v Volts) String() string   { return volts.format(float64(v)) }
func (v Amperes) String() string { return amperes.format(float64(v)) }

// MarshalText implements encoding.TextMarshaler.
func (v Watts) MarshalText() ([]byte, error) { return watts.marshal(float64(v)) }

// MarshalText implements encoding.TextMarshaler.
func (v Celsius) MarshalText() ([]byte, error) { return celsius.marshal(float64(v)) }

// MarshalText implements encoding.TextMarshaler.
func (v RPM) MarshalText() ([]byte, error) { return rpm.marshal(float64(v)) }

// MarshalText implements encoding.TextMarshaler.
func (v Joules) MarshalText() ([]byte, error) { return joules.marshal(float64(v)) }

// MarshalText implements encoding.TextMarshaler.
func (v Volts) MarshalText() ([]byte, error) { return volts.marshal(float64(v)) }

// MarshalText implements encoding.TextMarshaler.
func (v Amperes) MarshalText() ([]byte, error) { return amperes.marshal(float64(v)) }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseWatts.
func (v *Watts) UnmarshalText(b []byte) (err error) { *v, err = ParseWatts(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseCelsius.
func (v *Celsius) UnmarshalText(b []byte) (err error) { *v, err = ParseCelsius(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseRPM.
func (v *RPM) UnmarshalText(b []byte) (err error) { *v, err = ParseRPM(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseJoules.
func (v *Joules) UnmarshalText(b []byte) (err error) { *v, err = ParseJoules(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseVolts.
func (v *Volts) UnmarshalText(b []byte) (err error) { *v, err = ParseVolts(string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseAmperes.
func (v *Amperes) UnmarshalText(b []byte) (err error) { *v, err = ParseAmperes(string(b)); return err }

// maxDuration bounds the durations of a policy: a day.
const maxDuration = Duration(24 * time.Hour)

// ParseDuration reads a duration such as "250ms": whole milliseconds, at most a
// day, not negative.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	// time.ParseDuration also takes "0", "+1s" and ".5s": one form is enough.
	if err != nil || d < 0 || Duration(d) > maxDuration || d%time.Millisecond != 0 || s[0] < '0' || s[0] > '9' || s == "0" {
		return 0, &QuantityError{s, "duration", "numbers followed by h, m, s or ms, whole milliseconds up to 24h", "250ms"}
	}
	return Duration(d), nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) {
	if d < 0 || d > maxDuration || d%Duration(time.Millisecond) != 0 {
		return nil, fmt.Errorf("duration %s is out of range", d)
	}
	return []byte(d.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; strict, see ParseDuration.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}
