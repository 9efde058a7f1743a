// Package api holds the words between a unit and the verifier that admits it,
// and the files in which the unit's enrolment agent leaves what came of it for
// kubelet and network. Types and constants only; package enroll says what they
// mean.
//
//	POST /enroll/v1/identity   IdentityRequest → Identity, or 403 Refusal
//	GET  /enroll/v1/peers      → Peers, with the client certificate of an Identity;
//	                           ?after=N waits until there is a newer version than N
package api

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"
)

// Paths of the verifier's interface to units.
const (
	IdentityPath = "/enroll/v1/identity"
	PeersPath    = "/enroll/v1/peers"
)

// MaxRequest bounds an encoded IdentityRequest in bytes.
const MaxRequest = 16 << 10

// Dir is where a unit keeps its identity: in memory, for root alone.
const Dir = "/run/racklet/identity"

// Files in Dir, each replaced whole.
const (
	CAFile         = "ca.crt"        // of the cluster's API server and of nodes
	ClientCertFile = "client.crt"    // system:node:UNIT
	ClientKeyFile  = "client.key"    // PKCS #8, for both certificates
	ServingFile    = "serving.crt"   // of the kubelet
	ServingKeyFile = "serving.key"   // the same key
	ClusterFile    = "cluster.json"  // Cluster
	PeersFile      = "peers.json"    // Peers
	WireGuardFile  = "wireguard.key" // private key, base64
)

// IdentityRequest asks for an identity.
type IdentityRequest struct {
	Unit string `json:"unit"`
	// CSR is a PKCS #10 request (PEM) with a P-256 key; only its key counts.
	CSR string `json:"csr"`
	// WireGuardKey is the public key, base64.
	WireGuardKey string `json:"wireguardKey"`
	// Signature is the key's over Statement: ECDSA with SHA-256, ASN.1.
	Signature []byte `json:"signature"`
}

// Statement is what the key of an IdentityRequest signs: that it asks for
// this unit and wants this WireGuard key at its side.
func Statement(unit, wireguardKey string, csr []byte) []byte {
	return fmt.Appendf(nil, "racklet enrolment v1\nunit %s\nwireguard %s\ncsr %x\n", unit, wireguardKey, sha256.Sum256(csr))
}

// KeyRegister is what a unit puts into the key register of its BMC: the
// SHA-256 of its public key as SubjectPublicKeyInfo (DER) and its raw WireGuard key.
func KeyRegister(spki []byte, wireguard [32]byte) [32]byte {
	h := sha256.New()
	h.Write(spki)
	h.Write(wireguard[:])
	return [32]byte(h.Sum(nil))
}

// Identity is what an admitted unit gets.
type Identity struct {
	CA          string    `json:"caPEM"`          // trusted for API server and nodes
	ClientCert  string    `json:"clientCertPEM"`  // CN system:node:UNIT, O system:nodes
	ServingCert string    `json:"servingCertPEM"` // DNS UNIT, IP the tunnel address and loopback
	NotAfter    time.Time `json:"notAfter"`
	Cluster     Cluster   `json:"cluster"`
}

// Cluster is what a node needs to know of the cluster.
type Cluster struct {
	Unit           string       `json:"unit"`
	Slot           uint8        `json:"slot"`
	Server         string       `json:"server"` // address of the API server
	DNS            netip.Addr   `json:"dns"`    // of the cluster's DNS service
	TunnelAddress  netip.Addr   `json:"tunnelAddress"`
	TunnelAddress6 netip.Addr   `json:"tunnelAddress6,omitzero"`
	TunnelCIDR     netip.Prefix `json:"tunnelCIDR"`
	PodCIDR        netip.Prefix `json:"podCIDR"` // of this node
	PodCIDR6       netip.Prefix `json:"podCIDR6,omitzero"`
	ClusterCIDR    netip.Prefix `json:"clusterCIDR"` // of all pods
	ClusterCIDR6   netip.Prefix `json:"clusterCIDR6,omitzero"`
	ServiceCIDR    netip.Prefix `json:"serviceCIDR"`
	ServiceCIDR6   netip.Prefix `json:"serviceCIDR6,omitzero"`
	// Management is the host side of the tunnel, the only peer that may reach a kubelet from outside the units.
	Management netip.Addr `json:"management"`
}

// Peers are those with whom a unit may talk over WireGuard.
type Peers struct {
	Version uint64 `json:"version"` // rises with each change, over restarts too
	Peers   []Peer `json:"peers"`
}

// Peer is one end of the encrypted network.
type Peer struct {
	Unit       string         `json:"unit"` // "management" for the host side
	PublicKey  string         `json:"publicKey"`
	Endpoint   netip.AddrPort `json:"endpoint"`
	AllowedIPs []netip.Prefix `json:"allowedIPs"`
	NotAfter   time.Time      `json:"notAfter"` // from then on the peer is a stranger, whatever the verifier says or fails to say
}

// Management is the Unit of the host side's Peer.
const Management = "management"

// Refusal says which check refused, by its name in rack.Reasons, and why.
type Refusal struct {
	Check    string `json:"check"`
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s: expected %s, seen %s", r.Check, r.Expected, r.Seen)
}
