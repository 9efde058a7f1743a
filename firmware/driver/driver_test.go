package driver_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
)

// What the state machines ask for is what the drivers are.
var (
	_ driver.PowerMeter  = (*ina228.Device)(nil)
	_ driver.Thermometer = (*tmp117.Device)(nil)
	_ driver.Identity    = (*eeprom.Device)(nil)
)

func TestSectorSizeIsAPowerOfTwo(t *testing.T) {
	if driver.SectorSize&(driver.SectorSize-1) != 0 {
		t.Fatalf("sector size %d", driver.SectorSize)
	}
}

// A wire is a bus that answers every read with one byte, or no device at all.
type wire struct {
	level byte
	err   error
	calls int
}

func (w *wire) Tx(_ uint16, _, r []byte) error {
	w.calls++
	for i := range r {
		r[i] = w.level
	}
	return w.err
}

// reads are one reading of each chip, through the smallest use of its driver.
var reads = map[string]func(driver.Bus) error{
	"eeprom": func(b driver.Bus) error { return eeprom.New(b, 0).ReadRecord(new(eeprom.Record)) },
	"emc2305": func(b driver.Bus) error {
		d, err := emc2305.New(b, 0, 2)
		if err != nil {
			return err
		}
		_, _, err = d.Speed(0)
		return err
	},
	"ina228": func(b driver.Bus) error {
		d, err := ina228.New(b, ina228.Config{ShuntMicroohms: 5000, MaxMilliamps: 8000})
		if err != nil {
			return err
		}
		_, err = d.ReadPower()
		return err
	},
	"tmp117": func(b driver.Bus) error {
		_, err := tmp117.New(b, 0).ReadTemperature()
		return err
	},
}

// TestNoReadingOutOfNothing: whatever a bus without the chip looks like, a driver says that the reading is lost. It
// never makes one up, and it does not try for ever.
func TestNoReadingOutOfNothing(t *testing.T) {
	broken := errors.New("arbitration lost")
	for name, read := range reads {
		for _, c := range []struct {
			what string
			bus  wire
			want error // nil: any
		}{
			{"nobody acknowledges", wire{err: driver.ErrNoDevice}, driver.ErrNoDevice},
			{"the bus fails", wire{err: broken}, broken},
			{"the data line hangs high", wire{level: 0xFF}, nil},
			{"the data line hangs low", wire{level: 0x00}, nil},
		} {
			if err := read(&c.bus); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %v", name, c.what, err, c.want)
			}
			if c.bus.calls == 0 || c.bus.calls > 20 {
				t.Errorf("%s, %s: %d transactions", name, c.what, c.bus.calls)
			}
		}
	}
}

// tooBig are imports that a microcontroller's firmware cannot pay for, or that would give a driver a life of its own.
var tooBig = []string{"fmt", "log", "reflect", "encoding/json", "time", "sync", "context", "os", "crypto/rand", "math/rand"}

// faults lists what in a driver's source breaks the promises of the package comment.
func faults(f *ast.File) (found []string) {
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		for _, no := range tooBig {
			if path == no || strings.HasPrefix(path, no+"/") {
				found = append(found, "imports "+path)
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "starts a goroutine")
		case *ast.MapType:
			found = append(found, "has a map")
		case *ast.ChanType:
			found = append(found, "has a channel")
		case *ast.CallExpr:
			if name, ok := n.Fun.(*ast.Ident); ok && name.Name == "panic" {
				found = append(found, "panics")
			}
		}
		return true
	})
	return found
}

// TestDriversAreSmall holds all drivers against the package comment, and every folder against the table of reads.
func TestDriversAreSmall(t *testing.T) {
	files := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && reads[name] == nil && !strings.Contains(name, "testdata") {
				t.Errorf("%s is read by no test here", name)
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		for _, fault := range faults(f) {
			t.Errorf("%s %s", name, fault)
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files: %v", files, err)
	}
}

func TestFaults(t *testing.T) {
	for source, want := range map[string]string{
		`package p; import "errors"; var E = errors.New("x")`: "",
		`package p; import "time"`:                            "imports time",
		`package p; func f() { go f() }`:                      "starts a goroutine",
		`package p; var m map[int]int`:                        "has a map",
		`package p; func f() { panic("x") }`:                  "panics",
		`package p; func f(c chan int) {}`:                    "has a channel",
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(faults(f), ", "); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}
