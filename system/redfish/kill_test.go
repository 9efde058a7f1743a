package redfish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish"
	"github.com/racklet/racklet/system/redfish/access"
)

// Environment of the process that is killed.
const (
	killLine   = "RACKLET_TEST_LINE"   // Unix socket: the line to the RMC
	killListen = "RACKLET_TEST_LISTEN" // Unix socket to serve
	killDir    = "RACKLET_TEST_DIR"    // what is kept; "": nothing
)

// TestKilledService is no test: it is the process that TestKill9 kills.
func TestKilledService(t *testing.T) {
	if os.Getenv(killLine) == "" {
		return
	}
	line, err := net.Dial("unix", os.Getenv(killLine))
	if err != nil {
		t.Fatal(err)
	}
	o := description(1, "Off")
	o.Line, o.Dir, o.PasswordCost = line, os.Getenv(killDir), access.Cost{Time: 1, Memory: 8}
	s, err := redfish.New(o)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(os.Getenv(killListen))
	l, err := net.Listen("unix", os.Getenv(killListen))
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeLocal(context.Background(), l)
	t.Fatal(s.Run(context.Background()))
}

// victim is a service in a process of its own, before a rack that outlives it, and what it has promised.
type victim struct {
	*testing.T
	rack   *cable
	env    []string
	client *http.Client
	cmd    *exec.Cmd
	dest   *httptest.Server
	rng    *rand.Rand

	mu    sync.Mutex
	asked int
	got   bytes.Buffer // at the destination of a subscription

	accounts      map[string]string // role by name
	subscriptions map[string]string // context by URI
	timeout       int               // of sessions
	lines         []string          // of the log
	sent          []string          // test events
	tasks         []string
	doubt         map[string]bool // what a kill came across: done or not, both are right
}

func newVictim(t *testing.T, keep bool, seed uint64) *victim {
	short, err := os.MkdirTemp("", "kill") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	v := &victim{T: t, rack: newCable(t), rng: rand.New(rand.NewPCG(seed, 9)), accounts: map[string]string{}, subscriptions: map[string]string{}, doubt: map[string]bool{}, timeout: 1800}
	v.env = append(os.Environ(), killLine+"="+filepath.Join(short, "line"), killListen+"="+filepath.Join(short, "api"))
	if keep {
		v.env = append(v.env, killDir+"="+t.TempDir())
	}
	l, err := net.Listen("unix", filepath.Join(short, "line"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			end := v.rack.Line()
			go func() { io.Copy(end, c); end.Close(); c.Close() }()
			go func() { io.Copy(c, end); c.Close() }()
		}
	}()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(short, "api"))
	}, DisableKeepAlives: true}
	v.client = &http.Client{Transport: tr, Timeout: wait}
	v.dest = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.asked++; v.asked%3 != 0 { // what is not taken must come again, after a kill too
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		v.got.Write(b)
	}))
	t.Cleanup(v.dest.Close)
	t.Cleanup(func() { v.kill() })
	return v
}

