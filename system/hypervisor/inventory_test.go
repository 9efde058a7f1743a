package hypervisor

import (
	"net"
	"testing"
	"testing/fstest"

	"github.com/racklet/racklet/firmware/wire"
)

func TestInventory(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	fsys := fstest.MapFS{
		"proc/cpuinfo":           file("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nprocessor\t: 1\nCPU implementer\t: 0x41\nCPU part\t: 0xd08"),
		"proc/meminfo":           file("MemTotal:         497000 kB\nMemFree:  1 kB"),
		"proc/net/route":         file("Iface\tDestination\tGateway\neth0\t00000000\t01004D0A\neth0\t00004D0A\t00000000"),
		"sys/block/vda/size":     file("2097152"),
		"sys/block/vda/ro":       file("1"),
		"sys/block/loop0/size":   file("8"),
		"sys/block/sr0/size":     file("0"),
		"sys/block/sda/size":     file("nonsense"),
		"sys/block/mmcblk0/size": file("62333952"), "sys/block/mmcblk0/removable": file("1"), "sys/block/mmcblk0/device/model": file("SD\x1b[31m"),
		"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": file("1800000"),
		"sys/class/net/lo/address":                             file("00:00:00:00:00:00"),
		"sys/class/net/eth0/address":                           file("52:54:00:52:4b:01"), "sys/class/net/eth0/device/x": file(""),
		"sys/class/net/eth0/operstate": file("up"), "sys/class/net/eth0/mtu": file("1500"), "sys/class/net/eth0/speed": file("-1"),
	}
	v := takeInventory(fsys, func(name string) []net.Addr {
		return []net.Addr{&net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}, &net.IPNet{IP: net.IPv4(10, 77, 0, 2).To4(), Mask: net.CIDRMask(24, 32)}}
	})
	want := wire.Inventory{
		Processor: wire.MakeText64("Cortex-A72"), Cores: 2, Threads: 2, Megahertz: 1800, MemoryKiB: 497_000, DiskCount: 2, InterfaceCount: 1,
		Disks: [4]wire.Disk{{Name: wire.MakeText32("mmcblk0"), Model: wire.MakeText32("SD?[31m"), Bytes: 62333952 * 512, Flags: wire.DiskRemovable},
			{Name: wire.MakeText32("vda"), Bytes: 1 << 30, Flags: wire.DiskReadOnly}},
		Interfaces: [4]wire.Interface{{Name: wire.MakeText32("eth0"), MAC: [6]byte{0x52, 0x54, 0, 0x52, 0x4B, 1}, Up: true, MTU: 1500,
			Address: [4]byte{10, 77, 0, 2}, Prefix: 24, Gateway: [4]byte{10, 77, 0, 1}}},
	}
	if v != want {
		t.Errorf("have %+v\nwant %+v", v, want)
	}
	if v := takeInventory(fstest.MapFS{}, nil); v != (wire.Inventory{}) {
		t.Errorf("of nothing: %+v", v)
	}
}
