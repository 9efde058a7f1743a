// Package filter is the packet filter of a unit, written by nftables.
//
// One table holds what every unit lets pass: between units WireGuard alone, to
// the gateway a short list, into the unit what arrives through the tunnel and
// is meant for it. Everything else is dropped, IPv6 outside the tunnel with
// it. The other table holds the rules of the unit's pods (package policy) and
// is replaced whole, in one transaction, whenever they change; a packet passes
// only if both let it.
package filter

import (
	"net/netip"

	"github.com/racklet/racklet/system/cni/policy"
)

// PodDevices begins the names of pods' devices, as package endpoint names them.
const PodDevices = "rk"

const (
	baseTable   = "racklet"
	policyTable = "racklet-policy"
	kubeletPort = 10250
)

// Counters of dropped packets.
var (
	baseCounters   = []string{"invalid", "spoofed", "input", "output", "forward"}
	policyCounters = []string{"unknown", "outside", "egress", "ingress"}
)

// Network is where the unit stands. Management and Pods are not known before
// it is enrolled.
type Network struct {
	Uplink        string // device to the rack's network
	Tunnel        string // WireGuard's device
	Subnet        netip.Prefix
	Gateway       netip.Addr
	Management    netip.Addr   // host side of the tunnel
	Pods          netip.Prefix // of this unit
	WireGuardPort uint16
	Egress        []Service // of the gateway, that the unit itself may use
}

// A Service is a port of the gateway.
type Service struct {
	Protocol uint8
	Port     uint16
}

// A Pod is one that the unit polices.
type Pod struct {
	Addresses []netip.Addr
	policy.Verdicts
}
