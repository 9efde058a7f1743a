package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

// The API server asks webhooks over TLS alone, and the verifier answers on a Unix socket, where the
// file system says who may ask. This is the piece between: it takes the API server's certificate and
// nobody else's.

func (s *Server) listenAuthorizer() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("node authorizer: %w", err)
	}
	return l, nil
}

func (s *Server) serveAuthorizer(ctx context.Context, l net.Listener) {
	serve(ctx, l, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.authorizerTLS}, s.authorizerHandler())
}

// authorizerTLS reads the certificates of now.
func (s *Server) authorizerTLS(*tls.ClientHelloInfo) (*tls.Config, error) {
	name := s.keys().Path("authorize-serving")
	pair, err := tls.LoadX509KeyPair(name, name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(s.keys().Path("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}, nil
}

func (s *Server) authorizerHandler() http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "verifier"})
	proxy.Transport = &http.Transport{
		DialContext:           dialUnix(s.Authorize),
		ResponseHeaderTimeout: 2 * time.Second, MaxIdleConns: 4,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != "kube-apiserver" || r.URL.Path != "/authorize" {
			http.Error(w, "for the API server alone", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// dialUnix leads every connection to one socket.
func dialUnix(socket string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
}
