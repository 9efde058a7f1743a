package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A ca makes certificates for the tests.
type ca struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *ca {
	c := &ca{t: t}
	c.cert, c.key = c.make(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "test"}}, nil)
	return c
}

func (c *ca) make(template *x509.Certificate, by *ca) (*x509.Certificate, *ecdsa.PrivateKey) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert, key
}

func (c *ca) client(groups ...string) tls.Certificate {
	cert, key := c.make(&x509.Certificate{Subject: pkix.Name{CommonName: "somebody", Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, c)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (c *ca) identity(dir string) {
	c.t.Helper()
	cert, key := c.make(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, c)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.crt": {Type: "CERTIFICATE", Bytes: c.cert.Raw}, "serving.crt": {Type: "CERTIFICATE", Bytes: cert.Raw}, "serving.key": {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestInspectWho: operators are let in, and nobody else, whoever signed for them.
func TestInspectWho(t *testing.T) {
	authority, stranger := newCA(t), newCA(t)
	dir := t.TempDir()
	authority.identity(dir)
	s := httptest.NewUnstartedServer(inspect(t.TempDir(), "/proc", "/dev/null"))
	s.Config.ErrorLog = nil
	l := tls.NewListener(s.Listener, inspectTLS(dir))
	go http.Serve(l, s.Config.Handler)
	defer l.Close()
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	ask := func(certs []tls.Certificate, most uint16) error {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs, MaxVersion: most}}}
		res, err := c.Get("https://" + s.Listener.Addr().String() + "/v1/logs")
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for name, c := range map[string]struct {
		certs []tls.Certificate
		most  uint16
		in    bool
	}{
		"an administrator": {[]tls.Certificate{authority.client("racklet:administrators")}, 0, true},
		"a viewer":         {[]tls.Certificate{authority.client("x", "racklet:viewers")}, 0, true},
		"a unit":           {[]tls.Certificate{authority.client("system:nodes")}, 0, false},
		"nobody's group":   {[]tls.Certificate{authority.client()}, 0, false},
		"another rack's":   {[]tls.Certificate{stranger.client("racklet:administrators")}, 0, false},
		"no certificate":   {nil, 0, false},
		"TLS 1.2":          {[]tls.Certificate{authority.client("racklet:administrators")}, tls.VersionTLS12, false},
	} {
		if err := ask(c.certs, c.most); (err == nil) != c.in {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInspectFiles: the logs can be read, and nothing beside them.
func TestInspectFiles(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "log")
	if err := os.MkdirAll(filepath.Join(logs, "pods"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"secret": "secret", "log/kubelet.log": "first\nlast\n", "log/pods/0.log": "pod"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(logs, "link")); err != nil {
		t.Fatal(err)
	}
	h := inspect(logs, "/proc", "/dev/null")
	get := func(method, target string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, "http://unit/", nil)
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?")
		h.ServeHTTP(w, r)
		b, _ := io.ReadAll(w.Result().Body)
		return w.Code, string(b)
	}
	for target, want := range map[string]string{
		"/v1/logs/kubelet.log": "first\nlast\n", "/v1/logs/kubelet.log?tail=5": "last\n", "/v1/logs/kubelet.log?tail=500": "first\nlast\n",
		"/v1/logs/kubelet.log?tail=0": "", "/v1/logs/pods/0.log": "pod",
	} {
		if code, text := get("GET", target); code != http.StatusOK || text != want {
			t.Errorf("%s: %d %q", target, code, text)
		}
	}
	for _, target := range []string{"/v1/logs/../secret", "/v1/logs/link", "/v1/logs/pods", "/v1/logs/", "/v1/logs/none", "/v1/logs//etc/passwd", "/v1/logs/kubelet.log?tail=-1", "/v1/logs/kubelet.log?tail=x", "/", "/etc/passwd"} {
		if code, text := get("GET", target); code == http.StatusOK || strings.Contains(text, "secret\n") || text == "secret" {
			t.Errorf("%s: %d %q", target, code, text)
		}
	}
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH"} {
		if code, _ := get(method, "/v1/logs/kubelet.log"); code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, code)
		}
	}
	var list []LogInfo
	if _, text := get("GET", "/v1/logs"); json.Unmarshal([]byte(text), &list) != nil || len(list) != 2 {
		t.Errorf("list %+v", list)
	}
}

func TestProcesses(t *testing.T) {
	proc := t.TempDir()
	stat := "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1 1000000 256 18446744073709551615 1 1 0"
	if err := os.MkdirAll(filepath.Join(proc, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"stat": stat, "cmdline": "/usr/bin/a\x00--b\x00", "cgroup": "0::/racklet/a\n"} {
		if err := os.WriteFile(filepath.Join(proc, "7", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := listProcesses(proc)
	if want := (ProcessInfo{PID: 7, Parent: 1, Name: "a (b) c", State: "S", CPUSeconds: 2, ResidentKiB: 1024, Group: "/racklet/a", Command: "/usr/bin/a --b"}); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("7 (a) S 1")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseStat(s) })
}
