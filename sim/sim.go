// Package sim is the virtual rack: physics and copper, and nothing that thinks.
//
//	            ┌ tray ───────────────────────────────┐
//	plant ◀────▶│ chips ◀─▶ BMC (real firmware) ◀─▶ flash file
//	power,      │            │ ▲ in-band, console     │    × slots
//	heat, air   │  boot ROM ─┴─┴─ machine (QEMU) ─────┼──── switch ── gateway ── Git host, mirror
//	   ▲        └──────┬──────────────────────────────┘
//	   └── chips ◀─▶ RMC (real firmware) ── serial line ── ManagementLine: Redfish
//	                   └ multi-drop bus
//
// The firmware of BMCs and RMC is the real one, compiled for this host; so are
// the images that units boot. What is emulated is what one could touch: the
// supply, rails, fans and air (plant), chips at register level (chip), computers
// (machine, bootrom), cables and switch (netswitch), the way out (gateway) and
// two services of the neighbourhood (githost). Each can be looked at and broken
// through Handler, the interface /sim/v1, which docs/sim-v1.md describes.
//
// Simulated time is real time here, since real machines run in it. All state is
// below Config.Dir and written through, so that a rack whose simulator was
// killed goes on where its flash chips and disks were. Only cmd/racklet and
// e2e use this package.
package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/racklet/racklet/artifact/oci"
	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/gateway"
	"github.com/racklet/racklet/sim/githost"
	"github.com/racklet/racklet/sim/machine"
	"github.com/racklet/racklet/sim/netswitch"
	"github.com/racklet/racklet/sim/plant"
)

// Rack is a virtual rack.
type Rack struct {
	cfg   Config
	lock  *os.File
	plant *plant.Plant
	bus   *bus
	line  *line
	rmc   *controller
	trays []*tray // by slot, those with a unit

	services map[string]*atomic.Bool // which of the neighbourhood's services are down
	faults   *breakage

	netw   *netswitch.Switch
	gate   *gateway.Gateway
	git    *githost.Host
	local  net.Listener
	closer []io.Closer
}

// ErrRunning says that another simulator has this directory.
var ErrRunning = errors.New("this rack is running already")

// New builds a rack: what is in its directory, or a new one. Nothing runs before
// Run; Close frees what New took if Run is never called.
func New(cfg Config) (_ *Rack, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	r := &Rack{cfg: cfg, bus: newBus(), services: map[string]*atomic.Bool{"git": {}, "mirror": {}}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.Accel == "" {
		r.cfg.Accel = machine.Probe(context.Background(), cfg.QEMU)
	}
	spec := &cfg.Rack.Spec
	boards := make([]plant.Board, spec.Slots)
	for _, u := range cfg.Units {
		if u.Spec.Platform == "rpi5" {
			boards[u.Spec.Slot-1] = plant.Pi5
		}
	}
	supply := plant.Supply{Volts: 20, Droop: 0.08}
	supply.Amps = float64(spec.Power.Supply) / supply.Volts
	if r.plant, err = plant.New(plant.Config{Seed: cfg.Seed, Supply: supply, Slots: boards, Fans: fans}); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	if r.rmc, err = newController(r); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	r.faults = newBreakage(r)
	r.line = newLine(r.rmc.line)
	r.bus.connect(r.rmc.inbox)
	if err := r.network(); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	for slot := uint8(1); slot <= spec.Slots; slot++ {
		u := r.unitOf(slot)
		r.plant.SetPresent(int(slot), u != nil)
		if u == nil {
			continue
		}
		t, err := r.fit(slot, u)
		if err != nil {
			return nil, fmt.Errorf("simulate: slot %d: %w", slot, err)
		}
		r.trays = append(r.trays, t)
	}
	return r, nil
}

func (r *Rack) unitOf(slot uint8) *rack.ComputeUnit {
	for _, u := range r.cfg.Units {
		if u.Spec.Slot == rack.SlotID(slot) {
			return u
		}
	}
	return nil
}

// fit puts a unit's board into its slot and provisions it if need be.
func (r *Rack) fit(slot uint8, u *rack.ComputeUnit) (*tray, error) {
	t, err := newTray(r, slot, u)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return nil, err
	}
	if err := machine.Cleanup(t.dir); err != nil {
		return nil, err
	}
	if t.flash, err = chip.OpenFlash(filepath.Join(t.dir, "flash.img"), chip.FlashSize); err != nil {
		return nil, err
	}
	r.closer = append(r.closer, t.flash)
	id, err := parseUUID(r.cfg.Rack.Spec.ID)
	if err != nil {
		return nil, err
	}
	boot := rack.BootConfig{RackID: r.cfg.Rack.Spec.ID, Unit: t.name, Slot: rack.SlotID(slot),
		Repository: r.repository(), TUFRoot: r.cfg.Provisioning.TUFRoot,
		Mirrors: []rack.Mirror{{URL: MirrorURL, TLSPins: r.git.Identity.Pins}}, Enrolment: r.cfg.Enrolment}
	config, err := boot.Marshal()
	if err != nil {
		return nil, err
	}
	t.device, err = provisionSlot(t.dir, t.flash, bmc.Config{Slot: slot, RackID: id, Owners: r.cfg.Provisioning.Owners, BootConfig: config},
		t.name, r.cfg.Rack.Spec.ID, r.cfg.Provisioning.Boot[u.Spec.Release])
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	if err := fitEEPROM(t.chips, filepath.Join(t.dir, "eeprom"), trayBoard, time.Now().UTC()); err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	r.bus.connect(t.inbox)
	t.port = r.netw.AddPort(t.name)
	return t, nil
}

