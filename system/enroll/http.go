package enroll

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/system/enroll/api"
)

// parseRequest returns the key that asks, and the digest that the BMC's key
// register has to hold for it.
func parseRequest(req *api.IdentityRequest) (*ecdsa.PublicKey, [32]byte, error) {
	var none [32]byte
	block, rest := pem.Decode([]byte(req.CSR))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) != 0 {
		return nil, none, errors.New("csr is not one PEM certificate request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, none, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, none, err
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, none, errors.New("the key is not P-256")
	}
	wg, err := wireGuardKey(req.WireGuardKey)
	if err != nil {
		return nil, none, err
	}
	sum := sha256.Sum256(api.Statement(req.Unit, req.WireGuardKey, block.Bytes))
	if !ecdsa.VerifyASN1(key, sum[:], req.Signature) {
		return nil, none, errors.New("the signature is not the key's")
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, none, err
	}
	return key, api.KeyRegister(spki, wg), nil
}

// Serve serves units on a listener inside the rack's network, until ctx ends:
// TLS 1.3 with the key that their boot configuration pins.
func (v *Verifier) Serve(ctx context.Context, l net.Listener) error {
	cert, err := servingCertificate(v.o.Dir, v.now())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(v.authority.cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots, Time: v.now,
	}
	return serve(ctx, tls.NewListener(l, config), v.unitHandler(), v.log)
}

// ServeLocal serves the API server and controllers on a private socket of this machine.
func (v *Verifier) ServeLocal(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, v.Handler(), v.log)
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return err
	}
	return nil
}

// unitHandler is what units see.
func (v *Verifier) unitHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.IdentityPath, v.postIdentity)
	mux.HandleFunc("GET "+api.PeersPath, v.getPeers)
	return mux
}

func (v *Verifier) postIdentity(w http.ResponseWriter, r *http.Request) {
	req := new(api.IdentityRequest)
	if err := strictJSON(http.MaxBytesReader(w, r.Body, api.MaxRequest), req); err != nil {
		answer(w, http.StatusForbidden, refuse("enroll.request", "one JSON object", shorten(err.Error())))
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "who asks is not known", http.StatusInternalServerError)
		return
	}
	id, err := v.Identify(r.Context(), req, from.Addr().Unmap())
	var refused *api.Refusal
	switch {
	case errors.As(err, &refused):
		answer(w, http.StatusForbidden, refused)
	case errors.Is(err, errSilent):
		w.Header().Set("Retry-After", "2")
		answer(w, http.StatusServiceUnavailable, refuse("enroll.silent", "signed measurements", shorten(err.Error())))
	case err != nil:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, refuse("enroll.silent", "a moment in which units can be admitted", shorten(err.Error())))
	default:
		answer(w, http.StatusOK, id)
	}
}

// pollLimit bounds how long an answer is held back.
const pollLimit = 30 * time.Second

func (v *Verifier) getPeers(w http.ResponseWriter, r *http.Request) {
	unit, ok := v.caller(r)
	if !ok {
		answer(w, http.StatusForbidden, refuse("enroll.expired", "the client certificate of an identity in force", "none"))
		return
	}
	after, ctx, cancel, ok := poll(w, r)
	if !ok {
		return
	}
	defer cancel()
	peers := v.Peers(ctx, unit, after)
	if _, ok := v.caller(r); !ok { // meanwhile
		answer(w, http.StatusForbidden, refuse("enroll.expired", "an identity in force", "one that was taken back"))
		return
	}
	answer(w, http.StatusOK, peers)
}

// caller is the unit whose identity in force a request shows.
func (v *Verifier) caller(r *http.Request) (string, bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", false
	}
	leaf := r.TLS.PeerCertificates[0]
	unit, ok := strings.CutPrefix(leaf.Subject.CommonName, nodeUser(""))
	return unit, ok && v.holds(unit, fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)))
}

// poll reads ?after=N.
func poll(w http.ResponseWriter, r *http.Request) (after uint64, ctx context.Context, cancel context.CancelFunc, ok bool) {
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			http.Error(w, "after: want a number", http.StatusBadRequest)
			return 0, nil, nil, false
		}
	}
	ctx, cancel = context.WithTimeout(r.Context(), pollLimit)
	return after, ctx, cancel, true
}

// Handler is what this machine sees: the authorisation webhook of the API
// server and the standings of all units.
func (v *Verifier) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /authorize", v.authorize)
	mux.HandleFunc("GET /v1/units", func(w http.ResponseWriter, r *http.Request) {
		after, ctx, cancel, ok := poll(w, r)
		if !ok {
			return
		}
		defer cancel()
		units, version := v.Units(ctx, after)
		answer(w, http.StatusOK, map[string]any{"version": version, "units": units})
	})
	return mux
}

// review is the part of a SubjectAccessReview (Kubernetes,
// authorization.k8s.io/v1) that is needed here.
type review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		User  string              `json:"user"`
		Extra map[string][]string `json:"extra"`
	} `json:"spec"`
}

// credential is the key of Extra under which the API server says which client
// certificate a request came with: "X509SHA256=" and hexadecimal.
const credential = "authentication.kubernetes.io/credential-id"

// authorize denies nodes whose identity is not in force, and has no opinion on
// anybody else: it takes away and never gives.
func (v *Verifier) authorize(w http.ResponseWriter, r *http.Request) {
	var q review
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&q); err != nil {
		http.Error(w, "want a SubjectAccessReview", http.StatusBadRequest)
		return
	}
	status := map[string]any{"allowed": false}
	if unit, ok := strings.CutPrefix(q.Spec.User, nodeUser("")); ok {
		certificates := []string{""}
		for key, values := range q.Spec.Extra {
			if strings.EqualFold(key, credential) && len(values) > 0 {
				certificates = values
			}
		}
		for _, c := range certificates {
			if !v.holds(unit, strings.ToLower(strings.TrimPrefix(c, "X509SHA256="))) {
				status["denied"], status["reason"] = true, "unit "+shorten(unit)+" has no identity in force: racklet trust"
			}
		}
	}
	answer(w, http.StatusOK, map[string]any{"apiVersion": q.APIVersion, "kind": q.Kind, "status": status})
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // who went away misses it
}

// strictJSON decodes one value without unknown fields or trailing bytes.
func strictJSON(r io.Reader, into any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more bytes after the value")
	}
	return nil
}

func derOf(b []byte) []byte {
	block, _ := pem.Decode(bytes.TrimSpace(b))
	if block == nil {
		return nil
	}
	return block.Bytes
}
