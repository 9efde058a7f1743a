package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/racktest"
)

// A nodeAuthority certifies nodes, as the verifier does.
type nodeAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newNodeAuthority(t *testing.T) *nodeAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nodes"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nodes.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &nodeAuthority{c, key, file}
}

// node is the identity of a unit.
func (a *nodeAuthority) node(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A testCluster is a control plane that runs.
type testCluster struct {
	*Server
	t *testing.T
}

// do asks the API server as whoever has the certificate, or as nobody.
func (c *testCluster) do(who *tls.Certificate, method, path, body string) (int, string) {
	c.t.Helper()
	roots := x509.NewCertPool()
	b, err := os.ReadFile(c.keys().Path("ca.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	roots.AppendCertsFromPEM(b)
	conf := &tls.Config{RootCAs: roots}
	if who != nil {
		conf.Certificates = []tls.Certificate{*who}
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	req, err := http.NewRequest(method, "https://"+c.local.String()+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	out, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(out)
}

func (c *testCluster) role(name string) *tls.Certificate {
	c.t.Helper()
	pair, err := tls.LoadX509KeyPair(c.keys().Path(name), c.keys().Path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return &pair
}

func (c *testCluster) component(name string) ComponentStatus {
	for _, one := range c.all {
		if one.name == name {
			return one.snapshot()
		}
	}
	c.t.Fatalf("no component %s", name)
	return ComponentStatus{}
}

func (c *testCluster) ready() bool {
	for _, one := range c.all {
		if one.snapshot().State != "ready" {
			return false
		}
	}
	return true
}

// TestServer runs the real program: one control plane for all that can be seen without nodes.
func TestServer(t *testing.T) {
	program, err := filepath.Abs("../../../bin/racklet-kube")
	if err != nil {
		t.Fatal(err)
	}
	program = racktest.Tool(t, program)
	nodes := newNodeAuthority(t)
	sockets, err := os.MkdirTemp("", "kube") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	s := &Server{Log: io.Discard, Version: "test", Config: Config{
		Program: program, Dir: t.TempDir(), Sockets: sockets, NodeCA: nodes.file, Advertise: netip.MustParseAddrPort("10.78.0.254:6443"),
		PodRanges: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, Services: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			b, _ := os.ReadFile(s.path("log", "apiserver.log"))
			t.Logf("%s", b[max(0, len(b)-4000):])
		}
	})
	c := &testCluster{s, t}
	slow := time.Now().Add(5 * time.Minute)
	for !c.statusReady() {
		if time.Now().After(slow) {
			t.Fatal("not ready")
		}
		time.Sleep(100 * time.Millisecond)
	}
	admin, viewer, operator := c.role("administrator"), c.role("viewer"), c.role("operator")
	// The roles view and edit are put together by a controller.
	eventually(t, "roles are there", func() bool {
		nodes, _ := c.do(operator, "GET", "/api/v1/nodes", "")
		pods, _ := c.do(viewer, "GET", "/api/v1/pods", "")
		return nodes == 200 && pods == 200
	})

	t.Run("nobody", func(t *testing.T) {
		for _, path := range []string{"/api/v1/nodes", "/version", "/readyz", "/openapi/v3"} {
			if code, body := c.do(nil, "GET", path, ""); code != http.StatusUnauthorized {
				t.Errorf("%s without a certificate: %d %s", path, code, body)
			}
		}
	})
	t.Run("roles", func(t *testing.T) {
		for _, r := range []struct {
			who          *tls.Certificate
			method, path string
			want         int
		}{
			{admin, "GET", "/api/v1/secrets", 200}, {viewer, "GET", "/api/v1/secrets", 403}, {viewer, "GET", "/api/v1/pods", 200},
			{operator, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", 403}, {operator, "GET", "/api/v1/nodes", 200},
			{viewer, "DELETE", "/api/v1/nodes/unit-1", 403}, {operator, "DELETE", "/api/v1/nodes/unit-1", 403},
		} {
			if code, body := c.do(r.who, r.method, r.path, ""); code != r.want {
				t.Errorf("%s %s: %d, want %d: %s", r.method, r.path, code, r.want, body)
			}
		}
	})
	const canary = "canary-of-the-secret-4711"
	t.Run("secrets are encrypted at rest", func(t *testing.T) {
		code, body := c.do(admin, "POST", "/api/v1/namespaces/default/secrets", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"`+canary+`"}}`)
		if code != 201 {
			t.Fatalf("%d %s", code, body)
		}
		code, body = c.do(admin, "POST", "/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"plain-`+canary+`"}}`)
		if code != 201 {
			t.Fatalf("%d %s", code, body)
		}
		files, err := filepath.Glob(s.path("cluster.db*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%v, %v", files, err)
		}
		var all []byte
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		if !bytes.Contains(all, []byte("plain-"+canary)) {
			t.Error("the control, a ConfigMap, is not found in the database")
		}
		if n, plain := bytes.Count(all, []byte(canary)), bytes.Count(all, []byte("plain-"+canary)); n != plain {
			t.Error("the secret is in the database in plain")
		}
	})
	t.Run("pods are baseline", func(t *testing.T) {
		pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"x","securityContext":{"privileged":true}}]}}`
		eventually(t, "the service account is there", func() bool {
			code, _ := c.do(admin, "GET", "/api/v1/namespaces/default/serviceaccounts/default", "")
			return code == 200
		})
		if code, body := c.do(admin, "POST", "/api/v1/namespaces/default/pods", pod); code != 403 || !strings.Contains(body, "PodSecurity") {
			t.Errorf("a privileged pod: %d %s", code, body)
		}
		if code, body := c.do(admin, "POST", "/api/v1/namespaces/default/pods", strings.Replace(pod, "true", "false", 1)); code != 201 {
			t.Errorf("an ordinary pod: %d %s", code, body)
		}
	})
	t.Run("nodes see their own", func(t *testing.T) {
		node := nodes.node(t, "unit-1")
		if code, body := c.do(&node, "GET", "/api/v1/namespaces/default/secrets/s", ""); code != 403 {
			t.Errorf("a node reads a secret that no pod of it uses: %d %s", code, body)
		}
		if code, body := c.do(&node, "POST", "/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"unit-2"}}`); code != 403 {
			t.Errorf("a node registers as another: %d %s", code, body)
		}
		if code, body := c.do(&node, "POST", "/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"unit-1"}}`); code != 201 {
			t.Errorf("a node registers: %d %s", code, body)
		}
		stranger := newNodeAuthority(t).node(t, "unit-1")
		if code, body := c.do(&stranger, "GET", "/api/v1/nodes/unit-1", ""); code == 200 || code == 403 {
			t.Errorf("another authority's node: %d %s", code, body)
		}
	})
	t.Run("audit", func(t *testing.T) {
		eventually(t, "the log tells who made the secret", func() bool {
			f, err := os.Open(s.path("audit", "audit.log"))
			if err != nil {
				return false
			}
			defer f.Close()
			lines := bufio.NewScanner(f)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				if l := lines.Text(); strings.Contains(l, canary) {
					t.Fatal("the audit log holds the secret")
				} else if strings.Contains(l, `"resource":"secrets"`) && strings.Contains(l, `"verb":"create"`) && strings.Contains(l, `"username":"administrator"`) {
					return true
				}
			}
			return false
		})
	})
	t.Run("a component that dies", func(t *testing.T) {
		for _, name := range []string{"scheduler", "kine", "apiserver", "controller-manager"} {
			was := c.component(name)
			if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, name+" is back", func() bool { now := c.component(name); return now.Restarts > was.Restarts && c.ready() })
			if code, body := c.do(admin, "GET", "/api/v1/namespaces/default/configmaps/c", ""); code != 200 || !strings.Contains(body, canary) {
				t.Errorf("after %s: %d %s", name, code, body)
			}
		}
	})
}

// statusReady asks as the operator's command does.
func (c *testCluster) statusReady() bool {
	b, err := os.ReadFile(c.path("address"))
	if err != nil || len(b) == 0 {
		return false
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialUnix(filepath.Join(c.Sockets, "kubernetes.sock"))}}
	resp, err := client.Get("http://kubernetes/status")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, _ = io.ReadAll(resp.Body)
	return bytes.Contains(b, []byte(`"ready":true`))
}
