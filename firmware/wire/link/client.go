package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/racklet/racklet/firmware/wire"
)

func (c *Conn) oem(ctx context.Context, dest wire.EID, command uint8, payload []byte) ([]byte, error) {
	return c.Call(ctx, dest, wire.TypeOEM, command, payload)
}

// parse decodes a response and says whose it was if it is malformed.
func parse[T any](dest wire.EID, command uint8, b []byte, err error, f func([]byte) (T, error)) (v T, _ error) {
	if err != nil {
		return v, err
	}
	v, err = f(b)
	if err != nil {
		return v, fmt.Errorf("response of endpoint %d to command 0x%02x: %w", dest, command, err)
	}
	return v, nil
}

// UnitState asks a BMC for everything about its slot.
func (c *Conn) UnitState(ctx context.Context, bmc wire.EID) (wire.UnitState, error) {
	b, err := c.oem(ctx, bmc, wire.CmdGetUnitState, nil)
	return parse(bmc, wire.CmdGetUnitState, b, err, wire.ParseUnitState)
}

// RackState asks the RMC for everything about the rack.
func (c *Conn) RackState(ctx context.Context) (wire.RackState, error) {
	b, err := c.oem(ctx, wire.EIDRMC, wire.CmdGetRackState, nil)
	return parse(wire.EIDRMC, wire.CmdGetRackState, b, err, wire.ParseRackState)
}

// Generations are the newest accepted generation of a desired state and the newest one
// converged to.
type Generations struct{ Desired, Observed uint32 }

func generations(b []byte) (g Generations, err error) {
	g.Desired, g.Observed, err = wire.ParseGenerations(b)
	return g, err
}

// SetDesired sets the desired state of a slot.
func (c *Conn) SetDesired(ctx context.Context, bmc wire.EID, d *wire.Desired) (Generations, error) {
	b, err := c.oem(ctx, bmc, wire.CmdSetDesired, wire.AppendDesired(nil, d))
	return parse(bmc, wire.CmdSetDesired, b, err, generations)
}

// Reset orders a one-off action on a unit.
func (c *Conn) Reset(ctx context.Context, bmc wire.EID, k wire.ResetKind) error {
	_, err := c.oem(ctx, bmc, wire.CmdReset, wire.AppendReset(nil, k))
	return err
}

// EventPage is one answer to ReadEvents. Oldest and Newest are the ends of the ring.
type EventPage struct {
	Oldest, Newest uint32
	Events         []wire.Event
}

// ReadEvents asks a controller for the events after the sequence given, as many as fit
// into one answer.
func (c *Conn) ReadEvents(ctx context.Context, dest wire.EID, after uint32) (EventPage, error) {
	b, err := c.oem(ctx, dest, wire.CmdReadEvents, wire.AppendReadEvents(nil, after))
	return parse(dest, wire.CmdReadEvents, b, err, func(b []byte) (page EventPage, err error) {
		events, err := wire.ParseEvents(b)
		if err != nil {
			return page, err
		}
		page.Oldest, page.Newest = events.Oldest, events.Newest
		var e wire.Event
		for events.Next(&e) {
			page.Events = append(page.Events, e)
		}
		return page, events.Err()
	})
}

// ReadConsole asks for what the unit has printed from offset on. The data is the caller's.
func (c *Conn) ReadConsole(ctx context.Context, bmc wire.EID, offset uint64) (wire.ConsolePart, error) {
	b, err := c.oem(ctx, bmc, wire.CmdReadConsole, wire.AppendReadConsole(nil, offset))
	return parse(bmc, wire.CmdReadConsole, b, err, wire.ParseConsolePart)
}

// WriteConsole types data into the unit's console, at most wire.MaxConsoleWrite bytes
// at a time, and returns how many bytes the BMC took.
func (c *Conn) WriteConsole(ctx context.Context, bmc wire.EID, data []byte) (int, error) {
	b, err := c.oem(ctx, bmc, wire.CmdWriteConsole, wire.AppendBytes(nil, data[:min(len(data), wire.MaxConsoleWrite)]))
	n, err := parse(bmc, wire.CmdWriteConsole, b, err, wire.ParseConsoleTaken)
	return int(n), err
}

