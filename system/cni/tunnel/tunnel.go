// Package tunnel is the host's side of the rack's encrypted network: WireGuard
// and a TCP/IP stack, both in user space and in this process, without a
// privilege or an interface of the host.
//
//	API server ◀── 6443 ── stack ◀─▶ WireGuard ◀─ UDP inside the rack's network ─▶ units
//	API server ── CONNECT on a Unix socket ──▶ stack ──▶ kubelets, pods
//
// Whoever is to be reached, or may reach the API server, is a peer; peers come
// from enrolment alone and go with it. Nothing listens on the host but a
// private socket.
//
// wireguard-go keeps its buffers: a process that carries much through it and
// has to stay small sets GOMEMLIMIT.
package tunnel

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"github.com/racklet/racklet/system/enroll/api"
)

// MTU inside the tunnel: 1500 of the network below, less 20 of IPv4 (40 of
// IPv6), 8 of UDP and 32 of WireGuard.
const MTU = 1420

const dialTimeout = 10 * time.Second

// Config of a Tunnel.
type Config struct {
	Key       *ecdh.PrivateKey // X25519
	Addresses []netip.Addr     // of the host's side
	// Listen opens the UDP socket inside the rack's network.
	Listen func() (net.PacketConn, error)
	Log    *slog.Logger
}

// Tunnel is the host's side. New starts one.
type Tunnel struct {
	cfg Config
	dev *device.Device
	net *netstack.Net

	mu    sync.Mutex
	peers map[string]api.Peer // by public key
}

// New opens the tunnel, without peers.
func New(cfg Config) (*Tunnel, error) {
	tun, stack, err := netstack.CreateNetTUN(cfg.Addresses, nil, MTU)
	if err != nil {
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	quiet := func(string, ...any) {}
	t := &Tunnel{cfg: cfg, net: stack, peers: map[string]api.Peer{}}
	t.dev = device.NewDevice(tun, &bind{listen: cfg.Listen}, &device.Logger{Verbosef: quiet, Errorf: func(format string, args ...any) {
		cfg.Log.Debug("wireguard", "error", fmt.Sprintf(format, args...))
	}})
	err = t.dev.IpcSet("private_key=" + hex.EncodeToString(cfg.Key.Bytes()) + "\n")
	if err == nil {
		err = t.dev.Up()
	}
	if err != nil {
		t.dev.Close()
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	return t, nil
}

// Close ends the tunnel and all connections in it.
func (t *Tunnel) Close() { t.dev.Close() }

// SetPeers makes peers the only ones. Those that stay keep their sessions.
func (t *Tunnel) SetPeers(peers []api.Peer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	want := map[string]api.Peer{}
	var set strings.Builder
	for _, p := range peers {
		key, err := base64.StdEncoding.DecodeString(p.PublicKey)
		if err != nil || len(key) != 32 {
			return fmt.Errorf("peer %s: public key %q: want the base64 of 32 bytes", p.Unit, p.PublicKey)
		}
		want[p.PublicKey] = p
		if have, ok := t.peers[p.PublicKey]; ok && have.Endpoint == p.Endpoint && slices.Equal(have.AllowedIPs, p.AllowedIPs) {
			continue
		}
		fmt.Fprintf(&set, "public_key=%x\nendpoint=%v\nreplace_allowed_ips=true\n", key, p.Endpoint)
		for _, a := range p.AllowedIPs {
			fmt.Fprintf(&set, "allowed_ip=%v\n", a)
		}
	}
	// Strangers first: their addresses may be another's by now.
	var remove strings.Builder
	for k := range t.peers {
		if _, ok := want[k]; !ok {
			key, err := base64.StdEncoding.DecodeString(k)
			if err != nil {
				return err
			}
			fmt.Fprintf(&remove, "public_key=%x\nremove=true\n", key)
		}
	}
	if remove.Len()+set.Len() == 0 {
		return nil
	}
	if err := t.dev.IpcSet(remove.String() + set.String()); err != nil {
		return fmt.Errorf("set peers: %w", err)
	}
	t.peers = want
	return nil
}

// Listen opens a TCP port of the host's side, for peers.
func (t *Tunnel) Listen(port uint16) (net.Listener, error) {
	l, err := t.net.ListenTCP(&net.TCPAddr{IP: t.cfg.Addresses[0].AsSlice(), Port: int(port)})
	if err != nil {
		return nil, fmt.Errorf("listen on %v port %d of the tunnel: %w", t.cfg.Addresses[0], port, err)
	}
	return l, nil
}

// errNoPeer says that an address belongs to no peer.
var errNoPeer = errors.New("no peer of the tunnel has this address")

// DialContext connects to an address of a peer: a kubelet or a pod.
func (t *Tunnel) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: want an address and a port: %w", address, err)
	}
	t.mu.Lock()
	ok := false
	for _, p := range t.peers {
		ok = ok || slices.ContainsFunc(p.AllowedIPs, func(a netip.Prefix) bool { return a.Contains(to.Addr()) })
	}
	t.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("dial %s: %w", address, errNoPeer)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return t.net.DialContextTCPAddrPort(ctx, to)
}

