package bmc

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// Config is what makes a BMC the BMC of one slot in one rack. Provision writes it into the flash once.
type Config struct {
	Slot       uint8              // slot in the rack, 1 to wire.MaxSlots
	RackID     [16]byte           // UUID of the rack, bound into floor statements
	DeviceKey  ed25519.PrivateKey // signs evidence
	Owners     trust.Keyring      // sign slot manifests and floor statements
	BootConfig []byte             // handed to the unit in-band, at most wire.MaxBootConfig bytes; the BMC does not look into it
	Emulated   bool               // the device key lives in software or an unfused chip; stated in every evidence
	Limits     Limits
}

// Limits are the times and powers a BMC holds its unit to. A zero field means its default.
type Limits struct {
	PowerGoodMillis      uint32 // from closing the load switch to power-good
	OffMillis            uint32 // least time the rail stays off
	DrainMillis          uint32 // from asking the unit to shut down to cutting the rail
	HaltMillis           uint32 // from the unit's word that it has halted to cutting the rail
	RequestMilliwatts    uint32 // power asked of the RMC when no cap is set
	LeastMilliwatts      uint32 // a grant smaller than this, and than what was asked, does not start the unit
	TripMilliwatts       uint32 // above this the switch opens
	TripMillis           uint32 // when it lasts this long
	ShutdownMilliCelsius uint32 // at this temperature the unit is shut down
	ReportMillis         uint32 // a running unit's heartbeats may be this far apart
	Tries                uint32 // power cycles the BMC makes by itself before it gives up
	// StageMillis is how long a unit may stay in a stage, by wire.Stage; wire.StageRunning and later ones have no limit.
	StageMillis [wire.StageRunning]uint32
	// CycleOnTimeout lets the BMC power-cycle a unit that stays too long in a stage. Without it the BMC only says so.
	CycleOnTimeout bool
}

// defaults fills the zero fields.
func (l *Limits) defaults() {
	for _, d := range [...]struct {
		field *uint32
		value uint32
	}{
		{&l.PowerGoodMillis, 1_000}, {&l.OffMillis, 500}, {&l.DrainMillis, 30_000}, {&l.HaltMillis, 500},
		{&l.RequestMilliwatts, 12_000}, {&l.LeastMilliwatts, 3_000}, {&l.TripMilliwatts, 25_000}, {&l.TripMillis, 100},
		{&l.ShutdownMilliCelsius, 95_000}, {&l.ReportMillis, 15_000}, {&l.Tries, 3},
		{&l.StageMillis[wire.StagePowered], 60_000}, {&l.StageMillis[wire.StageMedium], 180_000},
		{&l.StageMillis[wire.StageBootstrap], 60_000}, {&l.StageMillis[wire.StageNetwork], 60_000},
		{&l.StageMillis[wire.StageSource], 120_000}, {&l.StageMillis[wire.StageVerified], 60_000},
		{&l.StageMillis[wire.StageFetch], 900_000}, {&l.StageMillis[wire.StageArtifact], 120_000},
		{&l.StageMillis[wire.StageHandover], 120_000}, {&l.StageMillis[wire.StageOS], 120_000},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// Ports are the pins, chips and memory of one BMC. Flash, Switch and PowerGood must be there; a nil one of the others
// means that the board has none.
type Ports struct {
	Flash     driver.Flash  // at least FlashSize bytes, laid out as in flash.go
	Switch    driver.Output // load switch: true closes it
	PowerGood driver.Input  // the unit's rail is within its limits
	UnitReset driver.Output // the unit's reset line
	// ResetSeen is true from a reset of the unit until it is read, or for as long as the reset lasts if that is longer
	// than a Step; each change to true counts as one reset.
	ResetSeen   driver.Input
	LED         driver.Output // identify LED
	Meter       driver.PowerMeter
	Thermometer driver.Thermometer
	Identity    driver.Identity // the board's EEPROM
}

// Errors of New, Provision and WriteSlot.
var (
	ErrConfig        = errors.New("bmc: incomplete configuration")
	ErrFlash         = errors.New("bmc: flash too small")
	ErrUnprovisioned = errors.New("bmc: not provisioned")
)

/* Implementation constants: the provisioning record */
const (
	provisionMagic   = 0x50424B52 // "RKBP", little endian
	provisionVersion = 1
	provisionHeader  = 16 // magic u32, version u16, copy number u16, length u32, CRC-32 of the rest and of the three before
	limitWords       = 11 // numeric limits besides StageMillis
)

func (c *Config) check() error {
	switch {
	case c.Slot < 1 || c.Slot > wire.MaxSlots,
		len(c.DeviceKey) != ed25519.PrivateKeySize,
		len(c.BootConfig) > wire.MaxBootConfig,
		c.Owners.Check() != nil:
		return ErrConfig
	}
	return nil
}

// encode lays the record out; the boot configuration stands last, so that it can be read in place.
func (c *Config) encode() []byte {
	b := append([]byte{c.Slot, boolByte(c.Emulated), uint8(len(c.Owners.Keys)), uint8(c.Owners.Threshold)}, c.RackID[:]...)
	b = append(b, c.DeviceKey.Seed()...)
	for _, k := range c.Owners.Keys {
		b = append(b, k...)
	}
	l := &c.Limits
	for _, v := range l.words() {
		b = binary.LittleEndian.AppendUint32(b, *v)
	}
	b = append(b, boolByte(l.CycleOnTimeout))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.BootConfig)))
	return append(b, c.BootConfig...)
}

