package sim

import (
	"net/http"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/sim/netswitch"
	"github.com/racklet/racklet/sim/plant"
)

// route is one operation of /sim/v1. The table below is the interface: handler
// and OpenAPI document are made from it.
type route struct {
	method, path string
	name         string // operationId
	summary      string
	query        []parameter
	request      any // zero value of the body's type; nil: none
	response     any // of the answer's; nil: none
	media        string
	handle       func(r *Rack, w http.ResponseWriter, req *http.Request) (any, error)
}

type parameter struct{ name, summary string }

// Bodies of requests.
type (
	// FlipRequest names one bit of a memory.
	FlipRequest struct {
		Offset int64 `json:"offset" doc:"byte, from the beginning of the flash or disk"`
		Bit    uint8 `json:"bit" doc:"bit within the byte, 0 to 7"`
	}
	// CableRequest is what is wrong with a cable, from now on. A direction that is left out heals.
	CableRequest struct {
		FromDevice netswitch.Fault `json:"fromDevice" doc:"from the device to the switch"`
		ToDevice   netswitch.Fault `json:"toDevice" doc:"from the switch to the device"`
	}
	// ChipRequest is how a chip misbehaves, from now on.
	ChipRequest struct {
		Absent bool    `json:"absent,omitempty" doc:"does not acknowledge its address"`
		Frozen bool    `json:"frozen,omitempty" doc:"goes on answering with its present values"`
		Lie    float64 `json:"lie,omitempty" doc:"added to what it measures: A for the current monitor, °C for the thermometer, rpm for the fan controller"`
	}
	// ClockRequest sets a unit's real-time clock wrong.
	ClockRequest struct {
		AheadSeconds int64 `json:"aheadSeconds" doc:"how far the clock is ahead of the truth; negative: behind; at most ten years"`
	}
	// ServiceRequest takes a service of the neighbourhood away.
	ServiceRequest struct {
		Down bool `json:"down" doc:"units get their connections closed without an answer"`
	}
	// Injected is the answer to an injected fault.
	Injected struct {
		ID int `json:"id" doc:"number of the fault, from 1"`
	}
	// Cleared is the answer to the clearing of all faults.
	Cleared struct {
		Count int `json:"count" doc:"how many there were"`
	}
	// AmbientRequest sets the temperature around the rack.
	AmbientRequest struct {
		Celsius float64 `json:"celsius" doc:"−40 to 80"`
	}
)