// Forward carries connections from l to target, asked for anew each time,
// until ctx ends. It closes l.
func (t *Tunnel) Forward(ctx context.Context, l net.Listener, target func() (network, address string, err error)) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		all.Go(func() {
			defer c.Close()
			network, address, err := target()
			if err != nil {
				t.cfg.Log.Debug("no way for a connection out of the tunnel", "error", err)
				return
			}
			out, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
			if err != nil {
				t.cfg.Log.Debug("no way for a connection out of the tunnel", "error", err)
				return
			}
			relay(ctx, c, out, c)
		})
	}
}

// ServeEgress is the API server's egress selector (Kubernetes, HTTPConnect over
// a Unix socket): CONNECT to an address of a peer, and to nothing else.
func (t *Tunnel) ServeEgress(ctx context.Context, l net.Listener) error {
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(t.connect), BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return err
	}
	return nil
}

func (t *Tunnel) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT is served here", http.StatusMethodNotAllowed)
		return
	}
	out, err := t.DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		status := http.StatusBadGateway
		if errors.Is(err, errNoPeer) {
			status = http.StatusForbidden
		}
		http.Error(w, err.Error(), status)
		return
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		out.Close()
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	defer c.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		out.Close()
		return
	}
	relay(r.Context(), c, out, early(buffered.Reader, c))
}

// early reads what a client sent before it was answered, then the rest.
func early(r *bufio.Reader, c net.Conn) io.Reader {
	n := r.Buffered()
	if n == 0 {
		return c
	}
	b, err := r.Peek(n)
	if err != nil {
		return c
	}
	return io.MultiReader(strings.NewReader(string(b)), c)
}

// relay copies both ways until both are done or ctx ends, and closes both.
// from reads what comes out of a.
func relay(ctx context.Context, a, b net.Conn, from io.Reader) {
	defer a.Close()
	defer b.Close()
	defer context.AfterFunc(ctx, func() { a.Close(); b.Close() })()
	half := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from) // one side's end is the other's
		if c, ok := to.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
			return
		}
		to.Close()
	}
	back := make(chan struct{})
	go func() { defer close(back); half(a, b) }()
	half(b, from)
	<-back
}

// PeerStatistics is what was carried for one peer.
type PeerStatistics struct {
	Unit                     string
	ReceivedBytes, SentBytes uint64
	LastHandshake            time.Time // zero: none yet
}

// Statistics returns those of all peers, by unit.
func (t *Tunnel) Statistics() ([]PeerStatistics, error) {
	text, err := t.dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read the tunnel's counters: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []PeerStatistics
	var now *PeerStatistics
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "public_key" {
			raw, err := hex.DecodeString(value)
			if err != nil {
				return nil, err
			}
			all = append(all, PeerStatistics{Unit: t.peers[base64.StdEncoding.EncodeToString(raw)].Unit})
			now = &all[len(all)-1]
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if now == nil || err != nil {
			continue
		}
		switch key {
		case "rx_bytes":
			now.ReceivedBytes = n
		case "tx_bytes":
			now.SentBytes = n
		case "last_handshake_time_sec":
			if n != 0 {
				now.LastHandshake = time.Unix(int64(n), 0)
			}
		}
	}
	slices.SortFunc(all, func(a, b PeerStatistics) int { return strings.Compare(a.Unit, b.Unit) })
	return all, nil
}
