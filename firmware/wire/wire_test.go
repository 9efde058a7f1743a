package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata")

func digest(n byte) (d [32]byte) {
	for i := range d {
		d[i] = n + byte(i)
	}
	return d
}

var (
	failure = wire.MakeFailure("slot.chunk", "sha256:"+strings.Repeat("ab", 32), "sha256:"+strings.Repeat("cd", 32))
	floors  = wire.Floors{Sequence: 7, RootVersion: 2, BootSecurity: 3, Tree: digest(1), Commit: [20]byte{0xC0, 0xFF, 0xEE}}
	unit    = wire.UnitState{
		Slot: 2, State: wire.StateRunning, Stage: wire.StageFailed, BootSlot: wire.SlotB, Power: wire.PowerOn, Rail: true, LED: true,
		BootMode: wire.BootOnce, BootOverride: wire.SlotB, Flags: wire.FlagStale | wire.FlagClockSet,
		DesiredGeneration: 9, ObservedGeneration: 8, BootCount: 17, Resets: 1, Milliwatts: 3210, Millivolts: 5098, Milliamps: 630,
		MilliCelsius: -1500, Millijoules: 123456789012, RailMillis: 65000, GrantMilliwatts: 8000, RequestMilliwatts: 8000,
		CapMilliwatts: 7000, LastEvent: 41, ConsoleEnd: 99999, Floors: floors, Failure: failure,
	}
	report = wire.Report{
		Commit: [20]byte{1, 2, 3}, Release: wire.MakeText32("v0.1.0"), UptimeSeconds: 65, CPUPermille: 125,
		MemoryUsedKiB: 90_000, MemoryTotalKiB: 497_000, Stale: true, Address: [4]byte{10, 77, 0, 2},
	}
	inventory = wire.Inventory{
		Processor: wire.MakeText64("Cortex-A72"), Cores: 4, Threads: 4, Megahertz: 1800, MemoryKiB: 3_884_000,
		DiskCount: 1, Disks: [4]wire.Disk{{Name: wire.MakeText32("vda"), Model: wire.MakeText32("virtio"), Bytes: 1 << 34, Flags: wire.DiskRemovable}},
		InterfaceCount: 1, Interfaces: [4]wire.Interface{{Name: wire.MakeText32("eth0"), MAC: [6]byte{0x52, 0x54, 0, 0x52, 0x4B, 1}, Up: true, Megabit: 1000,
			MTU: 1500, Address: [4]byte{10, 77, 0, 2}, Prefix: 24, Gateway: [4]byte{10, 77, 0, 1}}},
	}
	event = wire.Event{
		Sequence: 41, Millis: 1_800_000_000_123, Boot: 17, Kind: wire.EventFailure, ClockSet: true, Slot: 2, Code: 5,
		Text: wire.MakeText64("boot slot B rejected"), Failure: failure,
	}
	slots = [2]wire.SlotInfo{
		{State: wire.SlotValid, SecurityVersion: 3, Version: wire.MakeText32("v0.1.0"), Digest: digest(2)},
		{State: wire.SlotInvalid, SecurityVersion: 4, Version: wire.MakeText32("v0.2.0"), Digest: digest(3), Failure: failure},
	}
	rackState = wire.RackState{
		Milliwatts: 21_000, Millijoules: 98765432109, SupplyMillivolts: 5150, InletMilliCelsius: 23_400, BudgetMilliwatts: 60_000,
		GrantedMilliwatts: 32_000, FanCount: 2, Fans: [4]wire.FanState{{RPM: 1800, DutyPercent: 40}, {RPM: 0, DutyPercent: 100, Flags: wire.FanStalled}},
		PresentMask: 0x1E, AnswerMask: 0x0E, LEDMask: 4, Flags: wire.RackClockSet, PolicyGeneration: 3, LastEvent: 12,
		UptimeMillis: 1 << 33, Resets: 2, FrameErrors: 1, SlotAgeMillis: [10]uint32{20, 30, 25, 4000, wire.AgeNever},
	}
	policies = wire.Policies{
		Generation: 3, CurveCount: 2, Curve: [8]wire.CurvePoint{{MilliCelsius: 25_000, DutyPercent: 30}, {MilliCelsius: 60_000, DutyPercent: 100}},
		ThrottleMilliCelsius: 75_000, ShutdownMilliCelsius: 85_000, HysteresisMilliCelsius: 2_000, BudgetMilliwatts: 60_000,
		ReserveMilliwatts: 6_000, StaggerMillis: 500, UnitCapMilliwatts: 12_000, SlotCapMilliwatts: [10]uint32{0, 7_000},
	}
	desired = wire.Desired{
		Generation: 9, Mask: wire.DesiredPower | wire.DesiredBoot, Power: wire.PowerOn, LED: true, CapMilliwatts: 7000,
		BootMode: wire.BootOnce, BootSlot: wire.SlotB,
	}
	progress = wire.SlotProgress{Slot: wire.SlotB, State: wire.SlotWriting, Capacity: 30 << 20, Next: 2048}
	pdr      = wire.PDR{
		Type: wire.PDRNumericSensor, ID: wire.SensorTemperature, Entity: wire.EntitySystemBoard, Unit: wire.UnitCelsius, Modifier: -3,
		Size: wire.SizeSint32, Min: -40_000, Max: 150_000,
	}
	statePDR = wire.PDR{
		Type: wire.PDRStateSensor, ID: wire.SensorBoot, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetBootProgress,
		States: 1<<wire.BootNotActive | 1<<wire.BootStartingOS,
	}
	effecterPDR = wire.PDR{
		Type: wire.PDRStateEffecter, ID: wire.EffecterPower, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetSystemPower,
		States: 1<<wire.SystemPowerOn | 1<<wire.SystemPowerOffHard,
	}
	capPDR = wire.PDR{
		Type: wire.PDRNumericEffecter, ID: wire.EffecterCap, Entity: wire.EntitySystemBoard, Unit: wire.UnitWatts, Modifier: -3,
		Size: wire.SizeUint32, Max: 40_000,
	}
)

