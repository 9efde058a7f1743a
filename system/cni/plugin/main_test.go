//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/racklet/racklet/system/cni/endpoint"
	"github.com/racklet/racklet/system/cni/nettest"
)

func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" { // this program is the plugin
		main()
		return
	}
	nettest.Main(m)
}

const wait = 15 * time.Second

// node is a unit for the plugin: a namespace and an agent that says yes or no.
type node struct {
	*testing.T
	host   *nettest.Space
	config map[string]any
	store  endpoint.Store
	refuse atomic.Bool
	asked  atomic.Int32
}

func newNode(t *testing.T) *node {
	n := &node{T: t, host: nettest.New(t)}
	if err := n.host.Do(func() error { // an address of the unit to speak from
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("10.78.0.1/32")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(lo, a), netlink.LinkSetUp(lo))
	}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n.store = endpoint.Store{Dir: filepath.Join(dir, "endpoints")}
	socket := filepath.Join(dir, "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.asked.Add(1)
		if n.refuse.Load() {
			http.Error(w, "the unit is not enrolled yet", http.StatusServiceUnavailable)
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	n.config = map[string]any{"cniVersion": "1.1.0", "name": "racklet", "type": "racklet", "agent": socket, "dir": n.store.Dir, "pods": "10.42.1.0/24", "pods6": "fd78:0:42:1::/64", "mtu": 1420}
	return n
}

// call runs the plugin as a runtime does.
func (n *node) call(verb, id, netns string, extra map[string]any) (out []byte, err error) {
	n.Helper()
	config := map[string]any{}
	for _, m := range []map[string]any{n.config, extra} {
		for k, v := range m {
			config[k] = v
		}
	}
	doc, jerr := json.Marshal(config)
	if jerr != nil {
		n.Fatal(jerr)
	}
	self, jerr := os.Executable()
	if jerr != nil {
		n.Fatal(jerr)
	}
	err = n.host.Do(func() error {
		cmd := exec.CommandContext(context.Background(), self)
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS="+netns, "CNI_IFNAME=eth0", "CNI_PATH=/nowhere", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME="+id)
		cmd.Stdin = bytes.NewReader(doc)
		out, err = cmd.Output()
		return err
	})
	return out, err
}

func (n *node) ok(verb, id, netns string, extra map[string]any) []byte {
	n.Helper()
	out, err := n.call(verb, id, netns, extra)
	if err != nil {
		n.Fatalf("%s %s: %v\n%s", verb, id, err, out)
	}
	return out
}

// fails expects an error of the specification's form.
func (n *node) fails(verb, id, netns string, extra map[string]any, code int, text string) {
	n.Helper()
	out, err := n.call(verb, id, netns, extra)
	var e struct {
		Code         int
		Msg, Details string
	}
	if err == nil || json.Unmarshal(out, &e) != nil || e.Code != code || !strings.Contains(e.Msg+e.Details, text) {
		n.Errorf("%s %s: %v %s, want code %d with %q", verb, id, err, out, code, text)
	}
}

func (n *node) devices() (count int) {
	n.Helper()
	if err := n.host.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, endpoint.Prefix) {
				count++
			}
		}
		return err
	}); err != nil {
		n.Fatal(err)
	}
	return count
}

func TestPlugin(t *testing.T) {
	n := newNode(t)
	a, b := nettest.New(t), nettest.New(t)
	n.ok("STATUS", "", "", nil)
	out := n.ok("ADD", "a", a.Path(), nil)
	var result struct {
		CNIVersion string
		Interfaces []struct {
			Name, Mac, Sandbox string
			MTU                int
		}
		IPs []struct {
			Address   netip.Prefix
			Interface int
		}
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	if result.CNIVersion != "1.1.0" || len(result.Interfaces) != 2 || result.Interfaces[1].Sandbox != a.Path() || result.Interfaces[1].MTU != 1420 || result.Interfaces[0].Mac == "" ||
		len(result.IPs) != 2 || result.IPs[0].Address.String() != "10.42.1.2/32" || result.IPs[0].Interface != 1 || result.IPs[1].Address.Addr().Is4() {
		t.Errorf("%s", out)
	}
	n.ok("CHECK", "a", a.Path(), map[string]any{"prevResult": json.RawMessage(out)})
	second := n.ok("ADD", "b", b.Path(), nil)
	if n.devices() != 2 {
		t.Errorf("%d devices", n.devices())
	}
	a.Echo(t, "10.42.1.2:80", "a")
	if who, err := n.host.Dial("10.42.1.2:80", wait); err != nil || who != "a" {
		t.Errorf("%q %v", who, err)
	}
	// CHECK notices what somebody took away.
	if err := a.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.42.1.2/32")
		if err != nil {
			return err
		}
		if l.Attrs().MTU != 1420 {
			t.Errorf("mtu %d", l.Attrs().MTU)
		}
		return netlink.AddrDel(l, addr)
	}); err != nil {
		t.Fatal(err)
	}
	n.fails("CHECK", "a", a.Path(), map[string]any{"prevResult": json.RawMessage(out)}, 999, "lacks the address 10.42.1.2")
	n.ok("CHECK", "b", b.Path(), map[string]any{"prevResult": json.RawMessage(second)})

	// GC takes all but what is listed; a repeated DEL is none.
	n.ok("GC", "", "", map[string]any{"cni.dev/valid-attachments": []any{map[string]string{"containerID": "b", "ifname": "eth0"}}})
	if all, err := n.store.List(); err != nil || len(all) != 1 || all[0].ContainerID != "b" || n.devices() != 1 {
		t.Errorf("%+v %v, %d devices", all, err, n.devices())
	}
	n.ok("DEL", "a", a.Path(), nil)
	n.ok("DEL", "b", b.Path(), nil)
	n.ok("DEL", "b", "", nil)
	if all, err := n.store.List(); err != nil || len(all) != 0 || n.devices() != 0 {
		t.Errorf("%+v %v, %d devices", all, err, n.devices())
	}
}

// TestFailsClosed: without the agent's yes nothing is attached and nothing stays.
func TestFailsClosed(t *testing.T) {
	n := newNode(t)
	a := nettest.New(t)
	n.refuse.Store(true)
	n.fails("STATUS", "", "", nil, 50, "not enrolled yet")
	n.fails("ADD", "a", a.Path(), nil, 11, "not enrolled yet")
	n.refuse.Store(false)
	n.fails("ADD", "a", "/nowhere", nil, 999, "nowhere")
	n.fails("ADD", "a", a.Path(), map[string]any{"mtu": 100}, 7, "mtu")
	n.fails("ADD", "a", a.Path(), map[string]any{"pods": 5}, 6, "JSON")
	n.fails("ADD", "a", a.Path(), map[string]any{"cniVersion": "0.1.0"}, 1, "")
	if all, err := n.store.List(); err != nil || len(all) != 0 || n.devices() != 0 {
		t.Errorf("%+v %v, %d devices", all, err, n.devices())
	}
	n.config["agent"] = filepath.Join(t.TempDir(), "none.sock")
	n.fails("STATUS", "", "", nil, 50, "none.sock")
	n.fails("ADD", "a", a.Path(), nil, 11, "none.sock")
	n.config["agent"] = "" // and a configuration without one is none
	n.fails("ADD", "a", a.Path(), nil, 7, "agent")
}
