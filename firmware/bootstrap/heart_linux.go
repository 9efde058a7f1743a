package bootstrap

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/racklet/racklet/firmware/wire"
)

// heart tells the BMC once a second that stage 1 lives, and switches the unit
// off when the BMC asks for it: also while it waits for a network that does
// not come, or has stopped at a check.
type heart struct {
	bmc     BMC
	console io.Writer
	halted  atomic.Bool
}

func newHeart(bmc BMC, console io.Writer) *heart { return &heart{bmc: bmc, console: console} }

func (h *heart) beat(ctx context.Context) {
	for {
		since, _ := clocks()
		r := wire.Report{UptimeSeconds: uint32(since)} // no release: none runs yet
		if req, err := h.bmc.Heartbeat(ctx, r); err == nil && req != wire.HostNone {
			fmt.Fprint(h.console, "racklet: the BMC asks to shut down\n")
			h.halt(ctx, wire.Failure{})
		}
		if err := sleep(ctx, time.Second); err != nil {
			return
		}
	}
}

// halt says that the rail may be cut, and stops the processor.
func (h *heart) halt(ctx context.Context, why wire.Failure) {
	if h.halted.Swap(true) {
		stay()
	}
	unix.Sync()
	if err := h.bmc.ReportStage(ctx, wire.StageHalted, why); err != nil {
		fmt.Fprintf(h.console, "racklet: report halt: %v\n", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	stay()
}
