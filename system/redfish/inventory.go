package redfish

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/racklet/racklet/firmware/wire"
)

// What a unit says that it is made of, in-band. While it has not said so, since it was switched on, the collections are empty.

func (s *Service) addInventory(t *router) {
	one := root + "/Systems/*"
	collection := func(form, kind, name string, ids func(*unit) []string) {
		t.add(one+form, resource{get: s.ofUnit(func(u *unit, _ []string) object {
			return members(kind, systemURI(u)+form, name, ids(u))
		})})
	}
	given := func(u *unit, id string) []string {
		if u.inventory == (wire.Inventory{}) {
			return nil
		}
		return []string{id}
	}
	collection("/Processors", "ProcessorCollection", "Processors", func(u *unit) []string { return given(u, "cpu") })
	collection("/Memory", "MemoryCollection", "Memory", func(u *unit) []string { return given(u, "memory") })
	collection("/Storage", "StorageCollection", "Storage", func(u *unit) []string { return given(u, "disks") })
	collection("/EthernetInterfaces", "EthernetInterfaceCollection", "Network interfaces", interfaceIDs)
	thing := func(form, id string, get func(*unit, string) object) {
		t.add(one+form+"/*", resource{get: s.ofUnit(func(u *unit, p []string) object {
			if p[1] != id || given(u, id) == nil {
				return nil
			}
			return get(u, systemURI(u)+form+"/"+id)
		})})
	}
	thing("/Processors", "cpu", s.processor)
	thing("/Memory", "memory", s.memory)
	thing("/Storage", "disks", s.storage)
	t.add(one+"/Storage/*/Drives/*", resource{get: s.ofUnit(s.drive)})
	t.add(one+"/EthernetInterfaces/*", resource{get: s.ofUnit(func(u *unit, p []string) object {
		if i := slices.Index(interfaceIDs(u), p[1]); i >= 0 {
			return s.ethernet(u, i)
		}
		return nil
	})})
}

func (s *Service) processor(u *unit, uri string) object {
	v := &u.inventory
	o := object{
		"@odata.type": "#Processor.v1_22_0.Processor", "@odata.id": uri, "Id": "cpu", "Name": "Processor of " + u.name, "ProcessorType": "CPU",
		"TotalCores": v.Cores, "TotalThreads": v.Threads, "Status": volatile{s.status(&u.controller, "Enabled", "OK")},
		"Links": object{"Chassis": ref(trayURI(u))},
	}
	if model := v.Processor.String(); model != "" {
		o["Model"] = model
	}
	if a := architecture(u.spec.Spec.Platform); a != "" {
		o["ProcessorArchitecture"], o["InstructionSet"] = a, "ARM-A64"
	}
	if v.Megahertz > 0 {
		o["MaxSpeedMHz"] = v.Megahertz
	}
	return o
}

// architecture is the standard's name of a platform's processor architecture.
func architecture(platform string) string {
	switch platform {
	case "virt", "rpi4", "rpi5":
		return "ARM"
	}
	return ""
}

func (s *Service) memory(u *unit, uri string) object {
	return object{
		"@odata.type": "#Memory.v1_23_0.Memory", "@odata.id": uri, "Id": "memory", "Name": "Memory of " + u.name, "MemoryType": "DRAM",
		"CapacityMiB": u.inventory.MemoryKiB >> 10, "Status": volatile{s.status(&u.controller, "Enabled", "OK")}, "Links": object{"Chassis": ref(trayURI(u))},
	}
}

// driveID is a name that the unit gave, as it can stand in a URI.
func driveID(d *wire.Disk, n int) string {
	return segment(d.Name.String(), fmt.Sprintf("disk-%d", n+1))
}

func segment(name, otherwise string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return otherwise
	}
	return name
}

func (s *Service) storage(u *unit, uri string) object {
	drives := []object{}
	for i := range u.inventory.Disks[:u.inventory.DiskCount] {
		drives = append(drives, ref(uri+"/Drives/"+driveID(&u.inventory.Disks[i], i)))
	}
	return object{
		"@odata.type": "#Storage.v1_21_0.Storage", "@odata.id": uri, "Id": "disks", "Name": "Disks of " + u.name,
		"Drives": drives, "Drives@odata.count": len(drives), "Status": volatile{s.status(&u.controller, "Enabled", "OK")},
	}
}

