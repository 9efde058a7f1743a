package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// oracle decides one packet by reading the policies as their specification is
// worded, pod by pod and rule by rule; slow, and nothing like Compile.
type oracle struct{ w *World }

func (o oracle) selects(p *Policy, pod *Pod, direction string) bool {
	if p.Metadata.Namespace != pod.Namespace || !o.labels(&p.Spec.PodSelector, pod.Labels) {
		return false
	}
	types := p.Spec.PolicyTypes
	if len(types) == 0 {
		types = []string{"Ingress"}
		if len(p.Spec.Egress) > 0 {
			types = append(types, "Egress")
		}
	}
	return slices.Contains(types, direction)
}

func (o oracle) labels(s *Selector, labels map[string]string) bool {
	for k, want := range s.MatchLabels {
		if v, ok := labels[k]; !ok || v != want {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		v, ok := labels[e.Key]
		in := ok && slices.Contains(e.Values, v)
		if e.Operator == "In" && !in || e.Operator == "NotIn" && in || e.Operator == "Exists" && !ok || e.Operator == "DoesNotExist" && ok {
			return false
		}
	}
	return true
}

func (o oracle) owner(a netip.Addr) *Pod {
	for i := range o.w.Pods {
		if slices.Contains(o.w.Pods[i].Addresses, a) {
			return &o.w.Pods[i]
		}
	}
	return nil
}

// allowed says whether pod may talk with peer in a direction; the port is the
// destination's.
func (o oracle) allowed(pod *Pod, direction string, peer netip.Addr, protocol string, port uint16) bool {
	isolated := false
	for i := range o.w.Policies {
		p := &o.w.Policies[i]
		if !o.selects(p, pod, direction) {
			continue
		}
		isolated = true
		rules := p.Spec.Ingress
		if direction == "Egress" {
			rules = p.Spec.Egress
		}
		for _, r := range rules {
			peers := r.From
			reached := pod
			if direction == "Egress" {
				peers, reached = r.To, o.owner(peer)
			}
			if o.peer(p, peers, peer) && o.port(r.Ports, reached, protocol, port) {
				return true
			}
		}
	}
	return !isolated
}

func (o oracle) peer(p *Policy, peers []Peer, a netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	owner := o.owner(a)
	for _, peer := range peers {
		if b := peer.IPBlock; b != nil {
			if b.CIDR.Contains(a) && !slices.ContainsFunc(b.Except, func(e netip.Prefix) bool { return e.Contains(a) }) {
				return true
			}
			continue
		}
		if owner == nil || peer.PodSelector == nil && peer.NamespaceSelector == nil {
			continue
		}
		if peer.NamespaceSelector == nil && owner.Namespace != p.Metadata.Namespace {
			continue
		}
		if peer.NamespaceSelector != nil && !o.labels(peer.NamespaceSelector, o.w.Namespaces[owner.Namespace]) {
			continue
		}
		if peer.PodSelector == nil || o.labels(peer.PodSelector, owner.Labels) {
			return true
		}
	}
	return false
}

func (o oracle) port(ports []Port, reached *Pod, protocol string, port uint16) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		want := p.Protocol
		if want == "" {
			want = "TCP"
		}
		if want != protocol {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Name != "":
			if reached != nil && slices.Contains(reached.Ports, NamedPort{p.Port.Name, protocol, port}) {
				return true
			}
		case p.EndPort != 0:
			if p.Port.Number <= port && port <= p.EndPort {
				return true
			}
		case p.Port.Number == port:
			return true
		}
	}
	return false
}

// Small alphabets, so that things meet.
var (
	keys    = []string{"app", "tier"}
	values  = []string{"a", "b"}
	spaces  = []string{"one", "two", "three"}
	numbers = []uint16{80, 81, 443, 8080}
	kinds   = []string{"TCP", "UDP", "SCTP"}
)

func genLabels(t *rapid.T) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom(keys), rapid.SampledFrom(values), 0, 2).Draw(t, "labels")
}

func genSelector(t *rapid.T) Selector {
	s := Selector{}
	if rapid.Bool().Draw(t, "labels") {
		s.MatchLabels = genLabels(t)
	}
	for range rapid.IntRange(0, 1).Draw(t, "expressions") {
		s.MatchExpressions = append(s.MatchExpressions, Expression{rapid.SampledFrom(keys).Draw(t, "key"),
			rapid.SampledFrom([]string{"In", "NotIn", "Exists", "DoesNotExist"}).Draw(t, "operator"), rapid.SliceOfN(rapid.SampledFrom(values), 1, 2).Draw(t, "values")})
	}
	return s
}

