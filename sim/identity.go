package sim

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
)

// What the maker of virtual boards writes into their EEPROMs.
const (
	boardMaker   = "Racklet"
	boardVersion = "1"
)

// board is a kind of board.
type board struct{ model, part string }

var (
	trayBoard       = board{"Virtual tray", "RKV-TRAY"}
	controllerBoard = board{"Virtual rack controller", "RKV-RMC"}
)

// euiSize is the size of a chip's unique address, which stands behind the contents in its file.
const euiSize = 6

// fitEEPROM puts a board's EEPROM on its bus: as the file holds it, and for a new board with a record of its own, written
// through the driver. A record that was damaged meanwhile stays damaged: the firmware is to find it.
func fitEEPROM(bus *chip.Bus, file string, kind board, today time.Time) error {
	b, err := os.ReadFile(file)
	if err == nil {
		if len(b) != eeprom.Size+euiSize {
			return fmt.Errorf("read %s: %d bytes, want %d", file, len(b), eeprom.Size+euiSize)
		}
		c := chip.NewEEPROM([euiSize]byte(b[eeprom.Size:]))
		c.Load(b[:eeprom.Size])
		bus.Attach(eeprom.DefaultAddress, c)
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Locally administered, as no maker of chips gave us a range (IEEE 802, 8.4).
	eui := [euiSize]byte{0x52, 0x52, 0x4b}
	rand.Read(eui[3:])
	var serial [4]byte
	rand.Read(serial[:])
	var r eeprom.Record
	for _, f := range []struct {
		field eeprom.Field
		value string
	}{
		{eeprom.Model, kind.model}, {eeprom.PartNumber, kind.part}, {eeprom.SerialNumber, "RKV" + strings.ToUpper(hex.EncodeToString(serial[:]))},
		{eeprom.Manufacturer, boardMaker},
		{eeprom.Date, string(wire.AppendFRUDate(nil, uint16(today.Year()), uint8(today.Month()), uint8(today.Day())))},
		{eeprom.Version, boardVersion},
	} {
		if err := r.Set(f.field, f.value); err != nil {
			return fmt.Errorf("make identity record: %w", err)
		}
	}
	c := chip.NewEEPROM(eui)
	bus.Attach(eeprom.DefaultAddress, c)
	if err := eeprom.New(bus, 0).WriteRecord(&r); err != nil {
		return fmt.Errorf("write identity record: %w", err)
	}
	return replaceFile(file, append(c.Contents(), eui[:]...))
}
