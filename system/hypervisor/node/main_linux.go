package node

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/system/hypervisor"
)

//go:embed config/kubelet.yaml
var kubeletConfig string

//go:embed config/kube-proxy.yaml
var proxyConfig string

// Main is the program: PID 1, or what PID 1 starts of it.
func Main() {
	if os.Getpid() == 1 {
		hypervisor.Init(flavour())
	}
	if err := service(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "racklet: error: %v\n", err)
		os.Exit(1)
	}
}

// service is one of the unit's own small services, in a process of its own.
func service(args []string) error {
	if len(args) != 1 {
		return errors.New("this is PID 1 of a unit; as a service it takes one word")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	switch args[0] {
	case "images":
		l, err := net.Listen("tcp", ImageAddress)
		if err != nil {
			return err
		}
		if err := serve(ctx, l, oci.Handler(ImageDir)); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	case "inspect":
		if err := serveInspect(ctx); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	return fmt.Errorf("no service %q", args[0])
}

func flavour() hypervisor.Flavour {
	return hypervisor.Flavour{Keep: []string{"/var"}, Settings: settings, Early: early, Services: services, Last: last}
}

// settings are what a node needs of the kernel. The first four are those that
// the kubelet would set itself; it finds them set, and complains otherwise.
var settings = []hypervisor.Setting{
	{File: "/proc/sys/vm/overcommit_memory", Value: "1"},
	{File: "/proc/sys/vm/panic_on_oom", Value: "0"},
	{File: "/proc/sys/kernel/panic", Value: "10"},
	{File: "/proc/sys/kernel/panic_on_oops", Value: "1"},
	{File: "/proc/sys/net/ipv4/ip_forward", Value: "1"},
	{File: "/proc/sys/fs/inotify/max_user_instances", Value: "8192"},
	{File: "/proc/sys/fs/inotify/max_user_watches", Value: "524288"},
	{File: "/proc/sys/kernel/keys/root_maxkeys", Value: "1000000"},
	{File: "/proc/sys/kernel/keys/root_maxbytes", Value: "25000000"},
}

// early mounts what only a node needs, and its state.
func early(log *slog.Logger, h *hypervisor.Handover) error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	var errs []error
	// What is mounted in a container's preparation must be seen by its processes.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		errs = append(errs, fmt.Errorf("share mounts: %w", err))
	}
	for _, m := range []struct {
		source, target, fs string
		flags              uintptr
		data               string
	}{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", quiet, "mode=1777,size=16m"},
		{"mqueue", "/dev/mqueue", "mqueue", quiet, ""},
		{"bpf", "/sys/fs/bpf", "bpf", quiet, "mode=0700"},
	} {
		err := os.MkdirAll(m.target, 0o755)
		if err == nil {
			err = unix.Mount(m.source, m.target, m.fs, m.flags, m.data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.target, err))
		}
	}
	for _, dir := range []string{identityDir, "/run/racklet/kubelet", "/run/racklet/registries", "/run/cni/net.d"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			errs = append(errs, err)
		}
	}
	// The system's registry is there from the start; others may be added beside it.
	if err := os.Symlink("/etc/racklet/registries/"+ImageHost, "/run/racklet/registries/"+ImageHost); err != nil {
		errs = append(errs, err)
	}
	// Another one for each unit, the same at each start; nothing secret follows from it (machine-id(5)).
	id := sha256.Sum256([]byte("racklet machine " + h.Unit))
	if err := os.WriteFile("/run/racklet/machine-id", []byte(hex.EncodeToString(id[:16])+"\n"), 0o444); err != nil {
		errs = append(errs, err)
	}
	if err := groups(); err != nil {
		errs = append(errs, err)
	}
	device, err := findPartition("/sys", stateName)
	if err != nil {
		return damaged(err)
	}
	if err := prepareState(device, runToEnd, log); err != nil {
		return err
	}
	if err := unix.Mount(device, "/var", "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, "discard"); err != nil {
		return damaged(fmt.Errorf("mount: %w", err))
	}
	for _, dir := range []string{"lib", "log/pods", "tmp"} {
		if err := os.MkdirAll(filepath.Join("/var", dir), 0o755); err != nil {
			return damaged(err)
		}
	}
	return errors.Join(errs...)
}

// runToEnd is the runner of a unit.
func runToEnd(path string, args ...string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	err := hypervisor.Command{Path: path, Args: args}.Run(ctx)
	var ended *hypervisor.ExitError
	if errors.As(err, &ended) && ended.Status.Exited() {
		return ended.Status.ExitStatus(), nil
	}
	return 0, err
}

// ownGroups holds the control groups of the node's components.
const ownGroups = groupRoot + "/racklet"

// groups lets every control group be counted and limited, and gives the node's
// components a share that pods cannot take from them.
func groups() error {
	all := []byte("+cpu +cpuset +io +memory +pids")
	if err := os.MkdirAll(ownGroups, 0o755); err != nil {
		return fmt.Errorf("make control groups: %w", err)
	}
	return errors.Join(
		os.WriteFile(groupRoot+"/cgroup.subtree_control", all, 0),
		os.WriteFile(ownGroups+"/cgroup.subtree_control", all, 0),
		os.WriteFile(ownGroups+"/cpu.weight", []byte("400"), 0),
	)
}

