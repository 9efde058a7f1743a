package redfish_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/racklet/racklet/system/redfish/access"
)

const consoleURI = "/redfish/v1/Systems/unit-1/Oem/Racklet/Console"

// terminal is a client of a console.
type terminal struct {
	*testing.T
	*websocket.Conn
	ctx context.Context
}

func (s *service) terminal(query string, told bool) *terminal {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), wait)
	s.Cleanup(cancel)
	var o websocket.DialOptions
	if told {
		o.Subprotocols = []string{"racklet.console"}
	}
	ws, _, err := websocket.Dial(ctx, s.url+consoleURI+query, &o)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { ws.CloseNow() })
	return &terminal{s.T, ws, ctx}
}

func (c *terminal) types(text string) {
	c.Helper()
	if err := c.Write(c.ctx, websocket.MessageBinary, []byte(text)); err != nil {
		c.Fatal(err)
	}
}

// expect reads until what the console printed, or the service said, has want in it.
func (c *terminal) expect(kind websocket.MessageType, want string) {
	c.Helper()
	var got []byte
	for !bytes.Contains(got, []byte(want)) {
		k, b, err := c.Read(c.ctx)
		if err != nil {
			c.Fatalf("no %q in %q: %v", want, got, err)
		}
		if k == kind {
			got = append(got, b...)
		}
	}
}

// TestConsoleWriter: many look, one types, and another can take that over.
func TestConsoleWriter(t *testing.T) {
	s := start(t, description(1, "On"))
	bmc := s.rack.BMCs[1]
	bmc.Print("login: ")
	one, two, raw := s.terminal("", true), s.terminal("", true), s.terminal("", false)
	one.types("ada\r")
	s.until("the first that types does", func() bool { return bmc.Typed() == "ada\r" })
	two.types("eve\r")
	two.expect(websocket.MessageText, `{"Writer":"tester"}`)
	raw.types("bob\r")
	for {
		if _, _, err := raw.Read(raw.ctx); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("a client that cannot be told: %v", err)
			}
			break
		}
	}
	three := s.terminal("?takeover", true)
	one.expect(websocket.MessageText, `{"Writer":"tester"}`)
	three.types("root\r")
	s.until("the one that took over types", func() bool { return bmc.Typed() == "ada\rroot\r" })
	one.types("no\r")
	one.expect(websocket.MessageText, `{"Writer":"tester"}`)
	bmc.Print("Password: ")
	for _, c := range []*terminal{one, two, three} { // all of them look
		c.expect(websocket.MessageBinary, "Password: ")
	}
	three.CloseNow()
	s.until("who is left can type", func() bool {
		one.types("x")
		return strings.HasSuffix(bmc.Typed(), "x")
	})
	if typed := bmc.Typed(); strings.Trim(typed, "x") != "ada\rroot\r" {
		t.Errorf("typed: %q", typed)
	}
}

// TestConsoleSeats: readers are bounded, and one that has gone makes room.
func TestConsoleSeats(t *testing.T) {
	s := start(t, description(1, "On"))
	var all []*terminal
	for range 16 {
		all = append(all, s.terminal("", true))
	}
	if _, resp, err := websocket.Dial(t.Context(), s.url+consoleURI, nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %v", err)
	}
	for _, c := range all[3:8] { // room for what follows
		c.CloseNow()
	}
	s.until("there is room again", func() bool {
		ws, _, err := websocket.Dial(t.Context(), s.url+consoleURI, nil)
		if err == nil {
			ws.CloseNow()
		}
		return err == nil
	})
	if _, resp, err := websocket.Dial(t.Context(), s.url+consoleURI+"?takeover", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://evil.example"}}}); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Error("a page of another origin may take a console over")
	}
	if resp, _ := s.do("GET", consoleURI+"?takeover", ""); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("no WebSocket: %d", resp.StatusCode)
	}
	all[0].types(strings.Repeat("x", 5000)) // more than a message may have
	for {
		if _, _, err := all[0].Read(all[0].ctx); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
				t.Errorf("a huge message: %v", err)
			}
			break
		}
	}
}

// TestRecording: what a console printed is kept over a restart of the service, as text that commands no terminal.
func TestRecording(t *testing.T) {
	dir, r := t.TempDir(), newCable(t)
	n := listen(t, dir, r)
	r.BMCs[1].Print("\x1b[2Jbooting\r\nevil \x1b]0;title\x07\r\n")
	until := func(want string) string {
		t.Helper()
		var got string
		(&service{T: t}).until("the recording has "+want, func() bool {
			w := n.own("GET", consoleURI+"/Recording", "")
			got = w.Body.String()
			return w.Code == 200 && strings.Contains(got, want)
		})
		return got
	}
	got := until("Z evil ")
	if strings.ContainsRune(got, 0x1b) || !strings.Contains(got, "Z booting\n") || !strings.Contains(got, `Z evil \x1b]0;title\a`+"\n") {
		t.Errorf("recorded: %q", got)
	}
	n.account("ada", access.Operator)
	n.account("bob", access.ReadOnly)
	for name, want := range map[string]int{"ada": 200, "bob": 403} {
		token, _ := n.login(name, password)
		if resp, _ := n.do(n.client, "GET", consoleURI+"/Recording", "", "X-Auth-Token", token); resp.StatusCode != want {
			t.Errorf("%s reads it: %d", name, resp.StatusCode)
		}
	}
	n.stop()
	n = listen(t, dir, r)
	r.BMCs[1].Print("again\r\n")
	if got := until("Z again\n"); strings.Count(got, "--- the service started") != 2 || strings.Count(got, "Z booting\n") != 2 {
		t.Errorf("after a restart: %q", got)
	}
	if resp, _ := n.do(n.client, "GET", fmt.Sprintf("%s/Recording", strings.Replace(consoleURI, "unit-1", "unit-9", 1)), ""); resp.StatusCode != 401 {
		t.Errorf("a stranger: %d", resp.StatusCode)
	}
}
