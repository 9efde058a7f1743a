package redfish_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

// raw opens a TLS connection and sends text that may be no whole request.
func (n *network) raw(text string) net.Conn {
	n.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: wait}, "tcp", n.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		n.Logf("closed already: %v", err)
	}
	return c
}

// TestSlow: a thousand idle connections, as many as the listener holds of requests that never end, and of bodies that never come, keep out
// nobody, and none who has logged in is closed for them.
func TestSlow(t *testing.T) {
	n := listen(t, "", nil)
	n.account("ada", access.ReadOnly)
	token, _ := n.login("ada", password)
	stream := n.raw("GET /redfish/v1/EventService/SSE HTTP/1.1\r\nHost: rack\r\nX-Auth-Token: " + token + "\r\n\r\n")
	events := bufio.NewReader(stream)
	stream.SetReadDeadline(time.Now().Add(wait))
	if line, err := events.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("stream: %q %v", line, err)
	}
	served := func(what string) {
		t.Helper()
		fresh := n.dial(&tls.Config{InsecureSkipVerify: true})
		began := time.Now()
		if resp, _ := n.do(fresh, "GET", "/redfish/v1/Systems", "", "X-Auth-Token", token); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", what, resp.Status)
		}
		t.Logf("%s: an answer after %v", what, time.Since(began))
	}
	for range 1000 {
		c, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	served("1,000 idle connections")
	for i := range 300 {
		n.raw(fmt.Sprintf("GET /redfish/v1/ HTTP/1.1\r\nHost: rack\r\nX-%d: ", i))
	}
	served("300 requests that never end")
	for range 300 {
		n.raw("POST /redfish/v1/SessionService/Sessions HTTP/1.1\r\nHost: rack\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
	}
	served("300 bodies that never come")
	if w := n.own("PATCH", "/redfish/v1/Systems/unit-1", `{"LocationIndicatorActive":true}`); w.Code != http.StatusOK {
		t.Errorf("something to tell: %d %s", w.Code, w.Body)
	}
	for {
		line, err := events.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream of somebody who has logged in: %v", err)
		}
		if strings.HasPrefix(line, "data:") {
			return
		}
	}
}

// TestHugeBodies: a GET has no body; one that has is answered, and not read to its end.
func TestHugeBodies(t *testing.T) {
	n := listen(t, "", nil)
	n.account("ada", access.Operator)
	token, _ := n.login("ada", password)
	const most = 24 << 20 // buffers of sockets on both sides are some megabytes
	for _, head := range []string{
		"GET /metrics", "GET /redfish/v1/Systems", "GET /redfish/v1/EventService/SSE", "GET " + consoleURI, "GET " + consoleURI + "/Recording",
		"POST /redfish/v1/SessionService/Sessions", "PATCH /redfish/v1/Systems/unit-1",
	} {
		upgrade := ""
		if strings.HasSuffix(head, "/Console") {
			upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
		}
		c := n.raw(head + " HTTP/1.1\r\nHost: rack\r\nX-Auth-Token: " + token + "\r\nContent-Type: application/json\r\n" + upgrade + "Content-Length: 1073741824\r\n\r\n")
		answered := make(chan string, 1)
		go func() {
			c.SetReadDeadline(time.Now().Add(wait))
			line, _ := bufio.NewReader(c).ReadString('\n')
			answered <- line
		}()
		sent, block := 0, make([]byte, 64<<10)
		for sent < 2*most {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			m, err := c.Write(block)
			sent += m
			if err != nil {
				break
			}
		}
		if line := <-answered; sent > most || !strings.HasPrefix(line, "HTTP/1.1 ") {
			t.Errorf("%s: %d MiB of a body were taken, answered %q", head, sent>>20, line)
		}
		c.Close()
	}
	if resp, _ := n.do(n.client, "GET", "/redfish/v1/Systems", "", "X-Auth-Token", token); resp.StatusCode != http.StatusOK {
		t.Errorf("after them: %s", resp.Status)
	}
}

// TestStreamSeats: event streams are bounded, and one that ends makes room.
func TestStreamSeats(t *testing.T) {
	s := start(t, description(1, "On"))
	open := func() *http.Response {
		resp, err := http.Get(s.url + "/redfish/v1/EventService/SSE")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	var all []*http.Response
	for range 64 {
		r := open()
		if r.StatusCode != http.StatusOK {
			t.Fatal(r.Status)
		}
		all = append(all, r)
	}
	if r := open(); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s", r.Status)
	}
	all[5].Body.Close()
	s.until("there is room again", func() bool { return open().StatusCode == http.StatusOK })
}
