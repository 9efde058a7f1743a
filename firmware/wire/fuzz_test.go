package wire_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// fuzzCodec: a decoder accepts or refuses, it never panics; what it accepts and
// what can be encoded again comes out as the same bytes, so that nothing has two spellings.
func fuzzCodec(f *testing.F, name string) {
	for _, c := range codecs() {
		if c.name != name {
			continue
		}
		f.Add(c.sample(nil))
		f.Add([]byte{})
		f.Fuzz(func(t *testing.T, b []byte) {
			in := bytes.Clone(b)
			v, err := c.decode(b)
			if !bytes.Equal(b, in) {
				t.Fatal("the input was changed")
			}
			if err != nil || c.encode == nil {
				return
			}
			if out := c.encode(v); !bytes.Equal(out, in) {
				t.Errorf("%x decodes to %s, which encodes to %x", in, fmt.Sprintf("%+v", v), out)
			}
		})
		return
	}
	f.Fatalf("no codec %q", name)
}

func FuzzParseFailure(f *testing.F)           { fuzzCodec(f, "failure") }
func FuzzParseUnitState(f *testing.F)         { fuzzCodec(f, "unit-state") }
func FuzzParseReport(f *testing.F)            { fuzzCodec(f, "report") }
func FuzzParseAgedReport(f *testing.F)        { fuzzCodec(f, "aged-report") }
func FuzzParseInventory(f *testing.F)         { fuzzCodec(f, "inventory") }
func FuzzParseFirmware(f *testing.F)          { fuzzCodec(f, "firmware") }
func FuzzParseEvent(f *testing.F)             { fuzzCodec(f, "event") }
func FuzzParseEvents(f *testing.F)            { fuzzCodec(f, "events") }
func FuzzParseSlots(f *testing.F)             { fuzzCodec(f, "slots") }
func FuzzParseRackState(f *testing.F)         { fuzzCodec(f, "rack-state") }
func FuzzParsePolicies(f *testing.F)          { fuzzCodec(f, "policies") }
func FuzzParseDesired(f *testing.F)           { fuzzCodec(f, "desired") }
func FuzzParseSlotProgress(f *testing.F)      { fuzzCodec(f, "slot-progress") }
func FuzzParseBootConfigPart(f *testing.F)    { fuzzCodec(f, "boot-config-part") }
func FuzzParseReportStage(f *testing.F)       { fuzzCodec(f, "report-stage") }
func FuzzParseExtendMeasurement(f *testing.F) { fuzzCodec(f, "extend-measurement") }
func FuzzParseFloors(f *testing.F)            { fuzzCodec(f, "floors") }
func FuzzParseBytes(f *testing.F)             { fuzzCodec(f, "bytes") }
func FuzzParseConsolePart(f *testing.F)       { fuzzCodec(f, "console-part") }
func FuzzParseSlotWrite(f *testing.F)         { fuzzCodec(f, "slot-write") }
func FuzzParseSlotCommit(f *testing.F)        { fuzzCodec(f, "slot-commit") }
func FuzzParseHostRequest(f *testing.F)       { fuzzCodec(f, "host-request") }
func FuzzParseReset(f *testing.F)             { fuzzCodec(f, "reset") }
func FuzzParseLED(f *testing.F)               { fuzzCodec(f, "led") }
func FuzzParseOffset(f *testing.F)            { fuzzCodec(f, "offset") }
func FuzzParseReadConsole(f *testing.F)       { fuzzCodec(f, "read-console") }
func FuzzParseDigest(f *testing.F)            { fuzzCodec(f, "digest") }
func FuzzParseGenerations(f *testing.F)       { fuzzCodec(f, "generations") }
func FuzzParseReading(f *testing.F)           { fuzzCodec(f, "reading") }
func FuzzParseStateReading(f *testing.F)      { fuzzCodec(f, "state-reading") }
func FuzzParseSetStateEffecter(f *testing.F)  { fuzzCodec(f, "set-state-effecter") }
func FuzzParseStateEffecter(f *testing.F)     { fuzzCodec(f, "state-effecter") }
func FuzzParseSetNumericEffecter(f *testing.F) {
	fuzzCodec(f, "set-numeric-effecter")
}
func FuzzParseNumericEffecter(f *testing.F)    { fuzzCodec(f, "numeric-effecter") }
func FuzzParseGetSensorReading(f *testing.F)   { fuzzCodec(f, "get-sensor-reading") }
func FuzzParseGetStateSensor(f *testing.F)     { fuzzCodec(f, "get-state-sensor") }
func FuzzParsePDRInfo(f *testing.F)            { fuzzCodec(f, "pdr-info") }
func FuzzParseGetPDR(f *testing.F)             { fuzzCodec(f, "get-pdr") }
func FuzzParseGetPDRResponse(f *testing.F)     { fuzzCodec(f, "get-pdr-response") }
func FuzzParseGetVersion(f *testing.F)         { fuzzCodec(f, "get-version") }
func FuzzParseGetVersionResponse(f *testing.F) { fuzzCodec(f, "version") }
func FuzzParseGetCommands(f *testing.F)        { fuzzCodec(f, "get-commands") }
func FuzzParseHeader(f *testing.F)             { fuzzCodec(f, "header") }
func FuzzParsePacket(f *testing.F)             { fuzzCodec(f, "packet") }

