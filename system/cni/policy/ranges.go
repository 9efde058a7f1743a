package policy

import (
	"net/netip"
	"slices"
)

// A Range is all addresses of one family from one to another.
type Range struct{ From, To netip.Addr }

// Ranges are ranges; after merge in order, apart, and of both families.
type Ranges []Range

// Contains reports whether an address is in one of the ranges.
func (r Ranges) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(r, func(x Range) bool {
		return x.From.BitLen() == a.BitLen() && x.From.Compare(a) <= 0 && a.Compare(x.To) <= 0
	})
}

func rangeOf(p netip.Prefix) Ranges {
	p = p.Masked()
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	to, _ := netip.AddrFromSlice(b)
	return Ranges{{p.Addr(), to}}
}

// without takes prefixes out.
func (r Ranges) without(except []netip.Prefix) Ranges {
	for _, p := range except {
		if !p.IsValid() {
			continue
		}
		x := rangeOf(p)[0]
		var rest Ranges
		for _, have := range r {
			if have.From.BitLen() != x.From.BitLen() || x.To.Less(have.From) || have.To.Less(x.From) {
				rest = append(rest, have)
				continue
			}
			if have.From.Less(x.From) {
				rest = append(rest, Range{have.From, x.From.Prev()})
			}
			if x.To.Less(have.To) {
				rest = append(rest, Range{x.To.Next(), have.To})
			}
		}
		r = rest
	}
	return r
}

// merge puts ranges in order and joins those that touch.
func (r Ranges) merge() Ranges {
	r = slices.Clone(r)
	slices.SortFunc(r, func(a, b Range) int { return a.From.Compare(b.From) })
	var out Ranges
	for _, x := range r {
		if n := len(out); n > 0 && out[n-1].From.BitLen() == x.From.BitLen() {
			last := &out[n-1]
			if next := last.To.Next(); !next.IsValid() || x.From.Compare(next) <= 0 {
				if last.To.Less(x.To) {
					last.To = x.To
				}
				continue
			}
		}
		out = append(out, x)
	}
	return out
}
