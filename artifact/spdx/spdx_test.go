package spdx

import (
	"bytes"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact"
)

func files() []artifact.File {
	return []artifact.File{
		{Name: "dir", Mode: 1<<31 | 0o755},
		{Name: "kernel", Data: []byte("k"), Origin: artifact.Origin{Name: "linux", Version: "6.12", Source: "pkg:deb/debian/linux@6.12", Licence: "GPL-2.0-only", SHA256: strings.Repeat("a", 64)}},
		{Name: "init", Data: []byte("i"), Origin: artifact.Own("1"), Parts: []artifact.Origin{
			{Name: "x", Version: "v1", Source: "pkg:golang/x@v1", Licence: "MIT AND Apache-2.0"},
			{Name: "go", Version: "1.26", Source: "pkg:golang/std@1.26", Licence: "BSD-3-Clause"}}},
	}
}

func TestMarshal(t *testing.T) {
	b, err := Marshal("racklet-boot", "1", files())
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Marshal("racklet-boot", "1", files())
	if !bytes.Equal(b, again) {
		t.Error("the same files give another bill")
	}
	d, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Files) != 2 || len(d.Packages) != 5 {
		t.Errorf("%d files, %d packages; want 2 and 5", len(d.Files), len(d.Packages))
	}
	if got := d.Files[1].LicenseConcluded; got != "Apache-2.0 AND BSD-3-Clause AND MIT" {
		t.Errorf("licence of init is %q", got)
	}
	if err := d.Check(files()); err != nil {
		t.Error(err)
	}
	more := append(files(), artifact.File{Name: "stowaway", Data: []byte("x")})
	if err := d.Check(more); err == nil || !strings.Contains(err.Error(), "stowaway") {
		t.Errorf("a file that is not listed: %v", err)
	}
	other := files()
	other[1].Data = []byte("K")
	if err := d.Check(other); err == nil {
		t.Error("a file with other content passes")
	}
	nameless := files()
	nameless[1].Origin.Licence = ""
	if _, err := Marshal("racklet-boot", "1", nameless); err == nil {
		t.Error("a file without a licence is accepted")
	}
}
