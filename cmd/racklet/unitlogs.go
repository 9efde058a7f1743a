package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/system/hypervisor/node"
)

func newUnitLogs(env *environment) *cobra.Command {
	var kernel, processes bool
	var tail int64
	c := &cobra.Command{
		Use:   "logs UNIT [COMPONENT]",
		Short: "Print what the parts of a unit's system have logged",
		Long: `Logs asks the unit itself, through the encrypted network and by mutual TLS: the unit shows
its logs, its processes and its kernel's messages to operators, and lets nobody change
anything. Without a component it lists what there is: kubelet, containerd, and a file per
container below "pods". What the unit's BMC has logged is another thing: "racklet unit log".`,
		Example: `  racklet unit logs unit-1
  racklet unit logs unit-1 kubelet --tail 20000
  racklet unit logs unit-1 --kernel
  racklet unit logs unit-1 --processes`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: env.completeUnits,
		RunE: func(c *cobra.Command, args []string) error {
			asked := len(args) - 1
			for _, b := range []bool{kernel, processes} {
				if b {
					asked++
				}
			}
			if asked > 1 {
				return &usageError{errors.New("unit logs: want one of a component, --kernel and --processes")}
			}
			client, err := env.client()
			if err != nil {
				return err
			}
			units, err := readUnits(c.Context(), client)
			if err != nil {
				return err
			}
			slot := 0
			for i := range units {
				if units[i].Name == args[0] {
					slot = units[i].Slot
				}
			}
			if slot == 0 {
				return hint(fmt.Errorf("no unit %q", args[0]), "list them with: racklet unit list")
			}
			u, err := dialUnit(layout{env.state}, slot)
			if err != nil {
				return err
			}
			switch {
			case kernel:
				return u.copy(c.Context(), env.stdout, "kernel-log")
			case processes:
				return env.unitProcesses(c.Context(), u)
			case len(args) == 1:
				return env.unitFiles(c.Context(), u)
			}
			name := args[1]
			if !strings.Contains(name, ".") {
				name += ".log"
			}
			where := "logs/" + (&url.URL{Path: name}).EscapedPath()
			if tail >= 0 {
				where += "?tail=" + strconv.FormatInt(tail, 10)
			}
			return u.copy(c.Context(), env.stdout, where)
		},
	}
	c.Flags().BoolVar(&kernel, "kernel", false, "print the kernel's messages")
	c.Flags().BoolVar(&processes, "processes", false, "list what runs")
	c.Flags().Int64Var(&tail, "tail", -1, "print the last `BYTES` alone (default: all)")
	return c
}

// A unitClient asks a unit's system, as an administrator of the rack.
type unitClient struct {
	http *http.Client
	base string
}

// dialUnit prepares to ask the unit in a slot. Nothing is sent yet.
func dialUnit(l layout, slot int) (*unitClient, error) {
	pair := filepath.Join(l.kubernetes(), "pki", "administrator.pem") // certificate and key in one file
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hint(errors.New("this rack has no operators: it runs no Kubernetes"), "units of flavour node show their logs; of others, see: racklet unit console UNIT")
	} else if err != nil {
		return nil, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(l.enroll(), "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the authority of units: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("read the authority of units: no certificate")
	}
	socket, err := l.socket("egress")
	if err != nil {
		return nil, err
	}
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 78, 0, byte(slot)}), node.InspectPort).String()
	return &unitClient{base: "https://" + address + "/v1/", http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return connect(ctx, socket, address)
		},
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{cert}},
	}}}, nil
}

// connect asks the proxy at a socket for a connection (RFC 9110, 9.3.6).
func connect(ctx context.Context, socket, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, errNoRack
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address); err != nil {
		conn.Close()
		return nil, err
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err == nil && res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
		err = fmt.Errorf("no way to the unit: %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	if err == nil && r.Buffered() > 0 {
		err = errors.New("no way to the unit: it speaks before it is asked")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (u *unitClient) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.base+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := u.http.Do(req)
	if err != nil {
		return nil, hint(fmt.Errorf("ask the unit: %w", err), "a unit answers once it is enrolled; before that, see: racklet unit console UNIT")
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, fmt.Errorf("ask the unit: %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return res.Body, nil
}

func (u *unitClient) copy(ctx context.Context, w io.Writer, path string) error {
	body, err := u.get(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

func (u *unitClient) decode(ctx context.Context, path string, v any) error {
	body, err := u.get(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(io.LimitReader(body, 16<<20)).Decode(v)
}

func (env *environment) unitFiles(ctx context.Context, u *unitClient) error {
	var list []node.LogInfo
	if err := u.decode(ctx, "logs", &list); err != nil {
		return err
	}
	return env.print(list, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, f := range list {
			fmt.Fprintf(t, "%s\t%d\t%s\n", f.Name, f.Size, f.Modified)
		}
		return t.Flush()
	})
}

func (env *environment) unitProcesses(ctx context.Context, u *unitClient) error {
	var list []node.ProcessInfo
	if err := u.decode(ctx, "processes", &list); err != nil {
		return err
	}
	return env.print(list, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "PID\tCPU S\tRSS KIB\tGROUP\tCOMMAND")
		for _, p := range list {
			if p.Command != "" { // the kernel's own have none
				fmt.Fprintf(t, "%d\t%.1f\t%d\t%s\t%.60s\n", p.PID, p.CPUSeconds, p.ResidentKiB, p.Group, p.Command)
			}
		}
		return t.Flush()
	})
}