// words lists the numeric limits in the order of the record.
func (l *Limits) words() [limitWords + wire.StageRunning]*uint32 {
	w := [limitWords + wire.StageRunning]*uint32{
		&l.PowerGoodMillis, &l.OffMillis, &l.DrainMillis, &l.HaltMillis, &l.RequestMilliwatts, &l.TripMilliwatts,
		&l.TripMillis, &l.ShutdownMilliCelsius, &l.ReportMillis, &l.Tries, &l.LeastMilliwatts,
	}
	for i := range l.StageMillis {
		w[limitWords+i] = &l.StageMillis[i]
	}
	return w
}

// provisioned is a record in the flash: the configuration without its boot configuration, and where that stands.
type provisioned struct {
	Config
	number     uint16 // of the two copies the one with the higher number counts
	bootConfig uint32 // offset in the flash
	bootLen    uint32
}

// readProvision returns the newer valid copy of the record.
func readProvision(f driver.Flash) (*provisioned, error) {
	var best *provisioned
	for i := uint32(0); i < 2; i++ {
		p, err := readProvisionCopy(f, provisionOffset+i*provisionSize)
		if err != nil {
			return nil, err
		}
		if p != nil && (best == nil || int16(p.number-best.number) > 0) {
			best = p
		}
	}
	if best == nil {
		return nil, ErrUnprovisioned
	}
	return best, nil
}

func readProvisionCopy(f driver.Flash, at uint32) (*provisioned, error) {
	var h [provisionHeader]byte
	if err := f.ReadAt(h[:], at); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(h[8:])
	if binary.LittleEndian.Uint32(h[0:]) != provisionMagic || binary.LittleEndian.Uint16(h[4:]) != provisionVersion ||
		n > provisionSize-provisionHeader {
		return nil, nil
	}
	crc := crc32.ChecksumIEEE(h[:12])
	var buf [512]byte
	for done := uint32(0); done < n; {
		m := min(n-done, uint32(len(buf)))
		if err := f.ReadAt(buf[:m], at+provisionHeader+done); err != nil {
			return nil, err
		}
		crc = crc32.Update(crc, crc32.IEEETable, buf[:m])
		done += m
	}
	if crc != binary.LittleEndian.Uint32(h[12:]) {
		return nil, nil
	}
	// Everything but the boot configuration fits into the buffer: 52 + 8·32 + 4·22 + 5 bytes.
	m := min(n, uint32(len(buf)))
	if err := f.ReadAt(buf[:m], at+provisionHeader); err != nil {
		return nil, err
	}
	p := &provisioned{number: binary.LittleEndian.Uint16(h[6:])}
	keys := int(buf[2])
	words := p.Limits.words()
	fixed := 52 + 32*keys + 4*len(words) + 5
	if keys > trust.MaxKeys || int(m) < fixed {
		return nil, nil
	}
	p.Slot, p.Emulated, p.Owners.Threshold = buf[0], buf[1] != 0, int(buf[3])
	copy(p.RackID[:], buf[4:20])
	p.DeviceKey = ed25519.NewKeyFromSeed(buf[20:52])
	b := buf[52:]
	for i := 0; i < keys; i++ {
		p.Owners.Keys = append(p.Owners.Keys, append(ed25519.PublicKey(nil), b[:32]...))
		b = b[32:]
	}
	for _, w := range words {
		*w = binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
	p.Limits.CycleOnTimeout = b[0] != 0
	p.bootLen = binary.LittleEndian.Uint32(b[1:])
	p.bootConfig = at + provisionHeader + uint32(fixed)
	if p.bootLen != n-uint32(fixed) || p.check() != nil {
		return nil, nil
	}
	return p, nil
}

// Provision writes the configuration of a BMC into its flash, as is done once over a cable. The record that was there
// before stays valid until the new one is whole. Counters, events and floors are kept when the record before was for
// the same rack; else they are erased: floors of one rack mean nothing in another.
// The boot slots are left alone.
func Provision(f driver.Flash, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if f.Size() < FlashSize {
		return ErrFlash
	}
	at, number := uint32(provisionOffset), uint16(1)
	before, err := readProvision(f)
	switch {
	case err == ErrUnprovisioned:
	case err != nil:
		return err
	default:
		number = before.number + 1
		if before.bootConfig < provisionOffset+provisionSize {
			at += provisionSize
		}
	}
	if before == nil || before.RackID != cfg.RackID {
		for off := uint32(stateOffset); off < eventOffset+eventSize; off += driver.SectorSize {
			if err := f.Erase(off); err != nil {
				return err
			}
		}
	}
	for off := at; off < at+provisionSize; off += driver.SectorSize {
		if err := f.Erase(off); err != nil {
			return err
		}
	}
	body := cfg.encode()
	var h [provisionHeader]byte
	binary.LittleEndian.PutUint32(h[0:], provisionMagic)
	binary.LittleEndian.PutUint16(h[4:], provisionVersion)
	binary.LittleEndian.PutUint16(h[6:], number)
	binary.LittleEndian.PutUint32(h[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(h[12:], crc32.Update(crc32.ChecksumIEEE(h[:12]), crc32.IEEETable, body))
	if err := f.Program(at+provisionHeader, body); err != nil {
		return err
	}
	return f.Program(at, h[:])
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}
