package redfish

import (
	"context"
	"fmt"
	"net/http"

	"github.com/racklet/racklet/firmware/wire"
)

// The power of the rack as a distribution unit: one supply, and behind its backplane a switched outlet for each slot with a
// unit. An outlet is what the unit's BMC drives, its load switch: to switch it is to switch the unit, at once.
const (
	powerURI        = root + "/PowerEquipment"
	distributionURI = powerURI + "/RackPDUs/backplane"
	outletAction    = "Outlet.PowerControl"
	suppliesURI     = rackURI + "/PowerSubsystem/PowerSupplies"
)

func outletID(u *unit) string { return fmt.Sprintf("slot-%d", u.slot) }

func outletURI(u *unit) string { return distributionURI + "/Outlets/" + outletID(u) }

func (s *Service) addPower(t *router) {
	fixed := func(uri string, get func() object) {
		t.add(uri, resource{get: func([]string) object { return get() }})
	}
	fixed(powerURI, func() object {
		return object{
			"@odata.type": "#PowerEquipment.v1_2_3.PowerEquipment", "@odata.id": powerURI, "Id": "PowerEquipment", "Name": "Power of the rack",
			"Status": volatile{s.status(&s.rmc, "Enabled", s.rackHealth())}, "RackPDUs": ref(powerURI + "/RackPDUs"),
			"Links": object{"ManagedBy": []object{ref(rmcURI)}},
		}
	})
	fixed(powerURI+"/RackPDUs", func() object {
		return members("PowerDistributionCollection", powerURI+"/RackPDUs", "Power distribution", []string{"backplane"})
	})
	fixed(distributionURI, func() object {
		return object{
			"@odata.type": "#PowerDistribution.v1_6_0.PowerDistribution", "@odata.id": distributionURI, "Id": "backplane", "Name": "Backplane",
			"EquipmentType": "RackPDU", "Status": volatile{s.status(&s.rmc, "Enabled", s.rackHealth())},
			"Location": object{"Placement": object{"Rack": s.o.Rack.Metadata.Name}},
			"Outlets":  ref(distributionURI + "/Outlets"),
			"Links":    object{"Chassis": []object{ref(rackURI)}, "ManagedBy": []object{ref(rmcURI)}},
		}
	})
	fixed(distributionURI+"/Outlets", func() object {
		var ids []string
		for _, u := range s.units {
			ids = append(ids, outletID(u))
		}
		return members("OutletCollection", distributionURI+"/Outlets", "Outlets", ids)
	})
	one := distributionURI + "/Outlets/*"
	t.add(one, resource{get: s.ofOutlet(s.outlet), patch: s.patchOutlet})
	t.add(one+"/PowerControlActionInfo", resource{get: s.ofOutlet(func(u *unit) object {
		return actionInfo(outletURI(u)+"/PowerControlActionInfo", "PowerControlActionInfo", "Power control",
			parameter{"PowerState", false, "String", outletStates})
	})})
	t.add(one+"/Actions/"+outletAction, resource{post: s.postOutlet})
	fixed(suppliesURI, func() object {
		return members("PowerSupplyCollection", suppliesURI, "Power supplies", []string{"supply"})
	})
	fixed(suppliesURI+"/supply", func() object {
		outlets := make([]object, len(s.units))
		for i, u := range s.units {
			outlets[i] = ref(outletURI(u))
		}
		return object{
			"@odata.type": "#PowerSupply.v1_6_0.PowerSupply", "@odata.id": suppliesURI + "/supply", "Id": "supply", "Name": "Supply of the rack",
			"PowerSupplyType": "AC", "PowerCapacityWatts": float64(s.o.Rack.Spec.Power.Supply), "Status": volatile{s.status(&s.rmc, "Enabled", s.rackHealth())},
			"HotPluggable": false,
			"Location":     object{"PartLocation": object{"LocationType": "Backplane", "ServiceLabel": "Supply"}},
			"Links":        object{"PoweringChassis": []object{ref(rackURI)}, "PowerOutlets": outlets},
		}
	})
}

