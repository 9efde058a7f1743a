package plant_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/conformance"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
)

// bmcLine is one of the three serial lines of a BMC on a bench.
type bmcLine struct {
	side wire.Side
	port wire.Port
	mu   sync.Mutex
	in   []byte // to the BMC
	said chan []byte
	out  *io.PipeReader
	feed *io.PipeWriter
}

func (l *bmcLine) Read(p []byte) (int, error) { return l.out.Read(p) }

func (l *bmcLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in = append(l.in, p...)
	return len(p), nil
}

func (l *bmcLine) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.in
	l.in = nil
	return p
}

// railPin is a load switch whose rail follows at once.
type railPin struct{ on bool }

func (p *railPin) Set(v bool) { p.on = v }
func (p *railPin) Get() bool  { return p.on }

// attachBMC runs a BMC, five times as fast as the clock, until the test ends.
func attachBMC(t *testing.T, slot uint8, bootable bool) conformance.BMCLines {
	t.Helper()
	flash, err := chip.OpenFlash(filepath.Join(t.TempDir(), "bmc.flash"), bmc.FlashSize)
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte("owner"))
	owner := ed25519.NewKeyFromSeed(seed[:])
	if err := bmc.Provision(flash, bmc.Config{
		Slot: slot, DeviceKey: owner, BootConfig: []byte("{}"),
		Owners: trust.Keyring{Threshold: 1, Keys: []ed25519.PublicKey{owner.Public().(ed25519.PublicKey)}},
	}); err != nil {
		t.Fatal(err)
	}
	if bootable {
		image := make([]byte, 100*trust.BlockSize)
		m := trust.SlotManifest{Version: "1", ImageSize: uint32(len(image)), ChunkSize: trust.ChunkSize}
		for off := 0; off < len(image); off += trust.ChunkSize {
			m.Chunks = append(m.Chunks, sha256.Sum256(image[off:min(off+trust.ChunkSize, len(image))]))
		}
		doc, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		signed := trust.AppendSigned(doc, []trust.Signature{trust.Sign(trust.DomainSlot, owner, doc)})
		if err := bmc.WriteSlot(flash, wire.SlotA, bytes.NewReader(image), signed); err != nil {
			t.Fatal(err)
		}
	}
	rail := &railPin{}
	b, err := bmc.New(bmc.Config{}, bmc.Ports{Flash: flash, Switch: rail, PowerGood: rail})
	if err != nil {
		t.Fatal(err)
	}
	var lines [3]*bmcLine
	var all sync.WaitGroup
	for side := range lines {
		l := &bmcLine{side: wire.Side(side), said: make(chan []byte, 4096), port: wire.Port{Own: wire.BMC(slot)}}
		if l.side == wire.SideBus {
			l.port.Slot = slot
		}
		l.out, l.feed = io.Pipe()
		lines[side] = l
		all.Go(func() {
			for p := range l.said {
				l.feed.Write(p) // fails once the test is over
			}
		})
	}
	stop := make(chan struct{})
	all.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		resp := make([]byte, wire.MaxMessage-1)
		for start := time.Now(); ; {
			select {
			case <-stop:
				for _, l := range lines {
					close(l.said)
				}
				return
			case <-tick.C:
			}
			now := 5 * uint64(time.Since(start).Milliseconds())
			for _, l := range lines {
				var out []byte
				for _, c := range l.take() {
					m, ok := l.port.Push(c)
					if !ok {
						continue
					}
					var control bool
					if out, control = l.port.Control(out, &m); control || m.Type != wire.MessagePLDM {
						continue
					}
					if n := b.Handle(l.side, now, m.Body, resp); n > 0 {
						out = l.port.Respond(out, &m, resp[:n])
					}
				}
				if len(out) > 0 {
					l.said <- out
				}
			}
			b.Step(now)
		}
	})
	t.Cleanup(func() {
		close(stop)
		for _, l := range lines {
			l.out.Close()
		}
		all.Wait()
	})
	return conformance.BMCLines{
		Slot: slot, InBand: lines[wire.SideInBand], Bus: lines[wire.SideBus], Debug: lines[wire.SideDebug], Addressed: true,
	}
}

func TestConformanceOfTheBMC(t *testing.T) {
	t.Run("bootable", func(t *testing.T) { conformance.BMC(t, attachBMC(t, 3, true)) })
	t.Run("without a slot", func(t *testing.T) { conformance.BMC(t, attachBMC(t, 1, false)) })
}

// TestConformanceOfTheBMCBehindTheRMC is a BMC as the management computer sees it: over the line to a real RMC, which
// grants the power, and with the physics of the whole rack around.
func TestConformanceOfTheBMCBehindTheRMC(t *testing.T) {
	l := newLoop(t)
	l.run(2 * time.Second)
	conformance.BMC(t, conformance.BMCLines{Slot: 2, Bus: attach(t, l)})
}
