package filter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/system/cni/policy"
)

// A Filter writes to the kernel. The zero value works in the namespace of the
// calling thread; NetNS is the file descriptor of another.
type Filter struct{ NetNS int }

func (f *Filter) conn() (*nftables.Conn, error) {
	if f.NetNS != 0 {
		return nftables.New(nftables.WithNetNSFd(f.NetNS))
	}
	return nftables.New()
}

// table begins a batch that replaces a table, whole and at once.
func table(c *nftables.Conn, name string) *nftables.Table {
	t := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	return c.AddTable(t)
}

// batch adds rules to one table.
type batch struct {
	c     *nftables.Conn
	t     *nftables.Table
	sets  int
	wrong error
}

func (b *batch) chain(name string, hook *nftables.ChainHook, priority int, drop bool) *nftables.Chain {
	c := &nftables.Chain{Name: name, Table: b.t}
	if hook != nil {
		p := nftables.ChainPolicyAccept
		if drop {
			p = nftables.ChainPolicyDrop
		}
		c.Type, c.Hooknum, c.Priority, c.Policy = nftables.ChainTypeFilter, hook, nftables.ChainPriorityRef(nftables.ChainPriority(priority)), &p
	}
	return b.c.AddChain(c)
}

func (b *batch) rule(c *nftables.Chain, parts ...[]expr.Any) {
	b.c.AddRule(&nftables.Rule{Table: b.t, Chain: c, Exprs: slices.Concat(parts...)})
}

func (b *batch) counter(name string) {
	b.c.AddObj(&nftables.NamedObj{Table: b.t, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
}

// set adds an anonymous set of ranges of one family.
func (b *batch) set(family uint8, ranges policy.Ranges) *nftables.Set {
	s := &nftables.Set{Table: b.t, Anonymous: true, Constant: true, Interval: true, KeyType: addressType(family)}
	var elements []nftables.SetElement
	for _, r := range ranges {
		elements = append(elements, nftables.SetElement{Key: r.From.AsSlice()})
		if next := r.To.Next(); next.IsValid() {
			elements = append(elements, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	b.add(s, elements)
	return s
}

func (b *batch) add(s *nftables.Set, elements []nftables.SetElement) {
	if err := b.c.AddSet(s, elements); err != nil && b.wrong == nil {
		b.wrong = err
	}
}

func addressType(family uint8) nftables.SetDatatype {
	if family == unix.NFPROTO_IPV6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// Parts of rules.

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func device(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

func in(name string) []expr.Any  { return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, device(name)) }
func out(name string) []expr.Any { return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, device(name)) }

// fromPod and toPod compare the beginning of a device's name.
func fromPod() []expr.Any { return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, []byte(PodDevices)) }
func toPod() []expr.Any   { return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, []byte(PodDevices)) }

func family(f uint8) []expr.Any   { return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{f}) }
func protocol(p uint8) []expr.Any { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{p}) }

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// address loads the source or destination into register 1, of a packet of the family.
func address(f uint8, source bool) []expr.Any {
	offset, length := uint32(16), uint32(4)
	if f == unix.NFPROTO_IPV6 {
		offset, length = 24, 16
	}
	if source {
		offset -= length
	}
	return append(family(f), &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length})
}

// within holds an address against a prefix.
func within(p netip.Prefix, source, inside bool) []expr.Any {
	f := familyOf(p.Addr())
	n := p.Addr().BitLen() / 8
	mask := make([]byte, n)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	op := expr.CmpOpEq
	if !inside {
		op = expr.CmpOpNeq
	}
	return append(address(f, source), &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(n), Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

func lookup(s *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: invert}}
}

// port compares a source or destination port of TCP, UDP or SCTP.
func port(source bool, from, to uint16) []expr.Any {
	offset := uint32(2)
	if source {
		offset = 0
	}
	p := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}}
	if from == to {
		return append(p, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(from)})
	}
	return append(p, &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: binaryutil.BigEndian.PutUint16(from), ToData: binaryutil.BigEndian.PutUint16(to)})
}

