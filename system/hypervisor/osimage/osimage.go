// Package osimage builds the operating system of a compute unit: a read-only root with its dm-verity
// tree, the kernel that it runs under, an initramfs for the case that this kernel is another than
// that of the boot slot, and the bill of materials.
//
//	/sbin/init        system/hypervisor/init
//	/etc/os-release   who this is
//	/lib/modules      modules that are loaded after the start, file order gives the order
//	/dev /proc /run /sys /tmp /var   mount points
//
// That is the minimal system. The node flavour (Config.Node) adds what a Kubernetes node is made of.
//
// Same input, same bytes.
package osimage

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/initramfs"
	"github.com/racklet/racklet/artifact/kernel"
	"github.com/racklet/racklet/artifact/spdx"
	"github.com/racklet/racklet/artifact/verity"
	"github.com/racklet/racklet/rack"
)

// LateModules are the modules in the root, without what they depend on.
var LateModules = []string{"overlay"}

// A Config says what to build.
type Config struct {
	Version         string
	SecurityVersion uint32
	Kernel          *kernel.Kernel
	KernelFile      []byte        // nil: Kernel.Gzip()
	Init            artifact.File // compiled system/hypervisor/init
	Stage1          artifact.File // compiled firmware/bootstrap/init, for the initramfs
	Modules         []string      // nil: LateModules, or NodeModules
	Node            *Node         // nil: the minimal system
	// Cache keeps the compressed root between builds; nil: it is compressed each time.
	Cache *cache.Cache
}

// Meta is the configuration of the OS artefact.
type Meta struct {
	Version    string      `json:"version"`
	Kernel     rack.Digest `json:"kernel"`
	RootHash   string      `json:"rootHash"`   // hex
	Salt       string      `json:"salt"`       // hex
	DataBlocks uint64      `json:"dataBlocks"` // number of blocks before the tree
	HashOffset int64       `json:"hashOffset"` // of the tree, bytes
	BlockSize  int         `json:"blockSize"`  // bytes
}

// An Image is a built operating system.
type Image struct {
	Root      []byte // squashfs with the dm-verity tree appended
	Verity    verity.Tree
	Kernel    []byte // gzip-compressed arm64 Image
	Initramfs []byte // stage 1 with the modules of Kernel
	Meta      Meta
	Config    []byte // Meta as JSON
	SBOM      []byte // SPDX JSON
}

// Build builds an operating system.
func Build(c Config) (*Image, error) {
	img := &Image{Kernel: c.KernelFile}
	if img.Kernel == nil {
		img.Kernel = c.Kernel.Gzip()
	}
	digest := rack.SHA256(img.Kernel)
	ram, err := initramfs.Stage1{Version: c.Version, SecurityVersion: c.SecurityVersion, Init: c.Stage1, Kernel: c.Kernel, KernelDigest: digest}.Tree()
	if err != nil {
		return nil, fmt.Errorf("build OS image: %w", err)
	}
	if img.Initramfs, err = initramfs.Write(ram); err != nil {
		return nil, fmt.Errorf("build OS image: %w", err)
	}
	root, err := c.tree()
	if err != nil {
		return nil, fmt.Errorf("build OS image: %w", err)
	}
	sq, err := c.compress(root)
	if err != nil {
		return nil, fmt.Errorf("build OS image: %w", err)
	}
	// A salt need not be secret; this one is a function of the version, so that builds repeat.
	salt := sha256.Sum256([]byte("racklet os " + c.Version))
	img.Root, img.Verity = verity.Append(sq, salt[:])
	img.Meta = Meta{
		Version: c.Version, Kernel: digest, RootHash: hex.EncodeToString(img.Verity.Root[:]), Salt: hex.EncodeToString(salt[:]),
		DataBlocks: img.Verity.DataBlocks, HashOffset: img.Verity.HashOffset, BlockSize: verity.BlockSize,
	}
	if img.Config, err = json.Marshal(img.Meta); err != nil {
		return nil, err
	}
	files := []artifact.File{
		{Name: "kernel", Data: img.Kernel, Origin: c.Kernel.Origin},
		{Name: "initramfs", Data: img.Initramfs, Origin: artifact.Own(c.Version)},
	}
	for _, f := range ram.Files() {
		f.Name = "initramfs/" + f.Name
		files = append(files, f)
	}
	for _, f := range root.Files() {
		f.Name = "root/" + f.Name
		files = append(files, f)
	}
	if img.SBOM, err = spdx.Marshal("racklet-os", c.Version, files); err != nil {
		return nil, fmt.Errorf("build OS image: %w", err)
	}
	return img, nil
}

// tree returns the root's files.
func (c Config) tree() (*artifact.Tree, error) {
	own := artifact.Own(c.Version)
	t := new(artifact.Tree)
	for name, perm := range map[string]fs.FileMode{"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": fs.ModeSticky | 0o777, "var": 0o755, "root": 0o700} {
		t.Dir(name, perm, own)
	}
	f := c.Init
	f.Name, f.Mode = "sbin/init", 0o755
	t.Add(f)
	release := fmt.Sprintf("NAME=Racklet\nID=racklet\nVERSION_ID=%s\nPRETTY_NAME=\"Racklet unit %s\"\n", c.Version, c.Version)
	t.Add(artifact.File{Name: "etc/os-release", Mode: 0o644, Data: []byte(release), Origin: own})
	t.Add(artifact.File{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/:/sbin/nologin\n"), Origin: own})
	t.Add(artifact.File{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\n"), Origin: own})
	t.Add(artifact.File{Name: "etc/hosts", Mode: 0o644, Data: []byte("127.0.0.1 localhost\n::1 localhost\n"), Origin: own})
	t.Add(artifact.File{Name: "etc/resolv.conf", Mode: fs.ModeSymlink | 0o777, Target: "/run/resolv.conf", Origin: own})
	names := c.Modules
	switch {
	case names != nil:
	case c.Node != nil:
		names = NodeModules
	default:
		names = LateModules
	}
	if strings.ContainsAny(c.Version, "\"\n\\ ") {
		return nil, fmt.Errorf("version %q is not possible", c.Version)
	}
	if c.Node != nil {
		if err := c.Node.add(t, c.Version); err != nil {
			return nil, err
		}
	}
	return t, initramfs.AddModules(t, c.Kernel, c.Version, names...)
}

// ParseMeta reads the configuration of an OS artefact as the parameters of its hash tree.
func ParseMeta(b []byte) (verity.Tree, error) {
	var m Meta
	if err := json.Unmarshal(b, &m); err != nil {
		return verity.Tree{}, fmt.Errorf("parse OS configuration: %w", err)
	}
	t := verity.Tree{DataBlocks: m.DataBlocks, HashOffset: m.HashOffset}
	root, err := hex.DecodeString(m.RootHash)
	if err != nil || len(root) != len(t.Root) || m.BlockSize != verity.BlockSize {
		return verity.Tree{}, fmt.Errorf("parse OS configuration: root hash %q, block size %d", m.RootHash, m.BlockSize)
	}
	copy(t.Root[:], root)
	if t.Salt, err = hex.DecodeString(m.Salt); err != nil {
		return verity.Tree{}, fmt.Errorf("parse OS configuration: salt: %w", err)
	}
	t.HashBlocks = t.CountHashBlocks()
	return t, nil
}
