package access

import (
	"net/netip"
	"sync"
	"time"
)

// Rates of logins that cost a password hash. One that succeeds is given back.
const (
	burst        = 20 // of one address
	refill       = 2 * time.Second
	allBurst     = 100 // of all addresses together
	allRefill    = 100 * time.Millisecond
	mostSources  = 1024
	forgetSource = burst * refill
)

// bucket holds tokens; it is filled by time.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) fill(size int, every time.Duration, now time.Time) {
	if b.at.IsZero() {
		b.tokens = float64(size)
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.tokens+float64(d)/float64(every), float64(size))
	}
	b.at = now
}

// limiter slows those down who try passwords.
type limiter struct {
	mu      sync.Mutex
	all     bucket
	sources map[string]*bucket
}

// take takes a token of an address, if it has one.
func (l *limiter) take(from string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sources == nil {
		l.sources = map[string]*bucket{}
	}
	from = source(from)
	b := l.sources[from]
	if b == nil {
		if len(l.sources) >= mostSources {
			for k, old := range l.sources {
				if now.Sub(old.at) >= forgetSource {
					delete(l.sources, k)
				}
			}
		}
		if len(l.sources) >= mostSources {
			return false
		}
		b = new(bucket)
		l.sources[from] = b
	}
	b.fill(burst, refill, now)
	l.all.fill(allBurst, allRefill, now)
	if b.tokens < 1 || l.all.tokens < 1 {
		return false
	}
	b.tokens--
	l.all.tokens--
	return true
}

// give gives it back.
func (l *limiter) give(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.sources[source(from)]; b != nil {
		b.tokens = min(b.tokens+1, burst)
	}
	l.all.tokens = min(l.all.tokens+1, allBurst)
}

// source is what counts as one place: an IPv4 address, or an IPv6 network of a site.
func source(from string) string {
	if p, err := netip.ParseAddrPort(from); err == nil {
		a := p.Addr().Unmap()
		if a.Is4() {
			return a.String()
		}
		if n, err := a.WithZone("").Prefix(64); err == nil {
			return n.String()
		}
	}
	return from
}
