package bootstrap

import (
	"context"
	"errors"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
)

// peer is the endpoint at the other end of the in-band line: a unit does not
// know which slot it sits in until its BMC has told it.
const peer = wire.EIDNull

// inband is the BMC at the other end of a serial line.
type inband struct{ conn *link.Conn }

var _ BMC = inband{}

// refusal gives a check that failed on the BMC its name.
func refusal(err error) error {
	var r *link.RefusedError
	if errors.As(err, &r) {
		f := &r.Failure
		return stop(f.Reason.String(), f.Expected.String(), f.Seen.String(), errors.New("the BMC refused"))
	}
	return err
}

func (b inband) BootConfig(ctx context.Context) ([]byte, error) {
	doc, err := b.conn.BootConfig(ctx, peer)
	return doc, refusal(err)
}

func (b inband) Floors(ctx context.Context) (trust.Floors, error) {
	f, err := b.conn.Floors(ctx, peer)
	return trust.Floors(f.Floors), refusal(err)
}

func (b inband) Time(ctx context.Context) (time.Time, error) {
	ms, err := b.conn.Time(ctx, peer)
	if err != nil || ms == 0 {
		return time.Time{}, refusal(err)
	}
	return time.UnixMilli(int64(ms)), nil
}

func (b inband) Slots(ctx context.Context) (slots [2]wire.SlotInfo, booted uint8, err error) {
	if slots, err = b.conn.Slots(ctx, peer); err != nil {
		return slots, wire.SlotNone, refusal(err)
	}
	s, err := b.conn.UnitState(ctx, peer)
	return slots, s.BootSlot, refusal(err)
}

func (b inband) ReportStage(ctx context.Context, s wire.Stage, f wire.Failure) error {
	return refusal(b.conn.ReportStage(ctx, peer, s, &f))
}

func (b inband) Heartbeat(ctx context.Context, r wire.Report) (wire.HostRequest, error) {
	req, err := b.conn.Heartbeat(ctx, peer, &r)
	return req, refusal(err)
}

func (b inband) Extend(ctx context.Context, register uint8, digest [32]byte, label string) error {
	return refusal(b.conn.ExtendMeasurement(ctx, peer, register, digest, label[:min(len(label), wire.MaxLabel)]))
}

func (b inband) RaiseFloors(ctx context.Context, signed []byte) error {
	_, err := b.conn.RaiseFloors(ctx, peer, signed)
	return refusal(err)
}

func (b inband) Stage(ctx context.Context, image, signed []byte) error {
	_, err := b.conn.WriteSlot(ctx, peer, image, signed, nil)
	return refusal(err)
}
