package gateway

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// hosts answers, in front of the DNS server, for names outside Zone that units
// shall find at the gateway: those whose own address means something else to a
// unit, such as localhost. It knows names of hosts alone and IPv4 alone; every
// other question goes on to the server.
type hosts struct {
	net.PacketConn
	names []string
	at    netip.Addr
}

// ReadFrom returns the next question that is the server's to answer.
func (h *hosts) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := h.PacketConn.ReadFrom(p)
		if err != nil || len(h.names) == 0 {
			return n, from, err
		}
		answer := h.answer(p[:n])
		if answer == nil {
			return n, from, nil
		}
		_, _ = h.PacketConn.WriteTo(answer, from) // a lost answer is asked for again
	}
}

// answer is nil for a question about another name.
func (h *hosts) answer(question []byte) []byte {
	var q, a dns.Msg
	if q.Unpack(question) != nil || q.Response || len(q.Question) != 1 {
		return nil
	}
	name := q.Question[0].Name
	if !slices.ContainsFunc(h.names, func(n string) bool { return strings.EqualFold(n, strings.TrimSuffix(name, ".")) }) {
		return nil
	}
	a.SetReply(&q)
	a.RecursionAvailable = true
	if q.Question[0].Qtype == dns.TypeA {
		a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: h.at.AsSlice()}}
	}
	b, err := a.Pack()
	if err != nil {
		return nil
	}
	return b
}