// Evidence asks a BMC for its registers over nonce, signed by its device key. The bytes are
// for trust.VerifyEvidence.
func (c *Conn) Evidence(ctx context.Context, bmc wire.EID, nonce [32]byte) ([]byte, error) {
	b, err := c.oem(ctx, bmc, wire.CmdGetEvidence, wire.AppendDigest(nil, &nonce))
	return parse(bmc, wire.CmdGetEvidence, b, err, func(b []byte) ([]byte, error) {
		return wire.ParseBytes(b, wire.MaxEvidence)
	})
}

// Slots asks a BMC for its two boot slots.
func (c *Conn) Slots(ctx context.Context, bmc wire.EID) ([2]wire.SlotInfo, error) {
	b, err := c.oem(ctx, bmc, wire.CmdGetSlots, nil)
	return parse(bmc, wire.CmdGetSlots, b, err, wire.ParseSlots)
}

// AgedReport is a unit's last report and its age; Age is wire.AgeNever when there is none.
type AgedReport struct {
	Age    uint32 // milliseconds
	Report wire.Report
}

// Report asks a BMC for the last report of its unit.
func (c *Conn) Report(ctx context.Context, bmc wire.EID) (AgedReport, error) {
	b, err := c.oem(ctx, bmc, wire.CmdGetReport, nil)
	return parse(bmc, wire.CmdGetReport, b, err, func(b []byte) (r AgedReport, err error) {
		r.Age, r.Report, err = wire.ParseAgedReport(b)
		return r, err
	})
}

// Identity asks a controller who made its board: the fields of a FRU record, for wire.FRUText; nil: the board does not say.
func (c *Conn) Identity(ctx context.Context, dest wire.EID) ([]byte, error) {
	b, err := c.Call(ctx, dest, wire.TypeFRU, wire.CmdGetFRUTable, wire.AppendGetFRUTable(nil))
	var refused *CodeError
	if errors.As(err, &refused) && (refused.Code == wire.CodeFRUNoTable || refused.Code == wire.CodeInvalidType) {
		return nil, nil
	}
	return parse(dest, wire.CmdGetFRUTable, b, err, func(b []byte) ([]byte, error) {
		table, err := wire.ParseFRUTableResponse(b)
		if err != nil {
			return nil, err
		}
		return wire.ParseFRUTable(table)
	})
}

// SetTime sets a controller's clock to Unix time in milliseconds.
func (c *Conn) SetTime(ctx context.Context, dest wire.EID, millis uint64) error {
	_, err := c.oem(ctx, dest, wire.CmdSetTime, wire.AppendTime(nil, millis))
	return err
}

// Time asks a controller for Unix time in milliseconds; 0: its clock was never set.
func (c *Conn) Time(ctx context.Context, dest wire.EID) (uint64, error) {
	b, err := c.oem(ctx, dest, wire.CmdGetTime, nil)
	return parse(dest, wire.CmdGetTime, b, err, wire.ParseTime)
}

// SetPolicies gives the RMC what it works by.
func (c *Conn) SetPolicies(ctx context.Context, p *wire.Policies) (Generations, error) {
	b, err := c.oem(ctx, wire.EIDRMC, wire.CmdSetPolicies, wire.AppendPolicies(nil, p))
	return parse(wire.EIDRMC, wire.CmdSetPolicies, b, err, generations)
}

// Policies asks the RMC for what it works by.
func (c *Conn) Policies(ctx context.Context) (wire.Policies, error) {
	b, err := c.oem(ctx, wire.EIDRMC, wire.CmdGetPolicies, nil)
	return parse(wire.EIDRMC, wire.CmdGetPolicies, b, err, wire.ParsePolicies)
}

// SetLED switches the identify LED of a slot at the RMC.
func (c *Conn) SetLED(ctx context.Context, slot uint8, on bool) error {
	_, err := c.oem(ctx, wire.EIDRMC, wire.CmdSetLED, wire.AppendLED(nil, slot, on))
	return err
}

// Sensor reads a numeric sensor.
func (c *Conn) Sensor(ctx context.Context, dest wire.EID, sensor uint16) (wire.Reading, error) {
	b, err := c.Call(ctx, dest, wire.TypeMonitor, wire.CmdGetSensorReading, wire.AppendGetSensorReadingRequest(nil, sensor))
	return parse(dest, wire.CmdGetSensorReading, b, err, wire.ParseReading)
}

