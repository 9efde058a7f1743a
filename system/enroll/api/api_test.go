package api

import (
	"bytes"
	"testing"
)

// TestBound: neither digest nor statement stays the same when any part changes.
func TestBound(t *testing.T) {
	base := KeyRegister([]byte("key"), [32]byte{1})
	if base == KeyRegister([]byte("kez"), [32]byte{1}) || base == KeyRegister([]byte("key"), [32]byte{2}) {
		t.Error("the key register holds one key alone")
	}
	s := Statement("unit-1", "wg", []byte("csr"))
	for _, other := range [][]byte{Statement("unit-2", "wg", []byte("csr")), Statement("unit-1", "wh", []byte("csr")), Statement("unit-1", "wg", []byte("cst")), Statement("unit-1\nwireguard wg", "", []byte("csr"))} {
		if bytes.Equal(s, other) {
			t.Errorf("two requests sign %q", s)
		}
	}
}