func (v *victim) start() {
	v.Helper()
	v.cmd = exec.Command(os.Args[0], "-test.run=^TestKilledService$")
	v.cmd.Env = v.env
	var out bytes.Buffer
	v.cmd.Stdout, v.cmd.Stderr = &out, &out
	if err := v.cmd.Start(); err != nil {
		v.Fatal(err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		var u struct {
			Oem struct{ Racklet struct{ Available bool } }
		}
		if code, b, err := v.do("GET", "/redfish/v1/Systems/unit-1", ""); err == nil && code == 200 && json.Unmarshal(b, &u) == nil && u.Oem.Racklet.Available {
			return
		}
		if time.Now().After(end) {
			v.kill()
			v.Fatalf("the service does not start:\n%s", out.Bytes())
		}
	}
}

func (v *victim) kill() {
	if v.cmd != nil {
		v.cmd.Process.Kill()
		v.cmd.Wait()
		v.cmd = nil
	}
}

func (v *victim) do(method, path, body string, kind ...string) (int, []byte, error) {
	code, b, _, err := v.ask(method, path, body, kind...)
	return code, b, err
}

func (v *victim) ask(method, path, body string, kind ...string) (int, []byte, http.Header, error) {
	req, err := http.NewRequest(method, "http://rack"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", append(kind, "application/json")[0])
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, resp.Header, err
}

// change does one operation. It is acknowledged when the answer came; whatever a kill has cut off is in doubt.
func (v *victim) change(n int, file []byte) (acknowledged bool) {
	pick := func(m map[string]string) string {
		var keys []string
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if len(keys) == 0 {
			return ""
		}
		return keys[v.rng.IntN(len(keys))]
	}
	const accounts, subscriptions = "/redfish/v1/AccountService/Accounts", "/redfish/v1/EventService/Subscriptions"
	roles := []string{"Operator", "ReadOnly"}
	ok := func(code int, err error) bool {
		if err == nil && code/100 != 2 {
			v.Errorf("operation %d: %d", n, code)
		}
		return err == nil && code/100 == 2
	}
	switch role := roles[v.rng.IntN(2)]; v.rng.IntN(10) {
	case 0, 1:
		name := fmt.Sprintf("op%d", n)
		v.doubt[name] = true
		code, _, err := v.do("POST", accounts, fmt.Sprintf(`{"UserName":%q,"Password":%q,"RoleId":%q}`, name, password, role))
		if ok(code, err) {
			v.accounts[name] = role
			delete(v.doubt, name)
			return true
		}
	case 2:
		name := pick(v.accounts)
		if name == "" {
			return true
		}
		if v.rng.IntN(2) == 0 {
			v.doubt[name] = true
			code, _, err := v.do("DELETE", accounts+"/"+name, "")
			delete(v.accounts, name)
			if ok(code, err) {
				delete(v.doubt, name)
				return true
			}
			return false
		}
		v.doubt[name] = true
		code, _, err := v.do("PATCH", accounts+"/"+name, fmt.Sprintf(`{"RoleId":%q}`, role))
		delete(v.accounts, name)
		if ok(code, err) {
			v.accounts[name] = role
			delete(v.doubt, name)
			return true
		}
	case 3:
		v.doubt["timeout"] = true
		v.timeout = 60 + v.rng.IntN(1000)
		code, _, err := v.do("PATCH", "/redfish/v1/SessionService", fmt.Sprintf(`{"SessionTimeout":%d}`, v.timeout))
		if ok(code, err) {
			delete(v.doubt, "timeout")
			return true
		}
	case 4:
		if uri := pick(v.subscriptions); uri != "" && len(v.subscriptions) > 20 {
			v.doubt[uri] = true
			delete(v.subscriptions, uri)
			code, _, err := v.do("DELETE", uri, "")
			if ok(code, err) {
				delete(v.doubt, uri)
				return true
			}
			return false
		}
		context := fmt.Sprintf("context %d", n)
		code, _, h, err := v.ask("POST", subscriptions, fmt.Sprintf(`{"Destination":"https://127.0.0.1:9/","Protocol":"Redfish","Context":%q,"MessageIds":["None"]}`, context))
		if ok(code, err) {
			v.subscriptions[h.Get("Location")] = context
			return true
		}
	case 5:
		uri := pick(v.subscriptions)
		if uri == "" {
			return true
		}
		context := fmt.Sprintf("changed %d", n)
		v.doubt[uri] = true
		code, _, err := v.do("PATCH", uri, fmt.Sprintf(`{"Context":%q}`, context))
		if ok(code, err) {
			v.subscriptions[uri] = context
			delete(v.doubt, uri)
			return true
		}
	case 6, 7: // a line is acknowledged when it was read
		text := fmt.Sprintf("line %d.", n)
		v.rack.BMCs[1].Record(wire.EventThermal, 0, text, wire.Failure{})
		for {
			code, b, err := v.do("GET", "/redfish/v1/Systems/unit-1/LogServices/Log/Entries", "")
			if !ok(code, err) {
				return false
			}
			if strings.Contains(string(b), `"`+text+`"`) {
				v.lines = append(v.lines, text)
				return true
			}
			time.Sleep(5 * time.Millisecond)
		}
	case 8:
		text := fmt.Sprintf("test %d.", n)
		code, _, err := v.do("POST", "/redfish/v1/EventService/Actions/EventService.SubmitTestEvent", fmt.Sprintf(`{"Message":%q}`, text))
		if ok(code, err) {
			v.sent = append(v.sent, text)
			return true
		}
	case 9:
		code, _, h, err := v.ask("POST", "/redfish/v1/UpdateService/update", string(file), "application/octet-stream")
		if err == nil && (code == 409 || code == 503) { // the one before it goes on
			return true
		}
		if ok(code, err) {
			v.tasks = append(v.tasks, strings.TrimSuffix(h.Get("Location"), "/Monitor"))
			return true
		}
	}
	return false
}

// lost lists what was acknowledged and is not there.
func (v *victim) lost(final bool) (lost []string) {
	v.Helper()
	read := func(uri string, into any) bool {
		code, b, err := v.do("GET", uri, "")
		if err != nil || code != 200 && code != 404 {
			v.Fatalf("GET %s: %d %v", uri, code, err)
		}
		return code == 200 && json.Unmarshal(b, into) == nil
	}
	var all struct {
		Members []struct {
			URI      string `json:"@odata.id"`
			UserName string
			RoleID   string `json:"RoleId"`
			Context  string
		}
	}
	read("/redfish/v1/AccountService/Accounts?$expand=.", &all)
	have := map[string]string{}
	for _, m := range all.Members {
		have[m.UserName] = m.RoleID
		if _, expected := v.accounts[m.UserName]; !expected && !v.doubt[m.UserName] {
			lost = append(lost, "the deletion of account "+m.UserName)
		}
	}
	for name, role := range v.accounts {
		if have[name] != role {
			lost = append(lost, fmt.Sprintf("account %s: %q, not %q", name, have[name], role))
		}
	}
	var rules struct{ SessionTimeout int }
	if read("/redfish/v1/SessionService", &rules); rules.SessionTimeout != v.timeout && !v.doubt["timeout"] {
		lost = append(lost, fmt.Sprintf("session timeout %d, not %d", rules.SessionTimeout, v.timeout))
	}
	all.Members = nil
	read("/redfish/v1/EventService/Subscriptions?$expand=.", &all)
	have = map[string]string{}
	for _, m := range all.Members {
		have[m.URI] = m.Context
	}
	for uri, context := range v.subscriptions {
		if got, ok := have[uri]; !ok || got != context && !v.doubt[uri] {
			lost = append(lost, fmt.Sprintf("subscription %s: %q, not %q", uri, got, context))
		}
	}
	_, log, _ := v.do("GET", "/redfish/v1/Systems/unit-1/LogServices/Log/Entries", "")
	for _, text := range v.lines {
		if n := bytes.Count(log, []byte(`"Message":"`+text+`"`)); n != 1 {
			lost = append(lost, fmt.Sprintf("log line %q: %d times", text, n))
		}
	}
	for _, uri := range v.tasks {
		var task struct{ EndTime, TaskState string }
		for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
			if !read(uri, &task) {
				lost = append(lost, "task "+uri)
				break
			}
			if task.EndTime != "" {
				break
			}
			if !final || time.Now().After(end) {
				if final {
					lost = append(lost, "the end of task "+uri+", which is "+task.TaskState)
				}
				break
			}
		}
	}
	if final {
		missing := func() (m []string) {
			v.mu.Lock()
			defer v.mu.Unlock()
			for _, text := range v.sent {
				if !bytes.Contains(v.got.Bytes(), []byte(`"Message":"`+text+`"`)) {
					m = append(m, "test event "+text)
				}
			}
			return m
		}
		for end := time.Now().Add(wait); len(missing()) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		}
		lost = append(lost, missing()...)
	}
	return lost
}

