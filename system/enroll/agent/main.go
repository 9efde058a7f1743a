// Enroll is the part of a compute unit's operating system that gets the unit
// its identity. It makes a key pair for this boot, has PID 1 put the key's
// hash into the BMC's key register, shows it to the verifier, and leaves what
// it gets in /run/racklet/identity for kubelet and network (package
// system/enroll/api). It renews the identity at half of its time, follows the
// list of peers, and begins anew whenever it is told that it is out.
//
// It takes no arguments: who the unit is, where the verifier is and which key
// that has, it reads from stage 1's handover, which came from the BMC.
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

const (
	handoverFile = "/run/racklet/handover.json"
	bmcSocket    = "/run/racklet/bmc.sock" // PID 1's
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "enroll: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	h, err := readHandover(handoverFile)
	if err != nil {
		return err
	}
	a, err := newAgent(h, api.Dir, overSocket(bmcSocket), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return a.run(ctx)
}
