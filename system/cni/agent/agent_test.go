//go:build linux

package main

import (
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/racklet/racklet/system/cni/endpoint"
	"github.com/racklet/racklet/system/enroll/api"
)

func TestChanges(t *testing.T) {
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	peer := func(n byte, allowed string) api.Peer {
		return api.Peer{Unit: "u", PublicKey: base64.StdEncoding.EncodeToString(append(make([]byte, 31), n)), Endpoint: netip.MustParseAddrPort("10.77.0.12:51820"),
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix(allowed)}}
	}
	have := func(n byte, allowed string) wgtypes.Peer {
		_, network, err := net.ParseCIDR(allowed)
		if err != nil {
			t.Fatal(err)
		}
		return wgtypes.Peer{PublicKey: wgtypes.Key(append(make([]byte, 31), n)), AllowedIPs: []net.IPNet{*network}}
	}
	device := func(peers ...wgtypes.Peer) *wgtypes.Device {
		return &wgtypes.Device{PrivateKey: private, ListenPort: wireGuard, Peers: peers}
	}
	for _, c := range []struct {
		name  string
		have  *wgtypes.Device
		want  []api.Peer
		steps string
	}{
		{"nothing", device(), nil, ""},
		{"the same", device(have(1, "10.42.2.0/24")), []api.Peer{peer(1, "10.42.2.0/24")}, ""},
		{"a new one", device(have(1, "10.42.2.0/24")), []api.Peer{peer(1, "10.42.2.0/24"), peer(2, "10.42.3.0/24")}, "+2"},
		{"one gone", device(have(1, "10.42.2.0/24"), have(2, "10.42.3.0/24")), []api.Peer{peer(2, "10.42.3.0/24")}, "-1"},
		{"a new key for the same addresses", device(have(1, "10.42.2.0/24")), []api.Peer{peer(2, "10.42.2.0/24")}, "-1+2"},
		{"other addresses", device(have(1, "10.42.2.0/24")), []api.Peer{peer(1, "10.42.4.0/24")}, "+1"},
		{"a fresh device", &wgtypes.Device{}, nil, "key"},
	} {
		set, err := changes(c.have, private, c.want)
		if err != nil {
			t.Fatal(err)
		}
		steps := ""
		if set != nil {
			if set.PrivateKey != nil {
				steps += "key"
			}
			for _, p := range set.Peers {
				sign := "+"
				if p.Remove {
					sign = "-"
				}
				steps += sign + string('0'+rune(p.PublicKey[31]))
			}
		}
		if steps != c.steps {
			t.Errorf("%s: %q, want %q", c.name, steps, c.steps)
		}
	}
	if _, err := changes(device(), private, []api.Peer{{PublicKey: "AAAA"}}); err == nil {
		t.Error("a short key was accepted")
	}
}

const (
	webPod   = `{"metadata":{"namespace":"n","name":"web","labels":{"app":"web"},"managedFields":[{}]},"spec":{"containers":[{"name":"c","image":"x","ports":[{"name":"http","containerPort":80}]}]},"status":{"phase":"Running"}}`
	otherPod = `{"metadata":{"namespace":"n","name":"other","labels":{"app":"other"}},"spec":{},"status":{"phase":"Running","podIPs":[{"ip":"10.42.2.9"}]}}`
	donePod  = `{"metadata":{"namespace":"n","name":"done","labels":{"app":"other"}},"spec":{},"status":{"phase":"Succeeded","podIPs":[{"ip":"10.42.2.10"}]}}`
	hostPod  = `{"metadata":{"namespace":"n","name":"host","labels":{"app":"other"}},"spec":{"hostNetwork":true},"status":{"phase":"Running","podIPs":[{"ip":"10.78.0.2"}]}}`
	allow    = `{"metadata":{"namespace":"n","name":"p"},"spec":{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"other"}}}],"ports":[{"port":"http"}]}]}}`
)

