package redfish

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/racklet/racklet/firmware/wire"
)

const rackURI = root + "/Chassis/rack"

// place is a chassis: the rack itself, or a unit's tray.
type place struct {
	id string
	u  *unit // nil: the rack
}

func (p place) uri() string { return root + "/Chassis/" + p.id }

func (s *Service) places() []place {
	all := []place{{id: "rack"}}
	for _, u := range s.units {
		all = append(all, place{trayID(u), u})
	}
	return all
}

// ofPlace makes a getter out of one that has the chassis that the first star names.
func (s *Service) ofPlace(get func(place, []string) object) func([]string) object {
	return func(p []string) object {
		for _, c := range s.places() {
			if c.id == p[0] {
				return get(c, p)
			}
		}
		return nil
	}
}

func (s *Service) addChassis(t *router) {
	uri := root + "/Chassis"
	t.add(uri, resource{get: func([]string) object {
		var ids []string
		for _, c := range s.places() {
			ids = append(ids, c.id)
		}
		return members("ChassisCollection", uri, "Rack and trays", ids)
	}})
	// The rack's own paths come before those of any chassis: only the rack has these.
	rack := func(get func() object) func([]string) object { return func([]string) object { return get() } }
	t.add(rackURI+"/PowerSubsystem", resource{get: rack(s.powerSubsystem)})
	t.add(rackURI+"/ThermalSubsystem", resource{get: rack(s.thermalSubsystem)})
	t.add(rackURI+"/ThermalSubsystem/ThermalMetrics", resource{get: rack(s.thermalMetrics)})
	t.add(rackURI+"/ThermalSubsystem/Fans", resource{get: rack(func() object {
		var ids []string
		for i := range s.rack.FanCount {
			ids = append(ids, fanID(int(i)))
		}
		return members("FanCollection", rackURI+"/ThermalSubsystem/Fans", "Fans", ids)
	})})
	t.add(rackURI+"/ThermalSubsystem/Fans/*", resource{get: s.fan})
	one := uri + "/*"
	t.add(one, resource{get: s.ofPlace(func(c place, _ []string) object { return s.chassis(c) }), patch: s.patchChassis})
	t.add(one+"/EnvironmentMetrics", resource{get: s.ofPlace(func(c place, _ []string) object { return s.environment(c) }), patch: s.patchEnvironment})
	t.add(one+"/Sensors", resource{get: s.ofPlace(func(c place, _ []string) object {
		var ids []string
		for _, x := range s.sensors(c) {
			ids = append(ids, x.id)
		}
		return members("SensorCollection", c.uri()+"/Sensors", "Sensors", ids)
	})})
	t.add(one+"/Sensors/*", resource{get: s.ofPlace(s.sensor)})
}

func (s *Service) chassis(c place) object {
	if c.u == nil {
		return s.rackChassis()
	}
	u := c.u
	state, health := s.health(u)
	if state != "Absent" {
		state = "Enabled"
	}
	return identified(&u.controller, object{
		"@odata.type": "#Chassis.v1_28_0.Chassis", "@odata.id": c.uri(), "Id": c.id, "Name": fmt.Sprintf("Tray in slot %d", u.slot),
		"ChassisType": "Sled", "PowerState": powerState(&u.state),
		"Status":                  s.status(&u.controller, state, health),
		"Location":                object{"PartLocation": object{"LocationType": "Slot", "LocationOrdinalValue": u.slot, "ServiceLabel": fmt.Sprintf("Slot %d", u.slot)}},
		"LocationIndicatorActive": s.led(u),
		"EnvironmentMetrics":      ref(c.uri() + "/EnvironmentMetrics"), "Sensors": ref(c.uri() + "/Sensors"),
		"Links": object{
			"ComputerSystems": []object{ref(systemURI(u))}, "ManagedBy": []object{ref(bmcURI(u))},
			"ManagersInChassis": []object{ref(bmcURI(u))}, "ContainedBy": ref(rackURI), "PowerOutlets": []object{ref(outletURI(u))},
		},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletTray.v1_0_0.Racklet", "Slot": u.slot, "Present": volatile{!s.absent(u)},
			"AgeSeconds": volatile{s.age(&u.controller)},
		}},
	})
}

