// Package policy turns Kubernetes' NetworkPolicies (networking.k8s.io/v1) into
// what a packet filter can hold against a packet: ranges of addresses and
// ports. It is pure: policies, pods and namespaces in, rules out. Package
// filter writes them into the kernel, the agent of a unit joins the two.
//
// A pod that no policy selects for a direction is open in it, towards the
// cluster; with one or more it may do what any of them allows. The way out of
// the rack is the exception: it needs a policy that selects the pod and allows
// the address.
package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A Policy is a NetworkPolicy.
type Policy struct {
	Metadata struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Spec Spec `json:"spec"`
}

// Spec is what a Policy says.
type Spec struct {
	PodSelector Selector `json:"podSelector"`
	PolicyTypes []string `json:"policyTypes"`
	Ingress     []Rule   `json:"ingress"`
	Egress      []Rule   `json:"egress"`
}

// A Rule allows peers (none named: all) on ports (none named: all).
type Rule struct {
	From  []Peer `json:"from"` // of ingress
	To    []Peer `json:"to"`   // of egress
	Ports []Port `json:"ports"`
}

// A Peer is pods or a block of addresses.
type Peer struct {
	PodSelector       *Selector `json:"podSelector"`
	NamespaceSelector *Selector `json:"namespaceSelector"`
	IPBlock           *IPBlock  `json:"ipBlock"`
}

// An IPBlock is a prefix without some of its parts.
type IPBlock struct {
	CIDR   netip.Prefix   `json:"cidr"`
	Except []netip.Prefix `json:"except"`
}

// A Port is one port, a range, a named port of the pod that is reached, or,
// without a port, all of a protocol.
type Port struct {
	Protocol string      `json:"protocol"` // TCP when left out
	Port     *PortNumber `json:"port"`
	EndPort  uint16      `json:"endPort"`
}

// PortNumber is a number or a name.
type PortNumber struct {
	Number uint16
	Name   string
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *PortNumber) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &p.Number); err == nil {
		return nil
	}
	if err := json.Unmarshal(b, &p.Name); err != nil || p.Name == "" {
		return fmt.Errorf("port %s: want a number or a name", b)
	}
	return nil
}

// A Selector selects by labels; an empty one selects all.
type Selector struct {
	MatchLabels      map[string]string `json:"matchLabels"`
	MatchExpressions []Expression      `json:"matchExpressions"`
}

// An Expression is one condition on labels.
type Expression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"` // In, NotIn, Exists, DoesNotExist
	Values   []string `json:"values"`
}

// Matches reports whether labels satisfy the selector. An operator that is not
// known selects nothing.
func (s *Selector) Matches(labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		v, has := labels[e.Key]
		ok := false
		switch e.Operator {
		case "In":
			ok = has && slices.Contains(e.Values, v)
		case "NotIn":
			ok = !has || !slices.Contains(e.Values, v)
		case "Exists":
			ok = has
		case "DoesNotExist":
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}

// Protocols by their names in a Port, as the Internet Protocol numbers them.
var protocols = map[string]uint8{"TCP": 6, "UDP": 17, "SCTP": 132}

// A Pod is what policies know of one.
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
	Addresses       []netip.Addr // none for a pod in the unit's own network
	Ports           []NamedPort
}

// A NamedPort is a container's.
type NamedPort struct {
	Name     string
	Protocol string
	Number   uint16
}

// World is everything that decides.
type World struct {
	Namespaces map[string]map[string]string // labels by name
	Pods       []Pod
	Policies   []Policy
}

// A Chain is what a pod may do in one direction. A nil chain: everything.
type Chain struct{ Allow []Allow }

// Allow is one way to be allowed. Peers nil: any; Ports nil: any.
type Allow struct {
	Peers Ranges
	Any   bool // any peer, whatever Peers says
	Ports []PortRange
}

// A PortRange is one of a protocol; 0 to 65535 is all of it.
type PortRange struct {
	Protocol uint8
	From, To uint16
}

// Verdicts are the two chains of one pod.
type Verdicts struct{ Ingress, Egress *Chain }

// Allows reports whether a chain lets a packet pass to or from a peer. The port
// is that of the pod that is reached.
func (c *Chain) Allows(peer netip.Addr, protocol uint8, port uint16) bool {
	if c == nil {
		return true
	}
	for _, a := range c.Allow {
		if (a.Any || a.Peers.Contains(peer)) && a.hasPort(protocol, port) {
			return true
		}
	}
	return false
}

func (a *Allow) hasPort(protocol uint8, port uint16) bool {
	return a.Ports == nil || slices.ContainsFunc(a.Ports, func(p PortRange) bool { return p.Protocol == protocol && p.From <= port && port <= p.To })
}

// Compile returns what a pod may do.
func (w *World) Compile(pod *Pod) Verdicts {
	var v Verdicts
	for i := range w.Policies {
		p := &w.Policies[i]
		if p.Metadata.Namespace != pod.Namespace || !p.Spec.PodSelector.Matches(pod.Labels) {
			continue
		}
		if p.Governs("Ingress") {
			if v.Ingress == nil {
				v.Ingress = new(Chain)
			}
			for _, r := range p.Spec.Ingress {
				v.Ingress.Allow = append(v.Ingress.Allow, w.ingress(p, pod, r)...)
			}
		}
		if p.Governs("Egress") {
			if v.Egress == nil {
				v.Egress = new(Chain)
			}
			for _, r := range p.Spec.Egress {
				v.Egress.Allow = append(v.Egress.Allow, w.egress(p, r)...)
			}
		}
	}
	return v
}

