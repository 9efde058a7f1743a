package osimage

import (
	_ "embed"
	"fmt"
	"io/fs"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/dynlink"
	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/artifact/squashfs"
	"github.com/racklet/racklet/system/hypervisor/node"
)

// A Node is what makes the system a Kubernetes node.
type Node struct {
	Programs []artifact.File   // compiled for the unit; their names are paths in the root
	Packages *dynlink.Packages // what DebianPrograms are taken from
	Pause    artifact.File     // compiled system/hypervisor/pause
}

// DebianPrograms are what a node takes from Debian, beside the libraries that they are linked to.
var DebianPrograms = []string{
	"usr/bin/crun",                    // runs containers
	"usr/sbin/nft",                    // kube-proxy and the network policy call it
	"usr/bin/mount", "usr/bin/umount", // the kubelet calls them for volumes
	"usr/sbin/mke2fs", "usr/sbin/e2fsck", // the state partition
}

// DebianPackages are the roles in the lock file that hold them, with the licences of what is taken.
var DebianPackages = map[string]string{
	"crun": "GPL-2.0-or-later AND LGPL-2.1-or-later", "libsystemd0": "LGPL-2.1-or-later", "libseccomp2": "LGPL-2.1-only",
	"libcap2": "BSD-3-Clause OR GPL-2.0-only", "libyajl2": "ISC", "libc6": "LGPL-2.1-or-later", "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
	"nftables": "GPL-2.0-only", "libnftables1": "GPL-2.0-only", "libedit2": "BSD-3-Clause", "libmnl0": "LGPL-2.1-or-later", "libnftnl11": "GPL-2.0-or-later",
	"libxtables12": "GPL-2.0-or-later", "libjansson4": "MIT", "libgmp10": "LGPL-3.0-or-later OR GPL-2.0-or-later", "libtinfo6": "MIT",
	"libbsd0": "BSD-3-Clause AND ISC", "libmd0": "BSD-3-Clause",
	"e2fsprogs": "GPL-2.0-only", "libext2fs2t64": "LGPL-2.0-only", "libcom-err2": "MIT", "libblkid1": "LGPL-2.1-or-later", "libuuid1": "BSD-3-Clause",
	"mount": "GPL-2.0-or-later", "libmount1": "LGPL-2.1-or-later", "libselinux1": "LicenseRef-public-domain", "libpcre2-8-0": "BSD-3-Clause",
}

// NodeModules are the modules of a node, without what they depend on: storage of containers, networks of pods and services,
// the encrypted network between units. kube-proxy sets up IPv4 and IPv6 alike, and without nft_reject_ipv6 it does neither.
var NodeModules = []string{
	"ext4", "crc32c_generic", "overlay", "loop",
	"veth", "bridge", "br_netfilter", "dummy", "vxlan", "tun", "wireguard",
	"nf_conntrack", "nf_conntrack_netlink", "nf_log_syslog",
	"nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_redir", "nft_limit", "nft_connlimit", "nft_quota", "nft_hash", "nft_numgen", "nft_log",
	"nft_reject_ipv4", "nft_reject_ipv6", "nft_reject_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet",
}

//go:embed files/containerd.toml
var containerdConfig string

// pauseRepository is where the registry of the system's own images has the sandbox image.
const pauseRepository = "pause"

// add puts a node's files into the root.
func (n *Node) add(t *artifact.Tree, version string) error {
	own := artifact.Own(version)
	for _, f := range n.Programs {
		f.Mode = 0o755
		t.Add(f)
	}
	if err := n.Packages.Add(t, DebianPrograms...); err != nil {
		return err
	}
	root := new(artifact.Tree)
	f := n.Pause
	f.Name, f.Mode = "pause", 0o755
	root.Add(f)
	pause, err := oci.Image(pauseRepository, version, "arm64", root, v1.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"})
	if err != nil {
		return err
	}
	if err := oci.Tree(t, strings.TrimPrefix(node.ImageDir, "/"), own, pause); err != nil {
		return err
	}
	digest, err := pause.Digest()
	if err != nil {
		return err
	}
	host := "http://" + node.ImageAddress
	for name, text := range map[string]string{
		"etc/racklet/containerd.toml":                              strings.ReplaceAll(containerdConfig, "${PAUSE}", node.ImageHost+"/"+pauseRepository+"@"+digest.String()),
		"etc/racklet/registries/" + node.ImageHost + "/hosts.toml": fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", host, host),
		"etc/nsswitch.conf":                                        "passwd: files\ngroup: files\nhosts: files dns\n",
	} {
		t.Add(artifact.File{Name: name, Mode: 0o644, Data: []byte(text), Origin: own})
	}
	t.Add(artifact.File{Name: "etc/machine-id", Mode: fs.ModeSymlink | 0o777, Target: "/run/racklet/machine-id", Origin: own})
	return nil
}

// compress writes the root's file system, or finds it in the cache: a node's takes many seconds.
func (c Config) compress(root *artifact.Tree) ([]byte, error) {
	if c.Cache == nil || c.Node == nil {
		return squashfs.Write(root)
	}
	words := []string{"squashfs", squashfs.Version}
	for _, f := range root.Files() {
		words = append(words, fmt.Sprintf("%s %v %q %d %d", f.Name, f.Mode, f.Target, f.Major, f.Minor), cache.Key(string(f.Data)))
	}
	key := cache.Key(words...)
	if _, b, err := c.Cache.Derived(key); err == nil {
		return b, nil
	}
	b, err := squashfs.Write(root)
	if err != nil {
		return nil, err
	}
	return b, c.Cache.KeepDerived(key, nil, b)
}
