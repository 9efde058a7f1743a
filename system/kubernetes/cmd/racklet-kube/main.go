// Racklet-kube is Kubernetes in one program: upstream's components, unchanged, and what runs them in
// a rack.
//
//	racklet-kube server          a control plane: store, API server, controller manager, scheduler, controller
//	racklet-kube kubectl         the command-line client
//	racklet-kube kubelet         and kube-proxy: what a node runs
//	racklet-kube apiserver       and controller-manager, scheduler, kine, controller: one component alone
//	racklet-kube version
//
// It may also be started under a component's name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's ways to log in
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of API clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // and of the build
	"k8s.io/component-base/version"
	"k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"github.com/racklet/racklet/system/kubernetes/controller"
	"github.com/racklet/racklet/system/kubernetes/server"
)

func main() {
	name, args := strings.TrimPrefix(filepath.Base(os.Args[0]), "kube-"), os.Args[1:]
	if !known(name) && len(args) > 0 {
		name, args = strings.TrimPrefix(args[0], "kube-"), args[1:]
	}
	if name == "attached" && len(args) > 0 {
		// Standard input is a pipe from the one who started this: when it closes, that one is gone.
		go func() {
			io.Copy(io.Discard, os.Stdin)
			syscall.Kill(os.Getpid(), syscall.SIGTERM)
		}()
		name, args = args[0], args[1:]
	}
	os.Exit(run(name, args))
}

// upstream are programs that bring their own flags, logs and signals.
var upstream = map[string]func() *cobra.Command{
	"apiserver":          apiserver.NewAPIServerCommand,
	"controller-manager": controllermanager.NewControllerManagerCommand,
	"scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":            func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"proxy":              proxy.NewProxyCommand,
}

// ours are the others.
var ours = map[string]func(ctx context.Context, args []string) error{
	"server":     runServer,
	"kine":       runStore,
	"controller": runController,
	"version": func(context.Context, []string) error {
		_, err := fmt.Println(version.Get().GitVersion)
		return err
	},
}

func known(name string) bool { return upstream[name] != nil || ours[name] != nil || name == "kubectl" }

func run(name string, args []string) int {
	if name == "kubectl" {
		os.Args = append([]string{name}, args...)
		if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if command := upstream[name]; command != nil {
		os.Args = append([]string{name}, args...)
		return cli.Run(command())
	}
	if ours[name] == nil {
		fmt.Fprintln(os.Stderr, "usage: racklet-kube server|kubectl|kubelet|kube-proxy|apiserver|controller-manager|scheduler|kine|version [flags]")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := ours[name](ctx, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 2
	case err != nil:
		fmt.Fprintf(os.Stderr, "racklet-kube: error: %v\n", err)
		return 1
	}
	return 0
}

func runStore(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: racklet-kube kine FILE SOCKET")
	}
	return serveStore(ctx, args[0], args[1])
}

func runController(ctx context.Context, args []string) error {
	o := controller.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	fs := flag.NewFlagSet("racklet-kube controller", flag.ContinueOnError)
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "`file` with the way to the API server")
	fs.StringVar(&o.Redfish, "redfish", "", "Unix `socket` of the rack's management API")
	fs.StringVar(&o.Objects, "objects", "", "`file` with the rack's verified objects")
	var pods prefixes
	fs.Var(&pods, "pods", "address `ranges` of pods, separated by commas")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.Kubeconfig == "" || o.Redfish == "" || fs.NArg() > 0 {
		return errors.New("usage: racklet-kube controller --kubeconfig FILE --redfish SOCKET [--objects FILE] [--pods RANGES]")
	}
	if len(pods) > 0 {
		o.Pods = pods[0]
	}
	return controller.Run(ctx, o)
}

// prefixes is a flag of address ranges, separated by commas.
type prefixes []netip.Prefix

func (p *prefixes) String() string { return fmt.Sprint(*p) }

func (p *prefixes) Set(text string) error {
	*p = nil
	for one := range strings.SplitSeq(text, ",") {
		r, err := netip.ParsePrefix(one)
		if err != nil {
			return err
		}
		*p = append(*p, r)
	}
	return nil
}

// list is a flag of words, separated by commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	*l = strings.Split(text, ",")
	return nil
}

func runServer(ctx context.Context, args []string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s := &server.Server{Log: os.Stderr, Version: version.Get().GitVersion}
	s.Program = program
	s.PodRanges = prefixes{netip.MustParsePrefix("10.42.0.0/16")}
	s.Services = prefixes{netip.MustParsePrefix("10.96.0.0/16")}
	fs := flag.NewFlagSet("racklet-kube server", flag.ContinueOnError)
	fs.StringVar(&s.Dir, "data", "", "`directory` of database, keys, configuration and logs")
	fs.StringVar(&s.Sockets, "sockets", "", "`directory` of the Unix sockets (default: the data directory)")
	fs.StringVar(&s.NodeCA, "node-ca", "", "`file` with the authorities that certify nodes")
	fs.StringVar(&s.Egress, "egress-socket", "", "Unix `socket` of an HTTP CONNECT proxy to nodes and pods (default: this host's network)")
	fs.StringVar(&s.Authorize, "authorize-socket", "", "Unix `socket` that answers SubjectAccessReviews about nodes, POST /authorize")
	fs.StringVar(&s.Redfish, "redfish", "", "Unix `socket` of the rack's management API, for the rack controller")
	fs.StringVar(&s.Objects, "objects", "", "`file` with the rack's verified objects, for the rack controller")
	advertise := fs.String("advertise", "10.78.0.254:6443", "`address` at which nodes and pods reach the API server")
	fs.Var((*prefixes)(&s.PodRanges), "pods", "address `ranges` of pods, separated by commas")
	fs.Var((*prefixes)(&s.Services), "services", "address `ranges` of services")
	fs.Var((*list)(&s.Features), "feature-gates", "`NAME=BOOL,...` of Kubernetes")
	fs.Var((*list)(&s.Etcd.Servers), "etcd-servers", "`URLs` of an etcd to use instead of the built-in store")
	fs.StringVar(&s.Etcd.CA, "etcd-cafile", "", "`file` with etcd's authority")
	fs.StringVar(&s.Etcd.Cert, "etcd-certfile", "", "`file` with the certificate for etcd")
	fs.StringVar(&s.Etcd.Key, "etcd-keyfile", "", "`file` with its key")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if s.Advertise, err = netip.ParseAddrPort(*advertise); err != nil {
		return fmt.Errorf("--advertise: %w", err)
	}
	if s.Sockets == "" {
		s.Sockets = s.Dir
	}
	return s.Run(ctx)
}