// A codec encodes one sample and decodes arbitrary bytes to "how it reads".
type codec struct {
	name   string
	sample func([]byte) []byte
	decode func([]byte) (any, error)
	want   any
	// encode writes a decoded value again; nil: decoding loses nothing but is not encoded by itself.
	encode func(any) []byte
}

type several []any

func enc[T any](append func([]byte, *T) []byte, v T) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, &v) }
}

func dec[T any](parse func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { v, err := parse(b); return v, err }
}

func again[T any](append func([]byte, *T) []byte) func(any) []byte {
	return func(v any) []byte { t := v.(T); return append(nil, &t) }
}

func codecs() []codec {
	return []codec{
		{"failure", enc(wire.AppendFailure, failure), dec(wire.ParseFailure), failure, again(wire.AppendFailure)},
		{"unit-state", enc(wire.AppendUnitState, unit), dec(wire.ParseUnitState), unit, again(wire.AppendUnitState)},
		{"report", enc(wire.AppendReport, report), dec(wire.ParseReport), report, again(wire.AppendReport)},
		{"inventory", enc(wire.AppendInventory, inventory), dec(wire.ParseInventory), inventory, again(wire.AppendInventory)},
		{"firmware", func(b []byte) []byte { return wire.AppendFirmware(b, wire.MakeText32("0.1.0")) }, dec(wire.ParseFirmware), wire.MakeText32("0.1.0"),
			func(v any) []byte { return wire.AppendFirmware(nil, v.(wire.Text32)) }},
		{"event", enc(wire.AppendEvent, event), dec(wire.ParseEvent), event, again(wire.AppendEvent)},
		{"slots", enc(wire.AppendSlots, slots), dec(wire.ParseSlots), slots, again(wire.AppendSlots)},
		{"rack-state", enc(wire.AppendRackState, rackState), dec(wire.ParseRackState), rackState, again(wire.AppendRackState)},
		{"policies", enc(wire.AppendPolicies, policies), dec(wire.ParsePolicies), policies, again(wire.AppendPolicies)},
		{"desired", enc(wire.AppendDesired, desired), dec(wire.ParseDesired), desired, again(wire.AppendDesired)},
		{"slot-progress", enc(wire.AppendSlotProgress, progress), dec(wire.ParseSlotProgress), progress, again(wire.AppendSlotProgress)},
		{"offset", func(b []byte) []byte { return wire.AppendOffset(b, 1024) }, dec(wire.ParseOffset), uint32(1024), nil},
		{"boot-config-part", func(b []byte) []byte { return wire.AppendBootConfigPart(b, 2000, []byte("part")) },
			func(b []byte) (any, error) {
				total, part, err := wire.ParseBootConfigPart(b)
				return several{total, string(part)}, err
			}, several{uint32(2000), "part"},
			func(v any) []byte {
				s := v.(several)
				return wire.AppendBootConfigPart(nil, s[0].(uint32), []byte(s[1].(string)))
			}},
		{"report-stage", func(b []byte) []byte { return wire.AppendReportStage(b, wire.StageFailed, &failure) },
			func(b []byte) (any, error) { s, f, err := wire.ParseReportStage(b); return several{s, f}, err },
			several{wire.StageFailed, failure},
			func(v any) []byte {
				s := v.(several)
				f := s[1].(wire.Failure)
				return wire.AppendReportStage(nil, s[0].(wire.Stage), &f)
			}},
		{"extend-measurement", func(b []byte) []byte {
			d := digest(5)
			return wire.AppendExtendMeasurement(b, 9, &d, []byte("os manifest"))
		},
			func(b []byte) (any, error) {
				r, d, l, err := wire.ParseExtendMeasurement(b)
				return several{r, d, string(l)}, err
			}, several{uint8(9), digest(5), "os manifest"},
			func(v any) []byte {
				s := v.(several)
				d := s[1].([32]byte)
				return wire.AppendExtendMeasurement(nil, s[0].(uint8), &d, []byte(s[2].(string)))
			}},
		{"digest", func(b []byte) []byte { d := digest(6); return wire.AppendDigest(b, &d) }, dec(wire.ParseDigest), digest(6), nil},
		{"floors", func(b []byte) []byte { return wire.AppendFloors(b, &floors, &[16]byte{1, 2}) },
			func(b []byte) (any, error) { f, r, err := wire.ParseFloors(b); return several{f, r}, err },
			several{floors, [16]byte{1, 2}}, nil},
		{"bytes", func(b []byte) []byte { return wire.AppendBytes(b, []byte("statement")) },
			func(b []byte) (any, error) {
				p, err := wire.ParseBytes(b, wire.MaxSignedFloors)
				return string(p), err
			}, "statement", func(v any) []byte { return wire.AppendBytes(nil, []byte(v.(string))) }},
		{"generations", func(b []byte) []byte { return wire.AppendGenerations(b, 9, 8) },
			func(b []byte) (any, error) { d, o, err := wire.ParseGenerations(b); return several{d, o}, err },
			several{uint32(9), uint32(8)}, nil},
		{"read-console", func(b []byte) []byte { return wire.AppendReadConsole(b, 1<<40) }, dec(wire.ParseReadConsole), uint64(1 << 40), nil},
		{"console-part", enc(wire.AppendConsolePart, wire.ConsolePart{From: 10, End: 20, Data: []byte("login: ")}),
			func(b []byte) (any, error) {
				p, err := wire.ParseConsolePart(b)
				return several{p.From, p.End, string(p.Data)}, err
			}, several{uint64(10), uint64(20), "login: "},
			func(v any) []byte {
				s := v.(several)
				return wire.AppendConsolePart(nil, &wire.ConsolePart{From: s[0].(uint64), End: s[1].(uint64), Data: []byte(s[2].(string))})
			}},
		{"slot-write", func(b []byte) []byte { return wire.AppendSlotWrite(b, 4096, []byte("image")) },
			func(b []byte) (any, error) {
				o, p, err := wire.ParseSlotWrite(b)
				return several{o, string(p)}, err
			}, several{uint32(4096), "image"}, nil},
		{"slot-commit", func(b []byte) []byte { return wire.AppendSlotCommit(b, 100, 90, []byte("manifest")) },
			func(b []byte) (any, error) {
				t, o, p, err := wire.ParseSlotCommit(b)
				return several{t, o, string(p)}, err
			}, several{uint32(100), uint32(90), "manifest"}, nil},
		{"host-request", func(b []byte) []byte { return wire.AppendHostRequest(b, wire.HostShutdown) }, dec(wire.ParseHostRequest), wire.HostShutdown, nil},
		{"aged-report", func(b []byte) []byte { return wire.AppendAgedReport(b, 250, &report) },
			func(b []byte) (any, error) { a, r, err := wire.ParseAgedReport(b); return several{a, r}, err },
			several{uint32(250), report}, nil},
		{"reset", func(b []byte) []byte { return wire.AppendReset(b, wire.ResetCycle) }, dec(wire.ParseReset), wire.ResetCycle, nil},
		{"led", func(b []byte) []byte { return wire.AppendLED(b, 3, true) },
			func(b []byte) (any, error) { s, on, err := wire.ParseLED(b); return several{s, on}, err }, several{uint8(3), true}, nil},
		{"events", func(b []byte) []byte {
			w := wire.StartEvents(b, 1, 41, wire.MaxMessage)
			w.Add(&event)
			w.Add(&wire.Event{Sequence: 42})
			return w.Bytes()
		}, func(b []byte) (any, error) {
			r, err := wire.ParseEvents(b)
			if err != nil {
				return nil, err
			}
			all := several{r.Oldest, r.Newest}
			for e := (wire.Event{}); r.Next(&e); {
				all = append(all, e)
			}
			return all, r.Err()
		}, several{uint32(1), uint32(41), event, wire.Event{Sequence: 42}}, nil},
		{"get-sensor-reading", func(b []byte) []byte { return wire.AppendGetSensorReadingRequest(b, wire.SensorPower) },
			dec(wire.ParseGetSensorReadingRequest), wire.SensorPower, nil},
		{"reading", func(b []byte) []byte {
			return wire.AppendReading(b, wire.Reading{Size: wire.SizeSint32, Present: wire.ReadingNormal, Value: -1500})
		}, dec(wire.ParseReading), wire.Reading{Size: wire.SizeSint32, Present: wire.ReadingNormal, Value: -1500}, nil},
		{"get-state-sensor", func(b []byte) []byte { return wire.AppendGetStateSensorRequest(b, wire.SensorBoot) },
			dec(wire.ParseGetStateSensorRequest), wire.SensorBoot, nil},
		{"state-reading", func(b []byte) []byte { return wire.AppendStateReading(b, 0, wire.BootCompleted) },
			func(b []byte) (any, error) { o, s, err := wire.ParseStateReading(b); return several{o, s}, err },
			several{uint8(0), wire.BootCompleted}, nil},
		{"set-state-effecter", func(b []byte) []byte { return wire.AppendSetStateEffecter(b, wire.EffecterPower, wire.SystemPowerOn) },
			func(b []byte) (any, error) {
				e, set, s, err := wire.ParseSetStateEffecter(b)
				return several{e, set, s}, err
			}, several{wire.EffecterPower, true, wire.SystemPowerOn}, nil},
		{"state-effecter", func(b []byte) []byte { return wire.AppendStateEffecter(b, 0, 1, 10) },
			func(b []byte) (any, error) {
				o, p, s, err := wire.ParseStateEffecter(b)
				return several{o, p, s}, err
			}, several{uint8(0), uint8(1), uint8(10)}, nil},
		{"set-numeric-effecter", func(b []byte) []byte {
			return wire.AppendSetNumericEffecter(b, wire.EffecterCap, wire.SizeUint32, 7000)
		},
			func(b []byte) (any, error) {
				e, z, v, err := wire.ParseSetNumericEffecter(b)
				return several{e, z, v}, err
			}, several{wire.EffecterCap, wire.SizeUint32, int64(7000)}, nil},
		{"numeric-effecter", func(b []byte) []byte { return wire.AppendNumericEffecter(b, wire.SizeUint32, 1, 7000, 6000) },
			func(b []byte) (any, error) {
				z, o, p, v, err := wire.ParseNumericEffecter(b)
				return several{z, o, p, v}, err
			}, several{wire.SizeUint32, uint8(1), int64(7000), int64(6000)}, nil},
		{"pdr-info", func(b []byte) []byte {
			return wire.AppendPDRInfo(b, wire.PDRInfo{Records: 11, Size: 900, Largest: 114})
		},
			dec(wire.ParsePDRInfo), wire.PDRInfo{Records: 11, Size: 900, Largest: 114}, nil},
		{"get-pdr", func(b []byte) []byte { return wire.AppendGetPDR(b, 3) },
			func(b []byte) (any, error) { r, f, n, err := wire.ParseGetPDR(b); return several{r, f, n}, err },
			several{uint32(3), wire.TransferFirst, uint16(0xFFFF)}, nil},
		{"get-pdr-response", func(b []byte) []byte { return wire.AppendGetPDRResponse(b, 4, []byte("record")) },
			func(b []byte) (any, error) {
				n, r, err := wire.ParseGetPDRResponse(b)
				return several{n, string(r)}, err
			}, several{uint32(4), "record"}, nil},
		pdrCodec("pdr-numeric-sensor", pdr), pdrCodec("pdr-state-sensor", statePDR),
		pdrCodec("pdr-state-effecter", effecterPDR), pdrCodec("pdr-numeric-effecter", capPDR),
		{"fru-metadata", func(b []byte) []byte { return wire.AppendFRUMetadata(b, wire.MakeFRUMetadata(fruTable())) },
			dec(wire.ParseFRUMetadata), wire.FRUMetadata{Major: 1, Length: 60, Sets: 1, Records: 1, Checksum: 0xE302D5BE}, nil},
		{"get-fru-table", wire.AppendGetFRUTable,
			func(b []byte) (any, error) { h, f, err := wire.ParseGetFRUTable(b); return several{h, f}, err },
			several{uint32(0), wire.TransferFirst}, nil},
		{"fru-table", func(b []byte) []byte { return append(b, fruTable()...) },
			func(b []byte) (any, error) { f, err := wire.ParseFRUTable(b); return string(f), err }, string(fruFields()), nil},
		{"get-version", func(b []byte) []byte { return wire.AppendGetVersionRequest(b, wire.TypeOEM) },
			func(b []byte) (any, error) { f, k, err := wire.ParseGetVersionRequest(b); return several{f, k}, err },
			several{wire.TransferFirst, wire.TypeOEM}, nil},
		{"version", func(b []byte) []byte { return wire.AppendGetVersionResponse(b, wire.VersionMonitor) },
			dec(wire.ParseGetVersionResponse), wire.VersionMonitor, nil},
		{"get-commands", func(b []byte) []byte { return wire.AppendGetCommandsRequest(b, wire.TypeOEM, wire.VersionOEM) },
			func(b []byte) (any, error) { k, v, err := wire.ParseGetCommandsRequest(b); return several{k, v}, err },
			several{wire.TypeOEM, wire.VersionOEM}, nil},
		{"header", func(b []byte) []byte { return wire.AppendRequest(b, 5, wire.TypeOEM, wire.CmdGetUnitState) },
			func(b []byte) (any, error) { h, p, err := wire.ParseHeader(b); return several{h, string(p)}, err },
			several{wire.Header{Request: true, Instance: 5, Type: wire.TypeOEM, Command: wire.CmdGetUnitState}, ""},
			func(v any) []byte {
				s := v.(several)
				return append(wire.AppendHeader(nil, s[0].(wire.Header)), s[1].(string)...)
			}},
		{"packet", func(b []byte) []byte {
			return wire.AppendPacket(b, wire.Packet{Address: wire.Address{Dest: 0x12, Source: 9, Tag: 3, TagOwner: true}, Start: true, Sequence: 2, Body: []byte{1, 0x85}})
		}, func(b []byte) (any, error) {
			p, err := wire.ParsePacket(b)
			return several{p.Address, p.Start, p.End, p.Sequence, string(p.Body)}, err
		}, several{wire.Address{Dest: 0x12, Source: 9, Tag: 3, TagOwner: true}, true, false, uint8(2), "\x01\x85"}, nil},
	}
}

