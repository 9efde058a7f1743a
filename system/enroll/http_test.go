package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/system/enroll/api"
	"github.com/racklet/racklet/system/enroll/enrolltest"
)

// review asks the webhook.
func (b *bench) review(user string, extra map[string][]string) (denied bool) {
	b.Helper()
	q := map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": map[string]any{"user": user, "extra": extra}}
	body, err := json.Marshal(q)
	if err != nil {
		b.Fatal(err)
	}
	w := httptest.NewRecorder()
	b.v.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/authorize", bytes.NewReader(body)))
	var a struct {
		Kind   string
		Status struct {
			Allowed, Denied bool
			Reason          string
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 || a.Kind != "SubjectAccessReview" {
		b.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if a.Status.Allowed {
		b.Error("the webhook allows something")
	}
	if a.Status.Denied == (a.Status.Reason == "") {
		b.Errorf("%+v", a.Status)
	}
	return a.Status.Denied
}

func TestAuthorize(t *testing.T) {
	b := newBench(t)
	_, old := b.admit("unit-1")
	id := func(i *api.Identity) map[string][]string {
		return map[string][]string{credential: {"X509SHA256=" + fingerprint([]byte(i.ClientCert))}}
	}
	expect := func(what, user string, extra map[string][]string, denied bool) {
		t.Helper()
		if got := b.review(user, extra); got != denied {
			t.Errorf("%s: denied %v", what, got)
		}
	}
	expect("admitted", "system:node:unit-1", id(old), false)
	expect("without a credential", "system:node:unit-1", nil, false)
	expect("an empty list", "system:node:unit-1", map[string][]string{credential: nil}, false)
	expect("not admitted", "system:node:unit-2", nil, true)
	expect("unknown", "system:node:unit-7", nil, true)
	expect("a person", "jane", nil, false)
	expect("another's certificate", "system:node:unit-1", map[string][]string{credential: {"X509SHA256=" + strings.Repeat("0", 64)}}, true)
	// The unit boots again: the identity of the earlier boot is worth nothing,
	// although its certificate lasts.
	b.rack.BMCs["unit-1"].Boot(of(b.v.refs.newest(), r1))
	_, fresh := b.admit("unit-1")
	expect("this boot's", "system:node:unit-1", id(fresh), false)
	expect("an earlier boot's", "system:node:unit-1", id(old), true)
	b.v.happened(happening{unit: "unit-1", kind: "reset"})
	expect("reset", "system:node:unit-1", id(fresh), true)
}

func TestRenewalKeepsTheOldCertificate(t *testing.T) {
	b := newBench(t)
	a, first := b.admit("unit-1")
	var ids []*api.Identity
	for range 2 {
		id, err := b.ask(a)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for i, want := range []bool{false, true, true} {
		id := append([]*api.Identity{first}, ids...)[i]
		if got := b.v.holds("unit-1", fingerprint([]byte(id.ClientCert))); got != want {
			t.Errorf("certificate %d: %v", i, got)
		}
	}
}

// TestServe: over TLS, as a unit does it.
func TestServe(t *testing.T) {
	b := newBench(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range b.v.units {
		u.Address = l.Addr().(*net.TCPAddr).AddrPort().Addr() // requests come from here
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.v.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	pins, err := ServingPins(b.dir)
	if err != nil || len(pins) != 2 || pins[0] == pins[1] {
		t.Fatalf("pins %v: %v", pins, err)
	}
	client := func(certs ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs,
			VerifyConnection: func(s tls.ConnectionState) error {
				sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
				if pin := "sha256//" + base64.StdEncoding.EncodeToString(sum[:]); pin != pins[0] || s.Version != tls.VersionTLS13 {
					return fmt.Errorf("pin %s, version %x", pin, s.Version)
				}
				return nil
			}}}}
	}
	call := func(c *http.Client, method, path string, body any) (int, []byte) {
		t.Helper()
		doc, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+l.Addr().String()+path, bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, out
	}
	refusal := func(check string, code int, body []byte) {
		t.Helper()
		var r api.Refusal
		if err := json.Unmarshal(body, &r); err != nil || code != 403 || r.Check != check {
			t.Errorf("%d %s, want %s", code, body, check)
		}
	}
	a := enrolltest.NewApplicant(t, "unit-1")
	code, body := call(client(), "POST", api.IdentityPath, a.Request)
	refusal("evidence.key", code, body)
	m := b.rack.BMCs["unit-1"]
	m.Change(func() { m.Register(trust.RegisterUnitKey).Set(a.Register) })
	code, body = call(client(), "POST", api.IdentityPath, a.Request)
	var id api.Identity
	if err := json.Unmarshal(body, &id); err != nil || code != 200 {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	code, body = call(client(), "POST", api.IdentityPath, map[string]string{"unit": "unit-1", "extra": "x"})
	refusal("enroll.request", code, body)
	code, body = call(client(), "POST", api.IdentityPath, map[string]string{"unit": strings.Repeat("x", api.MaxRequest)})
	refusal("enroll.request", code, body)
	forged := a.Request
	forged.Signature = slices.Clone(forged.Signature)
	forged.WireGuardKey = base64.StdEncoding.EncodeToString(make([]byte, 32))
	code, body = call(client(), "POST", api.IdentityPath, forged)
	refusal("enroll.request", code, body)

	code, body = call(client(), "GET", api.PeersPath, nil)
	refusal("enroll.expired", code, body)
	cert, err := tls.X509KeyPair([]byte(id.ClientCert), enrolltest.KeyPEM(a.Key))
	if err != nil {
		t.Fatal(err)
	}
	known := client(cert)
	code, body = call(known, "GET", api.PeersPath, nil)
	var p api.Peers
	if err := json.Unmarshal(body, &p); err != nil || code != 200 || len(p.Peers) != 1 {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	m.Change(func() { m.Silent = true })
	code, _ = call(client(), "POST", api.IdentityPath, a.Request)
	if code != http.StatusServiceUnavailable {
		t.Errorf("silent BMC: %d", code)
	}
	b.v.happened(happening{unit: "unit-1", kind: "rail", code: 0})
	code, body = call(known, "GET", api.PeersPath, nil)
	refusal("enroll.expired", code, body)
}

func FuzzRequest(f *testing.F) {
	a := enrolltest.NewApplicant(f, "unit-1")
	doc, err := json.Marshal(a.Request)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"unit":"unit-1","csr":"-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		req := new(api.IdentityRequest)
		if strictJSON(bytes.NewReader(doc), req) != nil {
			return
		}
		if key, sum, err := parseRequest(req); err == nil && (key == nil || sum == [32]byte{}) {
			t.Error("accepted without a key")
		}
	})
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"Events":[{"Oem":{"Racklet":{"Source":"unit-1","Kind":"reset","Code":1,"Slot":0}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, h := range parseEvent(data) {
			if h.kind == "" {
				t.Error("an event of no kind")
			}
		}
	})
}