func state(bits uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
}

func known() []expr.Any { return state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// drop counts what it drops under a name.
func drop(counter string) []expr.Any {
	return []expr.Any{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counter}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// Lay writes what every unit lets pass, whatever its pods are.
func (f *Filter) Lay(n Network) error {
	c, err := f.conn()
	if err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	b := &batch{c: c, t: table(c, baseTable)}
	for _, name := range baseCounters {
		b.counter(name)
	}
	const udp, tcp = unix.IPPROTO_UDP, unix.IPPROTO_TCP
	up := func(f func(string) []expr.Any) []expr.Any { return f(n.Uplink) }
	gateway := netip.PrefixFrom(n.Gateway, n.Gateway.BitLen())

	input := b.chain("input", nftables.ChainHookInput, 0, true)
	b.rule(input, in("lo"), accept())
	b.rule(input, state(expr.CtStateBitINVALID), drop("invalid"))
	b.rule(input, known(), accept())
	b.rule(input, up(in), protocol(udp), port(false, n.WireGuardPort, n.WireGuardPort), within(n.Subnet, true, true), accept())
	b.rule(input, up(in), protocol(udp), port(true, 67, 67), port(false, 68, 68), accept())
	if n.Management.IsValid() {
		b.rule(input, in(n.Tunnel), within(netip.PrefixFrom(n.Management, n.Management.BitLen()), true, true), protocol(tcp), accept())
	}
	for _, from := range [][]expr.Any{in(n.Tunnel), fromPod()} {
		b.rule(input, from, protocol(unix.IPPROTO_ICMP), accept())
		b.rule(input, from, protocol(unix.IPPROTO_ICMPV6), accept())
		b.rule(input, from, protocol(tcp), port(false, kubeletPort, kubeletPort), accept())
	}
	b.rule(input, drop("input"))

	output := b.chain("output", nftables.ChainHookOutput, 0, true)
	b.rule(output, out("lo"), accept())
	b.rule(output, out(n.Tunnel), accept())
	b.rule(output, toPod(), accept())
	b.rule(output, up(out), protocol(udp), port(false, n.WireGuardPort, n.WireGuardPort), within(n.Subnet, false, true), accept())
	b.rule(output, up(out), protocol(udp), port(true, 68, 68), port(false, 67, 67), accept())
	for _, e := range n.Egress {
		b.rule(output, up(out), within(gateway, false, true), protocol(e.Protocol), port(false, e.Port, e.Port), accept())
	}
	b.rule(output, drop("output"))

	forward := b.chain("forward", nftables.ChainHookForward, 0, true)
	b.rule(forward, state(expr.CtStateBitINVALID), drop("invalid"))
	// A pod speaks for its own address alone: the way back leads to its device.
	b.rule(forward, fromPod(), []expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)}}, drop("spoofed"))
	b.rule(forward, known(), accept())
	b.rule(forward, fromPod(), toPod(), accept())
	b.rule(forward, fromPod(), out(n.Tunnel), accept())
	b.rule(forward, in(n.Tunnel), toPod(), accept())
	// To the outside, never to the network between the units; Police decides who.
	b.rule(forward, fromPod(), up(out), within(n.Subnet, false, false), accept())
	b.rule(forward, drop("forward"))

	post := b.c.AddChain(&nftables.Chain{Name: "postrouting", Table: b.t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	if n.Pods.IsValid() {
		b.rule(post, up(out), within(n.Pods, true, true), []expr.Any{&expr.Masq{}})
	}
	return b.flush("the unit's filter")
}

func (b *batch) flush(what string) error {
	if b.wrong != nil {
		return fmt.Errorf("write %s: %w", what, b.wrong)
	}
	if err := b.c.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	return nil
}

// Police replaces the rules of all pods at once. Who is not in the list, and
// has a pod's device all the same, is cut off.
func (f *Filter) Police(uplink string, pods []Pod) error {
	c, err := f.conn()
	if err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	b := &batch{c: c, t: table(c, policyTable)}
	for _, name := range policyCounters {
		b.counter(name)
	}
	forward := b.chain("forward", nftables.ChainHookForward, 10, false)
	b.rule(forward, known(), accept())
	chains := map[string]*nftables.Chain{}
	families := []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}
	for _, source := range []bool{true, false} {
		device, counter := fromPod(), "egress"
		if !source {
			device, counter = toPod(), "ingress"
		}
		for _, fam := range families {
			mine := &nftables.Set{Table: b.t, Name: fmt.Sprintf("%s-pods-%d", counter, fam), KeyType: addressType(fam)}
			isolated := &nftables.Set{Table: b.t, Name: fmt.Sprintf("%s-isolated-%d", counter, fam), KeyType: addressType(fam)}
			verdicts := &nftables.Set{Table: b.t, Name: fmt.Sprintf("%s-%d", counter, fam), KeyType: addressType(fam), IsMap: true, DataType: nftables.TypeVerdict}
			var all, shut, jumps []nftables.SetElement
			for _, p := range pods {
				chain := p.Ingress
				if source {
					chain = p.Egress
				}
				for _, a := range p.Addresses {
					if familyOf(a) != fam {
						continue
					}
					all = append(all, nftables.SetElement{Key: a.AsSlice()})
					if chain != nil {
						shut = append(shut, nftables.SetElement{Key: a.AsSlice()})
						jumps = append(jumps, nftables.SetElement{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: b.verdicts(chains, chain, source, counter).Name}})
					}
				}
			}
			b.add(mine, all)
			b.add(isolated, shut)
			b.add(verdicts, jumps)
			b.rule(forward, device, address(fam, source), lookup(mine, true), drop("unknown"))
			if source { // outwards by permission alone
				b.rule(forward, device, out(uplink), address(fam, source), lookup(isolated, true), drop("outside"))
			}
			b.rule(forward, device, address(fam, source), []expr.Any{&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: verdicts.Name, SetID: verdicts.ID}})
		}
	}
	return b.flush("the rules of pods")
}

