//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/system/cni/endpoint"
	"github.com/racklet/racklet/system/cni/filter"
	"github.com/racklet/racklet/system/enroll/api"
)

/* Implementation constants */
const (
	tunnelDevice = "wg0"
	tunnelMTU    = 1420 // 1500 less IPv6, UDP and WireGuard
	wireGuard    = 51820
	statusPort   = 9560 // of metrics and traces, on the tunnel's address
	lookEvery    = 500 * time.Millisecond
)

type paths struct{ handover, identity, state, conf, plugins string }

// agent keeps one unit's network.
type agent struct {
	paths  paths
	log    *slog.Logger
	filter filter.Filter
	store  endpoint.Store

	mu      sync.Mutex
	uplink  string
	laid    filter.Network // as it was written
	cluster *api.Cluster
	peers   []api.Peer
	ready   error // nil: pods may come
	world   *world
	dropped map[string]uint64 // by tables that were replaced
}

func newAgent(p paths, log *slog.Logger) *agent {
	a := &agent{paths: p, log: log, store: endpoint.Store{Dir: filepath.Join(p.state, "endpoints")},
		ready: errors.New("the unit is not enrolled yet"), dropped: map[string]uint64{}}
	a.world = openWorld(filepath.Join(p.state, "world.json"))
	return a
}

func (a *agent) run(ctx context.Context) error {
	if err := os.MkdirAll(a.paths.state, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644); err != nil {
			a.log.Warn("forwarding", "setting", name, "error", err)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := listenUnix(filepath.Join(a.paths.state, "agent.sock"))
	if err != nil {
		return err
	}
	all.Go(func() { serve(ctx, l, a.pluginHandler()) })
	all.Go(func() { a.follow(ctx) })
	all.Go(func() { a.serveStatus(ctx) })
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	last := ""
	for {
		err := a.reconcile()
		a.mu.Lock()
		a.ready = err
		a.mu.Unlock()
		if text := fmt.Sprint(err); text != last {
			a.log.Info("network", "state", text)
			last = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// reconcile brings filter, tunnel, routes and configuration to what the files
// say. Nil: the unit's network is as it should be.
func (a *agent) reconcile() error {
	if err := a.lay(); err != nil {
		return err
	}
	cluster := new(api.Cluster)
	if err := a.read(api.ClusterFile, cluster); err != nil {
		return fmt.Errorf("the unit is not enrolled yet: %w", err)
	}
	var peers api.Peers
	if err := a.read(api.PeersFile, &peers); err != nil {
		return fmt.Errorf("no peers yet: %w", err)
	}
	a.mu.Lock()
	changed := a.cluster == nil || *a.cluster != *cluster
	a.cluster = cluster
	a.mu.Unlock()
	if changed {
		if err := a.lay(); err != nil {
			return err
		}
		a.police()
	}
	// An identity that ran out is a stranger's, whoever says so or fails to.
	now := time.Now()
	live := slices.DeleteFunc(peers.Peers, func(p api.Peer) bool { return !now.Before(p.NotAfter) && p.Unit != api.Management })
	key, err := os.ReadFile(filepath.Join(a.paths.identity, api.WireGuardFile))
	if err != nil {
		return err
	}
	if err := a.tunnel(cluster, key, live); err != nil {
		return err
	}
	return a.configure(cluster)
}

func (a *agent) read(name string, into any) error {
	b, err := os.ReadFile(filepath.Join(a.paths.identity, name))
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	return err
}

// lay writes the unit's filter when what it says has changed. Until there is an
// uplink there is nothing to shut.
func (a *agent) lay() error {
	n, err := a.network()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uplink = n.Uplink
	if a.cluster != nil {
		n.Management, n.Pods = a.cluster.Management, a.cluster.PodCIDR
	}
	if a.laid.Uplink == n.Uplink && a.laid.Subnet == n.Subnet && a.laid.Gateway == n.Gateway && a.laid.Management == n.Management && a.laid.Pods == n.Pods {
		return nil
	}
	a.keepDropsOf(baseReasons)
	if err := a.filter.Lay(n); err != nil {
		return err
	}
	a.laid = n
	return nil
}

// network is where the unit stands, by stage 1's word and the kernel's.
func (a *agent) network() (n filter.Network, err error) {
	var h struct {
		Lease *struct {
			Interface string       `json:"interface"`
			Address   netip.Prefix `json:"address"`
			Gateway   netip.Addr   `json:"gateway"`
		} `json:"lease"`
		Enrolment *struct {
			URL string `json:"url"`
		} `json:"enrolment"`
	}
	b, err := os.ReadFile(a.paths.handover)
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return n, fmt.Errorf("read handover: %w", err)
	}
	if l := h.Lease; l != nil && l.Interface != "" && l.Gateway.IsValid() {
		n.Uplink, n.Subnet, n.Gateway = l.Interface, l.Address.Masked(), l.Gateway
	} else if n, err = uplink(); err != nil { // after a kexec the address comes later
		return n, err
	}
	n.Tunnel, n.WireGuardPort = tunnelDevice, wireGuard
	n.Egress = []filter.Service{{Protocol: unix.IPPROTO_UDP, Port: 53}, {Protocol: unix.IPPROTO_TCP, Port: 53}, {Protocol: unix.IPPROTO_TCP, Port: 443}}
	if h.Enrolment != nil {
		u, err := url.Parse(h.Enrolment.URL)
		if err != nil {
			return n, fmt.Errorf("address of the verifier: %w", err)
		}
		var port uint16 = 443
		if at, err := netip.ParseAddrPort(u.Host); err == nil {
			port = at.Port()
		}
		n.Egress = append(n.Egress, filter.Service{Protocol: unix.IPPROTO_TCP, Port: port})
	}
	return n, nil
}

// uplink finds the device of the default route.
func uplink() (n filter.Network, err error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return n, err
	}
	for _, r := range routes {
		gw, ok := netip.AddrFromSlice(r.Gw.To4())
		if !ok || r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		l, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return n, err
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return n, err
		}
		for _, have := range addrs {
			ip, ok := netip.AddrFromSlice(have.IP.To4())
			bits, _ := have.Mask.Size()
			if p := netip.PrefixFrom(ip, bits); ok && p.Contains(gw) {
				return filter.Network{Uplink: l.Attrs().Name, Subnet: p.Masked(), Gateway: gw}, nil
			}
		}
	}
	return n, errors.New("the unit has no way out yet")
}

// configure tells containerd how to call the plugin.
func (a *agent) configure(c *api.Cluster) error {
	plugin := map[string]any{"type": "racklet", "agent": filepath.Join(a.paths.state, "agent.sock"), "dir": a.store.Dir, "pods": c.PodCIDR, "mtu": tunnelMTU}
	if c.PodCIDR6.IsValid() && haveIPv6() {
		plugin["pods6"] = c.PodCIDR6
	}
	plugins := []any{plugin}
	if _, err := os.Stat(filepath.Join(a.paths.plugins, "portmap")); err == nil {
		plugins = append(plugins, map[string]any{"type": "portmap", "backend": "nftables", "capabilities": map[string]bool{"portMappings": true}})
	}
	b, err := json.MarshalIndent(map[string]any{"cniVersion": "1.1.0", "name": "racklet", "plugins": plugins}, "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(a.paths.conf, "10-racklet.conflist")
	if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, b) {
		return nil
	}
	if err := os.MkdirAll(a.paths.conf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func haveIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf/all")
	return err == nil
}

func listenUnix(name string) (net.Listener, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(name, 0o600)
}
