package fat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/rack/racktest"
)

// sample is a tree with all that a Pi's boot medium has: long names, sub-directories, an empty file.
func sample() *artifact.Tree {
	t := new(artifact.Tree)
	r := rand.NewChaCha8([32]byte{1})
	for i, name := range []string{"kernel", "initramfs", "cmdline.txt", "CONFIG.TXT", "empty", "bcm2711-rpi-4-b.dtb", "bcm2711-rpi-4-c.dtb", "overlays/disable-bt.dtbo", "overlays/README"} {
		b := make([]byte, (i+1)*2047)
		if name == "empty" {
			b = nil
		}
		r.Read(b)
		t.Add(artifact.File{Name: name, Mode: 0o644, Data: b})
	}
	for i := range 40 {
		t.Add(artifact.File{Name: fmt.Sprintf("overlays/a-rather-long-overlay-name-%02d.dtbo", i), Mode: 0o644, Data: []byte{byte(i)}})
	}
	return t
}

func TestRoundTrip(t *testing.T) {
	tree := sample()
	img, err := Write(tree, Options{Label: "RACKLET", Serial: 1, Time: artifact.Epoch, Align: 32768})
	if err != nil {
		t.Fatal(err)
	}
	if len(img)%32768 != 0 {
		t.Errorf("size %d is no multiple of 32768", len(img))
	}
	f, err := Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, want := range tree.Files() {
		if want.Mode.IsDir() {
			continue
		}
		n++
		got, err := f.ReadFile(want.Name, 1<<20)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want.Data) {
			t.Errorf("%s differs", want.Name)
		}
	}
	list, err := f.List("overlays")
	if err != nil || len(list) != 42 {
		t.Errorf("overlays has %d entries (%v), want 42", len(list), err)
	}
	if _, err := f.ReadFile("kernel", 2046); err == nil {
		t.Error("a file beyond the caller's limit is returned")
	}
	if _, err := f.ReadFile("absent", 10); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent file: %v", err)
	}
	// The image that fsck.vfat 4.2 finds nothing wrong with, and whose files mdir 4.0 lists.
	if got, want := fmt.Sprintf("%x", sha256.Sum256(img)), goldenImage; got != want {
		t.Errorf("image %s, want %s; have a change of the format checked by TestFsck before", got, want)
	}
	again, _ := Write(sample(), Options{Label: "RACKLET", Serial: 1, Time: artifact.Epoch, Align: 32768})
	if !bytes.Equal(img, again) {
		t.Error("the same tree gives other bytes")
	}
}

const goldenImage = "d4f33df057f46b5dc8317c943cab11320e3f8291a466564ee38b8031b0e7fe57"