func pdrCodec(name string, p wire.PDR) codec {
	return codec{name, func(b []byte) []byte { return wire.AppendPDR(b, 7, &p) },
		func(b []byte) (any, error) { h, p, err := wire.ParsePDR(b); return several{h, p}, err },
		several{uint32(7), p}, nil}
}

// TestVectors compares each encoding with its golden vector, and decodes the vector.
func TestVectors(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			got := c.sample(nil)
			name := filepath.Join("testdata", "vectors", c.name+".hex")
			if *update {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(dump(got)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("encoded:\n%swant:\n%s", dump(got), text)
			}
			v, err := c.decode(want)
			if err != nil {
				t.Fatalf("decode: %v", err)
			}
			if fmt.Sprintf("%#v", v) != fmt.Sprintf("%#v", c.want) {
				t.Errorf("decoded %+v, want %+v", v, c.want)
			}
			if c.encode != nil {
				if b := c.encode(v); !bytes.Equal(b, want) {
					t.Errorf("encoded again:\n%swant:\n%s", dump(b), text)
				}
			}
		})
	}
}

// TestShortAndLong takes every vector and cuts it anywhere, and adds a byte: no decoder may
// accept either. Requests of variable length whose every prefix is shorter than their
// length fields say cannot escape this.
func TestShortAndLong(t *testing.T) {
	open := map[string]bool{"header": true, "packet": true} // what follows their fixed part is payload
	for _, c := range codecs() {
		if open[c.name] {
			continue
		}
		b := c.sample(nil)
		for n := range b {
			if _, err := c.decode(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes accepted", c.name, n, len(b))
			}
		}
		if _, err := c.decode(append(b, 0)); err == nil {
			t.Errorf("%s: a byte too many accepted", c.name)
		}
	}
}