func testAgent(t *testing.T) *agent {
	dir := t.TempDir()
	a := newAgent(paths{state: dir}, slog.New(slog.DiscardHandler))
	if _, err := a.store.Allocate(endpoint.Record{ContainerID: "c", IfName: "eth0", Namespace: "n", Pod: "web"}, netip.MustParsePrefix("10.42.1.0/24"), netip.Prefix{}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *agent) put(t *testing.T, kind string, docs ...string) {
	t.Helper()
	for _, d := range docs {
		key, small, err := slim(kind, json.RawMessage(d))
		if err != nil {
			t.Fatal(err)
		}
		a.world.Objects[kind][key] = small
	}
	a.world.synced[kind] = true
}

// TestVerdicts: a pod of which nothing is known is shut; what is known decides,
// also after a restart without an API server; what cannot be read shuts.
func TestVerdicts(t *testing.T) {
	a := testAgent(t)
	allows := func(what, from string, port uint16, want bool) {
		t.Helper()
		_, v, err := a.verdicts()
		if err != nil || len(v) != 1 {
			t.Fatalf("%v %v", v, err)
		}
		if got := v[0].Ingress.Allows(netip.MustParseAddr(from), 6, port); got != want {
			t.Errorf("%s: from %s to port %d: %v", what, from, port, got)
		}
	}
	allows("nothing known", "10.42.2.9", 80, false)
	a.put(t, "pods", webPod, otherPod, donePod, hostPod)
	a.put(t, "namespaces", `{"metadata":{"name":"n"}}`)
	allows("not all is listed", "10.42.2.9", 80, false)
	a.put(t, "networkpolicies")
	allows("no policy", "10.42.2.9", 81, true)
	a.put(t, "networkpolicies", allow)
	check := func(what string) {
		t.Helper()
		allows(what, "10.42.2.9", 80, true)
		allows(what, "10.42.2.9", 81, false)
		allows(what+", a finished pod", "10.42.2.10", 80, false)
		allows(what+", a pod in its unit's network", "10.78.0.2", 80, false)
	}
	check("policy")
	a.world.save()
	a.world = openWorld(filepath.Join(a.paths.state, "world.json"))
	check("after a restart")
	a.world.Objects["networkpolicies"]["n/q"] = json.RawMessage(`{"metadata":{"namespace":"n","name":"q"},"spec":{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"ports":[{"port":true}]}]}}`)
	delete(a.world.Objects["networkpolicies"], "n/p")
	allows("a policy that is not readable", "10.42.2.9", 80, false)
}

func TestTrace(t *testing.T) {
	a := testAgent(t)
	a.put(t, "pods", webPod, otherPod)
	a.put(t, "namespaces", `{"metadata":{"name":"n"}}`)
	a.put(t, "networkpolicies", allow)
	ask := func(query string) (int, []step) {
		t.Helper()
		w := httptest.NewRecorder()
		a.pluginHandler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/trace?"+query, nil))
		var steps []step
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), &steps); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, steps
	}
	rule := func(steps []step, hop string) (step, bool) {
		for _, s := range steps {
			if strings.HasPrefix(s.Hop, hop) {
				return s, true
			}
		}
		return step{}, false
	}
	_, steps := ask("from=n/other&to=n/web&protocol=TCP&port=80")
	if s, ok := rule(steps, "ingress rules of n/web"); !ok || !s.OK {
		t.Errorf("%+v", steps)
	}
	_, steps = ask("from=n/other&to=n/web&protocol=TCP&port=81")
	if s, ok := rule(steps, "ingress rules of n/web"); !ok || s.OK || !strings.Contains(s.Text, "none of their 1 rules") {
		t.Errorf("%+v", steps)
	}
	if s, ok := rule(steps, "tunnel"); !ok || s.OK { // there is none here
		t.Errorf("%+v", steps)
	}
	for _, bad := range []string{"", "from=x&to=n/web&protocol=TCP&port=1", "from=n/no&to=n/web&protocol=TCP&port=1", "from=n/other&to=n/web&protocol=ICMP&port=1", "from=n/other&to=n/web&protocol=TCP&port=99999"} {
		if code, _ := ask(bad); code != 400 {
			t.Errorf("%q: %d", bad, code)
		}
	}
}

// TestStatus: without an identity the plugin is told no.
func TestStatus(t *testing.T) {
	a := testAgent(t)
	for _, c := range []struct{ method, path, body string }{{"GET", "/v1/status", ""}, {"PUT", "/v1/endpoint", "{}"}} {
		w := httptest.NewRecorder()
		a.pluginHandler().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != 503 {
			t.Errorf("%s: %d", c.path, w.Code)
		}
	}
	if err := a.reconcile(); err == nil {
		t.Error("ready without a handover")
	}
}

func FuzzObjects(f *testing.F) {
	f.Add("pods", []byte(webPod))
	f.Add("networkpolicies", []byte(allow))
	f.Fuzz(func(t *testing.T, kind string, doc []byte) {
		if kinds[kind] == "" {
			return
		}
		key, small, err := slim(kind, doc)
		if err != nil {
			return
		}
		w := openWorld(filepath.Join(t.TempDir(), "w"))
		w.Objects[kind][key] = small
		w.view()
	})
}
