package bmc

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// flashModel is a NOR flash in memory: programming clears bits, erasing sets a sector, and a cut in the middle of
// either leaves some of it done. Sectors that were never touched take no memory.
type flashModel struct {
	shared  map[uint32]bool // sectors that other flashes have, too: copied before they are changed
	sectors map[uint32]*[driver.SectorSize]byte
	size    uint32
	erases  map[uint32]int
	// cut counts down the operations until the power fails; 0: it does not.
	cut    int
	rnd    *rand.Rand
	dead   bool
	writes int // operations so far
	// bad makes sectors that do not take what is programmed.
	bad map[uint32]bool
}

var errPower = errors.New("power cut")

func newFlash() *flashModel {
	return &flashModel{sectors: map[uint32]*[driver.SectorSize]byte{}, size: FlashSize, erases: map[uint32]int{}}
}

func (f *flashModel) Size() uint32 { return f.size }

// clone returns a flash with the same contents.
func (f *flashModel) clone() *flashModel {
	c := newFlash()
	c.shared = map[uint32]bool{}
	for i, s := range f.sectors {
		c.sectors[i], c.shared[i] = s, true
	}
	return c
}

// sector returns the one that off lies in, nil when it is blank and shall not be made.
func (f *flashModel) sector(off uint32, write bool) *[driver.SectorSize]byte {
	i := off / driver.SectorSize
	s := f.sectors[i]
	if s != nil && write && f.shared[i] {
		own := *s
		s = &own
		f.sectors[i] = s
		delete(f.shared, i)
	}
	if s == nil && write {
		s = new([driver.SectorSize]byte)
		for j := range s {
			s[j] = 0xFF
		}
		f.sectors[i] = s
	}
	return s
}

func (f *flashModel) ReadAt(p []byte, off uint32) error {
	if f.dead {
		return errPower
	}
	if uint64(off)+uint64(len(p)) > uint64(f.size) {
		return driver.ErrOutOfRange
	}
	for i := 0; i < len(p); {
		at := (off + uint32(i)) % driver.SectorSize
		n := min(len(p)-i, int(driver.SectorSize-at))
		if s := f.sector(off+uint32(i), false); s != nil {
			copy(p[i:i+n], s[at:])
		} else {
			for j := range p[i : i+n] {
				p[i+j] = 0xFF
			}
		}
		i += n
	}
	return nil
}

// cutting says whether this operation is the one that the power fails in.
func (f *flashModel) cutting() bool {
	f.writes++
	if f.cut == 0 {
		return false
	}
	f.cut--
	return f.cut == 0
}

func (f *flashModel) Program(off uint32, p []byte) error {
	if f.dead {
		return errPower
	}
	if uint64(off)+uint64(len(p)) > uint64(f.size) {
		return driver.ErrOutOfRange
	}
	cut := f.cutting()
	done := len(p)
	if cut {
		done = f.rnd.IntN(len(p) + 1)
	}
	torn := 0
	if cut {
		torn = 256 - done%256 // the page it stopped in: any bits
	}
	for i, v := range p {
		o := off + uint32(i)
		if f.bad[o/driver.SectorSize] {
			continue
		}
		s := f.sector(o, true)
		switch {
		case i < done:
			s[o%driver.SectorSize] &= v
		case i < done+torn:
			s[o%driver.SectorSize] &= v | byte(f.rnd.Uint32())
		}
	}
	if cut {
		f.dead = true
		return errPower
	}
	return nil
}

func (f *flashModel) Erase(off uint32) error {
	if f.dead {
		return errPower
	}
	if off%driver.SectorSize != 0 || off >= f.size {
		return driver.ErrOutOfRange
	}
	cut := f.cutting()
	f.erases[off/driver.SectorSize]++
	if !cut {
		delete(f.sectors, off/driver.SectorSize)
		delete(f.shared, off/driver.SectorSize)
		return nil
	}
	if f.sector(off, false) != nil {
		s := f.sector(off, true)
		for i := range s {
			s[i] |= byte(f.rnd.Uint32()) & byte(f.rnd.Uint32())
		}
	}
	f.dead = true
	return errPower
}

// flip inverts bits of one byte, as radiation or an attacker with a programmer would.
func (f *flashModel) flip(off uint32, mask byte) { f.sector(off, true)[off%driver.SectorSize] ^= mask }

// pin is an output and an input in one.
type pin struct {
	on   bool
	sets int
}

func (p *pin) Set(v bool) {
	if v != p.on {
		p.sets++
	}
	p.on = v
}
func (p *pin) Get() bool { return p.on }

type meter struct {
	p   driver.Power
	err error
}

