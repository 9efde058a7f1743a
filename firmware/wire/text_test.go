package wire

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostile are texts that a unit may send, and what may come out of them at most.
var hostile = []struct{ sent, want string }{
	{"slot.chunk", "slot.chunk"},
	{"45 °C — größer als 40", "45 °C — größer als 40"},
	{"\x1b]0;owned\x07", "?]0;owned?"},
	{"a\x1b[2Jb", "a?[2Jb"},
	{"line\r\nracklet: ok", "line??racklet: ok"},
	{"\x9b31mred", "?31mred"},    // CSI as one byte
	{"\u009b31mred", "??31mred"}, // CSI as UTF-8
	{"ok\u202eko", "ok???ko"},    // writes backwards
	{"tab\tnul\x00del\x7f", "tab?nul?del?"},
	{"half \xc3", "half ?"},
	{"\xa5\x02\x44\x00crc", "??D?crc"}, // the head of a record in the BMC's store
}

func TestTextsHoldNoControl(t *testing.T) {
	for _, h := range hostile {
		f := MakeFailure(h.sent, h.sent, h.sent)
		// What another implementation puts on the wire is not cleaned before it is sent.
		raw := append([]byte{uint8(len(h.sent))}, h.sent...)
		raw = append(append(append([]byte{}, raw...), raw...), raw...)
		got, err := ParseFailure(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{f.Reason.String(), f.Expected.String(), f.Seen.String(),
			got.Reason.String(), got.Expected.String(), got.Seen.String()} {
			if text != h.want {
				t.Errorf("%q became %q, want %q", h.sent, text, h.want)
			}
		}
		if e := MakeText64(h.sent); e.String() != h.want {
			t.Errorf("%q became %q, want %q", h.sent, e.String(), h.want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, h := range hostile {
		f.Add([]byte(h.sent))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Text72
		x.set(b[:min(len(b), 72)])
		s := x.String()
		if !utf8.ValidString(s) {
			t.Fatalf("%q is no UTF-8", s)
		}
		for _, r := range s {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q holds %U", s, r)
			}
		}
		if utf8.Valid(b) && len(b) <= 72 && len(s) != len(b) {
			t.Fatalf("%q became %q", b, s)
		}
		again := MakeText72(s)
		if again != x {
			t.Fatalf("%q is not stable", s)
		}
	})
}
