package eeprom

import (
	"bytes"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
)

func sample(t testing.TB) *Record {
	t.Helper()
	r := new(Record)
	for _, f := range []struct {
		f Field
		v string
	}{{Model, "RMC board"}, {SerialNumber, "0004A3010203"}, {Date, "\x00\x00\x00\x00\x00\x00\x00\x00\x17\x0b\xea\x07\x0b"}, {Version, "1"}} {
		if err := r.Set(f.f, f.v); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	r := sample(t)
	b := r.Append(nil)
	var got Record
	if err := got.Parse(append(b, 0xFF, 0xFF)); err != nil {
		t.Fatal(err)
	}
	if got.Get(Model) != "RMC board" || got.Get(Version) != "1" || got.Get(AssetTag) != "" {
		t.Errorf("got %q", got.Fields())
	}
}

func TestRecordRefusals(t *testing.T) {
	good := sample(t).Append(nil)
	resum := func(b []byte) []byte {
		b = b[:len(b)-4]
		c := crc32.ChecksumIEEE(b)
		return append(b, byte(c), byte(c>>8), byte(c>>16), byte(c>>24))
	}
	edit := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return resum(b)
	}
	for name, b := range map[string][]byte{
		"short":            good[:9],
		"other version":    edit(4, 2),
		"length too long":  edit(5, good[5]+1),
		"length too short": edit(5, good[5]-1),
		"field too long":   edit(7, 200),
		"not printable":    edit(8, 7),
		"wrong CRC":        append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1),
	} {
		if err := new(Record).Parse(b); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
	if err := new(Record).Parse(edit(8, 'X')); err != nil {
		t.Errorf("good control: %v", err)
	}
	if err := new(Record).Set(Model, strings.Repeat("x", Size)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample(f).Append(nil))
	f.Add(bytes.Repeat([]byte{0xFF}, Size))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.Parse(b) != nil {
			return
		}
		again := r.Append(nil)
		if !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("% x came back as % x", b, again)
		}
	})
}