func (s *Service) drive(u *unit, p []string) object {
	if p[1] != "disks" {
		return nil
	}
	for i := range u.inventory.Disks[:u.inventory.DiskCount] {
		d := &u.inventory.Disks[i]
		id := driveID(d, i)
		if id != p[2] {
			continue
		}
		o := object{
			"@odata.type": "#Drive.v1_22_0.Drive", "@odata.id": systemURI(u) + "/Storage/disks/Drives/" + id, "Id": id, "Name": "Disk " + d.Name.String(),
			"CapacityBytes": d.Bytes, "MediaType": "SSD", "Status": volatile{s.status(&u.controller, "Enabled", "OK")},
			"Links": object{"Chassis": ref(trayURI(u))},
		}
		if d.Flags&wire.DiskSpins != 0 {
			o["MediaType"] = "HDD"
		}
		if model := d.Model.String(); model != "" {
			o["Model"] = model
		}
		return o
	}
	return nil
}

func interfaceIDs(u *unit) (ids []string) {
	for i := range u.inventory.Interfaces[:u.inventory.InterfaceCount] {
		ids = append(ids, segment(u.inventory.Interfaces[i].Name.String(), fmt.Sprintf("interface-%d", i+1)))
	}
	return ids
}

func interfaceURI(u *unit, n int) string {
	return systemURI(u) + "/EthernetInterfaces/" + interfaceIDs(u)[n]
}

func (s *Service) ethernet(u *unit, n int) object {
	i := &u.inventory.Interfaces[n]
	status, state := "LinkDown", "StandbyOffline"
	if i.Up {
		status, state = "LinkUp", "Enabled"
	}
	mac := net.HardwareAddr(i.MAC[:]).String()
	o := object{
		"@odata.type": "#EthernetInterface.v1_12_4.EthernetInterface", "@odata.id": interfaceURI(u, n), "Id": interfaceIDs(u)[n],
		"Name": "Interface " + i.Name.String(), "MACAddress": mac, "PermanentMACAddress": mac, "InterfaceEnabled": true, "LinkStatus": volatile{status},
		"EthernetInterfaceType": "Physical", "MTUSize": i.MTU, "HostName": u.name, "Status": volatile{s.status(&u.controller, state, "OK")},
		"DHCPv4": object{"DHCPEnabled": true}, "IPv4Addresses": []object{}, "Links": object{"Chassis": ref(trayURI(u))},
	}
	if i.Megabit > 0 {
		o["SpeedMbps"] = i.Megabit
	}
	if i.Address != [4]byte{} {
		a := object{"Address": netip.AddrFrom4(i.Address).String(), "AddressOrigin": "DHCP"}
		mask := ^uint32(0) << (32 - min(i.Prefix, 32))
		if bits.OnesCount32(mask) > 0 {
			a["SubnetMask"] = netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
		}
		if i.Gateway != [4]byte{} {
			a["Gateway"] = netip.AddrFrom4(i.Gateway).String()
		}
		o["IPv4Addresses"] = []object{a}
	}
	return o
}

// inventoried adds to a system what its unit says that it is made of.
func (s *Service) inventoried(u *unit, o object) object {
	for _, name := range []string{"Processors", "Memory", "Storage", "EthernetInterfaces"} {
		o[name] = ref(systemURI(u) + "/" + name)
	}
	v := &u.inventory
	if *v == (wire.Inventory{}) {
		return o
	}
	status := func() volatile { return volatile{s.status(&u.controller, "Enabled", "OK")} }
	processors := object{"Count": 1, "CoreCount": v.Cores, "LogicalProcessorCount": v.Threads, "Status": status()}
	if model := v.Processor.String(); model != "" {
		processors["Model"] = model
	}
	o["ProcessorSummary"] = processors
	o["MemorySummary"] = object{"TotalSystemMemoryGiB": round(float64(v.MemoryKiB)/(1<<20), 1000), "Status": status()}
	return o
}
