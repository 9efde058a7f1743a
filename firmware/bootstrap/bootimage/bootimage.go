// Package bootimage builds what a BMC's boot slot holds: a FAT volume with kernel, initramfs and
// command line, the unsigned manifest that names its chunks, and its bill of materials.
//
// The volume's files are those that a Raspberry Pi's boot ROM looks for too:
//
//	kernel       gzip-compressed arm64 Image
//	initramfs    zstd-compressed cpio: /init is firmware/bootstrap/init
//	cmdline.txt  kernel command line, one line
//	config.txt   what a Pi's firmware has to know
//
// Same input, same bytes. The owners sign the manifest; see firmware/trust.
package bootimage

import (
	"crypto/sha256"
	"fmt"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/fat"
	"github.com/racklet/racklet/artifact/initramfs"
	"github.com/racklet/racklet/artifact/kernel"
	"github.com/racklet/racklet/artifact/spdx"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

// Files of the volume.
const (
	KernelFile    = "kernel"
	InitramfsFile = "initramfs"
	CmdlineFile   = "cmdline.txt"
	ConfigFile    = "config.txt"
)

// Cmdline is the kernel command line: the console is the PL011 UART that the BMC listens to, and a
// kernel that panics resets, which the BMC sees. The rest saves a quarter of the processor time before
// /init: without self-tests of the kernel's ciphers (Linux, crypto/algboss.c; a digest that came out
// wrong would refuse the root, not accept it) and without the jitter generator, from which nothing in a
// unit draws (crypto/jitterentropy-kcapi.c; the kernel's own random numbers do not).
const Cmdline = "console=ttyAMA0 quiet panic=-1 cryptomgr.notests=1 initcall_blacklist=jent_mod_init GODEBUG=cpu.aes=off"

// piConfig makes a Raspberry Pi start the kernel in 64-bit mode with the same console.
const piConfig = "arm_64bit=1\nkernel=kernel\ninitramfs initramfs followkernel\nenable_uart=1\ndtoverlay=disable-bt\n"

// A Config says what to build.
type Config struct {
	Version         string
	SecurityVersion uint32
	Kernel          *kernel.Kernel
	KernelFile      []byte        // nil: Kernel.Gzip()
	Init            artifact.File // compiled firmware/bootstrap/init
	Modules         []string      // nil: initramfs.Stage1Modules
	Cmdline         string        // "": Cmdline
}

// An Image is a built boot image.
type Image struct {
	Volume         []byte      // what the slot holds
	Manifest       []byte      // unsigned trust.SlotManifest
	ManifestDigest rack.Digest // of Manifest
	Kernel         rack.Digest // of the kernel file
	CommandLine    string      // in the volume
	SBOM           []byte      // SPDX JSON
}

// Build builds a boot image. It is an error when it does not fit a slot.
func Build(c Config) (*Image, error) {
	if c.KernelFile == nil {
		c.KernelFile = c.Kernel.Gzip()
	}
	if c.Cmdline == "" {
		c.Cmdline = Cmdline
	}
	img := &Image{Kernel: rack.SHA256(c.KernelFile), CommandLine: c.Cmdline}
	ram, err := initramfs.Stage1{Version: c.Version, SecurityVersion: c.SecurityVersion, Init: c.Init, Kernel: c.Kernel, KernelDigest: img.Kernel, Modules: c.Modules}.Tree()
	if err != nil {
		return nil, fmt.Errorf("build boot image: %w", err)
	}
	cpio, err := initramfs.Write(ram)
	if err != nil {
		return nil, fmt.Errorf("build boot image: %w", err)
	}
	own := artifact.Own(c.Version)
	vol := new(artifact.Tree)
	vol.Add(artifact.File{Name: KernelFile, Mode: 0o644, Data: c.KernelFile, Origin: c.Kernel.Origin})
	vol.Add(artifact.File{Name: InitramfsFile, Mode: 0o644, Data: cpio, Origin: own})
	vol.Add(artifact.File{Name: CmdlineFile, Mode: 0o644, Data: []byte(c.Cmdline + "\n"), Origin: own})
	vol.Add(artifact.File{Name: ConfigFile, Mode: 0o644, Data: []byte(piConfig), Origin: own})
	if img.Volume, err = fat.Write(vol, fat.Options{Label: "RACKLET", Serial: 0x5241434B, Time: artifact.Epoch, Align: trust.ChunkSize}); err != nil {
		return nil, fmt.Errorf("build boot image: %w", err)
	}
	m, err := Manifest(c.Version, c.SecurityVersion, img.Volume, img.Kernel)
	if err != nil {
		return nil, fmt.Errorf("build boot image: %w", err)
	}
	img.Manifest = m
	img.ManifestDigest = rack.SHA256(m)
	files := vol.Files()
	for _, f := range ram.Files() {
		f.Name = InitramfsFile + "/" + f.Name
		files = append(files, f)
	}
	if img.SBOM, err = spdx.Marshal("racklet-boot", c.Version, files); err != nil {
		return nil, fmt.Errorf("build boot image: %w", err)
	}
	return img, nil
}

// Manifest returns the unsigned manifest of a volume.
func Manifest(version string, security uint32, volume []byte, kernel rack.Digest) ([]byte, error) {
	if len(volume) > trust.MaxImageSize {
		return nil, fmt.Errorf("image of %d bytes does not fit a slot of %d", len(volume), trust.MaxImageSize)
	}
	k, err := kernel.Sum()
	if err != nil {
		return nil, err
	}
	m := trust.SlotManifest{Version: version, SecurityVersion: security, ImageSize: uint32(len(volume)), ChunkSize: trust.ChunkSize, Kernel: k}
	for b := volume; len(b) > 0; {
		n := min(len(b), trust.ChunkSize)
		m.Chunks = append(m.Chunks, sha256.Sum256(b[:n]))
		b = b[n:]
	}
	return m.MarshalBinary()
}
