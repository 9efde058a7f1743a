package redfish

import (
	"context"
	"net/http"

	"github.com/racklet/racklet/firmware/wire"
)

// sensor is one measured value of a chassis.
type sensor struct {
	id, name, kind, units, context string
	value                          float64
}

// sensors lists what is measured at a chassis.
func (s *Service) sensors(c place) []sensor {
	if c.u == nil {
		st := &s.rack
		list := []sensor{
			{"power", "Power from the supply", "Power", "W", "PowerSubsystem", thousandths(st.Milliwatts)},
			{"voltage", "Voltage of the supply", "Voltage", "V", "PowerSubsystem", thousandths(st.SupplyMillivolts)},
			{"energy", "Energy from the supply", "EnergyJoules", "J", "PowerSubsystem", thousandths(st.Millijoules)},
			{"inlet", "Inlet temperature", "Temperature", "Cel", "Intake", thousandths(st.InletMilliCelsius)},
		}
		for i, f := range s.rack.Fans[:min(s.rack.FanCount, wire.MaxFans)] {
			list = append(list, sensor{fanID(i), "Speed of " + fanID(i), "Rotational", "{rev}/min", "Fan", float64(f.RPM)})
		}
		return list
	}
	st := &c.u.state
	return []sensor{
		{"power", "Power of the unit", "Power", "W", "SystemBoard", thousandths(st.Milliwatts)},
		{"voltage", "Voltage of the unit's rail", "Voltage", "V", "SystemBoard", thousandths(st.Millivolts)},
		{"current", "Current of the unit's rail", "Current", "A", "SystemBoard", thousandths(st.Milliamps)},
		{"energy", "Energy of the unit", "EnergyJoules", "J", "SystemBoard", thousandths(st.Millijoules)},
		{"temperature", "Temperature of the unit", "Temperature", "Cel", "SystemBoard", thousandths(st.MilliCelsius)},
	}
}

func (s *Service) controllerAt(c place) *controller {
	if c.u == nil {
		return &s.rmc
	}
	return &c.u.controller
}

// sensorLost says that the controller's meters do not answer.
func (s *Service) sensorLost(c place) bool {
	if c.u == nil {
		return s.rack.Flags&wire.RackSensorLost != 0
	}
	return c.u.state.Flags&wire.FlagSensorLost != 0
}

func (s *Service) sensor(c place, p []string) object {
	for _, x := range s.sensors(c) {
		if x.id != p[1] {
			continue
		}
		ctl := s.controllerAt(c)
		health := "OK"
		if s.sensorLost(c) {
			health = "Critical"
		}
		o := object{
			"@odata.type": "#Sensor.v1_12_0.Sensor", "@odata.id": c.uri() + "/Sensors/" + x.id, "Id": x.id, "Name": x.name,
			"ReadingType": x.kind, "ReadingUnits": x.units, "PhysicalContext": x.context, "Reading": volatile{x.value},
			"Status": s.status(ctl, "Enabled", health),
			"Oem":    object{"Racklet": object{"@odata.type": "#RackletSensor.v1_0_0.Racklet", "AgeSeconds": volatile{s.age(ctl)}}},
		}
		if !ctl.seen.IsZero() {
			o["ReadingTime"] = volatile{stamp(ctl.seen)}
		}
		return o
	}
	return nil
}

// excerpt is a sensor as other resources embed it.
func (s *Service) excerpt(c place, id string) object {
	for _, x := range s.sensors(c) {
		if x.id == id {
			return object{"DataSourceUri": c.uri() + "/Sensors/" + id, "Reading": volatile{x.value}}
		}
	}
	return nil
}

func (s *Service) environment(c place) object {
	o := object{
		"@odata.type": "#EnvironmentMetrics.v1_5_0.EnvironmentMetrics", "@odata.id": c.uri() + "/EnvironmentMetrics",
		"Id": "EnvironmentMetrics", "Name": "Power, energy and heat",
		"PowerWatts": s.excerpt(c, "power"), "EnergyJoules": s.excerpt(c, "energy"), "Voltage": s.excerpt(c, "voltage"),
		"Oem": object{"Racklet": object{"@odata.type": "#RackletEnvironment.v1_0_0.Racklet", "AgeSeconds": volatile{s.age(s.controllerAt(c))}}},
	}
	if c.u == nil {
		o["TemperatureCelsius"] = s.excerpt(c, "inlet")
		o["PowerLimitWatts"] = limit(s.rules.BudgetMilliwatts, mostWatts)
		fans := make([]object, 0, wire.MaxFans)
		for i, f := range s.rack.Fans[:min(s.rack.FanCount, wire.MaxFans)] {
			fans = append(fans, object{"DataSourceUri": rackURI + "/Sensors/" + fanID(i), "DeviceName": fanID(i),
				"Reading": volatile{f.DutyPercent}, "SpeedRPM": volatile{f.RPM}})
		}
		o["FanSpeedsPercent"], o["FanSpeedsPercent@odata.count"] = fans, len(fans)
		return o
	}
	o["TemperatureCelsius"], o["CurrentAmps"] = s.excerpt(c, "temperature"), s.excerpt(c, "current")
	o["PowerLimitWatts"] = limit(c.u.state.CapMilliwatts, mostUnitWatts)
	return o
}

// mostUnitWatts bounds the power cap of one unit.
const mostUnitWatts = 100

func limit(milliwatts uint32, most float64) object {
	mode := "Automatic"
	if milliwatts == 0 {
		mode = "Disabled"
	}
	return object{"SetPoint": thousandths(milliwatts), "ControlMode": mode, "AllowableMin": 0.0, "AllowableMax": most}
}

// patchEnvironment sets the power limit: a unit's cap, or the rack's budget.
func (s *Service) patchEnvironment(w http.ResponseWriter, r *http.Request, p []string, body object) {
	var c place
	for _, x := range s.places() {
		if x.id == p[0] {
			c = x
		}
	}
	s.mu.RLock()
	current := s.environment(c)
	s.mu.RUnlock()
	most := float64(mostUnitWatts)
	if c.u == nil {
		most = mostWatts
	}
	var want float64
	set, mode := false, ""
	writable := map[string]field{"PowerLimitWatts": {sub: map[string]field{
		"SetPoint":    setNumber(0, most, func(v float64) { want, set = v, true }),
		"ControlMode": setEnum([]string{"Automatic", "Disabled"}, func(v string) { mode = v }),
	}}}
	if !patched(w, body, current, writable) {
		return
	}
	switch {
	case mode == "Disabled" && c.u == nil:
		fail(w, http.StatusBadRequest, msgNotInList(mode, "ControlMode", "#/PowerLimitWatts/ControlMode", []string{"Automatic"}))
		return
	case mode == "Disabled":
		want = 0
	case !set:
		fail(w, http.StatusBadRequest, msgConflict("ControlMode", "SetPoint", "#/PowerLimitWatts/SetPoint"))
		return
	}
	if c.u != nil {
		d := wire.Desired{Mask: wire.DesiredCap, CapMilliwatts: milli(want), BootSlot: wire.SlotNone}
		if !s.change(w, r, c.u, d) {
			return
		}
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
		defer cancel()
		if err := s.setPolicies(ctx, func(p *wire.Policies) { p.BudgetMilliwatts = milli(want) }); err != nil {
			failController(w, "rmc", err)
			return
		}
	}
	s.answer(w, r, func() object { return s.environment(c) })
}