func (m *meter) ReadPower() (driver.Power, error) { return m.p, m.err }

type thermometer struct {
	t   int32
	err error
}

func (t *thermometer) ReadTemperature() (int32, error) { return t.t, t.err }

// rig is a BMC on a bench: a flash, pins, and a rail that follows the switch.
type rig struct {
	t        testing.TB
	flash    *flashModel
	cfg      Config
	b        *BMC
	now      uint64
	sw       pin
	good     pin
	reset    pin
	seen     pin
	led      pin
	meter    meter
	heat     thermometer
	identity fakeIdentity
	railBad  bool // power-good does not follow the switch
	grant    bool // an RMC that grants what is asked
	silent   bool // an RMC that does not even poll
	resp     [wire.MaxMessage]byte
	code     wire.Code // of the last call
}

// seed makes keys that are the same in every run.
func key(n byte) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte{'k', n})
	return ed25519.NewKeyFromSeed(seed[:])
}

var (
	testRack = [16]byte{0x0d, 0xf3, 14: 0x77, 15: 1}
	owners   = []ed25519.PrivateKey{key(1), key(2), key(3)}
	stranger = key(66)
)

func testConfig() Config {
	c := Config{
		Slot: 2, RackID: testRack, DeviceKey: key(9), Emulated: true,
		Owners:     trust.Keyring{Threshold: 2},
		BootConfig: bytes.Repeat([]byte(`{"unit":"two"}`), 200),
	}
	for _, k := range owners {
		c.Owners.Keys = append(c.Owners.Keys, k.Public().(ed25519.PublicKey))
	}
	return c
}

// testImage is a boot image of n bytes that differs by version.
func testImage(n int, version string) []byte {
	img := make([]byte, n)
	s := sha256.Sum256([]byte(version))
	r := rand.NewChaCha8(s)
	r.Read(img)
	return img
}

func manifestFor(img []byte, version string, security uint32) *trust.SlotManifest {
	m := &trust.SlotManifest{
		Version: version, SecurityVersion: security, ImageSize: uint32(len(img)), ChunkSize: trust.ChunkSize,
		Kernel: sha256.Sum256([]byte("kernel")),
	}
	for off := 0; off < len(img); off += trust.ChunkSize {
		m.Chunks = append(m.Chunks, sha256.Sum256(img[off:min(off+trust.ChunkSize, len(img))]))
	}
	return m
}

func signed(t testing.TB, m *trust.SlotManifest, keys ...ed25519.PrivateKey) []byte {
	doc, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var sigs []trust.Signature
	for _, k := range keys {
		sigs = append(sigs, trust.Sign(trust.DomainSlot, k, doc))
	}
	return trust.AppendSigned(doc, sigs)
}

const testImageSize = 3*trust.ChunkSize + 7*512

// provisionedFlash is the flash of a BMC with two good slots: version 1.0 in A and 1.1 in B, both of security version 5.
var provisionedFlash = sync.OnceValue(func() *flashModel {
	f := newFlash()
	if err := Provision(f, testConfig()); err != nil {
		panic(err)
	}
	for slot, version := range []string{"1.0", "1.1"} {
		img := testImage(testImageSize, version)
		if err := WriteSlot(f, uint8(slot), bytes.NewReader(img), signed(nil, manifestFor(img, version, 5), owners[0], owners[2])); err != nil {
			panic(err)
		}
	}
	return f
})

// newRig is a BMC with two good slots, just started.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, flash: provisionedFlash().clone(), cfg: testConfig(), grant: true}
	r.boot()
	return r
}

func (r *rig) writeSlot(slot uint8, version string, security uint32) {
	r.t.Helper()
	img := testImage(testImageSize, version)
	if err := WriteSlot(r.flash, slot, bytes.NewReader(img), signed(r.t, manifestFor(img, version, security), owners[0], owners[2])); err != nil {
		r.t.Fatal(err)
	}
}

// boot starts a BMC on the flash, as after its own power cut or reset.
func (r *rig) boot() {
	r.t.Helper()
	b, err := New(Config{}, r.ports())
	if err != nil {
		r.t.Fatal(err)
	}
	r.b, r.now = b, 0
}

func (r *rig) ports() Ports {
	return Ports{
		Flash: r.flash, Switch: &r.sw, PowerGood: &r.good, UnitReset: &r.reset, ResetSeen: &r.seen, LED: &r.led,
		Meter: &r.meter, Thermometer: &r.heat, Identity: &r.identity,
	}
}