func genAddress(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "v6") {
		return netip.AddrFrom16([16]byte{0xfd, 0x78, 15: byte(rapid.IntRange(0, 15).Draw(t, "host"))})
	}
	return netip.AddrFrom4([4]byte{10, 42, byte(rapid.IntRange(0, 1).Draw(t, "net")), byte(rapid.IntRange(0, 15).Draw(t, "host"))})
}

func genPrefix(t *rapid.T) netip.Prefix {
	a := genAddress(t)
	return netip.PrefixFrom(a, a.BitLen()-rapid.SampledFrom([]int{0, 1, 2, 3, 4, 9, 32}).Draw(t, "bits")).Masked()
}

func genPeer(t *rapid.T) (p Peer) {
	switch rapid.IntRange(0, 3).Draw(t, "peer") {
	case 0:
		b := &IPBlock{CIDR: genPrefix(t)}
		for range rapid.IntRange(0, 2).Draw(t, "except") {
			b.Except = append(b.Except, genPrefix(t))
		}
		return Peer{IPBlock: b}
	case 1:
		s := genSelector(t)
		return Peer{PodSelector: &s}
	case 2:
		s := genSelector(t)
		return Peer{NamespaceSelector: &s}
	}
	a, b := genSelector(t), genSelector(t)
	return Peer{PodSelector: &a, NamespaceSelector: &b}
}

func genPort(t *rapid.T) (p Port) {
	p.Protocol = rapid.SampledFrom([]string{"", "TCP", "UDP", "SCTP"}).Draw(t, "protocol")
	switch rapid.IntRange(0, 3).Draw(t, "port") {
	case 0:
	case 1:
		p.Port = &PortNumber{Name: rapid.SampledFrom([]string{"web", "db"}).Draw(t, "name")}
	case 2:
		p.Port = &PortNumber{Number: rapid.SampledFrom(numbers).Draw(t, "number")}
	default:
		p.Port = &PortNumber{Number: rapid.SampledFrom(numbers).Draw(t, "from")}
		p.EndPort = rapid.SampledFrom(numbers).Draw(t, "to")
	}
	return p
}

func genRule(t *rapid.T) (r Rule) {
	for range rapid.IntRange(0, 2).Draw(t, "peers") {
		p := genPeer(t)
		r.From, r.To = append(r.From, p), append(r.To, p)
	}
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		r.Ports = append(r.Ports, genPort(t))
	}
	return r
}

func genWorld(t *rapid.T) *World {
	w := &World{Namespaces: map[string]map[string]string{}}
	for _, n := range spaces {
		w.Namespaces[n] = genLabels(t)
	}
	taken := map[netip.Addr]bool{}
	for i := range rapid.IntRange(1, 6).Draw(t, "pods") {
		p := Pod{Namespace: rapid.SampledFrom(spaces).Draw(t, "namespace"), Name: fmt.Sprint("p", i), Labels: genLabels(t)}
		for range rapid.IntRange(0, 2).Draw(t, "addresses") {
			if a := genAddress(t); !taken[a] {
				taken[a] = true
				p.Addresses = append(p.Addresses, a)
			}
		}
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			p.Ports = append(p.Ports, NamedPort{rapid.SampledFrom([]string{"web", "db"}).Draw(t, "name"), rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SampledFrom(numbers).Draw(t, "number")})
		}
		w.Pods = append(w.Pods, p)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
		var p Policy
		p.Metadata.Namespace, p.Metadata.Name = rapid.SampledFrom(spaces).Draw(t, "namespace"), fmt.Sprint("np", i)
		p.Spec.PodSelector = genSelector(t)
		p.Spec.PolicyTypes = rapid.SampledFrom([][]string{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}).Draw(t, "types")
		for range rapid.IntRange(0, 2).Draw(t, "ingress") {
			p.Spec.Ingress = append(p.Spec.Ingress, genRule(t))
		}
		for range rapid.IntRange(0, 2).Draw(t, "egress") {
			p.Spec.Egress = append(p.Spec.Egress, genRule(t))
		}
		w.Policies = append(w.Policies, p)
	}
	return w
}

// TestOracle: compiled rules decide every packet as the specification does.
func TestOracle(t *testing.T) {
	allowed, denied := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		pod := &w.Pods[rapid.IntRange(0, len(w.Pods)-1).Draw(t, "pod")]
		v := w.Compile(pod)
		o := oracle{w}
		for range 40 {
			peer := genAddress(t)
			if rapid.Bool().Draw(t, "a pod") {
				other := w.Pods[rapid.IntRange(0, len(w.Pods)-1).Draw(t, "other")]
				if len(other.Addresses) > 0 {
					peer = other.Addresses[0]
				}
			}
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			port := rapid.SampledFrom([]uint16{0, 79, 80, 81, 82, 443, 8080, 65535}).Draw(t, "port")
			for direction, chain := range map[string]*Chain{"Ingress": v.Ingress, "Egress": v.Egress} {
				want := o.allowed(pod, direction, peer, kind, port)
				if got := chain.Allows(peer, protocols[kind], port); got != want {
					doc, _ := json.MarshalIndent(w, "", " ")
					t.Fatalf("%s of %s/%s with %v %s %d: %v, want %v\n%s", direction, pod.Namespace, pod.Name, peer, kind, port, got, want, doc)
				}
				if want {
					allowed++
				} else {
					denied++
				}
			}
		}
	})
	if allowed < 100 || denied < 100 {
		t.Errorf("%d allowed, %d denied: the cases show too little", allowed, denied)
	}
}

