package sim

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
)

// fans of the rack.
const fans = 2

// rmcFlash is the size of the RMC's flash: the smallest NOR chip on the market
// that holds its records.
const rmcFlash = 1 << 20

// controller is the rack controller's board: the RMC with its chips.
type controller struct {
	rack  *Rack
	chips *chip.Bus
	flash *chip.Flash
	inbox *inbox // from the multi-drop bus
	line  *inbox // from the management computer

	mu      sync.Mutex
	rmc     *rmc.RMC
	started time.Time
	starts  int
	hung    bool
	restart bool
	leds    [wire.MaxSlots]bool
}

func newController(r *Rack) (*controller, error) {
	c := &controller{rack: r, chips: chip.NewBus(), inbox: newInbox()}
	// Both lines wake the same goroutine.
	c.line = &inbox{wake: c.inbox.wake}
	p := r.plant
	c.chips.Attach(ina228.DefaultAddress, chip.NewINA228(shuntMicroohms*1e-6, 1, func() chip.Rail {
		s := p.Rack()
		return chip.Rail{Volts: s.Volts, Amps: s.Amps, Joules: s.Joules, Die: s.Exhaust}
	}))
	c.chips.Attach(tmp117.DefaultAddress, chip.NewTMP117(func() float64 { return p.Rack().Inlet }))
	c.chips.Attach(emc2305.DefaultAddress, chip.NewEMC2305(
		func(fan int) float64 { return fanRPM(r, fan) },
		func(fan int, share float64) {
			if fan < fans {
				p.SetDrive(fan, share)
			}
		}))
	err := fitEEPROM(c.chips, filepath.Join(r.cfg.Dir, "rmc.eeprom"), controllerBoard, time.Now().UTC())
	if err != nil {
		return nil, err
	}
	if c.flash, err = chip.OpenFlash(filepath.Join(r.cfg.Dir, "rmc.flash"), rmcFlash); err != nil {
		return nil, err
	}
	return c, nil
}

func fanRPM(r *Rack, fan int) float64 {
	if fan >= fans {
		return 0
	}
	return r.plant.Fan(fan).RPM
}

type writer func([]byte)

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// boot starts the RMC. The caller holds c.mu.
func (c *controller) boot() error {
	meter, err := ina228.New(c.chips, ina228.Config{ShuntMicroohms: shuntMicroohms, MaxMilliamps: maxMilliamps})
	if err != nil {
		return err
	}
	fanChip, err := emc2305.New(c.chips, emc2305.DefaultAddress, fans)
	if err != nil {
		return err
	}
	ports := rmc.Ports{
		Bus:        writer(func(p []byte) { c.rack.bus.send(c.inbox, p) }),
		Management: writer(c.rack.line.fromRMC),
		Flash:      c.flash, Meter: meter, Inlet: tmp117.New(c.chips, 0), Fans: fanChip, Identity: eeprom.New(c.chips, 0),
	}
	for i := range int(c.rack.cfg.Rack.Spec.Slots) {
		ports.Present[i] = driver.Input(sense(func() bool { return c.rack.plant.Slot(i + 1).Present }))
		ports.LED[i] = driver.Output(pin(func(on bool) { c.leds[i] = on }))
	}
	m, err := rmc.New(rmc.Config{Slots: c.rack.cfg.Rack.Spec.Slots, Fans: fans}, ports)
	if err != nil {
		return err
	}
	c.rmc, c.started, c.hung, c.restart = m, time.Now(), false, false
	c.starts++
	return nil
}

// run is the RMC's life until ctx ends.
func (c *controller) run(ctx context.Context) {
	ticker := time.NewTicker(stepEvery)
	defer ticker.Stop()
	var bytes []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-c.inbox.wake:
		}
		power := c.rack.plant.Rack().Standby
		c.mu.Lock()
		switch {
		case !power && c.rmc != nil:
			c.rmc = nil
			c.chips.Power(false)
		case power && c.rmc == nil, c.restart:
			c.chips.Power(true)
			if err := c.boot(); err != nil {
				c.rack.cfg.Log.Error("RMC does not start", "err", err)
				c.rmc = nil
			}
		}
		c.restart = c.rmc != nil && c.rmc.RestartWanted() // its answer has left since
		alive := c.rmc != nil && !c.hung
		if bytes = c.inbox.take(bytes); alive && len(bytes) > 0 {
			c.rmc.Bus(bytes)
		}
		if bytes = c.line.take(bytes); alive && len(bytes) > 0 {
			c.rmc.Management(bytes)
		}
		if alive {
			c.rmc.Step(uint64(time.Since(c.started) / time.Millisecond))
		}
		c.mu.Unlock()
	}
}