// TestOutOfRange has one value out of range each.
func TestOutOfRange(t *testing.T) {
	state := func(f func(*wire.UnitState)) []byte { s := unit; f(&s); return wire.AppendUnitState(nil, &s) }
	want := func(f func(*wire.Desired)) []byte { d := desired; f(&d); return wire.AppendDesired(nil, &d) }
	policy := func(f func(*wire.Policies)) []byte { p := policies; f(&p); return wire.AppendPolicies(nil, &p) }
	for _, c := range []struct {
		name  string
		codec string
		b     []byte
	}{
		{"slot 0", "unit-state", state(func(s *wire.UnitState) { s.Slot = 0 })},
		{"slot 11", "unit-state", state(func(s *wire.UnitState) { s.Slot = 11 })},
		{"state", "unit-state", state(func(s *wire.UnitState) { s.State = 6 })},
		{"stage", "unit-state", state(func(s *wire.UnitState) { s.Stage = 15 })},
		{"boot slot", "unit-state", state(func(s *wire.UnitState) { s.BootSlot = 2 })},
		{"power", "unit-state", state(func(s *wire.UnitState) { s.Power = 2 })},
		{"mask", "desired", want(func(d *wire.Desired) { d.Mask = 0x10 })},
		{"override without slot", "desired", want(func(d *wire.Desired) { d.BootSlot = wire.SlotNone })},
		{"slot without override", "desired", want(func(d *wire.Desired) { d.BootMode = wire.BootDisabled })},
		{"empty curve", "policies", policy(func(p *wire.Policies) { p.CurveCount = 0 })},
		{"flat curve", "policies", policy(func(p *wire.Policies) { p.Curve[1].MilliCelsius = 25_000 })},
		{"falling duty", "policies", policy(func(p *wire.Policies) { p.Curve[1].DutyPercent = 20 })},
		{"duty 101", "policies", policy(func(p *wire.Policies) { p.Curve[1].DutyPercent = 101 })},
		{"shutdown below throttle", "policies", policy(func(p *wire.Policies) { p.ShutdownMilliCelsius = 1 })},
		{"negative hysteresis", "policies", policy(func(p *wire.Policies) { p.HysteresisMilliCelsius = -1 })},
		{"five disks", "inventory", func() []byte { b := wire.AppendInventory(nil, &wire.Inventory{}); b[len(b)-2] = 5; return b }()},
		{"five interfaces", "inventory", func() []byte { b := wire.AppendInventory(nil, &wire.Inventory{}); b[len(b)-1] = 5; return b }()},
		{"unknown flag of a disk", "inventory", func() []byte { i := inventory; i.Disks[0].Flags = 8; return wire.AppendInventory(nil, &i) }()},
		{"prefix above 32", "inventory", func() []byte { i := inventory; i.Interfaces[0].Prefix = 33; return wire.AppendInventory(nil, &i) }()},
		{"CPU above 1000", "report", func() []byte { r := report; r.CPUPermille = 1001; return wire.AppendReport(nil, &r) }()},
		{"boolean 2", "led", []byte{1, 2}},
		{"reset kind", "reset", []byte{5}},
		{"console end before start", "console-part", wire.AppendConsolePart(nil, &wire.ConsolePart{From: 5, End: 4})},
		{"console beyond its end", "console-part", wire.AppendConsolePart(nil, &wire.ConsolePart{From: 5, End: 6, Data: []byte("ab")})},
		{"manifest part beyond total", "slot-commit", wire.AppendSlotCommit(nil, 10, 5, make([]byte, 6))},
		{"manifest part with overflow", "slot-commit", wire.AppendSlotCommit(nil, 10, 0xFFFFFFFF, make([]byte, 6))},
		{"boot configuration too big", "boot-config-part", wire.AppendBootConfigPart(nil, wire.MaxBootConfig+1, nil)},
		{"checksum of a version", "version", append(wire.AppendGetVersionResponse(nil, wire.VersionOEM)[:12], 0)},
		{"text too long", "failure", append([]byte{33}, make([]byte, 35)...)},
		{"header version", "header", []byte{0x80, 0x40, 0}},
		{"reserved bit", "header", []byte{0xA0, 0, 0}},
		{"datagram response", "header", []byte{0x40, 0, 0}},
		{"packet version", "packet", []byte{2, 8, 9, 0xC8, 1}},
		{"packet without body", "packet", []byte{1, 8, 9, 0xC8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, k := range codecs() {
				if k.name == c.codec {
					if v, err := k.decode(c.b); err == nil {
						t.Errorf("accepted: %+v", v)
					}
					return
				}
			}
			t.Fatalf("no codec %s", c.codec)
		})
	}
}