// step lets n times 10 ms pass.
func (r *rig) step(n int) {
	for range n {
		r.now += 10
		r.good.on = r.sw.on && !r.railBad
		if !r.silent && r.now%500 == 0 {
			r.mustCall(wire.SideBus, wire.CmdGetUnitState, nil)
		}
		if r.grant && r.b.UnitState().Flags&wire.FlagWaitGrant != 0 {
			r.mustCall(wire.SideBus, wire.CmdGrantPower, wire.AppendGrant(nil, r.b.UnitState().RequestMilliwatts))
		}
		r.b.Step(r.now)
	}
}

// until steps until a state is reached, for at most a minute of the BMC's time.
func (r *rig) until(s wire.State) {
	r.t.Helper()
	for range 6000 {
		if r.b.state == s {
			return
		}
		r.step(1)
	}
	r.t.Fatalf("state is %v after a minute, want %v; failure %v", r.b.state, s, r.b.failure)
}

// call sends one vendor-defined request and returns the response's fields.
func (r *rig) call(side wire.Side, command uint8, payload []byte) (wire.Code, []byte) {
	return r.callType(side, wire.TypeOEM, command, payload)
}

func (r *rig) callType(side wire.Side, kind, command uint8, payload []byte) (wire.Code, []byte) {
	r.t.Helper()
	req := append(wire.AppendRequest(nil, 7, kind, command), payload...)
	n := r.b.Handle(side, r.now, req, r.resp[:])
	h, code, rest, err := wire.ParseResponse(r.resp[:n])
	if err != nil || h.Instance != 7 || h.Type != kind || h.Command != command {
		r.t.Fatalf("response of command %#x: %v %+v", command, err, h)
	}
	return code, rest
}

func (r *rig) mustCall(side wire.Side, command uint8, payload []byte) []byte {
	r.t.Helper()
	code, rest := r.call(side, command, payload)
	if code != wire.CodeSuccess {
		r.t.Fatalf("command %#x: %v", command, code)
	}
	return rest
}

func (r *rig) desire(generation uint32, p wire.Power) {
	r.t.Helper()
	r.mustCall(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &wire.Desired{
		Generation: generation, Mask: wire.DesiredPower, Power: p, BootSlot: wire.SlotNone,
	}))
}

func (r *rig) stage(s wire.Stage) {
	r.t.Helper()
	r.mustCall(wire.SideInBand, wire.CmdReportStage, wire.AppendReportStage(nil, s, &wire.Failure{}))
}

// readAll reads the medium as a boot ROM does.
func (r *rig) readAll() ([]byte, error) {
	img := make([]byte, int(r.b.MediumBlocks())*512)
	for off := 0; off < len(img); off += 8 * 512 {
		if err := r.b.ReadMedium(uint32(off/512), img[off:min(off+8*512, len(img))]); err != nil {
			return img[:off], err
		}
	}
	return img, nil
}

// runUnit brings a unit from off to Running.
func (r *rig) runUnit() {
	r.t.Helper()
	r.desire(r.b.desired.generation+1, wire.PowerOn)
	r.until(wire.StateRunning)
	if _, err := r.readAll(); err != nil {
		r.t.Fatal(err)
	}
	for s := wire.StageBootstrap; s <= wire.StageRunning; s++ {
		r.stage(s)
		r.step(1)
	}
}

// events returns what ReadEvents has after a sequence.
func (r *rig) events(after uint32) (out []wire.Event) {
	r.t.Helper()
	for {
		ev, err := wire.ParseEvents(r.mustCall(wire.SideBus, wire.CmdReadEvents, wire.AppendReadEvents(nil, after)))
		if err != nil {
			r.t.Fatal(err)
		}
		var e wire.Event
		n := 0
		for ev.Next(&e) {
			out = append(out, e)
			after = e.Sequence
			n++
		}
		if err := ev.Err(); err != nil {
			r.t.Fatal(err)
		}
		if n == 0 {
			return out
		}
	}
}

func (r *rig) statement(seq uint64, security uint32, tree byte, keys ...ed25519.PrivateKey) []byte {
	s := trust.FloorStatement{RackID: testRack, Sequence: seq, RootVersion: 1, BootSecurity: security, Tree: [32]byte{tree}, Commit: [20]byte{tree}}
	doc, _ := s.MarshalBinary()
	var sigs []trust.Signature
	for _, k := range keys {
		sigs = append(sigs, trust.Sign(trust.DomainFloor, k, doc))
	}
	return trust.AppendSigned(doc, sigs)
}

func (r *rig) raise(signed []byte) wire.Code {
	r.t.Helper()
	code, _ := r.call(wire.SideInBand, wire.CmdRaiseFloors, wire.AppendBytes(nil, signed))
	return code
}
