package initramfs

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/kernel"
	"github.com/racklet/racklet/rack"
)

// Stage1Modules are the modules that stage 1 needs, without what they depend on: the devices of an
// emulated unit, and what it takes to mount a verified root.
var Stage1Modules = []string{"virtio_blk", "virtio_net", "virtio_rng", "virtio_console", "sha2_ce", "dm_verity", "squashfs"}

// Stage1 says what goes into the initramfs of a boot image, and into that of an operating system
// whose kernel differs from the boot image's: both start stage 1's program.
type Stage1 struct {
	Version         string
	SecurityVersion uint32
	Init            artifact.File  // firmware/bootstrap/init; its name is set here
	Kernel          *kernel.Kernel // whose modules are taken
	KernelDigest    rack.Digest    // of the kernel file beside the initramfs
	Modules         []string       // nil: Stage1Modules
}

// Tree returns the files: /init, /etc/racklet/release.json, the modules with their order, and the
// two device nodes without which the kernel cannot give /init a console.
func (s Stage1) Tree() (*artifact.Tree, error) {
	t := new(artifact.Tree)
	own := artifact.Own(s.Version)
	f := s.Init
	f.Name, f.Mode = "init", 0o755
	t.Add(f)
	about, err := json.Marshal(struct {
		Version         string      `json:"version"`
		SecurityVersion uint32      `json:"securityVersion"`
		Kernel          rack.Digest `json:"kernel"`
	}{s.Version, s.SecurityVersion, s.KernelDigest})
	if err != nil {
		return nil, err
	}
	t.Add(artifact.File{Name: "etc/racklet/release.json", Mode: 0o644, Data: append(about, '\n'), Origin: own})
	t.Add(artifact.File{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1, Origin: own})
	t.Add(artifact.File{Name: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3, Origin: own})
	names := s.Modules
	if names == nil {
		names = Stage1Modules
	}
	if err := AddModules(t, s.Kernel, s.Version, names...); err != nil {
		return nil, err
	}
	return t, nil
}

// AddModules puts modules, decompressed, and all that they depend on into lib/modules, and the order
// in which they are to be loaded into lib/modules/order, one file name per line.
func AddModules(t *artifact.Tree, k *kernel.Kernel, version string, names ...string) error {
	list, err := k.Modules(names...)
	if err != nil {
		return fmt.Errorf("add modules: %w", err)
	}
	var order strings.Builder
	for _, m := range list {
		name := m.Name + ".ko"
		fmt.Fprintln(&order, name)
		t.Add(artifact.File{Name: "lib/modules/" + name, Mode: 0o644, Data: m.Data, Origin: k.Origin})
	}
	t.Add(artifact.File{Name: "lib/modules/order", Mode: 0o644, Data: []byte(order.String()), Origin: artifact.Own(version)})
	return nil
}
