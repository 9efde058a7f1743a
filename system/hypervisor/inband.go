package hypervisor

import (
	"context"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
)

// inband is the BMC at the other end of the unit's in-band line, whichever
// slot it has.
type inband struct{ conn *link.Conn }

var _ BMC = inband{}

func (b inband) ReportStage(ctx context.Context, s wire.Stage, f wire.Failure) error {
	return b.conn.ReportStage(ctx, wire.EIDNull, s, &f)
}

func (b inband) Heartbeat(ctx context.Context, r wire.Report) (wire.HostRequest, error) {
	return b.conn.Heartbeat(ctx, wire.EIDNull, &r)
}

func (b inband) SetInventory(ctx context.Context, v wire.Inventory) error {
	return b.conn.SetInventory(ctx, wire.EIDNull, &v)
}

func (b inband) SetKeyRegister(ctx context.Context, digest [32]byte) error {
	return b.conn.SetKeyRegister(ctx, wire.EIDNull, digest)
}
