package squashfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	other "github.com/diskfs/go-diskfs/filesystem/squashfs"

	"github.com/racklet/racklet/artifact"
)

func sample() *artifact.Tree {
	t := new(artifact.Tree)
	random := make([]byte, 300<<10) // three blocks that do not compress
	rand.NewChaCha8([32]byte{2}).Read(random)
	t.Add(artifact.File{Name: "sbin/init", Mode: 0o755, Data: random})
	t.Add(artifact.File{Name: "etc/os-release", Mode: 0o644, Data: []byte("ID=racklet\n")})
	t.Add(artifact.File{Name: "etc/empty", Mode: 0o600})
	t.Add(artifact.File{Name: "big", Mode: 0o644, Data: bytes.Repeat([]byte("racklet "), 100_000)})
	t.Add(artifact.File{Name: "bin", Mode: fs.ModeSymlink | 0o777, Target: "sbin"})
	t.Add(artifact.File{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1})
	t.Dir("proc", 0o555, artifact.Origin{})
	for i := range 700 { // more than one directory header, more than one metadata block
		t.Add(artifact.File{Name: fmt.Sprintf("lib/modules/module-%03d.ko", i), Mode: 0o644, Data: []byte{byte(i)}})
	}
	return t
}

// TestOtherReader reads our image with somebody else's reader. The kernel reads it too, in the
// boot tests of tools/release.
func TestOtherReader(t *testing.T) {
	tree := sample()
	img, err := Write(tree)
	if err != nil {
		t.Fatal(err)
	}
	if len(img)%4096 != 0 {
		t.Errorf("image of %d bytes is not padded", len(img))
	}
	name := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(name, img, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := other.Read(file.New(f, true), int64(len(img)), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range tree.Files() {
		if !want.Mode.IsRegular() {
			continue
		}
		g, err := r.OpenFile("/"+want.Name, os.O_RDONLY)
		if err != nil {
			t.Errorf("%s: %v", want.Name, err)
			continue
		}
		got, err := io.ReadAll(g)
		if err != nil || !bytes.Equal(got, want.Data) {
			t.Errorf("%s: %d bytes (%v), want %d", want.Name, len(got), err, len(want.Data))
		}
	}

	list, err := r.ReadDir("/lib/modules")
	if err != nil || len(list) != 700 {
		t.Errorf("lib/modules: %d entries, %v", len(list), err)
	}
}

func TestReproducible(t *testing.T) {
	a, err := Write(sample())
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Write(sample())
	if !bytes.Equal(a, b) {
		t.Error("the same tree gives other bytes")
	}
}
