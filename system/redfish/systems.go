package redfish

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
)

func systemURI(u *unit) string { return root + "/Systems/" + u.name }

func trayURI(u *unit) string { return root + "/Chassis/" + trayID(u) }

func bmcURI(u *unit) string { return root + "/Managers/" + bmcID(u) }

func trayID(u *unit) string { return fmt.Sprintf("tray-%d", u.slot) }

func bmcID(u *unit) string { return fmt.Sprintf("bmc-%d", u.slot) }

// ofUnit makes a getter out of one that has the unit that the first star names.
func (s *Service) ofUnit(get func(*unit, []string) object) func([]string) object {
	return func(p []string) object {
		if u := s.byName(p[0]); u != nil {
			return get(u, p)
		}
		return nil
	}
}

func (s *Service) addSystems(t *router) {
	uri := root + "/Systems"
	t.add(uri, resource{get: func([]string) object {
		var ids []string
		for _, u := range s.units {
			ids = append(ids, u.name)
		}
		return members("ComputerSystemCollection", uri, "Compute units", ids)
	}})
	one := uri + "/*"
	t.add(one, resource{get: s.ofUnit(func(u *unit, _ []string) object { return s.system(u) }), patch: s.patchSystem})
	t.add(one+"/Actions/ComputerSystem.Reset", resource{post: s.postReset})
	t.add(one+"/ResetActionInfo", resource{get: s.ofUnit(func(u *unit, _ []string) object {
		return object{
			"@odata.type": "#ActionInfo.v1_5_0.ActionInfo", "@odata.id": systemURI(u) + "/ResetActionInfo", "Id": "ResetActionInfo", "Name": "Reset",
			"Parameters": []object{{"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": resetTypes}},
		}
	})})
	t.add(one+"/BootOptions", resource{get: s.ofUnit(func(u *unit, _ []string) object {
		return members("BootOptionCollection", systemURI(u)+"/BootOptions", "Boot slots", slotRefs[:])
	})})
	t.add(one+"/BootOptions/*", resource{get: s.ofUnit(s.bootOption)})
	s.addLogs(t, one, func(p []string) (string, *controller) {
		if u := s.byName(p[0]); u != nil {
			return systemURI(u), &u.controller
		}
		return "", nil
	}, wholeLog, bootLog)
	for uri, serve := range map[string]func(http.ResponseWriter, *http.Request, *unit){"": s.serveConsole, "/Recording": s.serveRecording} {
		t.add(one+"/Oem/Racklet/Console"+uri, resource{raw: func(w http.ResponseWriter, r *http.Request, p []string) {
			if u := s.byName(p[0]); u != nil {
				serve(w, r, u)
				return
			}
			fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		}})
	}
}

// status is the standard's Status of what a controller stands for.
func (s *Service) status(c *controller, state, health string) object {
	if !c.online {
		return object{"State": "UnavailableOffline", "Health": "Critical"}
	}
	return object{"State": state, "Health": health}
}

// age is the time since a controller answered last, in seconds; since the service started if it never did.
func (s *Service) age(c *controller) float64 {
	since := c.seen
	if since.IsZero() {
		since = s.start
	}
	return round(max(s.clock.Now().Sub(since).Seconds(), 0), 10)
}

// round rounds to a part of one.
func round(v, part float64) float64 { return float64(int64(v*part+0.5)) / part }

func thousandths[T uint32 | int32 | uint64](v T) float64 { return float64(v) / 1000 }

func powerState(u *wire.UnitState) string {
	switch {
	case u.State == wire.StateDraining:
		return "PoweringOff"
	case u.State == wire.StateVerifying || u.State == wire.StatePowering:
		return "PoweringOn"
	case u.Rail:
		return "On"
	}
	return "Off"
}

func bootProgress(st wire.Stage) string {
	switch st {
	case wire.StageOff:
		return "None"
	case wire.StagePowered:
		return "PrimaryProcessorInitializationStarted"
	case wire.StageMedium:
		return "SystemHardwareInitializationComplete"
	case wire.StageHandover, wire.StageOS:
		return "OSBootStarted"
	case wire.StageRunning:
		return "OSRunning"
	}
	return "OEM"
}