// play does operations with kills among them, each at a moment that the seed chooses, and returns what was lost.
func (v *victim) play(operations, every int) (kills int, lost []string) {
	v.Helper()
	file := updateFile(v, 4, "v0.2.0")
	v.start()
	code, _, h, err := v.ask("POST", "/redfish/v1/EventService/Subscriptions", fmt.Sprintf(`{"Destination":%q,"Protocol":"Redfish","Context":"all","DeliveryRetryPolicy":"RetryForever"}`, v.dest.URL))
	if err != nil || code != 201 {
		v.Fatalf("subscribe: %d %v", code, err)
	}
	v.subscriptions[h.Get("Location")] = "all"
	if code, _, err := v.do("PATCH", "/redfish/v1/EventService", `{"DeliveryRetryIntervalSeconds":1}`); err != nil || code != 200 {
		v.Fatalf("retry at once: %d %v", code, err)
	}
	for n := range operations {
		if n%every != every-1 {
			if !v.change(n, file) {
				v.Fatalf("operation %d failed", n)
			}
			continue
		}
		done := make(chan struct{})
		delay := time.Duration(v.rng.IntN(12_000)) * time.Microsecond
		cmd := v.cmd
		go func() {
			defer close(done)
			time.Sleep(delay)
			cmd.Process.Kill()
		}()
		v.change(n, file)
		<-done
		v.kill()
		if kills++; kills%4 == 0 {
			v.rack.BMCs[1].Forget() // the tray was changed: what its BMC had logged is in the service's log alone
		}
		v.start()
		if lost = v.lost(false); len(lost) > 0 {
			return kills, lost
		}
	}
	return kills, v.lost(true)
}

// TestKill9: whatever the service has acknowledged survives its being killed at any moment of 200 operations.
func TestKill9(t *testing.T) {
	if os.Getenv(killLine) != "" {
		t.Skip("this is the process that is killed")
	}
	v := newVictim(t, true, 1)
	start := time.Now()
	kills, lost := v.play(200, 8)
	if len(lost) > 0 {
		t.Errorf("after %d kills these were lost:\n%s", kills, strings.Join(lost, "\n"))
	}
	t.Logf("%d kills in %.1f s; %d accounts, %d subscriptions, %d log lines, %d test events, %d tasks", kills, time.Since(start).Seconds(),
		len(v.accounts), len(v.subscriptions), len(v.lines), len(v.sent), len(v.tasks))
	if len(v.tasks) == 0 || len(v.sent) == 0 || len(v.lines) == 0 || len(v.accounts) == 0 {
		t.Error("the operations do not try everything")
	}
	// The same with a service that keeps nothing: the test sees it.
	if _, lost := newVictim(t, false, 1).play(16, 16); len(lost) == 0 {
		t.Error("a service that keeps nothing loses nothing")
	}
}
