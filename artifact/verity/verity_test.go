package verity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack/racktest"
)

func data(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		bytes        int
		data, hashes uint64
	}{
		{0, 2, 1}, {1, 2, 1}, {2 * 4096, 2, 1}, {128 * 4096, 128, 1}, {128*4096 + 1, 129, 2 + 1}, {128 * 129 * 4096, 128 * 129, 129 + 2 + 1},
	} {
		img, tree := Append(data(tt.bytes), []byte("salt"))
		if tree.DataBlocks != tt.data || tree.HashBlocks != tt.hashes || int64(len(img)) != tree.Size() || tree.CountHashBlocks() != tt.hashes {
			t.Errorf("%d bytes: %d data, %d hash blocks (%d counted), image of %d; want %d and %d", tt.bytes, tree.DataBlocks, tree.HashBlocks, tree.CountHashBlocks(), len(img), tt.data, tt.hashes)
		}
		if err := tree.Verify(bytes.NewReader(img)); err != nil {
			t.Errorf("%d bytes: %v", tt.bytes, err)
		}
	}
}

// TestGolden compares with the root hash that veritysetup 2.6.1 gives for the same blocks
// (format --no-superblock --salt 000001020304…1b).
func TestGolden(t *testing.T) {
	_, tree := Append(data(300*4096), data(32))
	if got, want := hex.EncodeToString(tree.Root[:]), "26861f5976f51f66c646cc9c262005e080ad1a90ca507ca6cfb05de116425326"; got != want {
		t.Errorf("root hash %s, want %s", got, want)
	}
}

// TestVerify turns one bit in every block, tree and root included.
func TestVerify(t *testing.T) {
	img, tree := Append(data(200*4096), []byte{1, 2, 3})
	for at := 17; at < len(img); at += BlockSize {
		bad := bytes.Clone(img)
		bad[at] ^= 0x10
		if err := tree.Verify(bytes.NewReader(bad)); !errors.Is(err, ErrMismatch) {
			t.Errorf("bit turned at %d: %v", at, err)
		}
	}
	for name, edit := range map[string]func(*Tree){
		"root": func(t *Tree) { t.Root[0] ^= 1 },
		"salt": func(t *Tree) { t.Salt = []byte{1, 2} },
	} {
		other := tree
		edit(&other)
		if err := other.Verify(bytes.NewReader(img)); !errors.Is(err, ErrMismatch) {
			t.Errorf("other %s: %v", name, err)
		}
	}
	if err := tree.Verify(bytes.NewReader(img[:len(img)-1])); err == nil {
		t.Error("a truncated image passes")
	}
}

// TestVeritysetup compares with the tool of cryptsetup. The kernel's opinion is
// asked in tools/release, TestBoot.
func TestVeritysetup(t *testing.T) {
	tool := racktest.Tool(t, "veritysetup")
	for _, blocks := range []int{2, 128, 129, 300} {
		salt := data(32)
		img, tree := Append(data(blocks*4096), salt)
		name := filepath.Join(t.TempDir(), "img")
		if err := os.WriteFile(name, img, 0o600); err != nil {
			t.Fatal(err)
		}
		verify := func(root []byte) ([]byte, error) {
			return exec.Command(tool, "verify", "--no-superblock", "--data-blocks", fmt.Sprint(tree.DataBlocks), "--hash-offset", fmt.Sprint(tree.HashOffset),
				"--salt", hex.EncodeToString(salt), name, name, hex.EncodeToString(root)).CombinedOutput()
		}
		if out, err := verify(tree.Root[:]); err != nil {
			t.Errorf("%d blocks: %v\n%s", blocks, err, out)
		}
		other := tree.Root
		other[7] ^= 1
		if out, err := verify(other[:]); err == nil {
			t.Errorf("%d blocks: another root hash passes\n%s", blocks, out)
		}
	}
}

func TestTable(t *testing.T) {
	_, tree := Append(data(3*4096), []byte{0xab})
	f := strings.Fields(tree.Table("/dev/vda"))
	if len(f) != 10 || f[1] != "/dev/vda" || f[5] != "3" || f[6] != "3" || f[7] != "sha256" || f[9] != "ab" || tree.Sectors() != 24 {
		t.Errorf("table %q, %d sectors", f, tree.Sectors())
	}
}
