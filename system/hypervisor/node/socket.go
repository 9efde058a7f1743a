package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// keyRegister sets the BMC's key register.
type keyRegister func(ctx context.Context, digest [32]byte) error

// bmcHandler is the door to the BMC: PID 1 owns the in-band line, and lets the
// unit's other programs have the one thing that they need of it.
//
//	PUT /v1/key-register {"digest": "sha256:…"}
func bmcHandler(set keyRegister) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/key-register", func(w http.ResponseWriter, r *http.Request) {
		digest, err := parseDigest(http.MaxBytesReader(w, r.Body, 4096))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := set(r.Context(), digest); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func parseDigest(r io.Reader) (sum [32]byte, err error) {
	var body struct {
		Digest string `json:"digest"`
	}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return sum, fmt.Errorf("decode request: %w", err)
	}
	text, ok := strings.CutPrefix(body.Digest, "sha256:")
	b, err := hex.DecodeString(text)
	if !ok || err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", body.Digest)
	}
	copy(sum[:], b)
	return sum, nil
}

// serveUnix serves on a socket for root alone, until ctx ends.
func serveUnix(ctx context.Context, socket string, h http.Handler) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return err
	}
	return serve(ctx, l, h)
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}