// repository is what units are told: the built-in host's pins are filled in.
func (r *Rack) repository() rack.Repository {
	repo := r.cfg.Provisioning.Repository
	if repo.URL == "" {
		repo.URL = RepositoryURL
	}
	if repo.Ref == "" {
		repo.Ref = rack.DefaultRef
	}
	if repo.MetadataRef == "" {
		repo.MetadataRef = rack.DefaultMetadataRef
	}
	if strings.HasPrefix(repo.URL, "https://"+GitHost+"/") && len(repo.TLSPins) == 0 {
		repo.TLSPins = r.git.Identity.Pins
	}
	return repo
}

// network builds switch, gateway, Git host and mirror.
func (r *Rack) network() error {
	spec := r.cfg.Rack.Spec.Network
	subnet, err := netip.ParsePrefix(spec.Subnet)
	if err != nil {
		return err
	}
	cfg := gateway.Config{Subnet: subnet, Leases: map[string]netip.Addr{}, Names: map[string]netip.Addr{}, Allow: r.cfg.Egress, Hosts: r.cfg.Hosts, Log: r.cfg.Log}
	if cfg.Address, err = GatewayAddress(spec); err != nil {
		return err
	}
	for _, u := range r.cfg.Units {
		a, err := UnitAddress(spec, u.Spec.Slot)
		if err != nil {
			return err
		}
		cfg.Leases[UnitMAC(u.Spec.Slot).String()] = a
		cfg.Names[u.Metadata.Name] = a
	}
	for _, name := range []string{GitHost, MirrorHost} {
		cfg.Names[strings.TrimSuffix(name, "."+gateway.Zone)] = cfg.Address
	}
	r.netw = netswitch.New(netswitch.Config{Seed: r.cfg.Seed, Log: r.cfg.Log})
	if r.gate, err = gateway.New(r.netw.AddPort("gateway"), cfg); err != nil {
		return err
	}

	ctx := context.Background()
	r.git, err = githost.New(ctx, githost.Config{Dir: filepath.Join(r.cfg.Dir, "githost"), Mirror: oci.Handler(r.cfg.Releases...),
		Names: []string{GitHost, MirrorHost, cfg.Address.String()}, Log: r.cfg.Log})
	if err != nil {
		return err
	}
	_, fresh, err := r.git.Repository(ctx, repositoryName)
	if err != nil {
		return err
	}
	if seed := r.cfg.Provisioning.Seed; fresh && seed != "" {
		if err := r.git.Import(ctx, repositoryName, seed); err != nil {
			return err
		}
	}
	if r.local, err = loopback(filepath.Join(r.cfg.Dir, "githost", "port")); err != nil {
		return err
	}
	r.closer = append(r.closer, r.local)
	return nil
}