func (s *Service) health(u *unit) (state, health string) {
	st := &u.state
	switch {
	case s.absent(u):
		return "Absent", "OK"
	case !st.Rail && st.Power == wire.PowerOff:
		state = "StandbyOffline"
	case st.Stage == wire.StageRunning:
		state = "Enabled"
	default:
		state = "Starting"
	}
	const warn = wire.FlagEvidenceVoid | wire.FlagFallbackSlot | wire.FlagStale | wire.FlagSensorLost | wire.FlagReportStale | wire.FlagStoreWorn
	switch {
	case st.State == wire.StateFaulted || st.Stage == wire.StageFailed:
		health = "Critical"
	case st.Flags&warn != 0:
		health = "Warning"
	default:
		health = "OK"
	}
	return state, health
}

// absent says that the RMC sees no tray in the slot.
func (s *Service) absent(u *unit) bool {
	return s.rmc.online && s.rack.PresentMask&(1<<u.slot) == 0
}

func (s *Service) system(u *unit) object {
	state, health := s.health(u)
	st := &u.state
	console := systemURI(u) + "/Oem/Racklet/Console"
	return s.inventoried(u, identified(&u.controller, object{
		"@odata.type": "#ComputerSystem.v1_27_0.ComputerSystem", "@odata.id": systemURI(u), "Id": u.name, "Name": u.name,
		"SystemType": "Physical", "Model": u.spec.Spec.Platform, "HostName": u.name,
		"Status": volatile{s.status(&u.controller, state, health)}, "PowerState": volatile{powerState(st)},
		"LocationIndicatorActive": s.led(u),
		"BootProgress":            volatile{s.bootProgress(u)},
		"Boot":                    s.boot(u),
		"SerialConsole": object{"MaxConcurrentSessions": maxConsoles,
			"WebSocket": object{"ServiceEnabled": true, "Interactive": true, "ConsoleURI": console}},
		"LogServices": ref(systemURI(u) + "/LogServices"),
		"Links":       object{"Chassis": []object{ref(trayURI(u))}, "ManagedBy": []object{ref(bmcURI(u))}},
		"Actions": object{"#ComputerSystem.Reset": object{
			"target": systemURI(u) + "/Actions/ComputerSystem.Reset", "@Redfish.ActionInfo": systemURI(u) + "/ResetActionInfo",
			"ResetType@Redfish.AllowableValues": resetTypes,
		}},
		"Oem": volatile{object{"Racklet": s.systemOem(u, console)}},
	}))
}

func (s *Service) bootProgress(u *unit) object {
	o := object{"LastState": bootProgress(u.state.Stage), "OemLastState": u.state.Stage.String()}
	if !u.stageAt.IsZero() {
		o["LastStateTime"] = stamp(u.stageAt)
	}
	return o
}

// led is the identify light: the tray's, or while its BMC is silent the slot's.
func (s *Service) led(u *unit) bool {
	if !u.online {
		return s.rack.LEDMask&(1<<u.slot) != 0
	}
	return u.state.LED
}

