package redfish

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a listener.
const (
	maxConnections = 256 // idle ones give way to new ones
	headerLimit    = 10 * time.Second
	idleLimit      = 90 * time.Second
	maxHeader      = 16 << 10 // bytes
)

// ServeTLS serves the network on a listener until ctx ends, by TLS alone. It closes the listener.
func (s *Service) ServeTLS(ctx context.Context, l net.Listener) error {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		s.mu.Lock()
		s.port = a.Port
		s.mu.Unlock()
	}
	return s.listen(ctx, tls.NewListener(l, s.identity.config(s.access.UsesCertificates, s.o.AllowTLS12)), s)
}

// ServeLocal serves the owner of the rack on a private socket until ctx ends. It closes the listener.
func (s *Service) ServeLocal(ctx context.Context, l net.Listener) error {
	name := "owner"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return s.listen(ctx, l, s.Local(name))
}

func (s *Service) listen(ctx context.Context, l net.Listener, h http.Handler) error {
	c := &connections{most: maxConnections, open: map[net.Conn]*connection{}, all: &s.meters.connections}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader, ConnState: c.note,
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnContext: c.context, ErrorLog: serverLog(s.log),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serverLog takes what the server says of broken connections, which strangers can cause at will.
func serverLog(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// connections bounds the connections of a listener. When there are too many, the one that has waited longest is closed: one without
// a request, whose request does not come to its end, or of somebody who has not logged in. Idle, slow and unknown ones never
// keep others out.
type connections struct {
	most int
	mu   sync.Mutex
	open map[net.Conn]*connection
	all  *atomic.Int64 // of all listeners
}

type connection struct {
	since  time.Time   // it waits, or its request began
	atWork atomic.Bool // for somebody who has logged in
}

type connectionKey struct{}

// context lets the handler tell for whom a connection works.
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	k := &connection{since: time.Now()}
	c.mu.Lock()
	c.open[conn] = k
	c.mu.Unlock()
	return context.WithValue(peerContext(ctx, conn), connectionKey{}, k)
}

// works notes that the request is of somebody who has logged in.
func works(r *http.Request) {
	if k, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		k.atWork.Store(true)
	}
}

func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive, http.StateIdle:
		if k := c.open[conn]; k != nil {
			k.since = time.Now()
			k.atWork.Store(false)
		}
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
		c.all.Add(-1)
	case http.StateNew:
		c.all.Add(1)
		if len(c.open) <= c.most {
			return
		}
		oldest := conn
		for other, k := range c.open {
			if !k.atWork.Load() && k.since.Before(c.open[oldest].since) {
				oldest = other
			}
		}
		delete(c.open, oldest)
		go oldest.Close() // TLS says goodbye, which may take a while
	}
}

type peerKey struct{}

// peerContext notes which user of the operating system is at the other end of a Unix socket.
func peerContext(ctx context.Context, c net.Conn) context.Context {
	if u, ok := c.(*net.UnixConn); ok {
		if uid, ok := peerUser(u); ok {
			return context.WithValue(ctx, peerKey{}, userName(strconv.Itoa(uid)))
		}
	}
	return ctx
}

// loopback says whether a host is this machine.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