// TestFsck asks the tool of others.
func TestFsck(t *testing.T) {
	img, err := Write(sample(), Options{Label: "RACKLET", Serial: 1, Time: artifact.Epoch, Align: 32768})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(name, img, 0o600); err != nil {
		t.Fatal(err)
	}
	fsck := racktest.Tool(t, "fsck.vfat")
	if out, err := exec.Command(fsck, "-n", "-v", name).CombinedOutput(); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	img[512*int(binary.LittleEndian.Uint16(img[14:]))] ^= 1 // the first FAT's media byte
	if err := os.WriteFile(name, img, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(fsck, "-n", "-v", name).CombinedOutput(); err == nil {
		t.Errorf("fsck.vfat passes a damaged image:\n%s", out)
	}
}

// TestDamage breaks each field that the reader relies on.
func TestDamage(t *testing.T) {
	good, err := Write(sample(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	var kernel, initramfs Entry
	list, _ := f.List(".")
	for _, e := range list {
		switch e.Name {
		case "kernel":
			kernel = e
		case "initramfs":
			initramfs = e
		}
	}
	fatAt := func(c uint16) int { return sectorSize + int(c)*2 }
	for _, tt := range []struct {
		name   string
		damage func(b []byte)
	}{
		{"signature", func(b []byte) { b[510] = 0 }},
		{"sector size", func(b []byte) { b[12] = 4 }},
		{"cluster size", func(b []byte) { b[13] = 3 }},
		{"no reserved sectors", func(b []byte) { b[14] = 0 }},
		{"tables", func(b []byte) { b[16] = 9 }},
		{"root entries", func(b []byte) { b[17] = 7 }},
		{"total beyond the medium", func(b []byte) { b[19], b[20] = 0xFF, 0xFF }},
		{"too few clusters", func(b []byte) { b[19], b[20] = 0, 1 }},
		{"small table", func(b []byte) { b[22], b[23] = 1, 0 }},
		{"chain too long", func(b []byte) {
			b[fatAt(kernel.cluster)], b[fatAt(kernel.cluster)+1] = byte(initramfs.cluster), byte(initramfs.cluster>>8)
		}},
		{"chain leaves the volume", func(b []byte) { b[fatAt(initramfs.cluster)], b[fatAt(initramfs.cluster)+1] = 0xF0, 0xFF }},
		{"chain too short", func(b []byte) { b[fatAt(initramfs.cluster)], b[fatAt(initramfs.cluster)+1] = 0xFF, 0xFF }},
		{"chain loops", func(b []byte) {
			b[fatAt(initramfs.cluster)], b[fatAt(initramfs.cluster)+1] = byte(initramfs.cluster), byte(initramfs.cluster>>8)
		}},
		{"long name out of order", func(b []byte) { i := bytes.Index(b, []byte("k\x00e\x00r\x00")); b[i-1] = 0x42 }},
		{"long name of another file", func(b []byte) { i := bytes.Index(b, []byte("k\x00e\x00r\x00")); b[i+12]++ }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(good)
			tt.damage(b)
			f, err := Open(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				_, err = f.ReadFile("kernel", 1<<20)
			}
			if err == nil {
				_, err = f.ReadFile("initramfs", 1<<20)
			}
			if !errors.Is(err, ErrFormat) {
				t.Errorf("got %v, want ErrFormat", err)
			}
		})
	}
}

// FuzzRead feeds the boot ROM's reader any medium: it must end, not panic, and stay within bounds.
func FuzzRead(f *testing.F) {
	t := new(artifact.Tree)
	t.Add(artifact.File{Name: "kernel", Mode: 0o644, Data: []byte("kernel")})
	t.Add(artifact.File{Name: "overlays/a long name.dtbo", Mode: 0o644, Data: make([]byte, 5000)})
	img, err := Write(t, Options{})
	if err != nil {
		f.Fatal(err)
	}
	// The fuzzer varies head (boot sector, table) and directories; the middle of the volume is as written.
	dirs := bytes.Index(img, []byte("k\x00e\x00r\x00")) - 1
	f.Add(img[:1024], img[dirs:dirs+512])
	f.Fuzz(func(t *testing.T, head, dir []byte) {
		v, err := Open(overlay{img, map[int64][]byte{0: head[:min(len(head), 16<<10)], int64(dirs): dir[:min(len(dir), 16<<10)]}}, int64(len(img)))
		if err != nil {
			return
		}
		list, _ := v.List(".")
		for _, e := range list[:min(len(list), 8)] {
			if e.Dir {
				v.List(e.Name)
			} else if got, err := v.ReadFile(e.Name, 64<<10); err == nil && int64(len(got)) != e.Size {
				t.Errorf("%q: %d bytes of %d", e.Name, len(got), e.Size)
			}
		}
	})
}

// overlay is a medium with some places written over.
type overlay struct {
	base []byte
	over map[int64][]byte
}

func (o overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(o.base).ReadAt(p, off)
	for at, b := range o.over {
		if from, to := max(at, off), min(at+int64(len(b)), off+int64(n)); from < to {
			copy(p[from-off:to-off], b[from-at:])
		}
	}
	return n, err
}
