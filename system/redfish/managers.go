package redfish

import (
	"github.com/racklet/racklet/firmware/wire"
)

const rmcURI = root + "/Managers/rmc"

func (s *Service) addManagers(t *router) {
	uri := root + "/Managers"
	t.add(uri, resource{get: func([]string) object {
		ids := []string{"rmc", "api"}
		for _, u := range s.units {
			ids = append(ids, bmcID(u))
		}
		return members("ManagerCollection", uri, "RMC and BMCs", ids)
	}})
	t.add(rmcURI, resource{get: func([]string) object { return s.rmcManager() }})
	s.addLogs(t, rmcURI, func([]string) (string, *controller) { return rmcURI, &s.rmc }, wholeLog)
	s.addLogs(t, uri+"/*", func(p []string) (string, *controller) {
		if u := s.byBMC(p[0]); u != nil {
			return bmcURI(u), &u.controller
		}
		return "", nil
	}, wholeLog)
	t.add(uri+"/*", resource{get: func(p []string) object {
		for _, u := range s.units {
			if bmcID(u) == p[0] {
				return s.bmcManager(u)
			}
		}
		return nil
	}})
}

func (s *Service) rmcManager() object {
	var chassis []object
	for _, c := range s.places() {
		chassis = append(chassis, ref(c.uri()))
	}
	st := &s.rack
	return object{
		"@odata.type": "#Manager.v1_24_0.Manager", "@odata.id": rmcURI, "Id": "rmc", "Name": "Rack management controller",
		"ManagerType": "EnclosureManager", "Status": s.status(&s.rmc, "Enabled", s.rackHealth()), "PowerState": "On",
		"DateTimeLocalOffset": "+00:00", "LogServices": ref(rmcURI + "/LogServices"),
		"Links": object{"ManagerForChassis": chassis, "ManagerInChassis": ref(rackURI)},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletManager.v1_0_0.Racklet", "Endpoint": uint8(wire.EIDRMC), "Available": s.rmc.online,
			"AgeSeconds": volatile{s.age(&s.rmc)}, "UptimeSeconds": volatile{thousandths(st.UptimeMillis)}, "Restarts": st.Resets,
			"ClockSet": st.Flags&wire.RackClockSet != 0,
		}},
	}
}

func (s *Service) bmcManager(u *unit) object {
	health := "OK"
	if u.state.Flags&(wire.FlagSensorLost|wire.FlagStoreWorn) != 0 {
		health = "Warning"
	}
	state := "Enabled"
	if s.absent(u) {
		state = "Absent"
	}
	return object{
		"@odata.type": "#Manager.v1_24_0.Manager", "@odata.id": bmcURI(u), "Id": bmcID(u), "Name": "BMC of " + u.name,
		"ManagerType": "BMC", "Status": s.status(&u.controller, state, health), "PowerState": "On",
		"DateTimeLocalOffset": "+00:00",
		"LogServices":         ref(bmcURI(u) + "/LogServices"),
		"Links": object{
			"ManagerForServers": []object{ref(systemURI(u))}, "ManagerForChassis": []object{ref(trayURI(u))},
			"ManagerInChassis": ref(trayURI(u)), "ManagedBy": []object{ref(rmcURI)},
		},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletManager.v1_0_0.Racklet", "Endpoint": uint8(u.eid), "Slot": u.slot, "Available": u.online,
			"AgeSeconds": volatile{s.age(&u.controller)}, "ClockSet": u.state.Flags&wire.FlagClockSet != 0,
			"Log": ref(logURI(&u.controller)),
		}},
	}
}
