package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire/wiretest"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/redfish"
)

// managed serves the management API of a fake rack as the daemon does, on the private socket
// of a state directory and on the network. It returns the network's address.
func managed(t *testing.T, state string) string {
	t.Helper()
	address, _ := managedRack(t, state)
	return address
}

// managedRack returns the fake rack too. It has one unit.
func managedRack(t *testing.T, state string) (string, *wiretest.Rack) {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := wiretest.NewRack(1)
	l := layout{state}
	if err := privateDir(l.redfish()); err != nil {
		t.Fatal(err)
	}
	unit := &rack.ComputeUnit{Metadata: rack.Metadata{Name: "unit-1"}, Spec: rack.ComputeUnitSpec{Slot: 1, Platform: "virt"}}
	o := redfish.Options{Units: []*rack.ComputeUnit{unit}, Dir: l.redfish(), Line: r.Line(), Rack: &rack.Rack{Metadata: rack.Metadata{Name: "lab"}}, Log: slog.New(slog.DiscardHandler)}
	s, err := redfish.New(o)
	if err != nil {
		t.Fatal(err)
	}
	private, err := listenPrivate(l, "redfish")
	if err != nil {
		t.Fatal(err)
	}
	network, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- s.ServeLocal(ctx, private) }()
	go func() { done <- s.ServeTLS(ctx, network) }()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		r.Close()
	})
	return network.Addr().String(), r
}

// TestFirstAccount goes the way of an operator: from `up --listen` to a login over the network.
func TestFirstAccount(t *testing.T) {
	state := t.TempDir()
	address := managed(t, state)
	command := func(args ...string) (string, int) {
		t.Helper()
		var out, e bytes.Buffer
		code := run(t.Context(), strings.NewReader(""), &out, &e, append([]string{"--state", state}, args...))
		return out.String() + e.String(), code
	}
	var said bytes.Buffer
	env := &environment{stderr: &said, state: state}
	client, err := env.client()
	if err != nil {
		t.Fatal(err)
	}
	deadline := t.Context()
	err = poll(deadline, 1e7, func() (bool, error) {
		said.Reset()
		err := env.welcome(deadline, client, address)
		if err == nil || errors.Is(err, errNoRack) {
			return err == nil, nil
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := regexp.MustCompile(`password (\S+);`).FindStringSubmatch(said.String())
	pin := regexp.MustCompile(`pin (sha256//\S+)`).FindStringSubmatch(said.String())
	if secret == nil || pin == nil {
		t.Fatalf("up says %q", said.String())
	}
	said.Reset()
	if err := env.welcome(t.Context(), client, address); err != nil || strings.Contains(said.String(), "password") {
		t.Errorf("the second time: %q %v", said.String(), err)
	}
	if err := env.welcome(t.Context(), client, "127.0.0.1:1"); err == nil {
		t.Error("it is said to listen where it does not")
	}

	// Over the network, trusting the pin alone.
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(c tls.ConnectionState) error {
		sum := sha256.Sum256(c.PeerCertificates[0].RawSubjectPublicKeyInfo)
		if "sha256//"+base64.StdEncoding.EncodeToString(sum[:]) != pin[1] {
			return errors.New("another key than was printed")
		}
		return nil
	}}}}
	ask := func(method, path, name, password, body string) int {
		t.Helper()
		req, _ := http.NewRequest(method, "https://"+address+path, strings.NewReader(body))
		if name != "" {
			req.SetBasicAuth(name, password)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const systems, admin, chosen = "/redfish/v1/Systems", accountsPath + "/admin", "a password of my own"
	for _, c := range []struct {
		method, path, name, password, body string
		want                               int
	}{
		{"GET", systems, "", "", "", 401},
		{"GET", systems, "admin", "admin", "", 401},
		{"GET", systems, "admin", secret[1], "", 403},
		{"PATCH", admin, "admin", secret[1], `{"RoleId":"Operator"}`, 403},
		{"PATCH", admin, "admin", secret[1], `{"Password":"` + chosen + `"}`, 200},
		{"GET", systems, "admin", secret[1], "", 401},
		{"GET", systems, "admin", chosen, "", 200},
	} {
		if got := ask(c.method, c.path, c.name, c.password, c.body); got != c.want {
			t.Errorf("%s %s as %s %q: %d, want %d", c.method, c.path, c.name, c.password, got, c.want)
		}
	}

	out, code := command("account", "add", "bob", "--role", "Operator")
	first := strings.TrimSpace(out)
	if code != 0 || ask("GET", accountsPath+"/bob", "bob", first, "") != 200 {
		t.Errorf("add: %d %s", code, out)
	}
	out, code = command("account", "reset", "bob")
	if code != 0 || ask("GET", accountsPath+"/bob", "bob", first, "") != 401 || ask("GET", accountsPath+"/bob", "bob", strings.TrimSpace(out), "") != 200 {
		t.Errorf("reset: %d %s", code, out)
	}
	if out, code := command("account", "list"); code != 0 || out != "admin\tAdministrator\t\nbob\tOperator\tpassword to be changed\n" {
		t.Errorf("list: %d %q", code, out)
	}
	if out, code := command("account", "unlock", "bob"); code != 0 {
		t.Errorf("unlock: %d %s", code, out)
	}
	if out, code := command("account", "delete", "bob"); code != 0 {
		t.Errorf("delete: %d %s", code, out)
	}
	if out, code := command("account", "delete", "bob"); code != 1 {
		t.Errorf("delete again: %d %s", code, out)
	}
	if out, code := command("account", "add", "eve", "--role", "Root"); code != 1 || !strings.Contains(out, "Administrator, Operator, ReadOnly") {
		t.Errorf("role: %d %s", code, out)
	}
}

func TestCheckListen(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "127.0.0.1:8443": true, "[::1]:8443": true, "192.0.2.7:443": true, "rack.example:443": true,
		":8443": false, "0.0.0.0:8443": false, "[::]:8443": false, "127.0.0.1": false, "127.0.0.1:0": false, "127.0.0.1:x": false, "8443": false,
	} {
		if err := checkListen(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
