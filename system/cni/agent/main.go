//go:build linux

// Cni is the part of a compute unit's operating system that keeps its network:
// the packet filter from the first moment on; once the unit is enrolled, WireGuard
// with the peers that the verifier names, routes, and the configuration by
// which containerd calls the plugin; and the rules of each pod.
//
//	/run/racklet/identity ──▶ wg0, routes, filter, /run/cni/net.d
//	API server ──watch──▶ policies, pods, namespaces ──▶ rules
//	plugin ──/run/racklet/cni/agent.sock──▶ a pod comes or goes
//
// It takes no arguments. While the API server is away it goes on with what it
// knew; while the verifier is away, until identities run out.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/racklet/racklet/system/enroll/api"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	a := newAgent(paths{
		handover: "/run/racklet/handover.json", identity: api.Dir, state: "/run/racklet/cni", conf: "/run/cni/net.d", plugins: "/opt/cni/bin",
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err := a.run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "cni: error: %v\n", err)
		os.Exit(1)
	}
}
