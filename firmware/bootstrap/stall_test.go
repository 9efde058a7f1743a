package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// TestStuckRepository: a repository that answers and then says nothing is left
// for the bundle of an earlier boot.
func TestStuckRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustBoot("switch_root")
		tries := 0
		w.fetch = func(ctx context.Context, _ rack.Repository) (*source.Bundle, error) {
			tries++
			<-ctx.Done()
			return nil, ctx.Err()
		}
		start := time.Now()
		w.mustBoot("switch_root")
		if took := time.Since(start); tries != sourceAttempts || took > 10*time.Minute {
			t.Errorf("%d attempts in %v", tries, took)
		}
	})
}

// TestStuckManifest: the next mirror has its turn.
func TestStuckManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.more(&fakeMirror{blobs: w.blobs, stuck: true}, &fakeMirror{blobs: w.blobs})
		start := time.Now()
		w.mustBoot("switch_root")
		if took := time.Since(start); took > 5*time.Minute {
			t.Errorf("booted after %v", took)
		}
	})
}

// TestStalledBody reads from mirrors that stop, or nearly stop, in a body.
func TestStalledBody(t *testing.T) {
	content := bytes.Repeat([]byte("racklet "), 100_000)
	for name, c := range map[string]struct {
		pause time.Duration // before each piece, once stallBytes have come
		piece int
		skip  bool // the server ignores ranges, and stops before the offset
		good  bool
	}{
		"stops":   {pause: time.Hour},
		"skipped": {pause: time.Hour, skip: true},
		"drips":   {pause: 10 * time.Millisecond, piece: 1},
		"slow":    {pause: 20 * time.Millisecond, piece: stallBytes, good: true}, // longer than patience in all
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for rest, n := content, stallBytes+1; len(rest) > 0; n = c.piece {
					n = min(n, len(rest))
					w.Write(rest[:n])
					w.(http.Flusher).Flush()
					rest = rest[n:]
					select {
					case <-time.After(c.pause):
					case <-r.Context().Done():
						return
					}
				}
			}))
			defer s.Close()
			opened, err := OpenMirror(rack.Mirror{URL: s.URL, TLSPins: []string{source.TLSPin(s.Certificate())}})
			if err != nil {
				t.Fatal(err)
			}
			m := opened.(*httpMirror)
			m.stall = 200 * time.Millisecond
			if c.good {
				m.stall = 10 * time.Second // generous: only that it is not cut is the point
			}
			offset := int64(0)
			if c.skip {
				offset = int64(len(content) / 2)
			}
			body, err := m.Blob(t.Context(), "racklet/os", rack.SHA256(content), offset)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(body)
				body.Close()
			}
			if c.good && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if !c.good && (!errors.Is(err, errStalled) || strings.Contains(err.Error(), "canceled")) {
				t.Errorf("%d bytes, %v, want errStalled", len(got), err)
			}
		})
	}
}