func (s *Service) systemOem(u *unit, console string) object {
	st := &u.state
	o := object{
		"@odata.type": "#RackletComputerSystem.v1_0_0.Racklet",
		"Slot":        u.slot, "State": st.State.String(), "Stage": st.Stage.String(),
		"Reason": "", "Expected": "", "Seen": "", "ReasonText": "", "Cure": "",
		"BootSlot": slotLetter(st.BootSlot), "Commit": "", "Release": "", "Stale": st.Flags&wire.FlagStale != 0, "Address": "",
		"DesiredPower": st.Power.String(), "DesiredGeneration": st.DesiredGeneration, "ObservedGeneration": st.ObservedGeneration,
		"BootCount": st.BootCount, "Resets": st.Resets,
		"EvidenceVoid": st.Flags&wire.FlagEvidenceVoid != 0, "FallbackSlot": st.Flags&wire.FlagFallbackSlot != 0,
		"SensorLost": st.Flags&wire.FlagSensorLost != 0, "Capped": st.Flags&wire.FlagCapped != 0,
		"WaitingForGrant": st.Flags&wire.FlagWaitGrant != 0, "HeartbeatLost": st.Flags&wire.FlagReportStale != 0,
		"StoreWorn": st.Flags&wire.FlagStoreWorn != 0,
		"Present":   !s.absent(u), "Available": u.online, "AgeSeconds": volatile{s.age(&u.controller)},
		"Watts": volatile{thousandths(st.Milliwatts)}, "EnergyJoules": volatile{thousandths(st.Millijoules)},
		"Volts": volatile{thousandths(st.Millivolts)}, "Amperes": volatile{thousandths(st.Milliamps)},
		"TemperatureCelsius": volatile{thousandths(st.MilliCelsius)}, "RailSeconds": volatile{thousandths(st.RailMillis)},
		"PowerGrantWatts": thousandths(st.GrantMilliwatts), "PowerCapWatts": thousandths(st.CapMilliwatts),
		"UptimeSeconds": volatile{0}, "CPUPercent": volatile{0}, "MemoryUsedMiB": volatile{0}, "MemoryTotalMiB": 0,
		"Floors": object{
			"Sequence": st.Floors.Sequence, "RootVersion": st.Floors.RootVersion, "BootSecurity": st.Floors.BootSecurity,
			"Tree": digestText(st.Floors.Tree), "Commit": commitText(st.Floors.Commit),
		},
		"Slots":   []object{slotObject("A", &u.slots[0]), slotObject("B", &u.slots[1])},
		"Console": console,
	}
	failureInto(o, &st.Failure)
	if r := &u.report.Report; u.report.Age != wire.AgeNever {
		age := s.reportAge(u)
		o["Commit"], o["Release"] = commitText(r.Commit), r.Release.String()
		o["Stale"] = r.Stale || st.Flags&wire.FlagStale != 0
		if r.Address != [4]byte{} {
			o["Address"] = fmt.Sprintf("%d.%d.%d.%d", r.Address[0], r.Address[1], r.Address[2], r.Address[3])
		}
		up := float64(r.UptimeSeconds)
		if st.Stage == wire.StageRunning && u.online {
			up += round(max(age.Seconds(), 0), 1)
		}
		o["UptimeSeconds"], o["ReportAgeSeconds"] = volatile{up}, volatile{round(max(age.Seconds(), 0), 10)}
		o["CPUPercent"] = volatile{float64(r.CPUPermille) / 10}
		o["MemoryUsedMiB"], o["MemoryTotalMiB"] = volatile{r.MemoryUsedKiB >> 10}, r.MemoryTotalKiB>>10
	}
	return o
}

// reportAge is the time since a unit reported last.
func (s *Service) reportAge(u *unit) time.Duration {
	return max(time.Duration(u.report.Age)*time.Millisecond+s.clock.Now().Sub(u.asked), 0)
}

func failureInto(o object, f *wire.Failure) {
	if f.IsZero() {
		return
	}
	name := f.Reason.String()
	o["Reason"], o["Expected"], o["Seen"] = name, f.Expected.String(), f.Seen.String()
	if r, ok := rack.LookupReason(name); ok {
		o["ReasonText"], o["Cure"] = r.Text, r.Cure
	}
}

func commitText(c [20]byte) string {
	if c == [20]byte{} {
		return ""
	}
	return hex.EncodeToString(c[:])
}

func digestText(d [32]byte) string {
	if d == [32]byte{} {
		return ""
	}
	return string(rack.DigestOf(d))
}

