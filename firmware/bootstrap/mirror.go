package bootstrap

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// httpMirror is the pull half of the OCI distribution API (distribution-spec
// v1.1, "Pull"), over TLS with a pinned key. The pin keeps others from watching
// and stalling; the digests decide.
type httpMirror struct {
	base   *url.URL
	client *http.Client
	stall  time.Duration // see stallTimeout
}

// OpenMirror returns a mirror by its address. Nothing is sent yet.
func OpenMirror(m rack.Mirror) (Mirror, error) {
	u, err := url.Parse(m.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" {
		return nil, fmt.Errorf("mirror %s: want https://", m.URL)
	}
	client, err := source.PinnedClient(m.TLSPins)
	if err != nil {
		return nil, err
	}
	return &httpMirror{u, client, stallTimeout}, nil
}

func (m *httpMirror) Manifest(ctx context.Context, repository string, d rack.Digest) ([]byte, error) {
	body, err := m.get(ctx, repository, "manifests", d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, maxManifest+1))
}

func (m *httpMirror) Blob(ctx context.Context, repository string, d rack.Digest, offset int64) (io.ReadCloser, error) {
	return m.get(ctx, repository, "blobs", d, offset)
}

// get asks for content from offset on. A server that sends all of it anyway
// has its beginning skipped. The body ends in an error when it stops coming.
func (m *httpMirror) get(ctx context.Context, repository, kind string, d rack.Digest, offset int64) (_ io.ReadCloser, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base.JoinPath("v2", repository, kind, string(d)).String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/octet-stream")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	body := watch(res.Body, cancel, m.stall)
	switch {
	case res.StatusCode == http.StatusPartialContent && offset > 0:
		return body, nil
	case res.StatusCode == http.StatusOK:
		if _, err := io.CopyN(io.Discard, body, offset); err != nil {
			body.Close()
			return nil, fmt.Errorf("skip %d bytes: %w", offset, err)
		}
		return body, nil
	}
	body.Close()
	return nil, fmt.Errorf("%s of %s: %s", kind, repository, res.Status)
}
