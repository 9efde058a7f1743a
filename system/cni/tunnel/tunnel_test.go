package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/system/enroll/api"
)

const patience = 30 * time.Second

// wire is the network below, and keeps what went over it.
type wire struct {
	mu   sync.Mutex
	seen [][]byte
}

// socket is a UDP socket on the wire.
func (w *wire) socket(t *testing.T) *tapped {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &tapped{pc, w}
}

type tapped struct {
	net.PacketConn
	w *wire
}

func (s *tapped) WriteTo(p []byte, to net.Addr) (int, error) {
	s.w.mu.Lock()
	s.w.seen = append(s.w.seen, bytes.Clone(p))
	s.w.mu.Unlock()
	return s.PacketConn.WriteTo(p, to)
}

// end is one end of a tunnel.
type end struct {
	*Tunnel
	peer api.Peer // as others see it
}

func newEnd(t *testing.T, w *wire, name, address string) *end {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := w.socket(t)
	at := netip.MustParseAddr(address)
	tun, err := New(Config{Key: key, Addresses: []netip.Addr{at}, Listen: func() (net.PacketConn, error) { return s, nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tun.Close)
	return &end{tun, api.Peer{Unit: name, PublicKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()),
		Endpoint: s.LocalAddr().(*net.UDPAddr).AddrPort(), AllowedIPs: []netip.Prefix{netip.PrefixFrom(at, 32)}}}
}

func (e *end) set(t *testing.T, peers ...*end) {
	t.Helper()
	var list []api.Peer
	for _, p := range peers {
		list = append(list, p.peer)
	}
	if err := e.SetPeers(list); err != nil {
		t.Fatal(err)
	}
}

// echo serves what it reads on a port of the tunnel.
func (e *end) echo(t *testing.T, port uint16) {
	t.Helper()
	l, err := e.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("%q: %v", b, err)
	}
}

const canary = "racklet-canary-in-plain-text"

// TestTunnel: peers talk, nothing of it is readable below, a stranger and a
// peer that was taken off do not get through.
func TestTunnel(t *testing.T) {
	w := new(wire)
	host, unit, stranger := newEnd(t, w, "management", "10.78.0.254"), newEnd(t, w, "unit-1", "10.78.0.1"), newEnd(t, w, "unit-2", "10.78.0.2")
	host.set(t, unit)
	unit.set(t, host)
	stranger.set(t, host)
	unit.echo(t, 10250)
	host.echo(t, 6443)
	c, err := host.DialContext(t.Context(), "tcp", "10.78.0.1:10250")
	if err != nil {
		t.Fatal(err)
	}
	say(t, c, strings.Repeat(canary, 1000))
	w.mu.Lock()
	sent := len(w.seen)
	for _, p := range w.seen {
		if bytes.Contains(p, []byte("canary")) {
			t.Error("plain text on the wire")
		}
		if len(p) > 1500-28 {
			t.Errorf("a datagram of %d bytes", len(p))
		}
	}
	w.mu.Unlock()
	if sent < 20 {
		t.Errorf("only %d datagrams seen: the tap sees nothing", sent)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := stranger.DialContext(ctx, "tcp", "10.78.0.254:6443"); err == nil {
		t.Error("a stranger got through")
	}
	if _, err := host.DialContext(t.Context(), "tcp", "10.78.0.2:80"); !errors.Is(err, errNoPeer) {
		t.Errorf("dial of no peer: %v", err)
	}
	// The stranger is admitted; the unit's session goes on.
	host.set(t, unit, stranger)
	s, err := stranger.DialContext(t.Context(), "tcp", "10.78.0.254:6443")
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, "hello")
	say(t, c, "still here")
	stats, err := host.Statistics()
	if err != nil || len(stats) != 2 || stats[0].Unit != "unit-1" || stats[0].ReceivedBytes == 0 || stats[0].SentBytes == 0 || stats[0].LastHandshake.IsZero() {
		t.Errorf("%+v %v", stats, err)
	}
	// And out again.
	host.set(t, stranger)
	say(t, s, "hello")
	c.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(c, "x")
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("a peer that was taken off sent %d bytes", n)
	}
}

// TestEgress: CONNECT as an API server does it.
func TestEgress(t *testing.T) {
	w := new(wire)
	host, unit := newEnd(t, w, "management", "10.78.0.254"), newEnd(t, w, "unit-1", "10.78.0.1")
	host.set(t, unit)
	unit.set(t, host)
	unit.echo(t, 10250)
	socket := filepath.Join(t.TempDir(), "egress.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- host.ServeEgress(ctx, l) }()
	ask := func(request string) (*http.Response, net.Conn) {
		t.Helper()
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, request)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		return resp, c
	}
	resp, c := ask("CONNECT 10.78.0.1:10250 HTTP/1.1\r\nHost: 10.78.0.1:10250\r\n\r\n")
	if resp.StatusCode != 200 {
		t.Fatalf("%s", resp.Status)
	}
	say(t, c, "over the egress")
	for request, want := range map[string]int{
		"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n":           403,
		"CONNECT 10.78.0.2:10250 HTTP/1.1\r\nHost: 10.78.0.2:10250\r\n\r\n":     403,
		"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n":     502,
		"GET http://10.78.0.1:10250/ HTTP/1.1\r\nHost: 10.78.0.1:10250\r\n\r\n": 405,
		"CONNECT 10.78.0.1:1 HTTP/1.1\r\nHost: 10.78.0.1:1\r\n\r\n":             502,
	} {
		if resp, _ := ask(request); resp.StatusCode != want {
			t.Errorf("%q: %s, want %d", request, resp.Status, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestForward: a port of the tunnel leads to a service of the host, wherever
// that is at the moment.
func TestForward(t *testing.T) {
	w := new(wire)
	host, unit := newEnd(t, w, "management", "10.78.0.254"), newEnd(t, w, "unit-1", "10.78.0.1")
	host.set(t, unit)
	unit.set(t, host)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	l, err := host.Listen(6443)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var mu sync.Mutex
	address := ""
	go func() {
		done <- host.Forward(ctx, l, func() (string, string, error) {
			mu.Lock()
			defer mu.Unlock()
			if address == "" {
				return "", "", fmt.Errorf("not yet")
			}
			return "tcp", address, nil
		})
	}()
	c, err := unit.DialContext(t.Context(), "tcp", "10.78.0.254:6443")
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from nowhere", n)
	}
	mu.Lock()
	address = server.Addr().String()
	mu.Unlock()
	if c, err = unit.DialContext(t.Context(), "tcp", "10.78.0.254:6443"); err != nil {
		t.Fatal(err)
	}
	say(t, c, "through")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSetPeersRefuses(t *testing.T) {
	host := newEnd(t, new(wire), "management", "10.78.0.254")
	if err := host.SetPeers([]api.Peer{{Unit: "unit-1", PublicKey: "AAAA"}}); err == nil {
		t.Error("a short key was accepted")
	}
}

func BenchmarkTunnel(b *testing.B) {
	t := &testing.T{}
	w := new(wire)
	host, unit := newEnd(t, w, "management", "10.78.0.254"), newEnd(t, w, "unit-1", "10.78.0.1")
	host.set(t, unit)
	unit.set(t, host)
	l, err := unit.Listen(1)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
	c, err := host.DialContext(b.Context(), "tcp", "10.78.0.1:1")
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