// routes is the table.
func routes() []route {
	return []route{
		{"GET", "/sim/v1", "getRack", "State of every physical thing", nil, nil, State{}, "", (*Rack).getState},
		{"GET", "/sim/v1/openapi.json", "getOpenAPI", "This interface as an OpenAPI document", nil, nil, nil, "application/json", (*Rack).getOpenAPI},
		{"GET", "/sim/v1/faults", "listFaults", "Faults that are active or wait", nil, nil, []fault.Active{}, "", (*Rack).listFaults},
		{"POST", "/sim/v1/faults", "injectFault", "Inject a fault; the answer is its number", nil, rack.FaultSpec{}, Injected{}, "", (*Rack).injectFault},
		{"DELETE", "/sim/v1/faults", "clearFaults", "Heal everything that was injected, forget what waits, end the scenario", nil, nil, Cleared{}, "", (*Rack).clearFaults},
		{"DELETE", "/sim/v1/faults/{id}", "clearFault", "Heal one fault, or forget it while it waits", nil, nil, nil, "", (*Rack).clearFault},
		{"GET", "/sim/v1/faults/kinds", "listFaultKinds", "The kinds of faults with their parameters", nil, nil, []rack.FaultKind{}, "", (*Rack).listFaultKinds},
		{"GET", "/sim/v1/faults/record", "getRecord", "What broke, healed and was cleared so far, in order", nil, nil, []fault.Entry{}, "", (*Rack).getRecord},
		{"POST", "/sim/v1/scenario", "startScenario", "Run a scenario on this rack; there is one at a time", nil, rack.Scenario{}, nil, "", (*Rack).startScenario},
		{"GET", "/sim/v1/scenario", "getScenario", "What came of the scenario that runs or ran last", nil, nil, fault.Outcome{}, "", (*Rack).getScenario},
		{"GET", "/sim/v1/plant/faults", "getPlantFaults", "What is broken in supply, fans and trays", nil, nil, plant.Faults{}, "", (*Rack).getPlantFaults},
		{"PUT", "/sim/v1/plant/faults", "setPlantFaults", "Replace what is broken in supply, fans and trays; an empty object heals everything", nil, plant.Faults{}, plant.Faults{}, "", (*Rack).setPlantFaults},
		{"PUT", "/sim/v1/ambient", "setAmbient", "Set the temperature around the rack", nil, AmbientRequest{}, nil, "", (*Rack).setAmbient},
		{"PUT", "/sim/v1/ports/{port}", "setCable", "Set what is wrong with the cable in a port of the switch", nil, CableRequest{}, nil, "", (*Rack).setCable},
		{"GET", "/sim/v1/capture", "capture", "Frames as pcapng, until the client hangs up or the time is over",
			[]parameter{{"port", "one port, both directions; left out: all ports, each frame once"}, {"seconds", "how long; left out: until the client hangs up"}},
			nil, nil, "application/x-pcapng", (*Rack).capture},
		{"POST", "/sim/v1/bus/jam", "jamBus", "Jam the multi-drop bus between RMC and BMCs", nil, nil, nil, "", (*Rack).jamBus},
		{"POST", "/sim/v1/bus/free", "freeBus", "Free the multi-drop bus", nil, nil, nil, "", (*Rack).freeBus},
		{"POST", "/sim/v1/rmc/hang", "hangRMC", "Hang the RMC", nil, nil, nil, "", (*Rack).hangRMC},
		{"POST", "/sim/v1/rmc/restart", "restartRMC", "Restart the RMC, hung or not", nil, nil, nil, "", (*Rack).restartRMC},
		{"PUT", "/sim/v1/services/{service}", "setService", "Take the built-in Git server (git) or the mirror of artefacts (mirror) away from the units, or give it back", nil, ServiceRequest{}, nil, "", (*Rack).setService},
		{"PUT", "/sim/v1/slots/{slot}/clock", "setClock", "Set the real-time clock of a compute unit wrong, from its next start on", nil, ClockRequest{}, nil, "", (*Rack).setClock},
		{"POST", "/sim/v1/slots/{slot}/pull", "pullTray", "Pull a tray out: all its power is gone at once", nil, nil, nil, "", (*Rack).pullTray},
		{"POST", "/sim/v1/slots/{slot}/insert", "insertTray", "Push a tray in", nil, nil, nil, "", (*Rack).insertTray},
		{"POST", "/sim/v1/slots/{slot}/reset", "pressReset", "Press the reset button of the compute unit", nil, nil, nil, "", (*Rack).pressReset},
		{"POST", "/sim/v1/slots/{slot}/pause", "pauseUnit", "Stop the compute unit's clock; its power stays on", nil, nil, nil, "", (*Rack).pauseUnit},
		{"POST", "/sim/v1/slots/{slot}/resume", "resumeUnit", "Let a paused compute unit run on", nil, nil, nil, "", (*Rack).resumeUnit},
		{"POST", "/sim/v1/slots/{slot}/bmc/hang", "hangBMC", "Hang a BMC: it does and answers nothing, its pins stay as they are", nil, nil, nil, "", (*Rack).hangBMC},
		{"POST", "/sim/v1/slots/{slot}/bmc/restart", "restartBMC", "Restart a BMC, hung or not", nil, nil, nil, "", (*Rack).restartBMC},
		{"PUT", "/sim/v1/slots/{slot}/chips/{chip}", "setChip", "Set how a chip on a tray misbehaves: power (the current monitor), temperature or eeprom", nil, ChipRequest{}, nil, "", (*Rack).setChip},
		{"PUT", "/sim/v1/rmc/chips/{chip}", "setRackChip", "Set how a chip of the RMC misbehaves: power, temperature, fans or eeprom", nil, ChipRequest{}, nil, "", (*Rack).setRackChip},
		{"POST", "/sim/v1/slots/{slot}/flash/flip", "flipFlash", "Flip a bit of a BMC's flash", nil, FlipRequest{}, nil, "", (*Rack).flipFlash},
		{"POST", "/sim/v1/slots/{slot}/disk/flip", "flipDisk", "Flip a bit of a compute unit's data disk", nil, FlipRequest{}, nil, "", (*Rack).flipDisk},
	}
}
