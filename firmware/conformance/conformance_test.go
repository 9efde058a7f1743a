package conformance

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/wiretest"
)

// TestFakeBMC: the fake that others test with behaves as the real one must.
func TestFakeBMC(t *testing.T) {
	b := wiretest.NewBMC(3)
	l := BMCLines{Slot: 3, Addressed: true}
	open := func(slot uint8, side wire.Side) (near interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}) {
		a, far := wiretest.Line()
		done := make(chan struct{})
		go func() {
			defer close(done)
			wiretest.Serve(far, wire.BMC(3), slot, side, b.Faults, b.Handle)
		}()
		t.Cleanup(func() { a.Close(); far.Close(); <-done })
		return a
	}
	l.InBand, l.Bus, l.Debug = open(0, wire.SideInBand), open(3, wire.SideBus), open(0, wire.SideDebug)
	BMC(t, l)
}

func TestFakeRMC(t *testing.T) {
	r := wiretest.NewRack(2)
	t.Cleanup(r.Close)
	RMC(t, RMCLines{Management: r.Line(), Present: []uint8{1, 2}, Empty: 5})
}

// TestFakeBMCBehindRMC is the same BMC as the management computer sees it.
func TestFakeBMCBehindRMC(t *testing.T) {
	r := wiretest.NewRack(2)
	t.Cleanup(r.Close)
	BMC(t, BMCLines{Slot: 2, Bus: r.Line()})
}