// loopback listens on the port that the file names, so that an operator's Git
// remote stays good; the first time, and when another program took it, on a new one.
func loopback(file string) (net.Listener, error) {
	port := "0"
	b, err := os.ReadFile(file)
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16); err == nil {
			port = strconv.FormatUint(n, 10)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil && port != "0" {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err == nil {
		err = replaceFile(file, []byte(port+"\n"))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("simulate in %s: %w", dir, ErrRunning)
	}
	return f, nil
}

// Run runs the rack until ctx ends; then the power is cut. To shut units down
// in order, ask their BMCs before.
func (r *Rack) Run(ctx context.Context) error {
	defer r.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	servers, err := r.serve(ctx, &all)
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	all.Go(func() { r.physics(ctx) })
	all.Go(func() { r.bus.run(ctx) })
	all.Go(func() { r.faults.run(ctx) })
	all.Go(func() { r.rmc.run(ctx) })
	for _, t := range r.trays {
		all.Go(func() { t.run(ctx) })
	}
	<-ctx.Done()
	for _, s := range servers {
		s.Close()
	}
	return nil
}

// serve opens the services.
func (r *Rack) serve(ctx context.Context, all *sync.WaitGroup) ([]*http.Server, error) {
	var servers []*http.Server
	start := func(l net.Listener, h http.Handler) {
		s := &http.Server{Handler: h, TLSConfig: r.git.Identity.Config(), ReadHeaderTimeout: 30 * time.Second, ErrorLog: quietLog(r.cfg.Log)}
		servers = append(servers, s)
		all.Go(func() { _ = s.ServeTLS(l, "", "") }) // ends with Close
	}
	start(r.local, r.git.Writer())
	l, err := r.gate.Listen(443)
	if err != nil {
		return servers, err
	}
	start(l, r.neighbourhood(r.git.Reader()))
	for port, target := range r.cfg.Forwards {
		l, err := r.gate.Listen(port)
		if err != nil {
			return servers, err
		}
		context.AfterFunc(ctx, func() { l.Close() })
		all.Go(func() { forward(ctx, l, target, all) })
	}
	return servers, nil
}

// forward carries connections of units to one service of the host that the
// operator named.
func forward(ctx context.Context, l net.Listener, target string, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			var d net.Dialer
			out, err := d.DialContext(ctx, "tcp", target)
			if err != nil {
				return
			}
			defer out.Close()
			defer context.AfterFunc(ctx, func() { c.Close(); out.Close() })()
			back := make(chan struct{})
			go func() { defer close(back); _, _ = io.Copy(c, out); c.Close() }()
			_, _ = io.Copy(out, c)
			out.Close()
			<-back
		})
	}
}

// physics lets the plant follow real time.
func (r *Rack) physics(ctx context.Context) {
	ticker := time.NewTicker(stepEvery)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		// A laptop that slept does not age its rack by hours at once.
		d := min(now.Sub(last), time.Second)
		last = now
		r.plant.Step(d)
		r.rmc.chips.Advance(d)
		for _, t := range r.trays {
			t.chips.Advance(d)
		}
	}
}

// Close frees what New took. Run does it at its end.
func (r *Rack) Close() error {
	var errs []error
	if r.gate != nil {
		errs = append(errs, r.gate.Close())
		r.gate = nil
	}
	if r.rmc != nil && r.rmc.flash != nil {
		errs = append(errs, r.rmc.flash.Close())
		r.rmc.flash = nil
	}
	for _, c := range r.closer {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	r.closer = nil
	if r.line != nil {
		r.line.Close()
	}
	if r.lock != nil {
		r.lock.Close()
		r.lock = nil
	}
	return errors.Join(errs...)
}

// ManagementLine is the management computer's end of the serial line to the
// RMC. There is one; it has one user at a time.
func (r *Rack) ManagementLine() io.ReadWriteCloser { return r.line }

// GitURL is the address of the built-in Git server's rack repository for the
// operator, with the token in it; git needs GitCA as http.sslCAInfo.
func (r *Rack) GitURL() string {
	return fmt.Sprintf("https://%s:%s@%s/%s.git", githost.User, r.git.Token(), r.local.Addr(), repositoryName)
}

// GitCA is the file with the certificate of the built-in Git server.
func (r *Rack) GitCA() string { return r.git.Identity.CAFile }

// GitCADir is the directory with that certificate, as git's http.sslCAPath
// wants it; it counts even where GIT_SSL_CAINFO is set.
func (r *Rack) GitCADir() string { return r.git.Identity.CADir }

// DeviceKey returns the public key of the board in a slot, as the one who
// flashed it noted it down; nil for an empty slot.
func (r *Rack) DeviceKey(slot rack.SlotID) []byte {
	for _, t := range r.trays {
		if rack.SlotID(t.slot) == slot {
			return t.device
		}
	}
	return nil
}

// Listen opens a TCP port of the gateway, which units reach; the host's own
// network does not.
func (r *Rack) Listen(port uint16) (net.Listener, error) { return r.gate.Listen(port) }

// ListenPacket is Listen for UDP.
func (r *Rack) ListenPacket(port uint16) (net.PacketConn, error) { return r.gate.ListenPacket(port) }

// DialUnit connects to a TCP port of a unit through the gateway.
func (r *Rack) DialUnit(ctx context.Context, slot rack.SlotID, port uint16) (net.Conn, error) {
	a, err := UnitAddress(r.cfg.Rack.Spec.Network, slot)
	if err != nil {
		return nil, err
	}
	return r.gate.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
}
