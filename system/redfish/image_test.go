package redfish_test

import (
	"bytes"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/system/redfish"
)

// FuzzImage: what is taken for an update file is one, byte for byte.
func FuzzImage(f *testing.F) {
	good := updateFile(f, 0, "v1")
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x00\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		signed, data, err := redfish.ReadImage(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !bytes.Equal(append(bytes.Clone(signed), data...), b) {
			t.Fatal("not what was sent")
		}
		doc, _, err := trust.SplitSigned(signed)
		if err != nil {
			t.Fatal(err)
		}
		m, err := trust.ParseSlotManifest(doc)
		if err != nil {
			t.Fatal(err)
		}
		for i, at := 0, 0; i < len(m.Chunks); i++ {
			n := m.ChunkLength(i)
			if !m.ChunkOK(i, data[at:at+n]) {
				t.Fatalf("chunk %d", i)
			}
			at += n
		}
	})
}
