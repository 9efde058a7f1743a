package gateway

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestHosts asks for names that the operator named, and for others, which must
// come to the server behind.
func TestHosts(t *testing.T) {
	inner, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	at := netip.MustParseAddr("10.77.0.1")
	h := &hosts{inner, []string{"localhost", "git.example"}, at}
	passed := make(chan string, 10)
	go func() { // the server behind says which names it saw, and answers nothing
		var p [512]byte
		for {
			n, _, err := h.ReadFrom(p[:])
			if err != nil {
				return
			}
			var q dns.Msg
			if q.Unpack(p[:n]) != nil {
				passed <- "no DNS"
				continue
			}
			passed <- q.Question[0].Name
		}
	}()
	for _, c := range []struct {
		name    string
		kind    uint16
		answers int // -1: not ours
	}{
		{"localhost.", dns.TypeA, 1}, {"LocalHost.", dns.TypeA, 1}, {"git.example.", dns.TypeA, 1},
		{"localhost.", dns.TypeAAAA, 0},
		{"example.", dns.TypeA, -1}, {"www.git.example.", dns.TypeA, -1}, {"localhost.example.", dns.TypeA, -1},
	} {
		conn, err := net.Dial("udp4", inner.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		q, err := new(dns.Msg).SetQuestion(c.name, c.kind).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(q); err != nil {
			t.Fatal(err)
		}
		if c.answers < 0 {
			select {
			case got := <-passed:
				if got != c.name {
					t.Errorf("the server saw %q, want %q", got, c.name)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("%s did not come to the server", c.name)
			}
			continue
		}
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		var p [512]byte
		n, err := conn.Read(p[:])
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var a dns.Msg
		if err := a.Unpack(p[:n]); err != nil || a.Rcode != dns.RcodeSuccess || len(a.Answer) != c.answers {
			t.Errorf("%s: %v, %v", c.name, err, a.String())
		} else if c.answers > 0 && !a.Answer[0].(*dns.A).A.Equal(net.IP(at.AsSlice())) {
			t.Errorf("%s: %v", c.name, a.Answer[0])
		}
	}
	if len(passed) > 0 {
		t.Errorf("the server saw %q too", <-passed)
	}
	// What is no question goes on as well.
	conn, err := net.Dial("udp4", inner.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("hello"))
	select {
	case got := <-passed:
		if got != "no DNS" {
			t.Errorf("the server saw %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("garbage did not come to the server")
	}
}
