package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/racklet/racklet/rack"
)

// uploadPack is the service that a fetch talks to (gitprotocol-pack(5)).
const uploadPack = "git-upload-pack"

// A transport reaches git-upload-pack of one repository on one pinned server.
// Git's wire protocol version 0 has two turns; each transport carries them its
// own way.
type transport interface {
	// advertisement returns what the server says first.
	advertisement(ctx context.Context) (io.ReadCloser, error)
	// request sends the client's only message and returns the answer.
	request(ctx context.Context, message []byte) (io.ReadCloser, error)
	// Close ends the connection.
	Close() error
}

// dial is by the scheme of the repository's URL. There is no insecure one.
func dial(ctx context.Context, repo rack.Repository) (transport, error) {
	u, err := url.Parse(repo.URL)
	if err != nil {
		return nil, fmt.Errorf("parse repository URL: %w", err)
	}
	switch u.Scheme {
	case "https":
		return dialHTTPS(u, repo.TLSPins)
	case "ssh":
		return dialSSH(ctx, u, repo.SSHHostKeys, repo.DeployKey)
	}
	return nil, fmt.Errorf("repository URL %q: want https:// or ssh://", u.Redacted())
}

// depths are tried in order until the commits that the metadata names are in
// what was fetched; 0 is all history. One round trip is the usual case: the
// owners signed the tip.
var depths = []int{1, 64, 0}

// Fetch brings the metadata ref and the commits that it names, into memory.
// A server that shows none of the pinned keys, refuses the deploy key or lacks
// a ref is a *Refusal; a server that cannot be reached is another error, and
// trying again later can help. Nothing that was fetched is believed: a commit
// that is not on the ref, for instance, is simply not in the bundle.
func Fetch(ctx context.Context, repo rack.Repository) (*Bundle, error) {
	for _, depth := range depths {
		b, complete, err := fetch(ctx, repo, depth)
		if err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("fetch: %w", ctx.Err()) // says more than the closed connection
		}
		if err != nil {
			return nil, err
		}
		if complete {
			return b, nil
		}
	}
	panic("unreachable: all history is complete")
}

// fetch fetches once. complete is false when more history could bring what is
// missing.
func fetch(ctx context.Context, repo rack.Repository, depth int) (b *Bundle, complete bool, err error) {
	t, err := dial(ctx, repo)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if cerr := t.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close connection: %w", cerr)
		}
	}()
	adv, err := advertised(ctx, t)
	if err != nil {
		return nil, false, err
	}
	tip, err := findRef(adv, repo.Ref)
	if err != nil {
		return nil, false, err
	}
	metadata, err := findRef(adv, repo.MetadataRef)
	if err != nil {
		return nil, false, err
	}
	if !adv.Capabilities.Supports(capability.Shallow) {
		depth = 0
	}
	store := memory.NewStorage()
	if err := fetchPack(ctx, t, adv, store, depth, metadata, tip); err != nil {
		return nil, false, err
	}
	if b, err = gatherMetadata(store, metadata); err != nil {
		return nil, false, err
	}
	if complete, err = b.gatherCommits(store, tip); err != nil {
		return nil, false, err
	}
	if size := len(b.Marshal()); size > MaxBundle {
		return nil, false, &Refusal{"source.bundle", fmt.Sprintf("at most %d bytes", MaxBundle), fmt.Sprint(size)}
	}
	return b, complete || depth == 0, nil
}

func advertised(ctx context.Context, t transport) (*packp.AdvRefs, error) {
	r, err := t.advertisement(ctx)
	if err != nil {
		return nil, err
	}
	adv := packp.NewAdvRefs()
	limited := &limitedReader{r: r, left: maxRefs}
	err = adv.Decode(limited)
	if limited.left <= 0 {
		_ = r.Close()
		return nil, &Refusal{"source.bundle", fmt.Sprintf("a list of refs of at most %d bytes", maxRefs), "more"}
	}
	if errors.Is(err, packp.ErrEmptyAdvRefs) {
		err = nil // an empty repository: every ref is missing
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read refs of the repository: %w", err)
	}
	return adv, nil
}

func findRef(adv *packp.AdvRefs, ref string) (objectID, error) {
	if id, ok := adv.References[ref]; ok {
		return id, nil
	}
	return objectID{}, &Refusal{"source.ref", ref, fmt.Sprintf("%d other refs", len(adv.References))}
}

// fetchPack asks for two commits and what they hold, and stores it.
func fetchPack(ctx context.Context, t transport, adv *packp.AdvRefs, store *memory.Storage, depth int, want ...objectID) error {
	req := packp.NewUploadPackRequest()
	for _, c := range []capability.Capability{capability.Sideband64k, capability.OFSDelta} {
		if adv.Capabilities.Supports(c) {
			if err := req.Capabilities.Set(c); err != nil {
				return err
			}
		}
	}
	if depth > 0 {
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return err
		}
		req.Depth = packp.DepthCommits(depth)
	}
	for i, id := range want {
		if i == 0 || id != want[0] {
			req.Wants = append(req.Wants, id)
		}
	}
	var message bytes.Buffer
	if err := req.UploadRequest.Encode(&message); err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := req.UploadHaves.Encode(&message, false); err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := pktline.NewEncoder(&message).EncodeString("done\n"); err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	r, err := t.request(ctx, message.Bytes())
	if err != nil {
		return err
	}
	limited := &limitedReader{r: r, left: maxPack}
	res := packp.NewUploadPackResponse(req)
	err = res.Decode(io.NopCloser(limited))
	if err == nil {
		var pack io.Reader = res
		if req.Capabilities.Supports(capability.Sideband64k) {
			pack = sideband.NewDemuxer(sideband.Sideband64k, res)
		}
		var raw []byte
		if raw, err = io.ReadAll(pack); err == nil {
			err = unpack(raw, store)
		}
	}
	if limited.left <= 0 {
		err = &Refusal{"source.bundle", fmt.Sprintf("a pack of at most %d bytes", maxPack), "more"}
	}
	if cerr := r.Close(); err == nil && cerr != nil {
		err = cerr
	}
	var refusal *Refusal
	if err != nil && !errors.As(err, &refusal) {
		return fmt.Errorf("read pack: %w", err)
	}
	return err
}

// limitedReader ends in an error, not in EOF, when too much comes.
type limitedReader struct {
	r    io.Reader
	left int64
}

var errTooMuch = errors.New("too many bytes")

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooMuch
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