func dump(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(32, len(b))
		fmt.Fprintf(&s, "%x\n", b[:n])
		b = b[n:]
	}
	return s.String()
}

func TestText(t *testing.T) {
	long := strings.Repeat("x", 31) + "é" // the character does not fit into 32 bytes
	if x := wire.MakeText32(long); x.String() != strings.Repeat("x", 31) {
		t.Errorf("cut to %q", x.String())
	}
	if a, b := wire.MakeText72("same"), wire.MakeText72("same"); a != b {
		t.Error("equal texts differ")
	}
	var f wire.Failure
	if !f.IsZero() || failure.IsZero() {
		t.Error("IsZero is wrong")
	}
}

func TestNames(t *testing.T) {
	for s := wire.StageOff; s <= wire.StageFailed; s++ {
		if got, ok := wire.ParseStage(s.String()); !ok || got != s {
			t.Errorf("stage %d: %q does not parse back", s, s)
		}
	}
	if _, ok := wire.ParseStage("unknown"); ok || wire.Stage(99).String() != "unknown" {
		t.Error("an unknown stage has a name")
	}
	if wire.EventReport.String() != "report" || wire.StateFaulted.String() != "faulted" || wire.PowerOn.String() != "On" {
		t.Error("a name is shifted")
	}
	if wire.BMC(3).Slot() != 3 || wire.EIDRMC.Slot() != 0 || wire.EIDUnit.Slot() != 0 || wire.BMC(0).Slot() != 0 {
		t.Error("slots of endpoints are wrong")
	}
}

func TestErrorsAreTold(t *testing.T) {
	if _, err := wire.ParseUnitState(nil); !errors.Is(err, wire.ErrShort) {
		t.Errorf("empty: %v", err)
	}
	if _, _, err := wire.ParseLED([]byte{1, 1, 1}); !errors.Is(err, wire.ErrTrailing) {
		t.Errorf("long: %v", err)
	}
	if _, err := wire.ParseReset([]byte{99}); !errors.Is(err, wire.ErrValue) {
		t.Errorf("value: %v", err)
	}
}