func (s *Service) rackHealth() string {
	const warn = wire.RackFailsafe | wire.RackSensorLost | wire.RackThrottling
	switch f := s.rack.Flags; {
	case f&wire.RackOverBudget != 0:
		return "Critical"
	case f&warn != 0:
		return "Warning"
	}
	return "OK"
}

func (s *Service) rackChassis() object {
	var contains, systems []object
	for _, u := range s.units {
		contains = append(contains, ref(trayURI(u)))
		systems = append(systems, ref(systemURI(u)))
	}
	st := &s.rack
	return identified(&s.rmc, object{
		"@odata.type": "#Chassis.v1_28_0.Chassis", "@odata.id": rackURI, "Id": "rack", "Name": s.o.Rack.Metadata.Name,
		"ChassisType": "Rack", "PowerState": "On", "UUID": s.o.Rack.Spec.ID,
		"Status":         volatile{s.status(&s.rmc, "Enabled", s.rackHealth())},
		"PowerSubsystem": ref(rackURI + "/PowerSubsystem"), "ThermalSubsystem": ref(rackURI + "/ThermalSubsystem"),
		"EnvironmentMetrics": ref(rackURI + "/EnvironmentMetrics"), "Sensors": ref(rackURI + "/Sensors"),
		"Links": object{
			"Contains": contains, "ComputerSystems": systems,
			"ManagedBy": []object{ref(root + "/Managers/rmc")}, "ManagersInChassis": []object{ref(root + "/Managers/rmc")},
		},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletRack.v1_0_0.Racklet",
			"Watts":       volatile{thousandths(st.Milliwatts)}, "EnergyJoules": volatile{thousandths(st.Millijoules)},
			"SupplyVolts": volatile{thousandths(st.SupplyMillivolts)}, "InletCelsius": volatile{thousandths(st.InletMilliCelsius)},
			"BudgetWatts": thousandths(st.BudgetMilliwatts), "GrantedWatts": volatile{thousandths(st.GrantedMilliwatts)},
			"Fans":     volatile{s.fanList()},
			"Failsafe": volatile{st.Flags&wire.RackFailsafe != 0}, "Throttling": volatile{st.Flags&wire.RackThrottling != 0},
			"SensorLost": volatile{st.Flags&wire.RackSensorLost != 0}, "OverBudget": volatile{st.Flags&wire.RackOverBudget != 0},
			"Available": volatile{s.rmc.online}, "AgeSeconds": volatile{s.age(&s.rmc)}, "FrameErrors": volatile{st.FrameErrors},
			"Policies": policiesObject(&s.rules),
		}},
	})
}

func (s *Service) fanList() []object {
	list := make([]object, 0, wire.MaxFans)
	for i, f := range s.rack.Fans[:min(s.rack.FanCount, wire.MaxFans)] {
		list = append(list, object{"Name": fanID(i), "RPM": f.RPM, "DutyPercent": f.DutyPercent, "Health": fanHealth(f)})
	}
	return list
}

func fanID(i int) string { return "fan-" + strconv.Itoa(i+1) }

func fanHealth(f wire.FanState) string {
	switch {
	case f.Flags&wire.FanStalled != 0:
		return "Critical"
	case f.Flags&wire.FanFailsafe != 0:
		return "Warning"
	}
	return "OK"
}

func policiesObject(p *wire.Policies) object {
	curve := make([]object, 0, wire.MaxCurvePoints)
	for _, c := range p.Curve[:min(p.CurveCount, wire.MaxCurvePoints)] {
		curve = append(curve, object{"TemperatureCelsius": thousandths(c.MilliCelsius), "DutyPercent": c.DutyPercent})
	}
	return object{
		"Generation": p.Generation, "Curve": curve,
		"ThrottleCelsius": thousandths(p.ThrottleMilliCelsius), "ShutdownCelsius": thousandths(p.ShutdownMilliCelsius),
		"HysteresisCelsius": thousandths(p.HysteresisMilliCelsius), "BudgetWatts": thousandths(p.BudgetMilliwatts - min(p.ReserveMilliwatts, p.BudgetMilliwatts)),
		"ReserveWatts": thousandths(p.ReserveMilliwatts), "StaggerMilliseconds": p.StaggerMillis, "UnitCapWatts": thousandths(p.UnitCapMilliwatts),
	}
}