// StateSensor reads the present state of a state sensor.
func (c *Conn) StateSensor(ctx context.Context, dest wire.EID, sensor uint16) (uint8, error) {
	b, err := c.Call(ctx, dest, wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, sensor))
	return parse(dest, wire.CmdGetStateSensor, b, err, func(b []byte) (uint8, error) {
		_, state, err := wire.ParseStateReading(b)
		return state, err
	})
}

// SetStateEffecter sets an effecter of one state set.
func (c *Conn) SetStateEffecter(ctx context.Context, dest wire.EID, effecter uint16, state uint8) error {
	_, err := c.Call(ctx, dest, wire.TypeMonitor, wire.CmdSetStateEffecter, wire.AppendSetStateEffecter(nil, effecter, state))
	return err
}

// PDRs reads all records of a controller's repository.
func (c *Conn) PDRs(ctx context.Context, dest wire.EID) ([]wire.PDR, error) {
	var all []wire.PDR
	record := uint32(0)
	for range 256 {
		b, err := c.Call(ctx, dest, wire.TypeMonitor, wire.CmdGetPDR, wire.AppendGetPDR(nil, record))
		if err != nil {
			return nil, err
		}
		next, data, err := wire.ParseGetPDRResponse(b)
		if err != nil {
			return nil, fmt.Errorf("record %d of endpoint %d: %w", record, dest, err)
		}
		_, p, err := wire.ParsePDR(data)
		if err != nil {
			return nil, fmt.Errorf("record %d of endpoint %d: %w", record, dest, err)
		}
		all = append(all, p)
		if next == 0 {
			return all, nil
		}
		record = next
	}
	return nil, fmt.Errorf("records of endpoint %d: no end after %d", dest, len(all))
}

// What follows is for a compute unit on its in-band link.

// BootConfig asks the BMC for the whole boot configuration.
func (c *Conn) BootConfig(ctx context.Context, bmc wire.EID) ([]byte, error) {
	var config []byte
	for {
		b, err := c.oem(ctx, bmc, wire.CmdGetBootConfig, wire.AppendOffset(nil, uint32(len(config))))
		if err != nil {
			return nil, err
		}
		total, part, err := wire.ParseBootConfigPart(b)
		if err != nil {
			return nil, fmt.Errorf("boot configuration at %d: %w", len(config), err)
		}
		config = append(config, part...)
		switch {
		case uint32(len(config)) == total:
			return config, nil
		case len(part) == 0 || uint32(len(config)) > total:
			return nil, fmt.Errorf("boot configuration at %d of %d: %w", len(config), total, wire.ErrValue)
		}
	}
}

// ReportStage tells the BMC how far the unit is; failure may be nil.
func (c *Conn) ReportStage(ctx context.Context, bmc wire.EID, s wire.Stage, failure *wire.Failure) error {
	if failure == nil {
		failure = &wire.Failure{}
	}
	_, err := c.oem(ctx, bmc, wire.CmdReportStage, wire.AppendReportStage(nil, s, failure))
	return err
}

// ExtendMeasurement extends a unit-asserted register. The label is for the event log.
func (c *Conn) ExtendMeasurement(ctx context.Context, bmc wire.EID, register uint8, digest [32]byte, label string) error {
	_, err := c.oem(ctx, bmc, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, register, &digest, []byte(label)))
	return err
}

// SetKeyRegister sets the key register to the hash of the unit's public key.
func (c *Conn) SetKeyRegister(ctx context.Context, bmc wire.EID, hash [32]byte) error {
	_, err := c.oem(ctx, bmc, wire.CmdSetKeyRegister, wire.AppendDigest(nil, &hash))
	return err
}

// Floors is what a BMC has accepted last, and its rack.
type Floors struct {
	wire.Floors
	Rack [16]byte
}

func floors(b []byte) (f Floors, err error) {
	f.Floors, f.Rack, err = wire.ParseFloors(b)
	return f, err
}

// Floors asks for the floors.
func (c *Conn) Floors(ctx context.Context, bmc wire.EID) (Floors, error) {
	b, err := c.oem(ctx, bmc, wire.CmdGetFloors, nil)
	return parse(bmc, wire.CmdGetFloors, b, err, floors)
}