// parameter of an action.
type parameter struct {
	name     string
	required bool
	kind     string
	allowed  []string
}

// actionInfo describes the parameters of an action.
func actionInfo(uri, id, name string, parameters ...parameter) object {
	list := make([]object, len(parameters))
	for i, p := range parameters {
		list[i] = object{"Name": p.name, "Required": p.required, "DataType": p.kind}
		if p.allowed != nil {
			list[i]["AllowableValues"] = p.allowed
		}
	}
	return object{"@odata.type": "#ActionInfo.v1_5_0.ActionInfo", "@odata.id": uri, "Id": id, "Name": name, "Parameters": list}
}

func (s *Service) byOutlet(id string) *unit {
	for _, u := range s.units {
		if outletID(u) == id {
			return u
		}
	}
	return nil
}

func (s *Service) ofOutlet(get func(*unit) object) func([]string) object {
	return func(p []string) object {
		if u := s.byOutlet(p[0]); u != nil {
			return get(u)
		}
		return nil
	}
}

// outletStates are what an outlet can be switched to, and how a unit is reset for it.
var outletStates = []string{"On", "Off", "PowerCycle"}

var outletResets = map[string]string{"On": "On", "Off": "ForceOff", "PowerCycle": "PowerCycle"}

func (s *Service) outlet(u *unit) object {
	st := &u.state
	state, health := s.health(u)
	if state != "Absent" {
		state = "Enabled"
	}
	on := "Off"
	if st.Rail {
		on = "On"
	}
	tray := place{trayID(u), u}
	return object{
		"@odata.type": "#Outlet.v1_4_4.Outlet", "@odata.id": outletURI(u), "Id": outletID(u), "Name": fmt.Sprintf("Slot %d", u.slot),
		"Status": volatile{s.status(&u.controller, state, health)}, "PowerState": volatile{on}, "PowerEnabled": volatile{st.Rail},
		"PowerStateInTransition": volatile{(st.Power == wire.PowerOn) != st.Rail}, "PowerControlLocked": false,
		"VoltageType": "DC", "ElectricalConsumerNames": []string{u.name},
		"Voltage": s.excerpt(tray, "voltage"), "CurrentAmps": s.excerpt(tray, "current"), "PowerWatts": s.excerpt(tray, "power"),
		"EnergykWh":               object{"Reading": volatile{thousandths(st.Millijoules) / 3.6e6}},
		"LocationIndicatorActive": s.led(u),
		"Links":                   object{"Chassis": []object{ref(trayURI(u))}},
		"Actions": object{"#" + outletAction: object{
			"target": outletURI(u) + "/Actions/" + outletAction, "@Redfish.ActionInfo": outletURI(u) + "/PowerControlActionInfo",
			"PowerState@Redfish.AllowableValues": outletStates,
		}},
	}
}

func (s *Service) patchOutlet(w http.ResponseWriter, r *http.Request, p []string, body object) {
	u := s.byOutlet(p[0])
	d := wire.Desired{Mask: wire.DesiredLED, BootSlot: wire.SlotNone}
	s.mu.RLock()
	current := s.outlet(u)
	s.mu.RUnlock()
	if !patched(w, body, current, map[string]field{"LocationIndicatorActive": setBool(func(on bool) { d.LED = on })}) || !s.change(w, r, u, d) {
		return
	}
	s.answer(w, r, func() object { return s.outlet(u) })
}

func (s *Service) postOutlet(w http.ResponseWriter, r *http.Request, p []string, body object) {
	u := s.byOutlet(p[0])
	if u == nil {
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	state, ok := actionValue(w, body, outletAction, "PowerState", outletStates)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	if err := s.reset(ctx, u, outletResets[state]); err != nil {
		failController(w, bmcID(u), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
