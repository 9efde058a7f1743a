package hypervisor

import (
	"bufio"
	"encoding/hex"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/racklet/racklet/firmware/wire"
)

// parts names the cores that units have, by implementer and part number in /proc/cpuinfo (Arm's MIDR_EL1).
var parts = map[string]string{
	"0x41 0xd03": "Cortex-A53", "0x41 0xd08": "Cortex-A72", "0x41 0xd0b": "Cortex-A76", "0x41 0xd0c": "Neoverse N1",
}

// takeInventory reads what a computer is made of from /proc and /sys (proc(5), sysfs(5)). What cannot be read is not in it.
func takeInventory(root fs.FS, addresses func(name string) []net.Addr) (v wire.Inventory) {
	cpu(root, &v)
	v.MemoryKiB = memory(root)
	disks, _ := fs.ReadDir(root, "sys/block")
	for _, d := range disks {
		size := number(root, "sys/block/"+d.Name()+"/size") * 512
		if size == 0 || v.DiskCount == wire.MaxDisks || slices.ContainsFunc([]string{"loop", "ram", "dm-", "zram", "md"}, func(p string) bool { return strings.HasPrefix(d.Name(), p) }) {
			continue
		}
		disk := wire.Disk{Name: wire.MakeText32(d.Name()), Model: wire.MakeText32(line(root, "sys/block/"+d.Name()+"/device/model")), Bytes: size}
		for flag, file := range map[uint8]string{wire.DiskSpins: "queue/rotational", wire.DiskRemovable: "removable", wire.DiskReadOnly: "ro"} {
			if number(root, "sys/block/"+d.Name()+"/"+file) == 1 {
				disk.Flags |= flag
			}
		}
		v.Disks[v.DiskCount] = disk
		v.DiskCount++
	}
	gateways := gateways(root)
	nics, _ := fs.ReadDir(root, "sys/class/net")
	for _, n := range nics {
		at := "sys/class/net/" + n.Name()
		mac, err := net.ParseMAC(line(root, at+"/address"))
		if _, device := fs.Stat(root, at+"/device"); err != nil || device != nil || len(mac) != 6 || v.InterfaceCount == wire.MaxInterfaces {
			continue
		}
		i := wire.Interface{Name: wire.MakeText32(n.Name()), MAC: [6]byte(mac), Up: line(root, at+"/operstate") == "up",
			MTU: uint16(min(number(root, at+"/mtu"), 65535)), Gateway: gateways[n.Name()]}
		if speed, err := strconv.ParseUint(line(root, at+"/speed"), 10, 31); err == nil { // -1: not known
			i.Megabit = uint32(speed)
		}
		for _, a := range addresses(n.Name()) {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				i.Address, i.Prefix = p.Addr().As4(), uint8(p.Bits())
				break
			}
		}
		v.Interfaces[v.InterfaceCount] = i
		v.InterfaceCount++
	}
	return v
}

// line is the first line of a small file, or "".
func line(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	text, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(text)
}

func number(root fs.FS, name string) uint64 {
	n, err := strconv.ParseUint(line(root, name), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

func cpu(root fs.FS, v *wire.Inventory) {
	f, err := root.Open("proc/cpuinfo")
	if err != nil {
		return
	}
	defer f.Close()
	var model, implementer, part string
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "processor":
			v.Threads++
		case "model name":
			model = value
		case "CPU implementer":
			implementer = value
		case "CPU part":
			part = value
		}
	}
	if model == "" {
		if model = parts[implementer+" "+part]; model == "" && part != "" {
			model = "implementer " + implementer + " part " + part
		}
	}
	v.Processor = wire.MakeText64(model)
	// Cores are threads, unless the kernel says that threads share them.
	cores := map[string]bool{}
	cpus, _ := fs.Glob(root, "sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list")
	for _, c := range cpus {
		cores[line(root, c)] = true
	}
	v.Cores = v.Threads
	if n := len(cores); n > 0 && n < int(v.Threads) {
		v.Cores = uint16(n)
	}
	v.Megahertz = uint32(min(number(root, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")/1000, 1<<31))
}

func memory(root fs.FS) uint64 {
	fields := strings.Fields(line(root, "proc/meminfo")) // MemTotal is the first
	if len(fields) < 2 || fields[0] != "MemTotal:" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[1], 10, 53)
	return n
}

// gateways are the default routes of /proc/net/route, by interface.
func gateways(root fs.FS) map[string][4]byte {
	all := map[string][4]byte{}
	b, _ := fs.ReadFile(root, path.Join("proc", "net", "route"))
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) < 3 || f[1] != "00000000" {
			continue
		}
		if a, err := hex.DecodeString(f[2]); err == nil && len(a) == 4 {
			all[f[0]] = [4]byte{a[3], a[2], a[1], a[0]} // in the machine's order, which is little endian
		}
	}
	return all
}
