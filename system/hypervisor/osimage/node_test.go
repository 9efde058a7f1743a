package osimage

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/artifact/dynlink"
	"github.com/racklet/racklet/artifact/dynlink/dynlinktest"
	"github.com/racklet/racklet/artifact/initramfs"
	"github.com/racklet/racklet/artifact/kernel/kerneltest"
	"github.com/racklet/racklet/artifact/spdx"
	"github.com/racklet/racklet/system/hypervisor/node"
)

func nodeConfig(t *testing.T) Config {
	t.Helper()
	files := map[string][]byte{"usr/bin/bash": dynlinktest.ELF("")}
	for _, p := range DebianPrograms {
		files[p] = dynlinktest.ELF("")
	}
	packages := new(dynlink.Packages)
	if err := packages.Read(bytes.NewReader(dynlinktest.Package(files)), artifact.Origin{Name: "all", Version: "1", Source: "pkg:deb/debian/all", Licence: "MIT"}); err != nil {
		t.Fatal(err)
	}
	program := func(name string) artifact.File {
		return artifact.File{Name: name, Data: []byte(name), Origin: artifact.Own("1.2.3")}
	}
	c := config()
	c.Kernel = kerneltest.Kernel(slices.Concat(NodeModules, initramfs.Stage1Modules)...)
	c.Node = &Node{Programs: []artifact.File{program("usr/bin/containerd"), program("usr/bin/racklet-node")}, Packages: packages, Pause: program("pause")}
	c.Cache = &cache.Cache{Dir: t.TempDir()}
	return c
}

func TestNode(t *testing.T) {
	c := nodeConfig(t)
	img, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(c) // its root comes from the cache
	if err != nil || !bytes.Equal(img.Root, again.Root) {
		t.Errorf("the cache gives another root (%v)", err)
	}
	other := nodeConfig(t)
	if fresh, err := Build(other); err != nil || !bytes.Equal(img.Root, fresh.Root) || !bytes.Equal(img.SBOM, fresh.SBOM) {
		t.Errorf("the same input gives another image (%v)", err)
	}
	other.Node.Programs[0].Data = []byte("another containerd")
	if changed, err := Build(other); err != nil || changed.Verity.Root == img.Verity.Root {
		t.Errorf("another program has the same root hash (%v)", err)
	}
	bill, err := spdx.Parse(img.SBOM)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, f := range bill.Files {
		listed[f.FileName] = true
	}
	for _, want := range []string{"usr/bin/containerd", "usr/bin/crun", "usr/sbin/nft", "lib/modules/nft_reject_ipv6.ko", "etc/racklet/containerd.toml", "usr/share/racklet/images/index.json"} {
		if !listed["./root/"+want] {
			t.Errorf("bill of materials lacks %s", want)
		}
	}
	c.Node.Packages = new(dynlink.Packages)
	if _, err := Build(c); err == nil {
		t.Error("a node without Debian's programs was built")
	}
}

// TestNodeRoot: what must not be there, and that what names each other fits.
func TestNodeRoot(t *testing.T) {
	tree, err := nodeConfig(t).tree()
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{}
	for _, f := range tree.Files() {
		content[f.Name] = string(f.Data)
		if slices.Contains([]string{"sh", "bash", "dash", "busybox", "sshd", "login", "su", "sudo", "dpkg", "apt", "apt-get", "modprobe", "insmod", "kexec"}, path.Base(f.Name)) {
			t.Errorf("%s is in the root", f.Name)
		}
		if f.Mode.IsRegular() && f.Mode&(0o022|fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s has mode %v", f.Name, f.Mode)
		}
	}
	_, digest, ok := strings.Cut(content["etc/racklet/containerd.toml"], node.ImageHost+"/"+pauseRepository+"@sha256:")
	if digest, _, _ = strings.Cut(digest, `"`); !ok || content["usr/share/racklet/images/blobs/sha256/"+digest] == "" {
		t.Errorf("the sandbox image %q is not among the images", digest)
	}
	if hosts := content["etc/racklet/registries/"+node.ImageHost+"/hosts.toml"]; !strings.Contains(hosts, "http://"+node.ImageAddress) {
		t.Errorf("hosts.toml: %s", hosts)
	}
}

// TestNodeLock: everything that a node takes from Debian is locked.
func TestNodeLock(t *testing.T) {
	lock, err := deb.ReadLock("../../../tools/locks/trixie-arm64.lock.json")
	if err != nil {
		t.Fatal(err)
	}
	for role, licence := range DebianPackages {
		if _, err := lock.Find(role); err != nil {
			t.Error(err)
		}
		if licence == "" {
			t.Errorf("%s has no licence", role)
		}
	}
}