func (s *Service) patchChassis(w http.ResponseWriter, r *http.Request, p []string, body object) {
	var c place
	for _, x := range s.places() {
		if x.id == p[0] {
			c = x
		}
	}
	s.mu.RLock()
	current := s.chassis(c)
	s.mu.RUnlock()
	if c.u == nil {
		s.patchRack(w, r, body, current)
		return
	}
	d := wire.Desired{Mask: wire.DesiredLED, BootSlot: wire.SlotNone}
	if !patched(w, body, current, map[string]field{
		"LocationIndicatorActive": setBool(func(on bool) { d.LED = on }),
	}) || !s.change(w, r, c.u, d) {
		return
	}
	s.answer(w, r, func() object { return s.chassis(c) })
}

// Bounds of what can be written to policies.
const (
	coldest, hottest = -40, 150   // celsius
	mostWatts        = 10_000     // of a rack
	longestStagger   = 60 * 1_000 // milliseconds
)

// patchRack writes the policies of the RMC under Oem.Racklet.Policies.
func (s *Service) patchRack(w http.ResponseWriter, r *http.Request, body, current object) {
	var changes []func(*wire.Policies)
	number := func(low, high float64, set func(*wire.Policies, float64)) field {
		return setNumber(low, high, func(v float64) { changes = append(changes, func(p *wire.Policies) { set(p, v) }) })
	}
	temperature := func(at func(*wire.Policies) *int32) field {
		return number(coldest, hottest, func(p *wire.Policies, v float64) { *at(p) = int32(milliSigned(v)) })
	}
	watts := func(at func(*wire.Policies) *uint32) field {
		return number(0, mostWatts, func(p *wire.Policies, v float64) { *at(p) = milli(v) })
	}
	policies := map[string]field{
		"ThrottleCelsius":   temperature(func(p *wire.Policies) *int32 { return &p.ThrottleMilliCelsius }),
		"ShutdownCelsius":   temperature(func(p *wire.Policies) *int32 { return &p.ShutdownMilliCelsius }),
		"HysteresisCelsius": temperature(func(p *wire.Policies) *int32 { return &p.HysteresisMilliCelsius }),
		// As in a PowerPolicy, the budget is the units'; on the wire the reserve is part of it.
		"BudgetWatts": number(0, mostWatts, func(p *wire.Policies, v float64) { p.BudgetMilliwatts = milli(v) + p.ReserveMilliwatts }),
		"ReserveWatts": number(0, mostWatts, func(p *wire.Policies, v float64) {
			p.BudgetMilliwatts += milli(v) - min(p.ReserveMilliwatts, p.BudgetMilliwatts)
			p.ReserveMilliwatts = milli(v)
		}),
		"UnitCapWatts":        watts(func(p *wire.Policies) *uint32 { return &p.UnitCapMilliwatts }),
		"StaggerMilliseconds": number(0, longestStagger, func(p *wire.Policies, v float64) { p.StaggerMillis = uint32(v) }),
		"Curve": {set: func(v any, name, pointer string) *message {
			curve, m := parseCurve(v, name, pointer)
			if m == nil {
				changes = append(changes, func(p *wire.Policies) {
					p.Curve = [wire.MaxCurvePoints]wire.CurvePoint{}
					p.CurveCount = uint8(copy(p.Curve[:], curve))
				})
			}
			return m
		}},
	}
	if !patched(w, body, current, map[string]field{"Oem": {sub: map[string]field{"Racklet": {sub: map[string]field{"Policies": {sub: policies}}}}}}) {
		return
	}
	s.mu.RLock()
	try := s.rules
	s.mu.RUnlock()
	for _, f := range changes {
		f(&try)
	}
	if _, err := wire.ParsePolicies(wire.AppendPolicies(nil, &try)); err != nil {
		m := msgConflict("ThrottleCelsius", "ShutdownCelsius", "#/Oem/Racklet/Policies")
		m.resolution = "Throttle lies below shutdown, hysteresis is not negative, and the curve has a point."
		fail(w, http.StatusBadRequest, m)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	err := s.setPolicies(ctx, func(p *wire.Policies) {
		for _, f := range changes {
			f(p)
		}
	})
	if err != nil {
		failController(w, "rmc", err)
		return
	}
	s.answer(w, r, s.rackChassis)
}

func parseCurve(v any, name, pointer string) ([]wire.CurvePoint, *message) {
	list, ok := v.([]any)
	if !ok {
		m := msgType(v, name, pointer)
		return nil, &m
	}
	wrong := func() *message {
		m := msgRange(v, name, pointer, fmt.Sprintf("1 to %d points {TemperatureCelsius, DutyPercent}, temperatures rising, duties from 0 to 100 and not falling", wire.MaxCurvePoints))
		return &m
	}
	if len(list) < 1 || len(list) > wire.MaxCurvePoints {
		return nil, wrong()
	}
	var curve []wire.CurvePoint
	for _, e := range list {
		o, _ := e.(map[string]any)
		t, ok1 := o["TemperatureCelsius"].(float64)
		d, ok2 := o["DutyPercent"].(float64)
		if !ok1 || !ok2 || len(o) != 2 || t < coldest || t > hottest || d < 0 || d > 100 {
			return nil, wrong()
		}
		c := wire.CurvePoint{MilliCelsius: int32(milliSigned(t)), DutyPercent: uint8(d)}
		if n := len(curve); n > 0 && (c.MilliCelsius <= curve[n-1].MilliCelsius || c.DutyPercent < curve[n-1].DutyPercent) {
			return nil, wrong()
		}
		curve = append(curve, c)
	}
	return curve, nil
}

func (s *Service) powerSubsystem() object {
	return object{
		"@odata.type": "#PowerSubsystem.v1_1_3.PowerSubsystem", "@odata.id": rackURI + "/PowerSubsystem", "Id": "PowerSubsystem", "Name": "Power",
		"Status": s.status(&s.rmc, "Enabled", s.rackHealth()), "CapacityWatts": float64(s.o.Rack.Spec.Power.Supply),
		"PowerSupplies": ref(suppliesURI),
		"Allocation":    object{"AllocatedWatts": volatile{thousandths(s.rack.GrantedMilliwatts)}, "RequestedWatts": volatile{s.requested()}},
	}
}

// requested is what the units want in all, in watts.
func (s *Service) requested() float64 {
	sum := uint32(0)
	for _, u := range s.units {
		sum += u.state.RequestMilliwatts
	}
	return thousandths(sum)
}

func (s *Service) thermalSubsystem() object {
	uri := rackURI + "/ThermalSubsystem"
	return object{
		"@odata.type": "#ThermalSubsystem.v1_5_0.ThermalSubsystem", "@odata.id": uri, "Id": "ThermalSubsystem", "Name": "Cooling",
		"Status": s.status(&s.rmc, "Enabled", s.rackHealth()), "Fans": ref(uri + "/Fans"), "ThermalMetrics": ref(uri + "/ThermalMetrics"),
	}
}

func (s *Service) thermalMetrics() object {
	list := []object{}
	for _, c := range s.places() {
		id, name := "temperature", ""
		if c.u == nil {
			id, name = "inlet", "Inlet"
		} else {
			name = c.u.name
		}
		e := s.excerpt(c, id)
		e["DeviceName"] = name
		list = append(list, e)
	}
	return object{
		"@odata.type": "#ThermalMetrics.v1_3_2.ThermalMetrics", "@odata.id": rackURI + "/ThermalSubsystem/ThermalMetrics", "Id": "ThermalMetrics",
		"Name": "Temperatures", "TemperatureReadingsCelsius": list, "TemperatureReadingsCelsius@odata.count": len(list),
		"TemperatureSummaryCelsius": object{"Intake": s.excerpt(place{id: "rack"}, "inlet")},
	}
}

func (s *Service) fan(p []string) object {
	for i, f := range s.rack.Fans[:min(s.rack.FanCount, wire.MaxFans)] {
		if id := fanID(i); p[0] == id {
			return object{
				"@odata.type": "#Fan.v1_6_0.Fan", "@odata.id": rackURI + "/ThermalSubsystem/Fans/" + id, "Id": id, "Name": id,
				"PhysicalContext": "Fan", "Status": s.status(&s.rmc, "Enabled", fanHealth(f)),
				"SpeedPercent": object{"DataSourceUri": rackURI + "/Sensors/" + id, "Reading": volatile{f.DutyPercent}, "SpeedRPM": volatile{f.RPM}},
			}
		}
	}
	return nil
}
