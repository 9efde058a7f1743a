package bmc

import (
	"testing"
	"unsafe"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// TestMemoryBudget adds up what one BMC holds: the struct with its chunk buffer and rings, the hash table, the second one
// that a staging's commit takes for the length of a call, its two hash states, the line buffers of its two serial ports
// and the message buffers of its caller. Stacks and the runtime come on top, within the microcontroller's 264 KiB.
func TestMemoryBudget(t *testing.T) {
	table := trust.MaxChunks * 32
	parts := []struct {
		what string
		n    int
	}{
		{"struct", int(unsafe.Sizeof(BMC{}))},
		{"hash table", table},
		{"second hash table, transient", table},
		{"hash states", 2 * 128},
		{"serial ports", 2 * int(unsafe.Sizeof(wire.Port{}))},
		{"request and response", 2 * wire.MaxMessage},
		{"keyring", 8 * 32},
	}
	sum := 0
	for _, p := range parts {
		t.Logf("%7d %s", p.n, p.what)
		sum += p.n
	}
	t.Logf("%7d of %d", sum, MemoryBudget)
	if sum > MemoryBudget {
		t.Fatalf("%d bytes, budget %d", sum, MemoryBudget)
	}
}

// TestNoAllocations: what happens all the time does not allocate, as a microcontroller wants it.
func TestNoAllocations(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	var resp [wire.MaxMessage]byte
	block := make([]byte, 8*512)
	beat := append(wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdHeartbeat), wire.AppendReport(nil, &wire.Report{})...)
	state := wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdGetUnitState)
	events := append(wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdReadEvents), 0, 0, 0, 0)
	sensor := append(wire.AppendRequest(nil, 1, wire.TypeMonitor, wire.CmdGetSensorReading), wire.AppendGetSensorReadingRequest(nil, wire.SensorPower)...)
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"Step", func() { r.now += 10; r.b.Step(r.now) }},
		{"Heartbeat", func() { r.b.Handle(wire.SideInBand, r.now, beat, resp[:]) }},
		{"GetUnitState", func() { r.b.Handle(wire.SideBus, r.now, state, resp[:]) }},
		{"ReadEvents", func() { r.b.Handle(wire.SideBus, r.now, events, resp[:]) }},
		{"GetSensorReading", func() { r.b.Handle(wire.SideBus, r.now, sensor, resp[:]) }},
		{"ReadMedium", func() {
			if err := r.b.ReadMedium(uint32(len(block)/512)*3%16, block); err != nil {
				t.Fatal(err)
			}
			r.b.cached = -1
		}},
		{"console", func() { r.b.ConsoleInput(block); r.b.ConsoleOutput(block) }},
	} {
		if n := testing.AllocsPerRun(100, c.do); n != 0 {
			t.Errorf("%s: %v allocations", c.what, n)
		}
	}
}

func BenchmarkReadMedium(b *testing.B) {
	r := newRig(b)
	r.runUnit()
	block := make([]byte, trust.ChunkSize)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		r.b.cached = -1
		if err := r.b.ReadMedium(0, block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvidence(b *testing.B) {
	r := newRig(b)
	r.runUnit()
	var nonce [32]byte
	for b.Loop() {
		r.mustCall(wire.SideBus, wire.CmdGetEvidence, nonce[:])
	}
}
