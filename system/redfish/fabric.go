package redfish

import "slices"

// SwitchPort is a port of the rack's network switch, with its counters since the switch started.
type SwitchPort struct {
	Name       string // of the unit at the cable's other end, or "gateway"
	Up         bool   // there is a link
	RX, TX     SwitchCounters
	Undersized uint64 // frames received that were shorter than an Ethernet header
	Oversized  uint64 // frames received that were longer than allowed
}

// SwitchCounters are of one direction, RX: from the device to the switch.
type SwitchCounters struct{ Frames, Bytes, Discards uint64 }

// The network of the rack as a fabric with one switch. A switch that nobody can ask has no place here: then there is no fabric.
const (
	fabricsURI = root + "/Fabrics"
	switchURI  = fabricsURI + "/network/Switches/switch"
)

func (s *Service) addFabric(t *router) {
	// With a switch: the getter if there is one that can be asked.
	fixed := func(uri string, get func() object) {
		t.add(uri, resource{get: func([]string) object {
			if s.o.Switch == nil {
				return nil
			}
			return get()
		}})
	}
	t.add(fabricsURI, resource{get: func([]string) object {
		var ids []string
		if s.o.Switch != nil {
			ids = append(ids, "network")
		}
		return members("FabricCollection", fabricsURI, "Networks", ids)
	}})
	fixed(fabricsURI+"/network", func() object {
		return object{
			"@odata.type": "#Fabric.v1_4_0.Fabric", "@odata.id": fabricsURI + "/network", "Id": "network", "Name": "Network of the rack",
			"FabricType": "Ethernet", "Status": enabled(), "Switches": ref(fabricsURI + "/network/Switches"),
			"Links": object{"ManagedBy": []object{ref(apiURI)}},
		}
	})
	fixed(fabricsURI+"/network/Switches", func() object {
		return members("SwitchCollection", fabricsURI+"/network/Switches", "Switches", []string{"switch"})
	})
	fixed(switchURI, func() object {
		return object{
			"@odata.type": "#Switch.v1_11_0.Switch", "@odata.id": switchURI, "Id": "switch", "Name": "Switch of the rack", "SwitchType": "Ethernet",
			"SupportedProtocols": []string{"Ethernet"}, "IsManaged": false, "PowerState": "On", "Status": enabled(), "Ports": ref(switchURI + "/Ports"),
			"Links": object{"Chassis": ref(rackURI), "ManagedBy": []object{ref(apiURI)}},
		}
	})
	fixed(switchURI+"/Ports", func() object {
		var ids []string
		for _, p := range s.o.Switch() {
			ids = append(ids, p.Name)
		}
		return members("PortCollection", switchURI+"/Ports", "Ports", ids)
	})
	port := func(get func(p SwitchPort) object) resource {
		return resource{get: func(at []string) object {
			if s.o.Switch == nil {
				return nil
			}
			ports := s.o.Switch()
			if i := slices.IndexFunc(ports, func(p SwitchPort) bool { return p.Name == at[0] }); i >= 0 {
				return get(ports[i])
			}
			return nil
		}}
	}
	t.add(switchURI+"/Ports/*", port(s.switchPort))
	t.add(switchURI+"/Ports/*/Metrics", port(func(p SwitchPort) object {
		return object{
			"@odata.type": "#PortMetrics.v1_8_1.PortMetrics", "@odata.id": switchURI + "/Ports/" + p.Name + "/Metrics", "Id": "Metrics",
			"Name": "Counters of port " + p.Name, "RXBytes": volatile{p.RX.Bytes}, "TXBytes": volatile{p.TX.Bytes},
			"RXErrors": volatile{p.Undersized + p.Oversized}, "TXErrors": volatile{uint64(0)},
			"Networking": object{
				"RXFrames": volatile{p.RX.Frames}, "TXFrames": volatile{p.TX.Frames}, "RXDiscards": volatile{p.RX.Discards}, "TXDiscards": volatile{p.TX.Discards},
				"RXUndersizeFrames": volatile{p.Undersized}, "RXOversizeFrames": volatile{p.Oversized},
			},
		}
	}))
}

func (s *Service) switchPort(p SwitchPort) object {
	link, state, kind := "LinkDown", "StandbyOffline", "DownstreamPort"
	if p.Up {
		link, state = "LinkUp", "Enabled"
	}
	links := object{}
	if u := s.byName(p.Name); u != nil {
		links["EthernetInterfaces"] = []object{}
		if len(u.inventory.Interfaces) > 0 {
			links["EthernetInterfaces"] = []object{ref(interfaceURI(u, 0))}
		}
	} else {
		kind = "UpstreamPort"
	}
	return object{
		"@odata.type": "#Port.v1_18_0.Port", "@odata.id": switchURI + "/Ports/" + p.Name, "Id": p.Name, "Name": "Port of " + p.Name,
		"PortId": p.Name, "PortProtocol": "Ethernet", "PortType": kind, "PortMedium": "Electrical", "Enabled": true, "InterfaceEnabled": true,
		"LinkNetworkTechnology": "Ethernet", "LinkState": "Enabled", "LinkStatus": volatile{link},
		"Status": volatile{object{"State": state, "Health": "OK"}}, "Links": volatile{links}, "Metrics": ref(switchURI + "/Ports/" + p.Name + "/Metrics"),
	}
}
