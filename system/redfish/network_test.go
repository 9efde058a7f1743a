package redfish_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/redfish"
	"github.com/racklet/racklet/system/redfish/access"
)

const password = "correct horse battery"

// network is a service that listens by TLS, and its owner's handler.
type network struct {
	*testing.T
	service *redfish.Service
	rack    *cable
	owner   http.Handler
	address string
	client  *http.Client
	stop    func()
}

// listen starts a service on a state directory.
func listen(t *testing.T, dir string, r *cable) *network {
	t.Helper()
	if r == nil {
		r = newCable(t)
	}
	o := description(1, "Off")
	o.Rack.Spec.Mirrors = []rack.Mirror{{URL: "https://127.0.0.1:1", TLSPins: []string{"sha256//" + strings.Repeat("A", 43) + "="}}}
	o.Switch = switchPorts
	o.Line, o.Dir, o.PasswordCost = r.Line(), dir, access.Cost{Time: 1, Memory: 8}
	s, err := redfish.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- s.ServeTLS(ctx, l) }()
	n := &network{T: t, rack: r, service: s, owner: s.Local("owner"), address: l.Addr().String()}
	n.client = n.dial(&tls.Config{InsecureSkipVerify: true})
	n.stop = sync.OnceFunc(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	t.Cleanup(n.stop)
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		w := n.own("GET", "/redfish/v1/Systems/unit-1", "")
		if strings.Contains(w.Body.String(), `"StandbyOffline"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the BMC does not answer: %s", w.Body)
		}
	}
	return n
}

func (n *network) dial(c *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	n.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: wait}
}

// own asks as the owner over the private socket.
func (n *network) own(method, path, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.owner.ServeHTTP(w, req)
	return w
}

func (n *network) do(c *http.Client, method, path, body string, header ...string) (*http.Response, []byte) {
	n.Helper()
	req, err := http.NewRequest(method, "https://"+n.address+path, strings.NewReader(body))
	if err != nil {
		n.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		n.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.Fatal(err)
	}
	return resp, b
}

func (n *network) account(name string, role access.Role) {
	n.Helper()
	if w := n.own("POST", "/redfish/v1/AccountService/Accounts", fmt.Sprintf(`{"UserName":%q,"Password":%q,"RoleId":%q}`, name, password, role)); w.Code != 201 {
		n.Fatalf("account %s: %d %s", name, w.Code, w.Body)
	}
}

// login opens a session and returns its token and URI.
func (n *network) login(name, password string) (token, uri string) {
	n.Helper()
	resp, b := n.do(n.client, "POST", "/redfish/v1/SessionService/Sessions", fmt.Sprintf(`{"UserName":%q,"Password":%q}`, name, password))
	if resp.StatusCode != 201 {
		n.Fatalf("login %s: %d %s", name, resp.StatusCode, b)
	}
	return resp.Header.Get("X-Auth-Token"), resp.Header.Get("Location")
}

// TestPrivileges walks every form of URI, every method and every role, and holds the answer
// against the registry that the service serves.
func TestPrivileges(t *testing.T) {
	n := listen(t, "", nil)
	routes, forms := n.service.Routes(), redfish.Forms()
	known := map[string]bool{}
	for _, r := range routes {
		known[r.Form] = true
		if forms[r.Form] == "" {
			t.Errorf("%s has no entry in the table of privileges", r.Form)
		}
	}
	for form := range forms {
		if !known[form] {
			t.Errorf("%s is in the table of privileges and nowhere else", form)
		}
	}
	var registry struct {
		Mappings []struct {
			Entity            string
			OperationMap      map[string][]struct{ Privilege []string }
			PropertyOverrides []struct{ Targets []string }
		}
	}
	w := n.own("GET", "/redfish/v1/Registries/PrivilegeRegistry/Racklet_1.0.0_PrivilegeRegistry.json", "")
	if err := json.Unmarshal(w.Body.Bytes(), &registry); err != nil || len(registry.Mappings) < 30 {
		t.Fatalf("registry: %v %s", err, w.Body)
	}
	need := map[string]map[string][]string{} // entity, method: privileges, one of which suffices
	for _, m := range registry.Mappings {
		need[m.Entity] = map[string][]string{}
		for method, alternatives := range m.OperationMap {
			for _, a := range alternatives {
				if len(a.Privilege) != 1 {
					t.Errorf("%s %s: %v", m.Entity, method, a)
					continue
				}
				need[m.Entity][method] = append(need[m.Entity][method], a.Privilege[0])
			}
			if len(alternatives) == 0 {
				t.Errorf("%s %s: nobody", m.Entity, method)
			}
		}
	}
	// What roles have, said once more: a change of one side is noticed.
	has := map[string][]string{
		"":              {"NoAuth"},
		"ReadOnly":      {"NoAuth", "Login"},
		"Operator":      {"NoAuth", "Login", "ConfigureComponents"},
		"Administrator": {"NoAuth", "Login", "ConfigureComponents", "ConfigureManager", "ConfigureUsers"},
	}
	tokens := map[string]string{}
	for role := range has {
		if role != "" {
			n.account("x"+role, access.Role(role))
			tokens[role], _ = n.login("x"+role, password)
		}
	}
	checked := 0
	for _, r := range routes {
		path := r.Form
		for _, known := range [][2]string{{"Systems/*", "Systems/unit-1"}, {"Chassis/*", "Chassis/tray-1"}, {"ComponentIntegrity/*", "ComponentIntegrity/bmc-1"}} {
			path = strings.ReplaceAll(path, known[0], known[1])
		}
		path = strings.ReplaceAll(path, "*", "nobody")
		for _, method := range []string{"GET", "HEAD", "PATCH", "POST", "PUT", "DELETE"} {
			for role, have := range has {
				if strings.HasSuffix(path, "/SSE") && method == "GET" && role != "" {
					continue // it would not end
				}
				var header []string
				if role != "" {
					header = []string{"X-Auth-Token", tokens[role]}
				}
				body := ""
				if method == "PATCH" || method == "POST" {
					body = `{"Invented":1}`
				}
				resp, b := n.do(n.client, method, path, body, header...)
				needed := need[forms[r.Form]][method]
				allowed := slices.ContainsFunc(needed, func(p string) bool { return slices.Contains(have, p) })
				want := "other"
				switch {
				case role == "" && !slices.Contains(needed, "NoAuth"):
					want = "401"
				case !slices.Contains(r.Methods, method):
					want = "405"
				case !allowed:
					want = "403"
				}
				got := fmt.Sprint(resp.StatusCode)
				if want == "other" && got != "401" && got != "403" && got != "405" || want == got {
					checked++
					if (got == "401") != (resp.Header.Get("WWW-Authenticate") != "") {
						t.Errorf("%s %s as %q: WWW-Authenticate %q", method, path, role, resp.Header.Get("WWW-Authenticate"))
					}
					continue
				}
				t.Errorf("%s %s as %q (%s needs %v): %s, want %s: %s", method, path, role, forms[r.Form], needed, got, want, b)
			}
		}
	}
	if checked < 1500 {
		t.Errorf("only %d combinations", checked)
	}
	// Negative controls: what the table does not know is refused to everybody, the owner too.
	n.service.AddUnlisted("/redfish/v1/Unlisted")
	if resp, b := n.do(n.client, "GET", "/redfish/v1/Unlisted", "", "X-Auth-Token", tokens["Administrator"]); resp.StatusCode != 403 {
		t.Errorf("unlisted: %d %s", resp.StatusCode, b)
	}
	if w := n.own("GET", "/redfish/v1/Unlisted", ""); w.Code != 403 {
		t.Errorf("unlisted, the owner: %d", w.Code)
	}
	// A stranger does not learn what there is, and expands nothing.
	if resp, _ := n.do(n.client, "GET", "/redfish/v1/Invented", ""); resp.StatusCode != 401 {
		t.Errorf("invented: %d", resp.StatusCode)
	}
	for _, q := range []string{".", "*", "~"} {
		resp, b := n.do(n.client, "GET", "/redfish/v1?$expand="+q, "")
		if resp.StatusCode != 200 || strings.Contains(string(b), "unit-1") || strings.Contains(string(b), "xOperator") {
			t.Errorf("$expand=%s without a login: %d %s", q, resp.StatusCode, b)
		}
	}
	if _, b := n.do(n.client, "GET", "/redfish/v1/AccountService/Accounts?$expand=.", "", "X-Auth-Token", tokens["ReadOnly"]); strings.Count(string(b), `"RoleId"`) != 1 {
		t.Errorf("ReadOnly sees accounts of others: %s", b)
	}
	// One's own account and session, and not more.
	_, own := n.login("xReadOnly", password)
	_, others := n.login("xOperator", password)
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/redfish/v1/AccountService/Accounts/xReadOnly", "", 200},
		{"GET", "/redfish/v1/AccountService/Accounts/xOperator", "", 403},
		{"PATCH", "/redfish/v1/AccountService/Accounts/xOperator", `{"Password":"another password"}`, 403},
		{"PATCH", "/redfish/v1/AccountService/Accounts/xReadOnly", `{"RoleId":"Administrator"}`, 403},
		{"PATCH", "/redfish/v1/AccountService/Accounts/xReadOnly", `{"Password":"another password","RoleId":"Administrator"}`, 403},
		{"DELETE", "/redfish/v1/AccountService/Accounts/xReadOnly", "", 403},
		{"POST", "/redfish/v1/AccountService/Accounts/xReadOnly/Certificates", "{}", 403},
		{"GET", own, "", 200}, {"GET", others, "", 403}, {"DELETE", others, "", 403}, {"DELETE", own, "", 204},
		{"PATCH", "/redfish/v1/AccountService/Accounts/xReadOnly", `{"Password":"another fine one"}`, 200},
		{"GET", "/redfish/v1/AccountService/Accounts/xReadOnly", "", 200}, // the session that changed it goes on
	} {
		if resp, b := n.do(n.client, c.method, c.path, c.body, "X-Auth-Token", tokens["ReadOnly"]); resp.StatusCode != c.want {
			t.Errorf("ReadOnly: %s %s %s: %d, want %d: %s", c.method, c.path, c.body, resp.StatusCode, c.want, b)
		}
	}
}

// TestGofishTLS drives the service over the network with a client that others wrote.
func TestGofishTLS(t *testing.T) {
	n := listen(t, t.TempDir(), nil)
	n.account("ada", access.Administrator)
	for _, basic := range []bool{false, true} {
		c, err := gofish.Connect(gofish.ClientConfig{Endpoint: "https://" + n.address, Username: "ada", Password: password, HTTPClient: n.client, BasicAuth: basic})
		if err != nil {
			t.Fatal(err)
		}
		systems, err := c.Service.Systems()
		if err != nil || len(systems) != 1 {
			t.Fatalf("%d systems: %v", len(systems), err)
		}
		if _, err := systems[0].Reset(schemas.PowerCycleResetType); err != nil {
			t.Error(err)
		}
		accounts, err := c.Service.AccountService()
		if err != nil {
			t.Fatal(err)
		}
		if all, err := accounts.Accounts(); err != nil || len(all) != 1 || all[0].UserName != "ada" || all[0].Locked {
			t.Errorf("accounts: %v %v", all, err)
		}
		if w := n.own("GET", "/redfish/v1/SessionService/Sessions", ""); strings.Contains(w.Body.String(), `"Members":[]`) != basic {
			t.Errorf("basic %t: sessions %s", basic, w.Body)
		}
		c.Logout()
	}
	if w := n.own("GET", "/redfish/v1/SessionService/Sessions", ""); !strings.Contains(w.Body.String(), `"Members":[]`) {
		t.Errorf("after logging out: %s", w.Body)
	}
	if _, err := gofish.Connect(gofish.ClientConfig{Endpoint: "https://" + n.address, Username: "ada", Password: "wrong", HTTPClient: n.client}); err == nil {
		t.Error("logged in with a wrong password")
	}
}

// auditLog is what the log says: who method target status.
func (n *network) auditLog() (lines []string) {
	n.Helper()
	var v struct {
		Members []struct {
			Oem struct {
				Racklet struct {
					Who, Role, How, From, Method, Target, What, Result string
					StatusCode                                         int
				}
			}
		}
	}
	if err := json.Unmarshal(n.own("GET", "/redfish/v1/Managers/api/LogServices/Audit/Entries", "").Body.Bytes(), &v); err != nil {
		n.Fatal(err)
	}
	for _, m := range v.Members {
		o := m.Oem.Racklet
		if o.From == "" {
			n.Errorf("an entry without an address: %+v", o)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s %d %s", o.Who, o.How, o.Method, strings.TrimPrefix(o.Target, "/redfish/v1/"), o.StatusCode, o.What))
	}
	return lines
}

// TestRestart holds that what was acknowledged is there after the service was started again.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	r := newCable(t)
	n := listen(t, dir, r)
	n.account("ada", access.Administrator)
	token, _ := n.login("ada", password)
	n.do(n.client, "POST", "/redfish/v1/SessionService/Sessions", `{"UserName":"ada","Password":"not this one"}`)
	n.do(n.client, "PATCH", "/redfish/v1/Systems/unit-1", `{"LocationIndicatorActive":true}`)
	n.do(n.client, "PATCH", "/redfish/v1/Systems/unit-1", `{"LocationIndicatorActive":true}`, "X-Auth-Token", token)
	n.do(n.client, "PATCH", "/redfish/v1/SessionService", `{"SessionTimeout":77}`, "X-Auth-Token", token)
	want := []string{
		`owner local POST AccountService/Accounts 201 {"Password":"***","RoleId":"Administrator","UserName":"ada"}`,
		`ada session POST SessionService/Sessions 201 {"Password":"***","UserName":"ada"}`,
		`ada none POST SessionService/Sessions 401 {"Password":"***","UserName":"ada"}`,
		` none PATCH Systems/unit-1 401 `,
		`ada session PATCH Systems/unit-1 200 {"LocationIndicatorActive":true}`,
		`ada session PATCH SessionService 200 {"SessionTimeout":77}`,
	}
	if got := n.auditLog(); !slices.Equal(got, want) {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	pin := pinAt(t, n.address)
	n.stop()
	n = listen(t, dir, r)
	if got := n.auditLog(); !slices.Equal(got, want) {
		t.Errorf("after the restart the log has\n%s", strings.Join(got, "\n"))
	}
	if resp, _ := n.do(n.client, "GET", "/redfish/v1/Systems", "", "X-Auth-Token", token); resp.StatusCode != 401 {
		t.Errorf("a session of another life: %d", resp.StatusCode)
	}
	n.login("ada", password)
	if w := n.own("GET", "/redfish/v1/SessionService", ""); !strings.Contains(w.Body.String(), `"SessionTimeout":77`) {
		t.Errorf("the timeout is forgotten: %s", w.Body)
	}
	if again := pinAt(t, n.address); again != pin {
		t.Error("another key")
	}
}

func pinAt(t *testing.T, address string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v := c.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("TLS version %x", v)
	}
	return string(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
}

// TestCertificate has the service's certificate signed by an authority and replaced, while a connection lasts.
func TestCertificate(t *testing.T) {
	n := listen(t, t.TempDir(), nil)
	n.account("ada", access.Administrator)
	token, _ := n.login("ada", password)
	const service = "/redfish/v1/CertificateService/Actions/CertificateService."
	const collection = "/redfish/v1/Managers/api/NetworkProtocol/HTTPS/Certificates"
	resp, b := n.do(n.client, "POST", service+"GenerateCSR", `{"CommonName":"rack.example","AlternativeNames":["rack.example","127.0.0.1"],"KeyPairAlgorithm":"TPM_ALG_ECDSA","CertificateCollection":{"@odata.id":"`+collection+`"}}`, "X-Auth-Token", token)
	var v struct{ CSRString string }
	if err := json.Unmarshal(b, &v); err != nil || resp.StatusCode != 200 {
		t.Fatalf("CSR: %d %s", resp.StatusCode, b)
	}
	block, _ := pem.Decode([]byte(v.CSRString))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil || csr.Subject.CommonName != "rack.example" {
		t.Fatalf("CSR %v: %v", csr, err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, _ := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	ca, _ = x509.ParseCertificate(caDER)
	issue := func(public any, until time.Time) string {
		t.Helper()
		c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, NotBefore: now.Add(-time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, public, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	replace := func(text string) int {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"CertificateString": text, "CertificateType": "PEM", "CertificateUri": map[string]string{"@odata.id": collection + "/1"}})
		resp, _ := n.do(n.client, "POST", service+"ReplaceCertificate", string(body), "X-Auth-Token", token)
		return resp.StatusCode
	}
	before := pinAt(t, n.address)
	for name, text := range map[string]string{"nothing": "", "another key": issue(key.Public(), now.Add(time.Hour)), "expired": issue(csr.PublicKey, now.Add(-time.Minute)),
		"junk": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "an authority of another": issue(csr.PublicKey, now.Add(time.Hour)) + issue(csr.PublicKey, now.Add(time.Hour))} {
		if got := replace(text); got != 400 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if pinAt(t, n.address) != before {
		t.Fatal("a refused certificate is in force")
	}
	// A stream that began before goes on after.
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+n.address+"/redfish/v1/EventService/SSE", nil)
	req.Header.Set("X-Auth-Token", token)
	stream, err := n.dial(&tls.Config{InsecureSkipVerify: true}).Transport.RoundTrip(req)
	if err != nil || stream.StatusCode != 200 {
		t.Fatal(stream, err)
	}
	defer stream.Body.Close()
	if got := replace(issue(csr.PublicKey, now.Add(time.Hour))); got != 204 {
		t.Fatalf("replace: %d", got)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if resp, _ := n.do(n.dial(&tls.Config{RootCAs: roots}), "GET", "/redfish/v1/", ""); resp.StatusCode != 200 {
		t.Errorf("by the new certificate: %d", resp.StatusCode)
	}
	n.own("POST", "/redfish/v1/EventService/Actions/EventService.SubmitTestEvent", `{"Message":"still here"}`)
	for lines := bufio.NewScanner(stream.Body); ; {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		if strings.Contains(lines.Text(), "still here") {
			break
		}
	}
}

// clientCertificate makes a key and a certificate for it.
func clientCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bot"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// certificate adds a client certificate to an account; where is its URI.
func (n *network) certificate(name string) (made tls.Certificate, where string) {
	n.Helper()
	made = clientCertificate(n.T)
	body, _ := json.Marshal(map[string]string{"CertificateType": "PEM", "CertificateString": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]}))})
	w := n.own("POST", "/redfish/v1/AccountService/Accounts/"+name+"/Certificates", string(body))
	if w.Code != 201 {
		n.Fatalf("%d %s", w.Code, w.Body)
	}
	return made, w.Header().Get("Location")
}

// TestClientCertificate logs in by mutual TLS.
func TestClientCertificate(t *testing.T) {
	n := listen(t, t.TempDir(), nil)
	n.account("bot", access.Operator)
	mine, where := n.certificate("bot")
	other := clientCertificate(t)
	c := n.dial(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{mine}})
	get := func(c *http.Client, path string) int { resp, _ := n.do(c, "GET", path, ""); return resp.StatusCode }
	if got := get(c, "/redfish/v1/Systems"); got != 200 {
		t.Errorf("by certificate: %d", got)
	}
	if got := get(c, "/redfish/v1/Managers/api/LogServices/Audit"); got != 403 {
		t.Errorf("an operator reads the audit log: %d", got)
	}
	if got := get(n.dial(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{other}}), "/redfish/v1/Systems"); got != 401 {
		t.Errorf("by another certificate of that name: %d", got)
	}
	n.own("DELETE", where, "")
	if got := get(c, "/redfish/v1/Systems"); got != 401 { // over the connection that is open
		t.Errorf("taken away: %d", got)
	}
}

// sink takes events as a subscriber does.
type sink struct {
	mu     sync.Mutex
	got    []string
	header http.Header
	fail   int // that many answers are errors
}

func (k *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != 0 {
		k.fail--
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	var e struct {
		Context string
		Events  []struct{ Message string }
	}
	json.NewDecoder(r.Body).Decode(&e)
	k.header = r.Header
	for _, x := range e.Events {
		k.got = append(k.got, e.Context+" "+x.Message)
	}
}

func (k *sink) has(want string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	count := 0
	for _, g := range k.got {
		if g == want {
			count++
		}
	}
	return count
}

// TestSubscription posts events, tries again, and after a restart sends what came meanwhile, once.
func TestSubscription(t *testing.T) {
	dir := t.TempDir()
	r := newCable(t)
	n := listen(t, dir, r)
	k := &sink{}
	plain, secure := httptest.NewServer(k), httptest.NewUnstartedServer(k)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()
	subscribe := func(body string) *httptest.ResponseRecorder {
		return n.own("POST", "/redfish/v1/EventService/Subscriptions", body)
	}
	for body, want := range map[string]int{
		`{}`: 400, `{"Destination":"https://x.example"}`: 400, `{"Destination":"http://192.0.2.1/","Protocol":"Redfish"}`: 400,
		`{"Destination":"ftp://127.0.0.1/","Protocol":"Redfish"}`: 400, `{"Destination":"https://a:b@x.example/","Protocol":"Redfish"}`: 400,
		`{"Destination":"https://x.example","Protocol":"Redfish","VerifyCertificate":false}`:               400,
		`{"Destination":"https://x.example","Protocol":"Redfish","HttpHeaders":[{"Host":"other"}]}`:        400,
		`{"Destination":"https://x.example","Protocol":"Redfish","HttpHeaders":[{"X":"a\r\nY: b"}]}`:       400,
		`{"Destination":"https://x.example","Protocol":"Redfish","Severities":["Loud"]}`:                   400,
		`{"Destination":"` + plain.URL + `/","Protocol":"Redfish","Context":"w","Severities":["Warning"]}`: 201,
	} {
		if w := subscribe(body); w.Code != want {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	n.own("PATCH", "/redfish/v1/EventService", `{"DeliveryRetryIntervalSeconds":1}`)
	k.fail = 2
	w := subscribe(`{"Destination":"` + plain.URL + `/all","Protocol":"Redfish","Context":"all","HttpHeaders":[{"X-Secret":"s3cret"}],"DeliveryRetryPolicy":"RetryForever"}`)
	if w.Code != 201 || strings.Contains(w.Body.String(), "s3cret") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	until := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(wait); !f(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				k.mu.Lock()
				t.Fatalf("timed out: %s; have %q", what, k.got)
			}
		}
	}
	r.BMCs[1].Record(wire.EventThermal, 0, "cool", wire.Failure{})
	r.BMCs[1].Record(wire.EventThermal, 1, "warm", wire.Failure{})
	until("the events come after errors", func() bool { return k.has("all cool") == 1 && k.has("all warm") == 1 && k.has("w warm") == 1 })
	if k.has("w cool") != 0 || k.header.Get("Content-Type") == "" {
		t.Errorf("the filter lets through %q", k.got)
	}
	// Its own key is trusted when it is pinned, and not else.
	leaf := secure.Certificate()
	sum := pinText(leaf)
	subscribe(`{"Destination":"` + secure.URL + `","Protocol":"Redfish","Context":"pinned","Oem":{"Racklet":{"TLSPins":["` + sum + `"]}}}`)
	subscribe(`{"Destination":"` + secure.URL + `","Protocol":"Redfish","Context":"unpinned"}`)
	n.own("POST", "/redfish/v1/EventService/Actions/EventService.SubmitTestEvent", `{"Message":"test"}`)
	until("the test arrives", func() bool { return k.has("all test") == 1 && k.has("w test") == 1 && k.has("pinned test") == 1 })
	if k.has("unpinned test") != 0 {
		t.Error("delivered to an unknown certificate")
	}
	n.stop()
	r.BMCs[1].Record(wire.EventThermal, 1, "while away", wire.Failure{})
	n = listen(t, dir, r)
	until("what came meanwhile", func() bool { return k.has("all while away") == 1 })
	r.BMCs[1].Record(wire.EventThermal, 1, "after", wire.Failure{})
	until("what comes after", func() bool { return k.has("all after") == 1 && k.has("w after") == 1 })
	for _, once := range []string{"all cool", "all warm", "w warm", "all while away", "w while away"} {
		if got := k.has(once); got != 1 {
			t.Errorf("%q came %d times", once, got)
		}
	}
	if n.own("DELETE", "/redfish/v1/EventService/Subscriptions/1", "").Code != 204 || n.own("GET", "/redfish/v1/EventService/Subscriptions/1", "").Code != 404 {
		t.Error("not deleted")
	}
}

// TestWaste: idle and slow connections keep nobody out, plain HTTP is refused, and so are huge headers.
func TestWaste(t *testing.T) {
	n := listen(t, "", nil)
	var conns []net.Conn
	for range 400 {
		c, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	if resp, _ := n.do(n.client, "GET", "/redfish/v1/", ""); resp.StatusCode != 200 {
		t.Errorf("beside idle connections: %d", resp.StatusCode)
	}
	conns[0].SetReadDeadline(time.Now().Add(wait))
	if _, err := conns[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest idle connection is kept: %v", err)
	}
	resp, err := http.Get("http://" + n.address + "/redfish/v1/")
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("plain HTTP: %v %v", resp, err)
	}
	if resp, _ := n.do(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}, "GET", "/redfish/v1/", "", "X-Long", strings.Repeat("x", 64<<10)); resp.StatusCode != 431 {
		t.Errorf("huge headers: %d", resp.StatusCode)
	}
	if _, err := tls.Dial("tcp", n.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 without leave")
	}
	// A page of another origin cannot use what the browser knows.
	n.account("ada", access.Administrator)
	req, _ := http.NewRequest("POST", "https://"+n.address+"/redfish/v1/Systems/unit-1/Actions/ComputerSystem.Reset", bytes.NewReader(nil))
	req.SetBasicAuth("ada", password)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if resp, err := n.client.Do(req); err != nil || resp.StatusCode/100 != 4 || resp.StatusCode == 400 {
		t.Errorf("cross-site: %v %v", resp, err)
	}
}

func pinText(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}
