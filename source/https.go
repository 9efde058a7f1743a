package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Times that a server may take. The caller's context bounds the whole.
const (
	dialTimeout   = 15 * time.Second
	headerTimeout = 30 * time.Second
)

// httpsTransport speaks Git's smart HTTP (gitprotocol-http(5)).
type httpsTransport struct {
	base   *url.URL
	client *http.Client
}

func dialHTTPS(u *url.URL, pins []string) (transport, error) {
	client, err := PinnedClient(pins)
	if err != nil {
		return nil, err
	}
	return &httpsTransport{base: u, client: client}, nil
}

// PinnedClient returns an HTTP client that talks TLS 1.3 or newer to servers
// with one of the pinned keys, and to nobody else. The pins replace the system
// of certificate authorities: a certificate is accepted when the SHA-256 of its
// SubjectPublicKeyInfo is pinned ("sha256//" and base64, RFC 7469, section
// 2.4). That is the host's own key: who issued the certificate does not matter,
// since an issuer's key vouches for any host. Nor do names and dates: a unit
// that boots may have no clock. A server with another key is a *Refusal
// "source.tls-pin". Redirects are not followed, proxies of the
// environment not used. The caller closes idle connections.
func PinnedClient(pins []string) (*http.Client, error) {
	want := make([][32]byte, 0, len(pins))
	for _, pin := range pins {
		digits, ok := strings.CutPrefix(pin, "sha256//")
		sum, err := base64.StdEncoding.DecodeString(digits)
		if !ok || err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("bad TLS pin %q: want sha256// and the base64 of 32 bytes", pin)
		}
		want = append(want, [32]byte(sum))
	}
	if len(want) == 0 {
		return nil, errors.New("no TLS pins: want at least one")
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS13,
				// The usual verification is replaced by the pins,
				// on every connection, resumed ones included.
				InsecureSkipVerify: true,
				VerifyConnection: func(s tls.ConnectionState) error {
					return checkPins(s.PeerCertificates, want)
				},
			},
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: headerTimeout,
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// checkPins looks at the one certificate whose key the server proved to hold.
func checkPins(chain []*x509.Certificate, pins [][32]byte) error {
	if len(chain) > 0 && slices.Contains(pins, sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)) {
		return nil
	}
	expected := make([]string, len(pins))
	for i := range pins {
		expected[i] = formatPin(pins[i])
	}
	seen := "no certificate"
	if len(chain) > 0 {
		seen = TLSPin(chain[0])
	}
	return &Refusal{"source.tls-pin", strings.Join(slices.Compact(expected), " or "), seen}
}

// TLSPin returns the pin of a certificate.
func TLSPin(cert *x509.Certificate) string {
	return formatPin(sha256.Sum256(cert.RawSubjectPublicKeyInfo))
}

func formatPin(sum [32]byte) string {
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

func (t *httpsTransport) advertisement(ctx context.Context) (io.ReadCloser, error) {
	u := t.base.JoinPath("info/refs")
	u.RawQuery = "service=" + uploadPack
	return t.do(ctx, http.MethodGet, u, "", nil)
}

func (t *httpsTransport) request(ctx context.Context, message []byte) (io.ReadCloser, error) {
	return t.do(ctx, http.MethodPost, t.base.JoinPath(uploadPack), "request", message)
}

func (t *httpsTransport) do(ctx context.Context, method string, u *url.URL, kind string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer := "application/x-" + uploadPack + "-advertisement"
	if kind != "" {
		req.Header.Set("Content-Type", "application/x-"+uploadPack+"-"+kind)
		answer = "application/x-" + uploadPack + "-result"
	}
	req.Header.Set("Accept", answer)
	req.Header.Set("User-Agent", "git/racklet")
	res, err := t.client.Do(req)
	if err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) {
			return nil, refusal
		}
		return nil, fmt.Errorf("reach repository: %w", err)
	}
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != answer {
		_ = res.Body.Close()
		return nil, fmt.Errorf("reach repository: %s answered %s, %q; want 200 and %q", u.Redacted(), res.Status, got, answer)
	}
	return res.Body, nil
}

func (t *httpsTransport) Close() error {
	t.client.CloseIdleConnections()
	return nil
}
