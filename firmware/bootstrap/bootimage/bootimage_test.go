package bootimage

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/fat"
	"github.com/racklet/racklet/artifact/initramfs"
	"github.com/racklet/racklet/artifact/kernel/kerneltest"
	"github.com/racklet/racklet/artifact/spdx"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

func config() Config {
	return Config{
		Version: "1.2.3", SecurityVersion: 7, Kernel: kerneltest.Kernel(initramfs.Stage1Modules...),
		Init: artifact.File{Data: []byte("stage 1"), Origin: artifact.Own("1.2.3")},
	}
}

// TestBuild reads the image as BMC and boot ROM do. That it boots is shown in tools/release.
func TestBuild(t *testing.T) {
	img, err := Build(config())
	if err != nil {
		t.Fatal(err)
	}
	m, err := trust.ParseSlotManifest(img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != "1.2.3" || m.SecurityVersion != 7 || int(m.ImageSize) != len(img.Volume) || rack.SHA256(img.Manifest) != img.ManifestDigest {
		t.Errorf("manifest %+v", m)
	}
	for i, c := range m.Chunks {
		if got := sha256.Sum256(img.Volume[i*trust.ChunkSize : min((i+1)*trust.ChunkSize, len(img.Volume))]); got != c {
			t.Errorf("chunk %d is %x, the manifest says %x", i, got, c)
		}
	}
	v, err := fat.Open(bytes.NewReader(img.Volume), int64(len(img.Volume)))
	if err != nil {
		t.Fatal(err)
	}
	bill, err := spdx.Parse(img.SBOM)
	if err != nil {
		t.Fatal(err)
	}
	list, err := v.List(".")
	if err != nil || len(list) != 4 {
		t.Fatalf("%d files, %v", len(list), err)
	}
	for _, e := range list {
		b, err := v.ReadFile(e.Name, trust.MaxImageSize)
		if err != nil {
			t.Fatal(err)
		}
		if err := bill.Check([]artifact.File{{Name: e.Name, Data: b}}); err != nil {
			t.Error(err)
		}
		switch e.Name {
		case KernelFile:
			if got := sha256.Sum256(b); got != m.Kernel || rack.SHA256(b) != img.Kernel {
				t.Errorf("kernel is %x, the manifest says %x, the image %s", got, m.Kernel, img.Kernel)
			}
		case CmdlineFile:
			if string(b) != Cmdline+"\n" {
				t.Errorf("command line %q", b)
			}
		}
	}
	again, err := Build(config())
	if err != nil || !bytes.Equal(again.Volume, img.Volume) || !bytes.Equal(again.SBOM, img.SBOM) {
		t.Errorf("the same input gives another image (%v)", err)
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"too big":          func(c *Config) { c.KernelFile = make([]byte, trust.MaxImageSize) },
		"no licence":       func(c *Config) { c.Init.Origin.Licence = "" },
		"missing module":   func(c *Config) { c.Modules = []string{"nonsense"} },
		"version too long": func(c *Config) { c.Version = strings.Repeat("1", 33) },
	} {
		c := config()
		edit(&c)
		if _, err := Build(c); err == nil {
			t.Errorf("%s: built", name)
		}
	}
}