func (s *Service) patchSystem(w http.ResponseWriter, r *http.Request, p []string, body object) {
	u := s.byName(p[0])
	d := wire.Desired{BootSlot: wire.SlotNone}
	led := func(on bool) { d.Mask |= wire.DesiredLED; d.LED = on }
	var b bootRequest
	text := func(to *string) func(string) { return func(v string) { *to = v; b.given = true } }
	writable := map[string]field{
		"LocationIndicatorActive": setBool(led),
		"Boot": {sub: map[string]field{
			"BootSourceOverrideEnabled":    setEnum([]string{"Disabled", "Once", "Continuous"}, text(&b.mode)),
			"BootSourceOverrideTarget":     setEnum(append([]string{"Pxe"}, bootTargets...), text(&b.target)),
			"BootSourceOverrideMode":       setEnum([]string{"UEFI"}, func(string) {}),
			"UefiTargetBootSourceOverride": setEnum(slotRefs[:], text(&b.uefi)),
			"BootNext":                     setEnum(slotRefs[:], text(&b.next)),
		}},
	}
	s.mu.RLock()
	current, state := s.system(u), u.state
	s.mu.RUnlock()
	if !patched(w, body, current, writable) {
		return
	}
	if b.given {
		mode, slot, wrong := b.desired(&state)
		if wrong != nil {
			fail(w, http.StatusBadRequest, *wrong)
			return
		}
		d.Mask |= wire.DesiredBoot
		d.BootMode, d.BootSlot = mode, slot
	}
	if d.Mask != 0 && !s.change(w, r, u, d) {
		return
	}
	s.answer(w, r, func() object { return s.system(u) })
}

// change sets the desired state of a unit, and answers if that fails.
func (s *Service) change(w http.ResponseWriter, r *http.Request, u *unit, d wire.Desired) bool {
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	s.mu.RLock()
	online := u.online
	s.mu.RUnlock()
	if !online && d.Mask == wire.DesiredLED && s.setLED(ctx, u, d.LED) == nil {
		return true // a tray without a BMC that answers can still be found
	}
	if err := s.desire(ctx, u, d); err != nil {
		failController(w, bmcID(u), err)
		return false
	}
	return true
}

// resetTypes are the values of ResetType (Resource schema) that a unit knows.
var resetTypes = []string{"On", "ForceOff", "GracefulShutdown", "PowerCycle", "ForceRestart", "GracefulRestart"}

var resetKinds = map[string]wire.ResetKind{
	"ForceOff": wire.ResetForceOff, "GracefulShutdown": wire.ResetGracefulOff, "PowerCycle": wire.ResetCycle,
	"ForceRestart": wire.ResetForceRestart, "GracefulRestart": wire.ResetGracefulCycle,
}

func (s *Service) postReset(w http.ResponseWriter, r *http.Request, p []string, body object) {
	u := s.byName(p[0])
	if u == nil {
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	kind, ok := actionValue(w, body, "ComputerSystem.Reset", "ResetType", resetTypes)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeLimit)
	defer cancel()
	if err := s.reset(ctx, u, kind); err != nil {
		failController(w, bmcID(u), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) reset(ctx context.Context, u *unit, kind string) error {
	s.mu.RLock()
	faulted := u.state.State == wire.StateFaulted
	s.mu.RUnlock()
	order, isOrder := resetKinds[kind]
	if kind == "On" && faulted { // it is desired to be on already, and gave up: try again
		order, isOrder = wire.ResetCycle, true
	}
	if !isOrder {
		return s.desire(ctx, u, wire.Desired{Mask: wire.DesiredPower, Power: wire.PowerOn, BootSlot: wire.SlotNone})
	}
	u.change.Lock()
	err := s.conn.Reset(ctx, u.eid, order)
	u.change.Unlock()
	if err != nil {
		return err
	}
	_, err = s.refresh(ctx, u)
	u.look() // for what follows
	return err
}

// actionValue takes the one parameter of an action out of its body.
func actionValue(w http.ResponseWriter, body object, action, name string, allowed []string) (string, bool) {
	for k := range body {
		if k != name {
			fail(w, http.StatusBadRequest, msgActionUnknown(k, action))
			return "", false
		}
	}
	v, ok := body[name]
	if !ok {
		fail(w, http.StatusBadRequest, msgActionMissing(name, action))
		return "", false
	}
	for _, a := range allowed {
		if v == a {
			return a, true
		}
	}
	fail(w, http.StatusBadRequest, msgActionValue(v, name, action, allowed))
	return "", false
}
