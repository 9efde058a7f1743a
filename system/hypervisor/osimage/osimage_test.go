package osimage

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/initramfs"
	"github.com/racklet/racklet/artifact/kernel/kerneltest"
	"github.com/racklet/racklet/artifact/spdx"
	"github.com/racklet/racklet/rack"
)

func config() Config {
	return Config{
		Version: "1.2.3", SecurityVersion: 7, Kernel: kerneltest.Kernel(append(LateModules, initramfs.Stage1Modules...)...),
		Init:   artifact.File{Data: []byte("pid 1"), Origin: artifact.Own("1.2.3")},
		Stage1: artifact.File{Data: []byte("stage 1"), Origin: artifact.Own("1.2.3")},
	}
}

func TestBuild(t *testing.T) {
	img, err := Build(config())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := ParseMeta(img.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Verify(bytes.NewReader(img.Root)); err != nil {
		t.Error(err)
	}
	if tree.Size() != int64(len(img.Root)) || hex.EncodeToString(tree.Root[:]) != img.Meta.RootHash || rack.SHA256(img.Kernel) != img.Meta.Kernel {
		t.Errorf("configuration %+v, root of %d bytes", img.Meta, len(img.Root))
	}
	bill, err := spdx.Parse(img.SBOM)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, f := range bill.Files {
		listed[f.FileName] = true
	}
	for _, want := range []string{"./kernel", "./initramfs", "./initramfs/init", "./root/sbin/init", "./root/etc/os-release", "./root/lib/modules/overlay.ko"} {
		if !listed[want] {
			t.Errorf("bill of materials lacks %s", want)
		}
	}
	again, err := Build(config())
	if err != nil || !bytes.Equal(again.Root, img.Root) || !bytes.Equal(again.Initramfs, img.Initramfs) || !bytes.Equal(again.SBOM, img.SBOM) {
		t.Errorf("the same input gives another image (%v)", err)
	}
	c := config()
	c.Version = "1.2.4"
	if other, err := Build(c); err != nil || other.Verity.Root == img.Verity.Root {
		t.Errorf("another version has the same root hash (%v)", err)
	}
}

func TestParseMetaRefuses(t *testing.T) {
	for _, s := range []string{``, `{}`, `{"rootHash":"00","blockSize":4096}`, `{"rootHash":"` + hex.EncodeToString(make([]byte, 32)) + `","blockSize":512}`} {
		if _, err := ParseMeta([]byte(s)); err == nil {
			t.Errorf("%s: accepted", s)
		}
	}
}

// TestNoShell keeps what must not be there out of the root.
func TestNoShell(t *testing.T) {
	tree, err := config().tree()
	if err != nil {
		t.Fatal(err)
	}
	programs := 0
	for _, f := range tree.Files() {
		if f.Mode.IsRegular() && f.Mode&0o111 != 0 {
			programs++
		}
		if f.Mode.IsRegular() && f.Mode&0o022 != 0 {
			t.Errorf("%s can be written by others", f.Name)
		}
	}
	if programs != 1 {
		t.Errorf("%d programs in the root, want /sbin/init alone", programs)
	}
}