// Governs reports whether a policy says anything of a direction: what its
// types say, else ingress always and egress if it has rules of it.
func (p *Policy) Governs(direction string) bool {
	if len(p.Spec.PolicyTypes) > 0 {
		return slices.Contains(p.Spec.PolicyTypes, direction)
	}
	return direction == "Ingress" || len(p.Spec.Egress) > 0
}

func (w *World) ingress(p *Policy, pod *Pod, r Rule) []Allow {
	a := Allow{Any: len(r.From) == 0}
	for _, peer := range r.From {
		pods, block := w.peers(p, peer)
		a.Peers = append(append(a.Peers, block...), addresses(pods)...)
	}
	a.Peers = a.Peers.merge()
	if len(r.Ports) > 0 {
		a.Ports = []PortRange{}
		for _, port := range r.Ports {
			a.Ports = append(a.Ports, port.of(pod)...)
		}
	}
	if !a.Any && len(a.Peers) == 0 || a.Ports != nil && len(a.Ports) == 0 {
		return nil
	}
	return []Allow{a}
}

func (w *World) egress(p *Policy, r Rule) (out []Allow) {
	a := Allow{Any: len(r.To) == 0}
	var pods []*Pod
	for _, peer := range r.To {
		some, block := w.peers(p, peer)
		pods = append(pods, some...)
		a.Peers = append(a.Peers, block...)
	}
	a.Peers = append(a.Peers, addresses(pods)...).merge()
	if a.Any {
		for i := range w.Pods {
			pods = append(pods, &w.Pods[i])
		}
	}
	if len(r.Ports) == 0 {
		if !a.Any && len(a.Peers) == 0 {
			return nil
		}
		return []Allow{a}
	}
	a.Ports = []PortRange{}
	named := map[PortRange]Ranges{} // a name means another number in each pod
	for _, port := range r.Ports {
		if port.Port == nil || port.Port.Name == "" {
			a.Ports = append(a.Ports, port.of(nil)...)
			continue
		}
		for _, pod := range pods {
			for _, n := range port.of(pod) {
				named[n] = append(named[n], addresses([]*Pod{pod})...)
			}
		}
	}
	if len(a.Ports) > 0 && (a.Any || len(a.Peers) > 0) {
		out = append(out, a)
	}
	for _, n := range slices.SortedFunc(maps.Keys(named), comparePorts) {
		if peers := named[n].merge(); len(peers) > 0 {
			out = append(out, Allow{Peers: peers, Ports: []PortRange{n}})
		}
	}
	return out
}

func comparePorts(a, b PortRange) int {
	if a.Protocol != b.Protocol {
		return int(a.Protocol) - int(b.Protocol)
	}
	return int(a.From) - int(b.From)
}

// peers are the pods, or the block, that a peer of a policy means.
func (w *World) peers(p *Policy, peer Peer) (pods []*Pod, block Ranges) {
	if b := peer.IPBlock; b != nil {
		if !b.CIDR.IsValid() {
			return nil, nil
		}
		return nil, rangeOf(b.CIDR).without(b.Except)
	}
	if peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return nil, nil
	}
	for i := range w.Pods {
		pod := &w.Pods[i]
		if peer.NamespaceSelector == nil {
			if pod.Namespace != p.Metadata.Namespace {
				continue
			}
		} else if labels, ok := w.Namespaces[pod.Namespace]; !ok || !peer.NamespaceSelector.Matches(labels) {
			continue
		}
		if peer.PodSelector == nil || peer.PodSelector.Matches(pod.Labels) {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

func addresses(pods []*Pod) (r Ranges) {
	for _, p := range pods {
		for _, a := range p.Addresses {
			r = append(r, Range{a, a})
		}
	}
	return r
}

// of is the ranges that a port means at a pod; a name that the pod does not
// have, or a protocol that nobody knows, means none.
func (p *Port) of(pod *Pod) []PortRange {
	name := p.Protocol
	if name == "" {
		name = "TCP"
	}
	protocol, ok := protocols[strings.ToUpper(name)]
	switch {
	case !ok:
		return nil
	case p.Port == nil:
		return []PortRange{{protocol, 0, 65535}}
	case p.Port.Name != "":
		var out []PortRange
		if pod != nil {
			for _, n := range pod.Ports {
				if n.Name == p.Port.Name && strings.EqualFold(cmpOr(n.Protocol, "TCP"), name) {
					out = append(out, PortRange{protocol, n.Number, n.Number})
				}
			}
		}
		return out
	case p.EndPort == 0:
		return []PortRange{{protocol, p.Port.Number, p.Port.Number}}
	case p.EndPort < p.Port.Number:
		return nil
	}
	return []PortRange{{protocol, p.Port.Number, p.EndPort}}
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
