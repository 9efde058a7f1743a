// Package node is the flavour of a unit's operating system that makes it a
// Kubernetes node: PID 1 of package hypervisor, which supervises here
//
//	state partition ──▶ /var          ext4: made on first use, checked at each start
//	     │
//	     ▼                            level
//	images          registry of the images that came with the system, on loopback     1
//	containerd                                                                         2
//	enroll ── /run/racklet/bmc.sock ──▶ BMC's key register                             3
//	     │    /run/racklet/identity/ : keys, certificates, peers
//	     ▼
//	cni             WireGuard, filter, routes, the plugin's other half                 3
//	pods            nothing to start; ends what runs in pods before what it stands on  4
//	kubelet, kube-proxy              once there is an identity                         5
//
// They are processes of their own, each in a control group of its own, and meet
// in files and sockets only. One that ends is started again, after a pause that
// grows; one that takes too much memory is ended before the node is. They stop
// in the reverse order of their levels, within the time that the BMC gives.
package node

// Places where the parts of a node meet.
const (
	identityDir = "/run/racklet/identity"
	bmcSocket   = "/run/racklet/bmc.sock"
	containerd  = "/run/containerd/containerd.sock"
	groupRoot   = "/sys/fs/cgroup"
	logDir      = "/var/log"

	// ImageDir holds, as an OCI layout, the images that come with the system.
	ImageDir = "/usr/share/racklet/images"
	// ImageAddress is where they are served to containerd alone.
	ImageAddress = "127.0.0.1:5075"
	// ImageHost is the registry's name in references.
	ImageHost = "system.racklet.internal"
)

// Programs of the image that the node starts.
const (
	containerdProgram = "/usr/bin/containerd"
	kubeProgram       = "/usr/bin/racklet-node" // kubelet and kube-proxy
	enrollProgram     = "/usr/lib/racklet/enroll"
	cniProgram        = "/usr/lib/racklet/cni"
	selfProgram       = "/sbin/init"
)
