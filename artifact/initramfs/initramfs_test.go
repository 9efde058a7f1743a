package initramfs

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/racklet/racklet/artifact"
)

func sample() *artifact.Tree {
	t := new(artifact.Tree)
	t.Add(artifact.File{Name: "init", Mode: 0o755, Data: []byte("program")})
	t.Add(artifact.File{Name: "lib/modules/a.ko", Mode: 0o644, Data: []byte("module")})
	t.Add(artifact.File{Name: "bin", Mode: fs.ModeSymlink | 0o777, Target: "usr/bin"})
	t.Add(artifact.File{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1})
	return t
}

func TestArchive(t *testing.T) {
	b, err := Archive(sample())
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]cpio.Info{}
	seen := map[string]bool{}
	for _, r := range records {
		got[r.Name] = r.Info
		for d := r.Name; d != "."; {
			i := bytes.LastIndexByte([]byte(d), '/')
			if i < 0 {
				break
			}
			if d = d[:i]; !seen[d] {
				t.Errorf("%s comes before its directory", r.Name)
			}
		}
		seen[r.Name] = true
		if r.UID != 0 || r.GID != 0 || r.MTime != uint64(artifact.Epoch.Unix()) {
			t.Errorf("%s belongs to %d:%d, time %d", r.Name, r.UID, r.GID, r.MTime)
		}
	}
	for name, mode := range map[string]uint64{"init": 0o100755, "lib": 0o040755, "lib/modules/a.ko": 0o100644, "bin": 0o120777, "dev/console": 0o020600} {
		if got[name].Mode != mode {
			t.Errorf("%s has mode %o, want %o", name, got[name].Mode, mode)
		}
	}
	if c := got["dev/console"]; c.Rmajor != 5 || c.Rminor != 1 {
		t.Errorf("console is %d:%d", c.Rmajor, c.Rminor)
	}
}

func TestWriteRepeats(t *testing.T) {
	a, err := Write(sample())
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Write(sample())
	if !bytes.Equal(a, b) {
		t.Error("the same tree gives other bytes")
	}
	z, _ := zstd.NewReader(nil)
	raw, err := z.DecodeAll(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := Archive(sample()); !bytes.Equal(raw, want) {
		t.Error("decompressed, it is another archive")
	}
}
