//go:build linux

// Racklet is the CNI plugin of a unit (Container Network Interface 1.1.0, all
// of its verbs): package endpoint does the work, the agent of the unit learns
// of each pod before it may talk, and says whether the network is ready.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/racklet/racklet/system/cni/endpoint"
)

// config is the plugin's part of the network's configuration; the agent writes it.
type config struct {
	types.PluginConf
	Agent string       `json:"agent"` // Unix socket
	Dir   string       `json:"dir"`   // of package endpoint's Store
	Pods  netip.Prefix `json:"pods"`
	Pods6 netip.Prefix `json:"pods6,omitzero"`
	MTU   int          `json:"mtu"`
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status},
		version.PluginSupports("0.4.0", "1.0.0", "1.1.0"), "racklet: pods of a unit")
}

func parse(stdin []byte) (*config, error) {
	c := new(config)
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the configuration is not JSON of this plugin", err.Error())
	}
	if c.Agent == "" || c.Dir == "" || !c.Pods.Addr().Is4() || c.Pods.Bits() != 24 || c.MTU < 1280 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "the configuration needs agent, dir, pods (an IPv4 /24) and mtu", "")
	}
	return c, nil
}

func add(a *skel.CmdArgs) error {
	c, err := parse(a.StdinData)
	if err != nil {
		return err
	}
	r := endpoint.Record{ContainerID: a.ContainerID, IfName: a.IfName, Netns: a.Netns}
	r.Namespace, r.Pod = podOf(a.Args)
	s := endpoint.Store{Dir: c.Dir}
	if r, err = s.Allocate(r, c.Pods, c.Pods6); err != nil {
		return types.NewError(types.ErrInternal, "no address", err.Error())
	}
	undo := func(err error) error {
		return errors.Join(err, endpoint.Detach(r), s.Release(r.ContainerID, r.IfName))
	}
	// The rules of the pod come before its devices: it never talks unpoliced.
	if err := c.ask(http.MethodPut, "/v1/endpoint", &r); err != nil {
		return types.NewError(types.ErrTryAgainLater, "the network agent does not take the pod", undo(err).Error())
	}
	if err := endpoint.Attach(r, c.MTU); err != nil {
		return types.NewError(types.ErrInternal, "the pod was not attached", undo(err).Error())
	}
	return types.PrintResult(result(c, &r), c.CNIVersion)
}

// podOf reads which pod an attachment is for, as kubelet's runtimes say it.
func podOf(args string) (namespace, name string) {
	for arg := range strings.SplitSeq(args, ";") {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "K8S_POD_NAMESPACE":
			namespace = value
		case "K8S_POD_NAME":
			name = value
		}
	}
	return namespace, name
}

func result(c *config, r *endpoint.Record) *current.Result {
	out := &current.Result{CNIVersion: c.CNIVersion,
		Interfaces: []*current.Interface{{Name: r.Device, Mac: endpoint.MAC(*r)}, {Name: r.IfName, Sandbox: r.Netns, Mtu: c.MTU}}}
	for _, address := range []netip.Addr{r.Address, r.Address6} {
		if address.IsValid() {
			bits := address.BitLen()
			out.IPs = append(out.IPs, &current.IPConfig{Interface: current.Int(1), Address: net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(bits, bits)}})
		}
	}
	return out
}

func del(a *skel.CmdArgs) error {
	c, err := parse(a.StdinData)
	if err != nil {
		return err
	}
	r, err := endpoint.Store{Dir: c.Dir}.Get(a.ContainerID, a.IfName)
	if errors.Is(err, endpoint.ErrUnknown) {
		return nil
	}
	if err != nil {
		return types.NewError(types.ErrInternal, "the attachment is not readable", err.Error())
	}
	return c.remove(r)
}

// remove takes an attachment away: first its devices, then its rules.
func (c *config) remove(r endpoint.Record) error {
	if err := endpoint.Detach(r); err != nil {
		return types.NewError(types.ErrInternal, "the attachment was not removed", err.Error())
	}
	if err := (endpoint.Store{Dir: c.Dir}).Release(r.ContainerID, r.IfName); err != nil {
		return types.NewError(types.ErrInternal, "the address was not released", err.Error())
	}
	_ = c.ask(http.MethodDelete, "/v1/endpoint", &r) // an agent that is away reads the store when it is back
	return nil
}

func check(a *skel.CmdArgs) error {
	c, err := parse(a.StdinData)
	if err != nil {
		return err
	}
	r, err := endpoint.Store{Dir: c.Dir}.Get(a.ContainerID, a.IfName)
	if err == nil {
		err = endpoint.Check(r)
	}
	if err == nil {
		err = c.ask(http.MethodPost, "/v1/endpoint/check", &r)
	}
	if err != nil {
		return types.NewError(types.ErrInternal, "the attachment is not as it was made", err.Error())
	}
	return nil
}

// gc removes every attachment that the runtime does not list.
func gc(a *skel.CmdArgs) error {
	c, err := parse(a.StdinData)
	if err != nil {
		return err
	}
	all, err := endpoint.Store{Dir: c.Dir}.List()
	if err != nil {
		return types.NewError(types.ErrInternal, "the attachments are not readable", err.Error())
	}
	var errs []error
	for _, r := range all {
		if !slices.Contains(c.ValidAttachments, types.GCAttachment{ContainerID: r.ContainerID, IfName: r.IfName}) {
			errs = append(errs, c.remove(r))
		}
	}
	return errors.Join(errs...)
}

func status(a *skel.CmdArgs) error {
	c, err := parse(a.StdinData)
	if err != nil {
		return err
	}
	if err := c.ask(http.MethodGet, "/v1/status", nil); err != nil {
		return types.NewError(50, "the network of this unit is not ready", err.Error()) // CNI 1.1.0, "STATUS"
	}
	return nil
}

// ask asks the unit's agent.
func (c *config) ask(method, path string, r *endpoint.Record) error {
	h := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Agent)
	}}}
	var body io.Reader
	if r != nil {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://agent"+path, body)
	if err != nil {
		return err
	}
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
