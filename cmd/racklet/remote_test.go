package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire/wiretest"
)

// operator is somebody with a rack on the network, and with the rack's own machine at hand.
type operator struct {
	*testing.T
	state, address string
	rack           *wiretest.Rack
}

func newOperator(t *testing.T) *operator {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	o := &operator{T: t, state: t.TempDir()}
	o.address, o.rack = managedRack(t, o.state)
	o.address = "https://" + o.address
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, _, code := o.local("", "api", "/redfish/v1/"); code == 0 {
			return o
		}
		if time.Now().After(end) {
			t.Fatal("the management API does not come up")
		}
	}
}

func (o *operator) run(stdin string, args ...string) (out, said string, code int) {
	var stdout, stderr bytes.Buffer
	code = run(o.Context(), strings.NewReader(stdin), &stdout, &stderr, args)
	return stdout.String(), stderr.String(), code
}

func (o *operator) local(stdin string, args ...string) (out, said string, code int) {
	return o.run(stdin, append([]string{"--state", o.state}, args...)...)
}

func (o *operator) remote(stdin string, args ...string) (out, said string, code int) {
	return o.run(stdin, append([]string{"--rack", o.address}, args...)...)
}

// TestRemote goes the way of somebody elsewhere: no trust without a pin, a first password that must be changed, a session.
func TestRemote(t *testing.T) {
	o := newOperator(t)
	out, said, code := o.local("", "account", "add", "ada", "--role", "Administrator")
	if code != 0 {
		t.Fatalf("account: %s", said)
	}
	first := strings.TrimSpace(out)
	if _, said, code := o.remote("", "status"); code != 1 || !strings.Contains(said, "racklet login --rack "+o.address) {
		t.Errorf("before a login: %d %s", code, said)
	}
	_, said, code = o.remote(first+"\n", "login", "--user", "ada", "--password-stdin")
	pin := regexp.MustCompile(`sha256//\S+`).FindString(said)
	if code != 1 || pin == "" || !strings.Contains(said, "is not known") {
		t.Fatalf("a rack that nobody has confirmed: %d %s", code, said)
	}
	other := "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if _, said, code := o.remote(first+"\n", "login", "--user", "ada", "--password-stdin", "--pin", other); code != 1 || !strings.Contains(said, "another key") {
		t.Errorf("another key: %d %s", code, said)
	}
	if _, said, code := o.remote("wrong\n", "login", "--user", "ada", "--password-stdin", "--pin", pin); code != 1 || !strings.Contains(said, "not right") {
		t.Errorf("wrong password: %d %s", code, said)
	}
	name, err := loginsFile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("something is kept of logins that failed")
	}
	if _, said, code := o.remote(first+"\na password of my own\n", "login", "--user", "ada", "--password-stdin", "--pin", pin); code != 0 {
		t.Fatalf("login: %s", said)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("logins: %v %v", info, err)
	}
	if b, err := os.ReadFile(name); err != nil || bytes.Contains(b, []byte("a password of my own")) {
		t.Errorf("kept: %s %v", b, err)
	}

	// Every command that shows the rack takes it.
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"unit", "list"}, {"rack", "power"}, {"rack", "fans"}, {"events"}, {"account", "list"}, {"api", "/metrics"}} {
		if _, said, code := o.remote("", args...); code != 0 {
			t.Errorf("%q: %d %s", args, code, said)
		}
	}
	for _, args := range [][]string{{"up"}, {"down"}, {"init", "x"}, {"validate", "x"}, {"fault", "list"}, {"tour"}, {"version"}} {
		if _, said, code := o.remote("", args...); code != 2 || !strings.Contains(said, "on this machine") {
			t.Errorf("%q: %d %s", args, code, said)
		}
	}
	for _, address := range []string{"http://127.0.0.1:1", "127.0.0.1:8443", "https://", "https://u:p@h", "https://h/redfish", "https://h?x"} {
		if _, said, code := o.run("", "--rack", address, "status"); code != 2 {
			t.Errorf("%s: %d %s", address, code, said)
		}
	}
	// Logged in again by the pin that is known; the session before is over.
	if _, said, code := o.remote("a password of my own\n", "login", "--user", "ada", "--password-stdin"); code != 0 {
		t.Errorf("again: %s", said)
	}
	if out, _, _ := o.remote("", "api", sessionsPath, "--field", "Members@odata.count"); out != "1\n" {
		t.Errorf("%s sessions", out)
	}
	// A session that somebody ended.
	if _, said, code := o.local("", "account", "reset", "ada"); code != 0 {
		t.Fatal(said)
	}
	if _, said, code := o.remote("", "status"); code != 1 || !strings.Contains(said, "has ended") || !strings.Contains(said, "racklet login") {
		t.Errorf("a session that is over: %d %s", code, said)
	}
	// A file that others could have written is not believed.
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, said, code := o.remote("", "status"); code != 1 || !strings.Contains(said, "this user alone") {
		t.Errorf("readable by others: %d %s", code, said)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	// The rack's key becomes another one.
	var kept logins
	if err := readJSON(name, &kept); err != nil {
		t.Fatal(err)
	}
	l := kept[o.address]
	l.Pin = other
	kept[o.address] = l
	if err := kept.save(); err != nil {
		t.Fatal(err)
	}
	if _, said, code := o.remote("", "status"); code != 1 || !strings.Contains(said, "has another key than it was trusted with") || !strings.Contains(said, pin) {
		t.Errorf("another key: %d %s", code, said)
	}
	if _, said, code := o.remote("x\n", "login", "--user", "ada", "--password-stdin", "--pin", pin); code != 1 || !strings.Contains(said, "was trusted with") {
		t.Errorf("a pin beside the known one: %d %s", code, said)
	}
	if _, said, code := o.remote("", "logout"); code != 0 {
		t.Errorf("logout: %s", said)
	}
	if b, err := os.ReadFile(name); err != nil || strings.TrimSpace(string(b)) != "{}" {
		t.Errorf("after it: %s %v", b, err)
	}
}

