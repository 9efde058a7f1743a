package redfish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/racklet/racklet/rack"
)

const (
	pullTimeout = 20 * time.Second // to connect, and for the answer to begin
	pullStall   = 30 * time.Second // without a byte
)

// updates is what the update service remembers while it runs.
type updates struct {
	room chan struct{} // one for each image in memory

	mu      sync.Mutex
	taken   map[*unit]bool // units that an update is for
	options pushOptions
}

func newUpdates() *updates {
	return &updates{room: make(chan struct{}, maxUpdates), taken: map[*unit]bool{}, options: pushOptions{apply: applyOnReset}}
}

// errSource is wrapped by errors about where a file may be pulled from.
var errSource = errors.New("not a mirror of the rack")

// source finds the mirror of the rack's description, which the owners signed, below which an address lies. The service
// asks nobody else: an operator's URI must not make it a way into the network behind it.
func source(mirrors []rack.Mirror, text string) (*url.URL, *rack.Mirror, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(text) > 2048 || u.Opaque != "" {
		return nil, nil, fmt.Errorf("%w: give an https URL without a name, a password and a fragment", errSource)
	}
	if p := u.EscapedPath(); path.Clean("/"+p) != strings.TrimSuffix("/"+strings.TrimPrefix(p, "/"), "/") || strings.Contains(p, "%") {
		return nil, nil, fmt.Errorf("%w: give a plain path", errSource)
	}
	for i := range mirrors {
		m, err := url.Parse(mirrors[i].URL)
		if err == nil && m.Scheme == "https" && strings.EqualFold(m.Host, u.Host) && strings.HasPrefix(u.Path, strings.TrimSuffix(m.Path, "/")+"/") {
			return u, &mirrors[i], nil
		}
	}
	return nil, nil, fmt.Errorf("%w: spec.mirrors of the Rack object names where files may come from, and with which keys", errSource)
}

// pull gets an update file from a mirror: its key is a pinned one, redirects and proxies are not followed.
func pull(ctx context.Context, u *url.URL, m *rack.Mirror, progress func(int64)) (*bootImage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &http.Transport{
		DialContext: (&net.Dialer{Timeout: pullTimeout}).DialContext, TLSHandshakeTimeout: pullTimeout, ResponseHeaderTimeout: pullTimeout,
		DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error { // the pin says more than an authority
			if !slices.Contains(m.TLSPins, pinOf(c.PeerCertificates[0])) {
				return errors.New("the mirror has another TLS key than is pinned")
			}
			return nil
		}},
	}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the mirror answered %s", resp.Status)
	}
	stall := time.AfterFunc(pullStall, func() { cancel(errors.New("the mirror sends nothing")) })
	defer stall.Stop()
	i, err := readImage(&counted{r: io.LimitReader(resp.Body, maxUpdate+1), note: func(n int64) { stall.Reset(pullStall); progress(n) }})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return i, err
}

// counted tells how much was read.
type counted struct {
	r    io.Reader
	n    int64
	note func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.note(c.n)
	return n, err
}

// postSimpleUpdate pulls an update file.
func (s *Service) postSimpleUpdate(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	var p updateParameters
	image, protocol := "", "HTTPS"
	known := p.fields()
	known["ImageURI"] = setText(func(v string) { image = v })
	known["TransferProtocol"] = setEnum([]string{"HTTPS"}, func(v string) { protocol = v })
	if !parameters(w, body, simpleUpdate, known, "ImageURI") {
		return
	}
	if !strings.Contains(image, "://") {
		image = strings.ToLower(protocol) + "://" + image
	}
	u, mirror, err := source(s.o.Rack.Spec.Mirrors, image)
	if err != nil {
		m := msgActionFormat(image, "ImageURI", simpleUpdate, "")
		m.resolution = strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + "."
		fail(w, http.StatusBadRequest, m)
		return
	}
	req, ok := s.resolve(w, &p)
	if !ok || !s.reserve(w) {
		return
	}
	s.startUpdate(w, r, req, func(ctx context.Context, p *progress) (*bootImage, error) {
		i, err := pull(ctx, u, mirror, func(int64) {})
		switch {
		case err == nil:
			return i, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, errImage):
			return nil, &taskError{msgImage(err)}
		}
		m := critical(base("CouldNotEstablishConnection", "", "See whether the mirror answers and has the file, and repeat the update. Nothing was written.", u.Redacted()))
		m.text = fmt.Sprintf("The service failed to establish a connection with the URI '%s': %v.", u.Redacted(), err)
		return nil, &taskError{m}
	})
}
