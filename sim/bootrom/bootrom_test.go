package bootrom

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/fat"
)

// disk is a medium in memory whose bad block cannot be read.
type disk struct {
	data  []byte
	bad   uint32
	reads int
}

var errBad = errors.New("bad chunk")

func (d *disk) Blocks() uint32 { return uint32(len(d.data) / block) }

func (d *disk) Read(lba uint32, dst []byte) error {
	d.reads++
	if len(dst)%block != 0 || int(lba)*block+len(dst) > len(d.data) {
		return fmt.Errorf("read of %d bytes from block %d", len(dst), lba)
	}
	if last := lba + uint32(len(dst)/block) - 1; d.bad >= lba && d.bad <= last && d.bad != 0 {
		return errBad
	}
	copy(dst, d.data[int(lba)*block:])
	return nil
}

func volume(t *testing.T, files map[string]string) *disk {
	t.Helper()
	var tree artifact.Tree
	for name, data := range files {
		tree.Add(artifact.File{Name: name, Mode: 0o644, Data: []byte(data)})
	}
	b, err := fat.Write(&tree, fat.Options{Label: "BOOT", Time: artifact.Epoch})
	if err != nil {
		t.Fatal(err)
	}
	return &disk{data: b}
}

func TestLoad(t *testing.T) {
	kernel, initramfs := strings.Repeat("kernel!", 20000), strings.Repeat("initramfs", 3333)
	good := map[string]string{"cmdline.txt": "console=ttyAMA0 quiet\nsecond line\n", "kernel": kernel, "initramfs": initramfs, "config.txt": "x"}
	d := volume(t, good)
	image, err := Load(d)
	if err != nil {
		t.Fatal(err)
	}
	if string(image.Kernel) != kernel || string(image.Initramfs) != initramfs || image.Cmdline != "console=ttyAMA0 quiet" {
		t.Errorf("kernel %d bytes, initramfs %d bytes, command line %q", len(image.Kernel), len(image.Initramfs), image.Cmdline)
	}
	if d.reads > d.bytes()/block/4 {
		t.Errorf("%d reads for %d blocks", d.reads, d.Blocks())
	}

	for _, name := range []string{"cmdline.txt", "kernel", "initramfs"} {
		files := map[string]string{}
		for n, data := range good {
			if n != name {
				files[n] = data
			}
		}
		if _, err := Load(volume(t, files)); !errors.Is(err, fat.ErrNotFound) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for name, files := range map[string]map[string]string{
		"long command line": {"cmdline.txt": strings.Repeat("x", maxCmdline+1), "kernel": "k", "initramfs": "i"},
		"zero byte":         {"cmdline.txt": "a\x00b", "kernel": "k", "initramfs": "i"},
	} {
		if _, err := Load(volume(t, files)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Load(&disk{}); !errors.Is(err, ErrNoMedium) {
		t.Errorf("nothing exposed: %v", err)
	}
	if _, err := Load(&disk{data: make([]byte, 1<<20)}); !errors.Is(err, ErrNoMedium) {
		t.Errorf("empty disk: %v", err)
	}
}

// TestBadBlock makes each block bad in turn: a block that belongs to what is
// booted ends the boot, whatever it holds.
func TestBadBlock(t *testing.T) {
	d := volume(t, map[string]string{"cmdline.txt": "quiet", "kernel": strings.Repeat("k", 9000), "initramfs": strings.Repeat("i", 9000)})
	failed := 0
	for b := uint32(1); b < min(d.Blocks(), 300); b++ {
		d.bad = b
		if _, err := Load(d); err != nil {
			failed++
			if !errors.Is(err, errBad) {
				t.Errorf("block %d: %v", b, err)
			}
		}
	}
	if failed < 36 { // the files alone are more
		t.Errorf("only %d blocks matter", failed)
	}
}

func (d *disk) bytes() int { return len(d.data) }
