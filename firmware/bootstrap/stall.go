package bootstrap

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/racklet/racklet/source"
)

// How long others may take. Whoever is slower is left for the next mirror, for
// another attempt, or for the bundle of an earlier boot; without these times a
// server that answers and then says nothing would stop a boot for ever.
const (
	fetchTimeout    = 2 * time.Minute  // one attempt at the repository
	manifestTimeout = 30 * time.Second // one mirror's manifest
	stallTimeout    = 30 * time.Second // for the next stallBytes of a body, or its rest
	stallBytes      = 64 << 10
)

var errStalled = errors.New("the server stopped sending")

// fetchOnce tries the repository once.
func (b *Boot) fetchOnce(ctx context.Context) (*source.Bundle, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return b.Fetch(ctx, b.config.Repository)
}

// watchedBody is the body of an answer that has to keep coming. Only the time
// spent waiting for it counts, not what its reader does meanwhile.
type watchedBody struct {
	io.ReadCloser
	cancel         context.CancelFunc // ends the request
	patience, left time.Duration
	got            int // since left was full
}

func watch(body io.ReadCloser, cancel context.CancelFunc, patience time.Duration) *watchedBody {
	return &watchedBody{ReadCloser: body, cancel: cancel, patience: patience, left: patience}
}

func (w *watchedBody) Read(p []byte) (int, error) {
	start := time.Now()
	t := time.AfterFunc(w.left, w.cancel)
	n, err := w.ReadCloser.Read(p)
	stalled := !t.Stop()
	w.left -= time.Since(start)
	if w.got += n; w.got >= stallBytes {
		w.got, w.left = 0, w.patience
	}
	if stalled && err != nil { // io.EOF at times, when the cut connection looks like the end
		err = errStalled
	}
	return n, err
}

func (w *watchedBody) Close() error {
	defer w.cancel()
	return w.ReadCloser.Close()
}
