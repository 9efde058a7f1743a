package wire

// SideMask is a set of sides: bit n is Side n.
type SideMask uint8

// Sets of sides.
const (
	FromInBand SideMask = 1 << SideInBand
	FromBus    SideMask = 1 << SideBus
	FromDebug  SideMask = 1 << SideDebug
	FromAll             = FromInBand | FromBus | FromDebug
)

// Has reports whether s is in the set.
func (m SideMask) Has(s Side) bool { return m&(1<<s) != 0 }

// Sides tells from which sides a BMC accepts a vendor-defined command; none: a BMC
// does not know it. What comes from another side is answered with CodeWrongSide
// before its payload is looked at, and is missing from GetPLDMCommands there.
func Sides(command uint8) SideMask {
	switch command {
	case CmdGetBootConfig:
		return FromInBand | FromDebug // it holds the deploy key: not for the bus
	case CmdReportStage, CmdExtendMeasurement, CmdSetKeyRegister, CmdHeartbeat, CmdSetInventory:
		return FromInBand // what the unit says of itself
	case CmdGetFloors, CmdRaiseFloors, CmdGetEvidence, CmdGetUnitState, CmdReadEvents,
		CmdSlotErase, CmdSlotWrite, CmdSlotCommit, CmdGetTime, CmdGetSlots, CmdGetFirmware:
		return FromAll
	case CmdSetDesired, CmdReadConsole, CmdWriteConsole, CmdGetReport, CmdSetTime, CmdReset, CmdGetInventory, CmdRestart:
		return FromBus | FromDebug
	case CmdGrantPower:
		return FromBus
	}
	return 0
}

// MonitorSides is Sides for the commands of monitoring and control. A unit may read
// but not set; a command from the wrong side is answered with CodeUnsupported.
func MonitorSides(command uint8) SideMask {
	switch command {
	case CmdGetSensorReading, CmdGetStateSensor, CmdGetNumericEffecter, CmdGetStateEffecter, CmdGetPDRInfo, CmdGetPDR:
		return FromAll
	case CmdSetNumericEffecter, CmdSetStateEffecter:
		return FromBus | FromDebug
	}
	return 0
}