// Levels of the supervisor: each may need those below.
const (
	levelImages = iota + 1
	levelContainerd
	levelAgents
	levelPods
	levelKube
)

const mib = 1 << 20

// services adds the node's components.
func services(s *hypervisor.System, tree *hypervisor.Supervisor) {
	at := place{groups: ownGroups, logs: logDir}
	add := func(level int, p program) { tree.AddLevel(level, p.name, p.run(at)) }
	words := func(w ...string) func() ([]string, error) { return func() ([]string, error) { return w, nil } }

	tree.AddLevel(levelImages, "bmc", func(ctx context.Context) error {
		return serveUnix(ctx, bmcSocket, bmcHandler(s.SetKeyRegister))
	})
	add(levelImages, program{name: "images", path: selfProgram, args: words("images"), memory: 64 * mib, user: 65534})
	add(levelContainerd, program{name: "containerd", path: containerdProgram, args: words("--config", "/etc/racklet/containerd.toml"), oom: -999})
	for _, a := range []struct{ name, path string }{{"enroll", enrollProgram}, {"cni", cniProgram}} {
		if _, err := os.Stat(a.path); err == nil {
			add(levelAgents, program{name: a.name, path: a.path, memory: 96 * mib, oom: -998})
		}
	}
	tree.AddLevel(levelPods, "pods", endPods(groupRoot+"/kubepods"))

	h := s.Handover
	var kubelet atomic.Int64 // when it was started
	add(levelKube, program{name: "inspect", path: selfProgram, args: words("inspect"), memory: 64 * mib, oom: -900,
		ready: func() error { return tunnelUp(identityDir) }})
	add(levelKube, program{name: "kubelet", path: kubeProgram, oom: -999, memory: 320 * mib,
		ready: func() error {
			if err := tunnelUp(identityDir); err != nil {
				return err
			}
			return answers(containerd) // last: it costs something there
		},
		args: func() ([]string, error) {
			c, err := configure(identityDir, "/run/racklet/kubelet")
			if err != nil {
				return nil, err
			}
			kubelet.Store(time.Now().UnixNano())
			return []string{"kubelet", "--config=/run/racklet/kubelet/kubelet.yaml", "--kubeconfig=/run/racklet/kubelet/kubeconfig",
				"--hostname-override=" + h.Unit, "--node-ip=" + c.Tunnel.String(), "--cert-dir=/run/racklet/kubelet/pki",
				fmt.Sprintf("--node-labels=racklet.io/slot=%d,racklet.io/release=%s", h.Slot, label(h.Release))}, nil
		}})
	add(levelKube, program{name: "kube-proxy", path: kubeProgram, oom: -999, memory: 192 * mib,
		ready: func() error { // two large programs that start at once on one processor both take twice as long
			if at := kubelet.Load(); at == 0 || time.Since(time.Unix(0, at)) < proxyDelay {
				return errors.New("the kubelet comes first")
			}
			return nil
		},
		args: words("kube-proxy", "--config=/run/racklet/kubelet/kube-proxy.yaml", "--hostname-override="+h.Unit)})
}

// proxyDelay is how long the kubelet has the processor for itself.
const proxyDelay = 6 * time.Second

// configure writes the configurations of kubelet and kube-proxy.
func configure(identity, dir string) (*cluster, error) {
	c, err := readCluster(identity)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"kubelet.yaml": kubeletConfig, "kube-proxy.yaml": proxyConfig, "kubeconfig": kubeconfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(c.fill(text)), 0o600); err != nil {
			return nil, fmt.Errorf("write configuration: %w", err)
		}
	}
	return c, nil
}

// label makes a label's value of a version.
func label(version string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, version)
}

// answers tells why nobody answers at a Unix socket.
func answers(socket string) error {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// tunnelUp tells why the unit's address in the tunnel cannot be listened at.
func tunnelUp(identity string) error {
	c, err := readCluster(identity)
	if err != nil {
		return err
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr() == c.Tunnel
	}) {
		return fmt.Errorf("no interface has the address %v", c.Tunnel)
	}
	return nil
}

// last ends what is left and unmounts the state, so that the next start finds
// it clean.
func last(log *slog.Logger) {
	_ = unix.Kill(-1, unix.SIGKILL) // all but PID 1
	for range 20 {
		if err := unmountBelow("/proc/self/mountinfo", "/run/containerd", "/var"); err == nil {
			return
		}
		time.Sleep(poll)
	}
	unix.Sync()
	if err := unix.Mount("", "/var", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		log.Warn("the state partition could not be unmounted; the next start checks it", "err", err)
	}
}

// unmountBelow unmounts what mountsBelow finds.
func unmountBelow(mountinfo string, dirs ...string) error {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range mountsBelow(string(b), dirs...) {
		errs = append(errs, unix.Unmount(at, 0))
	}
	return errors.Join(errs...)
}

// mountsBelow lists the mount points in and below some directories, newest
// first (proc_pid_mountinfo(5): the fifth field).
func mountsBelow(mountinfo string, dirs ...string) (out []string) {
	plain := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	lines := strings.Split(strings.TrimSpace(mountinfo), "\n")
	for _, line := range slices.Backward(lines) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		at := plain.Replace(f[4])
		if slices.ContainsFunc(dirs, func(d string) bool { return at == d || strings.HasPrefix(at, d+"/") }) {
			out = append(out, at)
		}
	}
	return out
}