// TestAPI: requests of one's own, and what scripts make of them.
func TestAPI(t *testing.T) {
	o := newOperator(t)
	out, _, code := o.local("", "api", "/redfish/v1/")
	var service struct{ RedfishVersion string }
	if err := json.Unmarshal([]byte(out), &service); err != nil || code != 0 || service.RedfishVersion == "" || !strings.Contains(out, "\n  \"Id\": \"RootService\"") {
		t.Errorf("root: %d %v %s", code, err, out)
	}
	body := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(body, []byte(`{"UserName":"bob","Password":"correct horse battery","RoleId":"Operator"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const accounts = "/redfish/v1/AccountService/Accounts"
	for _, c := range []struct {
		stdin string
		args  []string
		code  int
		out   string // regular expression
	}{
		{"", []string{accounts, "--input", body}, 0, `"UserName": "bob"`},
		{`{"RoleId":"ReadOnly"}`, []string{"patch", accounts + "/bob", "--input", "-"}, 0, `"RoleId": "ReadOnly"`},
		{"", []string{accounts + "/bob", "--field", "RoleId"}, 0, `^ReadOnly\n$`},
		{"", []string{accounts + "/bob", "--field", "Links/Role"}, 0, `^\{\n  "@odata.id": .*Roles/ReadOnly"\n\}\n$`},
		{"", []string{accounts + "/bob", "--field", "Links/Nothing"}, 1, `has no Links/Nothing`},
		{"", []string{"HEAD", accounts + "/bob", "-i"}, 0, `^HTTP/1.1 200 OK\n(?s).*\nEtag: "`},
		{"", []string{"PATCH", accounts + "/bob", "-d", `{"RoleId":"Operator"}`, "-H", `If-Match: "old"`}, 1, `PreconditionFailed`},
		{"", []string{"PATCH", accounts + "/bob", "-d", `{"RoleId":"Root"}`}, 1, `racklet: hint: `},
		{"", []string{"DELETE", accounts + "/bob"}, 0, `^$`},
		{"", []string{accounts + "/bob"}, 1, `ResourceMissingAtURI`},
		{"", []string{"/metrics"}, 0, `# EOF\n$`},
		{"", []string{"redfish"}, 2, `begins with a slash`},
		{"", []string{"//evil.example/"}, 2, `begins with a slash`},
		{"", []string{"TRACE", "/redfish"}, 2, `want one of GET`},
		{"", []string{"/redfish", "-d", "{}", "--input", "-"}, 2, `two bodies`},
		{"", []string{"/redfish/v1", "-H", "nothing"}, 2, `want NAME:VALUE`},
		{"", []string{accounts, "--input", "no-such-file"}, 1, `no-such-file`},
		{"", nil, 2, `want a path`},
	} {
		out, said, code := o.local(c.stdin, append([]string{"api"}, c.args...)...)
		if code != c.code || !regexp.MustCompile(c.out).MatchString(out+said) {
			t.Errorf("%q: %d %q %q, want %d %s", c.args, code, out, said, c.code, c.out)
		}
	}
	if got := string(quoted([]byte("{\"a\": \"\u202e\u009b\u00fc\U000e0001\"}\n"))); got != `{"a": "\u202e\u009bü\udb40\udc01"}`+"\n" {
		t.Errorf("quoted: %s", got)
	}
	if info, err := os.Stat(body); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Error(info, err)
	}
}

// until collects output until it has something in it, and then ends the command.
type until struct {
	want string
	end  context.CancelFunc
	got  bytes.Buffer
}

func (u *until) Write(b []byte) (int, error) {
	u.got.Write(b)
	if strings.Contains(u.got.String(), u.want) {
		u.end()
	}
	return len(b), nil
}

// TestRemoteConsole looks at a console over the network, and reads its recording.
func TestRemoteConsole(t *testing.T) {
	o := newOperator(t)
	if out, said, code := o.local("", "api", accountsPath, "-d", `{"UserName":"ada","Password":"correct horse battery","RoleId":"Operator"}`); code != 0 {
		t.Fatal(out, said)
	}
	_, said, _ := o.remote("", "login", "--user", "ada", "--password-stdin")
	pin := regexp.MustCompile(`sha256//\S+`).FindString(said)
	if _, said, code := o.remote("correct horse battery\n", "login", "--user", "ada", "--password-stdin", "--pin", pin); code != 0 {
		t.Fatal(said)
	}
	o.rack.BMCs[1].Print("\x1b[1mbooting\x1b[0m\r\nlogin: ")
	for _, at := range [][]string{{"--rack", o.address}, {"--state", o.state}} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out := &until{want: "login: ", end: cancel}
		var stderr bytes.Buffer
		code := run(ctx, strings.NewReader(""), out, &stderr, append(at, "unit", "console", "unit-1", "--takeover"))
		if !strings.Contains(out.got.String(), "\x1b[1mbooting\x1b[0m\r\nlogin: ") || code != 0 {
			t.Errorf("%q: %d %q %s", at, code, out.got.String(), &stderr)
		}
		cancel()
	}
	if out, said, code := o.remote("", "unit", "console", "unit-1", "--recording"); code != 0 || !strings.Contains(out, "Z booting\n") || strings.ContainsRune(out, 0x1b) {
		t.Errorf("recording: %d %q %s", code, out, said)
	}
	if _, said, code := o.remote("", "unit", "console", "unit-9"); code != 1 || !strings.Contains(said, "its units are unit-1") {
		t.Errorf("no unit: %d %s", code, said)
	}
	if _, said, code := o.remote("", "unit", "console", "unit-1", "--recording", "--takeover"); code != 2 {
		t.Errorf("both: %d %s", code, said)
	}
}