// verdicts is the chain that holds a packet against a pod's rules: it returns
// from what is allowed and drops the rest. Pods with the same rules share it.
func (b *batch) verdicts(chains map[string]*nftables.Chain, rules *policy.Chain, source bool, counter string) *nftables.Chain {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v %v", source, *rules))
	name := counter[:1] + "-" + hex.EncodeToString(sum[:8])
	if c := chains[name]; c != nil {
		return c
	}
	c := b.chain(name, nil, 0, false)
	chains[name] = c
	pass := []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	for _, a := range rules.Allow {
		var peers [][]expr.Any
		if a.Any {
			peers = append(peers, nil)
		} else {
			for _, fam := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
				some := slices.DeleteFunc(slices.Clone(a.Peers), func(r policy.Range) bool { return familyOf(r.From) != fam })
				if len(some) > 0 {
					peers = append(peers, append(address(fam, !source), lookup(b.set(fam, some), false)...))
				}
			}
		}
		for _, p := range peers {
			if a.Ports == nil {
				b.rule(c, p, pass)
				continue
			}
			for _, r := range a.Ports {
				if r.From == 0 && r.To == 65535 {
					b.rule(c, p, protocol(r.Protocol), pass)
				} else {
					b.rule(c, p, protocol(r.Protocol), port(false, r.From, r.To), pass)
				}
			}
		}
	}
	b.rule(c, drop(counter))
	return c
}

// Drops returns how many packets were dropped, by reason, since the tables
// were written.
func (f *Filter) Drops() (map[string]uint64, error) {
	c, err := f.conn()
	if err != nil {
		return nil, err
	}
	drops := map[string]uint64{}
	for _, name := range []string{baseTable, policyTable} {
		objects, err := c.GetNamedObjects(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
		if err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		for _, o := range objects {
			if n, ok := o.(*nftables.NamedObj); ok {
				if counter, ok := n.Obj.(*expr.Counter); ok {
					drops[n.Name] += counter.Packets
				}
			}
		}
	}
	return drops, nil
}