// RaiseFloors hands the BMC a signed floor statement and returns the floors after it.
func (c *Conn) RaiseFloors(ctx context.Context, bmc wire.EID, signed []byte) (Floors, error) {
	if len(signed) > wire.MaxSignedFloors {
		return Floors{}, fmt.Errorf("floor statement of %d bytes: %w", len(signed), wire.ErrLong)
	}
	b, err := c.oem(ctx, bmc, wire.CmdRaiseFloors, wire.AppendBytes(nil, signed))
	return parse(bmc, wire.CmdRaiseFloors, b, err, floors)
}

// Heartbeat sends the unit's report and returns what the BMC wants of it.
func (c *Conn) Heartbeat(ctx context.Context, bmc wire.EID, r *wire.Report) (wire.HostRequest, error) {
	b, err := c.oem(ctx, bmc, wire.CmdHeartbeat, wire.AppendReport(nil, r))
	return parse(bmc, wire.CmdHeartbeat, b, err, wire.ParseHostRequest)
}

// WriteSlot writes an image with its signed manifest into the idle slot and has it
// verified. The BMC decides about the manifest first: what it refuses costs
// nothing that is in the slot. Progress, if not nil, is called with the bytes written. It returns
// what the BMC says of the slot; a failed check is a *RefusedError.
func (c *Conn) WriteSlot(ctx context.Context, bmc wire.EID, image, manifest []byte, progress func(int)) (wire.SlotProgress, error) {
	if p, err := c.sendManifest(ctx, bmc, manifest); err != nil {
		return p, fmt.Errorf("offer slot manifest: %w", err)
	}
	b, err := c.oem(ctx, bmc, wire.CmdSlotErase, wire.AppendSlotErase(nil, uint32(len(image))))
	p, err := parse(bmc, wire.CmdSlotErase, b, err, wire.ParseSlotProgress)
	if err != nil {
		return p, fmt.Errorf("erase idle slot: %w", err)
	}
	for off := 0; off < len(image); {
		part := image[off:min(off+wire.MaxSlotWrite, len(image))]
		b, err := c.oem(ctx, bmc, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, uint32(off), part))
		if p, err = parse(bmc, wire.CmdSlotWrite, b, err, wire.ParseSlotProgress); err != nil {
			return p, fmt.Errorf("write idle slot at %d: %w", off, err)
		}
		off += len(part)
		if progress != nil {
			progress(off)
		}
	}
	if p, err = c.sendManifest(ctx, bmc, manifest); err != nil {
		return p, fmt.Errorf("commit idle slot: %w", err)
	}
	if p.State != wire.SlotValid {
		return p, errors.New("commit idle slot: the slot is " + p.State.String())
	}
	return p, nil
}

// sendManifest sends a slot manifest in parts: before the image as an offer, behind it to commit.
func (c *Conn) sendManifest(ctx context.Context, bmc wire.EID, manifest []byte) (p wire.SlotProgress, err error) {
	for off := 0; off < len(manifest); {
		part := manifest[off:min(off+wire.MaxManifestPart, len(manifest))]
		b, err := c.oem(ctx, bmc, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(manifest)), uint32(off), part))
		if p, err = parse(bmc, wire.CmdSlotCommit, b, err, wire.ParseSlotProgress); err != nil {
			return p, err
		}
		off += len(part)
	}
	return p, nil
}

// SetInventory tells the BMC what the unit is made of.
func (c *Conn) SetInventory(ctx context.Context, bmc wire.EID, v *wire.Inventory) error {
	_, err := c.oem(ctx, bmc, wire.CmdSetInventory, wire.AppendInventory(nil, v))
	return err
}

// Inventory asks a BMC what its unit said that it is made of; zero when it has not said so in this boot.
func (c *Conn) Inventory(ctx context.Context, bmc wire.EID) (wire.Inventory, error) {
	b, err := c.oem(ctx, bmc, wire.CmdGetInventory, nil)
	return parse(bmc, wire.CmdGetInventory, b, err, wire.ParseInventory)
}

// Firmware asks a controller for the version of its own firmware.
func (c *Conn) Firmware(ctx context.Context, controller wire.EID) (string, error) {
	b, err := c.oem(ctx, controller, wire.CmdGetFirmware, nil)
	v, err := parse(controller, wire.CmdGetFirmware, b, err, wire.ParseFirmware)
	return v.String(), err
}

// Restart has a controller start anew.
func (c *Conn) Restart(ctx context.Context, controller wire.EID) error {
	_, err := c.oem(ctx, controller, wire.CmdRestart, nil)
	return err
}
