package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/enroll"
)

// newTrust shows how the verifier stands to each unit.
func newTrust(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "trust [UNIT]",
		GroupID: "operate",
		Short:   "Show which units are admitted to the cluster, and what refused the others",
		Long: `Trust shows how the verifier stands to each unit: Attested, with an identity that
fresh evidence of its BMC renewed; Unverified, when the BMC does not answer and
what was issued lives until it runs out; Refused, with the check that failed,
what was expected and what was seen; Unknown, when the unit has not asked yet.`,
		Example: "  racklet trust\n  racklet trust unit-1\n  racklet trust -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := env.standings(c.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				var one []enroll.Status
				for _, s := range all {
					if s.Unit == args[0] {
						one = append(one, s)
					}
				}
				if len(one) == 0 {
					return hint(fmt.Errorf("no unit %s", args[0]), "racklet trust lists all units")
				}
				all = one
			}
			return env.print(all, func(w io.Writer) error { return writeStandings(w, all) })
		},
	}
}

func writeStandings(w io.Writer, all []enroll.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "UNIT\tSTANDING\tEVIDENCE\tRELEASE\tSEQUENCE\tUNTIL")
	for _, s := range all {
		age, until, release, sequence := "none", "-", "-", "-"
		if s.Age > 0 {
			age = (time.Duration(s.Age) * time.Second).String() + " old"
		}
		if s.Trusted {
			until, release, sequence = s.NotAfter.Local().Format(time.TimeOnly), s.Release, fmt.Sprint(s.Sequence)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Unit, s.Standing, age, release, sequence, until)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	emulated := false
	for _, s := range all {
		emulated = emulated || s.Emulated
		if s.Reason != "" {
			fmt.Fprintf(w, "\n%s: no evidence: %s\n", s.Unit, s.Reason)
		}
		if r := s.Refusal; r != nil && !s.Trusted {
			known, _ := rack.LookupReason(r.Check)
			fmt.Fprintf(w, "\n%s: %s: %s\n  expected %s\n  seen     %s\n  cure     %s\n", s.Unit, r.Check, known.Text, r.Expected, r.Seen, known.Cure)
		}
	}
	if emulated {
		fmt.Fprintln(w, "\nThe BMCs' keys are emulated: their signatures prove the software, not the hardware.")
	}
	return nil
}

// standings asks the verifier of the rack in the state directory.
func (env *environment) standings(ctx context.Context) ([]enroll.Status, error) {
	socket, err := layout{env.state}.socket("enroll")
	if err != nil {
		return nil, err
	}
	var body struct{ Units []enroll.Status }
	if err := askSocket(ctx, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) }, "/v1/units", &body); err != nil {
		return nil, err
	}
	return body.Units, nil
}

// askSocket gets a JSON document over a connection that dial makes.
func askSocket(ctx context.Context, dial func(context.Context) (net.Conn, error), path string, into any) error {
	c := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://rack"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errNoRack
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return json.Unmarshal(b, into)
}

// unitPort is where a unit tells of its network, inside the tunnel.
const unitPort = 9560

// newNet holds what concerns the network of pods.
func newNet(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "net", GroupID: "operate", Short: "Look into the encrypted network of units and pods"}
	var protocol string
	var port uint16
	trace := &cobra.Command{
		Use:   "trace FROM TO",
		Short: "Say which hop or rule stops a flow between two pods",
		Long: `Trace asks the units of both pods what they would do with a flow: device,
rules of network policies, tunnel. A pod is NAMESPACE/NAME or an address.`,
		Example: "  racklet net trace default/web default/db --port 5432\n  racklet net trace default/web 203.0.113.9 --port 443",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			hops, err := env.trace(c.Context(), args[0], args[1], strings.ToUpper(protocol), port)
			if err != nil {
				return err
			}
			return env.print(hops, func(w io.Writer) error { return writeHops(w, hops) })
		},
	}
	trace.Flags().StringVar(&protocol, "protocol", "tcp", "`protocol`: tcp, udp or sctp")
	trace.Flags().Uint16Var(&port, "port", 80, "`port` of the pod that is reached")
	c.AddCommand(trace)
	return c
}

// A Hop is one step of a flow, as the unit that it concerns sees it.
type Hop struct {
	Unit string `json:"unit"`
	Hop  string `json:"hop"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

func writeHops(w io.Writer, hops []Hop) error {
	passes := len(hops) > 0
	for _, h := range hops {
		mark := "ok     "
		if !h.OK {
			mark, passes = "STOPPED", false
		}
		fmt.Fprintf(w, "%s  %-8s  %s: %s\n", mark, h.Unit, h.Hop, h.Text)
	}
	switch {
	case len(hops) == 0:
		fmt.Fprintln(w, "No admitted unit has either pod: racklet trust")
	case passes:
		fmt.Fprintln(w, "The network lets the flow pass.")
	}
	return nil
}

// trace asks all admitted units.
func (env *environment) trace(ctx context.Context, from, to, protocol string, port uint16) ([]Hop, error) {
	units, err := env.standings(ctx)
	if err != nil {
		return nil, err
	}
	q := url.Values{"from": {from}, "to": {to}, "protocol": {protocol}, "port": {fmt.Sprint(port)}}
	hops := []Hop{}
	for _, u := range units {
		if !u.Trusted {
			continue
		}
		at := enroll.DefaultNetwork.Of(u.Unit, u.Slot).TunnelAddress
		var steps []Hop
		err := askSocket(ctx, func(ctx context.Context) (net.Conn, error) {
			return env.dialTunnel(ctx, netip.AddrPortFrom(at, unitPort))
		}, "/v1/trace?"+q.Encode(), &steps)
		if err != nil {
			steps = []Hop{{Hop: "tunnel from the host", Text: err.Error()}}
		}
		for _, s := range steps {
			s.Unit = u.Unit
			hops = append(hops, s)
		}
	}
	return hops, nil
}

// dialTunnel connects to an address of the tunnel, through the daemon.
func (env *environment) dialTunnel(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	socket, err := layout{env.state}.socket("egress")
	if err != nil {
		return nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to.String()}, Host: to.String(), Header: http.Header{}}
	r := bufio.NewReader(c)
	err = req.Write(c)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(r, req)
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil // the other side speaks second: nothing is in the reader
}
