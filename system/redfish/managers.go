package redfish

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

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
	t.add(rmcURI, resource{get: func([]string) object { return s.rmcManager() }, patch: s.patchManager})
	s.addLogs(t, rmcURI, func([]string) (string, *controller) { return rmcURI, &s.rmc }, wholeLog)
	s.addLogs(t, uri+"/*", func(p []string) (string, *controller) {
		if u := s.byBMC(p[0]); u != nil {
			return bmcURI(u), &u.controller
		}
		return "", nil
	}, wholeLog)
	t.add(uri+"/*", resource{get: s.ofBMC(s.bmcManager), patch: s.patchManager})
	t.add(uri+"/*/ResetActionInfo", resource{get: func(p []string) object {
		if s.controllerNamed(p[0]) == nil {
			return nil
		}
		return actionInfo(uri+"/"+p[0]+"/ResetActionInfo", "ResetActionInfo", "Reset", parameter{"ResetType", true, "String", managerResets})
	}})
	t.add(uri+"/*/Actions/Manager.Reset", resource{post: s.postManagerReset})
}

func (s *Service) rmcManager() object {
	var chassis []object
	for _, c := range s.places() {
		chassis = append(chassis, ref(c.uri()))
	}
	st := &s.rack
	return s.managed(&s.rmc, object{
		"@odata.type": "#Manager.v1_24_0.Manager", "@odata.id": rmcURI, "Id": "rmc", "Name": "Rack management controller",
		"ManagerType": "EnclosureManager", "Status": volatile{s.status(&s.rmc, "Enabled", s.rackHealth())}, "PowerState": "On",
		"LogServices": ref(rmcURI + "/LogServices"),
		"Links":       object{"ManagerForChassis": chassis, "ManagerInChassis": ref(rackURI)},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletManager.v1_0_0.Racklet", "Endpoint": uint8(wire.EIDRMC), "Available": volatile{s.rmc.online},
			"AgeSeconds": volatile{s.age(&s.rmc)}, "UptimeSeconds": volatile{thousandths(st.UptimeMillis)}, "Restarts": volatile{st.Resets},
			"ClockSet": volatile{st.Flags&wire.RackClockSet != 0},
		}},
	})
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
	return s.managed(&u.controller, object{
		"@odata.type": "#Manager.v1_24_0.Manager", "@odata.id": bmcURI(u), "Id": bmcID(u), "Name": "BMC of " + u.name,
		"ManagerType": "BMC", "Status": volatile{s.status(&u.controller, state, health)}, "PowerState": "On",
		"LogServices": ref(bmcURI(u) + "/LogServices"),
		"Links": object{
			"ManagerForServers": []object{ref(systemURI(u))}, "ManagerForChassis": []object{ref(trayURI(u))},
			"ManagerInChassis": ref(trayURI(u)), "ManagedBy": []object{ref(rmcURI)},
		},
		"Oem": object{"Racklet": object{
			"@odata.type": "#RackletManager.v1_0_0.Racklet", "Endpoint": uint8(u.eid), "Slot": u.slot, "Available": volatile{u.online},
			"AgeSeconds": volatile{s.age(&u.controller)}, "ClockSet": volatile{u.state.Flags&wire.FlagClockSet != 0},
			"Log": ref(logURI(&u.controller)),
		}},
	})
}

// managerResets are the values of ResetType that a controller knows. Both are the same to it: it keeps what it keeps
// as it goes, and has no more to do before it starts anew.
var managerResets = []string{"GracefulRestart", "ForceRestart"}

// controllerNamed finds a controller by its Id: "rmc" or "bmc-1".
func (s *Service) controllerNamed(id string) *controller {
	if id == "rmc" {
		return &s.rmc
	}
	if u := s.byBMC(id); u != nil {
		return &u.controller
	}
	return nil
}

// managed adds to a manager what all controllers have.
func (s *Service) managed(c *controller, o object) object {
	uri, id := o["@odata.id"].(string), o["Id"].(string)
	o["DateTimeLocalOffset"] = "+00:00"
	if c.clocked {
		o["DateTime"] = volatile{stamp(s.clock.Now().Add(c.ahead))}
	}
	if c.firmware != "" {
		o["FirmwareVersion"] = c.firmware
	}
	o["Actions"] = object{"#Manager.Reset": object{
		"target": uri + "/Actions/Manager.Reset", "@Redfish.ActionInfo": uri + "/ResetActionInfo", "ResetType@Redfish.AllowableValues": managerResets,
	}}
	links := o["Links"].(object)
	links["SoftwareImages"], links["ActiveSoftwareImage"] = []object{ref(inventoryURI + "/" + id)}, ref(inventoryURI+"/"+id)
	return identified(c, o)
}

func (s *Service) postManagerReset(w http.ResponseWriter, r *http.Request, p []string, body object) {
	c := s.controllerNamed(p[0])
	if c == nil {
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	if _, ok := actionValue(w, body, "Manager.Reset", "ResetType", managerResets); !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	if err := s.conn.Restart(ctx, c.eid); err != nil {
		failController(w, p[0], err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// controllersTime is what the controllers are told that it is, in Unix milliseconds.
func (s *Service) controllersTime(now time.Time) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return uint64(now.Add(s.ahead).UnixMilli())
}

// latest is what a controller takes for a time at most.
var latest = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// patchManager sets the time. The controllers of a rack have one time: whichever it is set at, all of them get it, and
// keep it until the service ends; after that they get the time of the service's machine again.
func (s *Service) patchManager(w http.ResponseWriter, r *http.Request, p []string, body object) {
	id := "rmc"
	get := s.rmcManager
	if len(p) > 0 {
		u := s.byBMC(p[0])
		id, get = p[0], func() object { return s.bmcManager(u) }
	}
	s.mu.RLock()
	current := get()
	if current["DateTime"] == nil {
		current["DateTime"] = ""
	}
	s.mu.RUnlock()
	var want time.Time
	if !patched(w, body, current, map[string]field{"DateTime": {set: func(v any, name, pointer string) *message {
		text, ok := v.(string)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil || t.Unix() <= 0 || !t.Before(latest) {
			m := about(pointer, base("PropertyValueFormatError", fmt.Sprintf("The value '%s' for the property %s is not a format that the property can accept.", shorten(text), name),
				"Give a time after 1970 as RFC 3339 has it, such as 2027-01-31T12:00:00Z.", shorten(text), name))
			return &m
		}
		want = t
		return nil
	}}}) {
		return
	}
	s.mu.Lock()
	s.ahead = want.Sub(s.clock.Now())
	var others []*controller
	for _, u := range s.units {
		if u.online {
			others = append(others, &u.controller)
		}
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	failed := make([]error, len(others)+1)
	var wait sync.WaitGroup
	for i, c := range append(others, &s.rmc) {
		wait.Go(func() {
			if failed[i] = s.conn.SetTime(ctx, c.eid, s.controllersTime(s.clock.Now())); failed[i] == nil {
				s.pollTime(ctx, c)
			}
		})
	}
	wait.Wait()
	for i, c := range append(others, &s.rmc) {
		if failed[i] != nil && (c.eid == s.controllerNamed(id).eid || c.eid == s.rmc.eid) {
			failController(w, id, failed[i])
			return
		}
	}
	s.answer(w, r, get)
}

// pollTime asks a controller for its time.
func (s *Service) pollTime(ctx context.Context, c *controller) {
	millis, err := s.conn.Time(ctx, c.eid)
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.clocked = err == nil && millis > 0 && millis < 1<<47; c.clocked {
		c.ahead = time.UnixMilli(int64(millis)).Sub(now)
	}
}