// TestRangesAreInOrder: the kernel's interval sets ask for it.
func TestRangesAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Ranges
		for range rapid.IntRange(0, 6).Draw(t, "ranges") {
			r = append(r, rangeOf(genPrefix(t)).without([]netip.Prefix{genPrefix(t)})...)
		}
		m := r.merge()
		for i := range m {
			if m[i].To.Less(m[i].From) || i > 0 && m[i-1].To.BitLen() == m[i].From.BitLen() && m[i].From.Compare(m[i-1].To.Next()) <= 0 {
				t.Fatalf("%v", m)
			}
		}
		for range 20 {
			if a := genAddress(t); m.Contains(a) != r.Contains(a) {
				t.Fatalf("%v: %v in %v but not in %v", a, r.Contains(a), r, m)
			}
		}
	})
}

// TestPolicyOfKubernetes reads a policy as the API server writes it.
func TestPolicyOfKubernetes(t *testing.T) {
	const doc = `{"metadata":{"namespace":"one","name":"web","uid":"x"},"spec":{"podSelector":{"matchLabels":{"app":"a"}},"policyTypes":["Ingress","Egress"],
	"ingress":[{"from":[{"ipBlock":{"cidr":"10.42.0.0/16","except":["10.42.3.0/24"]}},{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["b"]}]}}],
	"ports":[{"protocol":"TCP","port":8080,"endPort":8090},{"port":"web"}]}]}}`
	var p Policy
	if err := json.Unmarshal([]byte(doc), &p); err != nil {
		t.Fatal(err)
	}
	w := &World{Namespaces: map[string]map[string]string{"one": nil, "two": {}}, Policies: []Policy{p}, Pods: []Pod{
		{Namespace: "one", Name: "a", Labels: map[string]string{"app": "a"}, Addresses: []netip.Addr{netip.MustParseAddr("10.42.1.2")}, Ports: []NamedPort{{"web", "TCP", 3000}}},
		{Namespace: "two", Name: "b", Labels: map[string]string{"app": "b"}, Addresses: []netip.Addr{netip.MustParseAddr("fd78::b")}},
	}}
	v := w.Compile(&w.Pods[0])
	for _, c := range []struct {
		peer string
		port uint16
		ok   bool
	}{{"10.42.9.9", 8085, true}, {"10.42.3.9", 8085, false}, {"10.42.9.9", 3000, true}, {"10.42.9.9", 8091, false}, {"fd78::b", 8080, true}, {"fd78::c", 8080, false}} {
		if got := v.Ingress.Allows(netip.MustParseAddr(c.peer), 6, c.port); got != c.ok {
			t.Errorf("%s %d: %v", c.peer, c.port, got)
		}
	}
	if v.Egress == nil || v.Egress.Allows(netip.MustParseAddr("10.42.9.9"), 6, 80) {
		t.Error("egress is not shut")
	}
	for _, bad := range []string{`{"spec":{"ingress":[{"ports":[{"port":true}]}]}}`, `{"spec":{"ingress":[{"ports":[{"port":70000}]}]}}`, `{"spec":{"ingress":[{"from":[{"ipBlock":{"cidr":"x"}}]}]}}`} {
		if err := json.Unmarshal([]byte(bad), new(Policy)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"metadata":{"namespace":"n"},"spec":{"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["255.255.255.255/32"]}}],"ports":[{"port":1,"endPort":9}]}],"egress":[{"to":[{"ipBlock":{"cidr":"::/0","except":["::/128"]}}]}]}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		var p Policy
		if json.Unmarshal(doc, &p) != nil {
			return
		}
		pod := Pod{Namespace: p.Metadata.Namespace, Labels: map[string]string{"app": "a"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
		w := &World{Namespaces: map[string]map[string]string{pod.Namespace: nil}, Pods: []Pod{pod}, Policies: []Policy{p}}
		v := w.Compile(&pod)
		if v.Ingress != nil && strings.Contains(fmt.Sprint(v.Ingress), "invalid") {
			t.Errorf("%v", v.Ingress)
		}
	})
}
