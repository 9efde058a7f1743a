package wire

// Limits of an Inventory.
const (
	MaxDisks      = 4
	MaxInterfaces = 4
)

// Inventory is what a running unit says about the computer it runs on. It is said once after the start and when it
// changes; like all that a unit says of itself, it proves nothing.
type Inventory struct {
	Processor      Text64 // model
	Cores          uint16 // in all
	Threads        uint16
	Megahertz      uint32 // highest; 0: not known
	MemoryKiB      uint64
	DiskCount      uint8
	Disks          [MaxDisks]Disk
	InterfaceCount uint8
	Interfaces     [MaxInterfaces]Interface
}

// Disk is a block device of a unit.
type Disk struct {
	Name  Text32 // as the kernel has it
	Model Text32
	Bytes uint64
	Flags uint8 // Disk…
}

// Flags of a Disk.
const (
	DiskSpins     uint8 = 1 << iota // it has a rotating medium
	DiskRemovable                   // its medium can be taken out
	DiskReadOnly
	diskAll = DiskSpins | DiskRemovable | DiskReadOnly
)

// Interface is a network interface of a unit.
type Interface struct {
	Name    Text32
	MAC     [6]byte
	Up      bool
	Megabit uint32 // per second; 0: not known
	MTU     uint16
	Address [4]byte // IPv4; zero: none
	Prefix  uint8   // length in bits
	Gateway [4]byte // zero: none
}

// AppendInventory appends the request of SetInventory and the response of GetInventory.
func AppendInventory(dst []byte, v *Inventory) []byte {
	dst = appendText(dst, v.Processor.Bytes())
	dst = le.AppendUint16(dst, v.Cores)
	dst = le.AppendUint16(dst, v.Threads)
	dst = le.AppendUint32(dst, v.Megahertz)
	dst = le.AppendUint64(dst, v.MemoryKiB)
	n := min(v.DiskCount, MaxDisks)
	dst = append(dst, n)
	for i := range v.Disks[:n] {
		d := &v.Disks[i]
		dst = appendText(dst, d.Name.Bytes())
		dst = appendText(dst, d.Model.Bytes())
		dst = le.AppendUint64(dst, d.Bytes)
		dst = append(dst, d.Flags)
	}
	n = min(v.InterfaceCount, MaxInterfaces)
	dst = append(dst, n)
	for i := range v.Interfaces[:n] {
		f := &v.Interfaces[i]
		dst = appendText(dst, f.Name.Bytes())
		dst = append(dst, f.MAC[:]...)
		dst = appendBool(dst, f.Up)
		dst = le.AppendUint32(dst, f.Megabit)
		dst = le.AppendUint16(dst, f.MTU)
		dst = append(dst, f.Address[:]...)
		dst = append(dst, f.Prefix)
		dst = append(dst, f.Gateway[:]...)
	}
	return dst
}

// ParseInventory reads the request of SetInventory and the response of GetInventory.
func ParseInventory(b []byte) (v Inventory, err error) {
	c := cursor{b: b}
	v.Processor.set(c.text(len(v.Processor.b)))
	v.Cores = c.u16()
	v.Threads = c.u16()
	v.Megahertz = c.u32()
	v.MemoryKiB = c.u64()
	v.DiskCount = c.max(MaxDisks)
	for i := range v.Disks[:v.DiskCount] {
		d := &v.Disks[i]
		d.Name.set(c.text(len(d.Name.b)))
		d.Model.set(c.text(len(d.Model.b)))
		d.Bytes = c.u64()
		d.Flags = c.max(diskAll)
	}
	v.InterfaceCount = c.max(MaxInterfaces)
	for i := range v.Interfaces[:v.InterfaceCount] {
		f := &v.Interfaces[i]
		f.Name.set(c.text(len(f.Name.b)))
		c.copy(f.MAC[:])
		f.Up = c.boolean()
		f.Megabit = c.u32()
		f.MTU = c.u16()
		c.copy(f.Address[:])
		f.Prefix = c.max(32)
		c.copy(f.Gateway[:])
	}
	return v, c.done()
}

// AppendFirmware appends the response of GetFirmware: the version of the controller's own firmware.
func AppendFirmware(dst []byte, version Text32) []byte { return appendText(dst, version.Bytes()) }

// ParseFirmware reads the response of GetFirmware.
func ParseFirmware(b []byte) (version Text32, err error) {
	c := cursor{b: b}
	version.set(c.text(len(version.b)))
	return version, c.done()
}
