package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/source"
	"github.com/racklet/racklet/system/cni/tunnel"
	"github.com/racklet/racklet/system/enroll"
	"github.com/racklet/racklet/system/enroll/api"
)

// Ports of the gateway.
const (
	portEnrol     = 7443
	portWireGuard = 51820
	portAPIServer = 6443 // inside the tunnel
)

// An enrolment is the verifier and the host's side of the encrypted network:
// what units show their evidence to, and what they talk through once admitted.
type enrolment struct {
	layout layout
	told   *rack.Enrolment // what BMCs tell their units
	key    *ecdh.PrivateKey

	rack     *sim.Rack
	verifier *enroll.Verifier
	tunnel   *tunnel.Tunnel
	log      *slog.Logger
}

// newEnrolment makes the keys that boot configurations name.
func newEnrolment(l layout, r *rack.Rack) (*enrolment, error) {
	if err := privateDir(l.enroll()); err != nil {
		return nil, err
	}
	gateway, err := sim.GatewayAddress(r.Spec.Network)
	if err != nil {
		return nil, err
	}
	pins, err := enroll.ServingPins(l.enroll())
	if err != nil {
		return nil, err
	}
	e := &enrolment{layout: l, told: &rack.Enrolment{URL: "https://" + netip.AddrPortFrom(gateway, portEnrol).String(), TLSPins: pins}}
	e.key, err = wireGuardKey(filepath.Join(l.enroll(), "wireguard.key"))
	return e, err
}

// wireGuardKey reads the host's key, or makes it.
func wireGuardKey(file string) (*ecdh.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return key, os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key.Bytes())+"\n"), 0o600)
	}
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// open makes verifier and tunnel for a rack whose boards are provisioned.
func (e *enrolment) open(r *sim.Rack, spec *rack.Rack, units []*rack.ComputeUnit, log *slog.Logger) error {
	e.rack, e.log = r, log
	gateway, err := sim.GatewayAddress(spec.Spec.Network)
	if err != nil {
		return err
	}
	socket, err := e.layout.socket("redfish")
	if err != nil {
		return err
	}
	network := enroll.DefaultNetwork
	o := enroll.Options{
		Dir: e.layout.enroll(), Redfish: dialRedfish(socket).http, RedfishAt: "http://rack", Network: network, ClusterCA: e.clusterCA, Log: log,
		Management: &api.Peer{Unit: api.Management, PublicKey: base64.StdEncoding.EncodeToString(e.key.PublicKey().Bytes()),
			Endpoint: netip.AddrPortFrom(gateway, portWireGuard), AllowedIPs: []netip.Prefix{netip.PrefixFrom(network.Management, 32)}},
	}
	for _, u := range units {
		address, err := sim.UnitAddress(spec.Spec.Network, u.Spec.Slot)
		if err != nil {
			return err
		}
		o.Units = append(o.Units, enroll.Unit{Name: u.Metadata.Name, Slot: uint8(u.Spec.Slot), Address: address, DeviceKey: r.DeviceKey(u.Spec.Slot)})
	}
	if e.verifier, err = enroll.New(o); err != nil {
		return err
	}
	e.tunnel, err = tunnel.New(tunnel.Config{Key: e.key, Addresses: []netip.Addr{network.Management}, Log: log,
		Listen: func() (net.PacketConn, error) { return r.ListenPacket(portWireGuard) }})
	return err
}

func (e *enrolment) close() {
	if e.tunnel != nil {
		e.tunnel.Close()
	}
}

// accept makes a verified state one that units may run.
func (e *enrolment) accept(v *source.Verified) error {
	s, err := enroll.NewState(v.Commit, v.FloorStatement, v.Set.Units, v.Set.Releases)
	if err != nil {
		return fmt.Errorf("reference values: %w", err)
	}
	return e.verifier.Accept(s)
}

// clusterCA is by whom nodes know the API server, and one another's kubelets.
// It is read each time, since it rotates.
func (e *enrolment) clusterCA() ([]byte, error) {
	nodes, err := os.ReadFile(e.verifier.AuthorityFile())
	if err != nil {
		return nil, err
	}
	cluster, err := os.ReadFile(filepath.Join(e.layout.state, "kubernetes", "pki", "ca.crt"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(e.layout.state, "kubernetes")); errors.Is(err, os.ErrNotExist) {
			return nodes, nil // a rack without Kubernetes
		}
	}
	if err != nil {
		return nil, err
	}
	return append(append(bytes.TrimRight(cluster, "\n"), '\n'), nodes...), nil
}

// apiServer is where the control plane listens; it writes that down itself.
func (e *enrolment) apiServer() (network, address string, err error) {
	b, err := os.ReadFile(filepath.Join(e.layout.state, "kubernetes", "address"))
	return "tcp", strings.TrimSpace(string(b)), err
}

// serve starts all parts: units' door and tunnel inside the rack's network, and
// two private sockets of this machine.
func (e *enrolment) serve(part func(string, func(context.Context) error)) error {
	door, err := e.rack.Listen(portEnrol)
	if err != nil {
		return err
	}
	inside, err := e.tunnel.Listen(portAPIServer)
	if err != nil {
		return err
	}
	local, err := listenPrivate(e.layout, "enroll")
	if err != nil {
		return err
	}
	egress, err := listenPrivate(e.layout, "egress")
	if err != nil {
		return err
	}
	part("enrolment", e.verifier.Run)
	part("enrolment of units", func(ctx context.Context) error { return e.verifier.Serve(ctx, door) })
	part("authorisation", func(ctx context.Context) error { return e.verifier.ServeLocal(ctx, local) })
	part("tunnel", func(ctx context.Context) error { return e.tunnel.Forward(ctx, inside, e.apiServer) })
	part("egress", func(ctx context.Context) error { return e.tunnel.ServeEgress(ctx, egress) })
	part("peers", e.peers)
	return nil
}

// peers lets the tunnel follow the verifier.
func (e *enrolment) peers(ctx context.Context) error {
	var version uint64
	for ctx.Err() == nil {
		p := e.verifier.Peers(ctx, api.Management, version)
		version = p.Version
		if err := e.tunnel.SetPeers(p.Peers); err != nil {
			e.log.Error("peers of the tunnel", "error", err)
		}
	}
	return nil
}