func FuzzParsePDR(f *testing.F) {
	for _, p := range []wire.PDR{pdr, statePDR, effecterPDR, capPDR} {
		f.Add(wire.AppendPDR(nil, 1, &p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, p, err := wire.ParsePDR(b)
		if err != nil {
			return
		}
		// Fields that we do not keep may differ; what we keep must survive.
		if h2, p2, err := wire.ParsePDR(wire.AppendPDR(nil, h, &p)); err != nil || h2 != h || p2 != p {
			t.Errorf("%+v comes back as %+v: %v", p, p2, err)
		}
	})
}

func FuzzDeframer(f *testing.F) {
	f.Add(frame(f, "\x01\x08\x09\xc8\x01\x7d\x7e"), false)
	bus, _ := wire.AppendBusFrame(nil, wire.ToSlot(2), []byte("packet"))
	f.Add(bus, true)
	f.Fuzz(func(t *testing.T, b []byte, bus bool) {
		d := wire.Deframer{Bus: bus}
		for _, p := range first(push(&d, b)) {
			again, err := wire.AppendFrame(nil, []byte(p))
			if err != nil {
				t.Fatal(err)
			}
			var e wire.Deframer
			if got := first(push(&e, again)); len(got) != 1 || got[0] != p {
				t.Errorf("packet %x does not survive", p)
			}
		}
		// Whatever came before, two good frames later the line is in step again.
		good := frame(t, "good")
		if bus {
			good = append([]byte{wire.ToSlot(1)}, good...)
		}
		tail := bytes.Repeat(good, 40) // a wrong byte count may swallow up to 255 bytes
		got := first(push(&d, tail))
		if len(got) == 0 || got[len(got)-1] != "good" {
			t.Errorf("out of step after %x", b)
		}
	})
}

func first(p []string, _ []byte) []string { return p }

func FuzzAssembler(f *testing.F) {
	var seed []byte
	for _, p := range packets(f, toBMC, make([]byte, 200), 64) {
		seed = append(append(seed, byte(len(p))), p...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		a := wire.Assembler{Own: 0x11}
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			if m, ok := a.Push(b[1 : 1+n]); ok && 1+len(m.Body) > wire.MaxMessage {
				t.Fatal("a message beyond the limit")
			}
			b = b[1+n:]
		}
		var got wire.Message
		for _, p := range packets(t, toBMC, []byte("good"), 64) {
			got, _ = a.Push(p)
		}
		if string(got.Body) != "good" {
			t.Error("a good message was lost")
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add([]byte{0x80, 0x02})
	f.Fuzz(func(t *testing.T, b []byte) {
		if out := wire.HandleControl(nil, 8, b); len(out) > 16 {
			t.Errorf("an answer of %d bytes", len(out))
		}
	})
}
