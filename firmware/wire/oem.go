package wire

// Vendor-defined commands, PLDM type TypeOEM. docs/wire.md describes each of them
// field by field. In brackets: the sides from which a BMC accepts it.
const (
	CmdGetBootConfig     uint8 = 0x01 // [in-band, debug] part of the boot configuration
	CmdReportStage       uint8 = 0x02 // [in-band] the unit's stage and failure
	CmdExtendMeasurement uint8 = 0x03 // [in-band] extend a unit-asserted register
	CmdSetKeyRegister    uint8 = 0x04 // [in-band] hash of the unit's public key
	CmdGetFloors         uint8 = 0x05 // [all] floors and rack ID
	CmdRaiseFloors       uint8 = 0x06 // [all] signed floor statement
	CmdGetEvidence       uint8 = 0x07 // [all] registers signed over a nonce
	CmdGetUnitState      uint8 = 0x08 // [all]
	CmdSetDesired        uint8 = 0x09 // [bus, debug]
	CmdReadEvents        uint8 = 0x0A // [all] RMC too
	CmdReadConsole       uint8 = 0x0B // [bus, debug]
	CmdWriteConsole      uint8 = 0x0C // [bus, debug]
	CmdSlotErase         uint8 = 0x0D // [all] begin to write the idle slot
	CmdSlotWrite         uint8 = 0x0E // [all]
	CmdSlotCommit        uint8 = 0x0F // [all] signed manifest, in parts
	CmdGrantPower        uint8 = 0x10 // [bus]
	CmdHeartbeat         uint8 = 0x11 // [in-band] Report
	CmdGetReport         uint8 = 0x12 // [bus, debug] the last Report and its age
	CmdSetTime           uint8 = 0x13 // [bus, debug] RMC too
	CmdGetTime           uint8 = 0x14 // [all] RMC too
	CmdReset             uint8 = 0x15 // [bus, debug]
	CmdGetSlots          uint8 = 0x16 // [all]

	CmdGetRackState uint8 = 0x20 // RMC only
	CmdSetPolicies  uint8 = 0x21 // RMC only
	CmdSetLED       uint8 = 0x22 // RMC only
	CmdGetPolicies  uint8 = 0x23 // RMC only
)

// Limits of the vendor-defined messages, in bytes.
const (
	MaxBootConfigPart = 1024
	MaxBootConfig     = 16 << 10
	MaxSignedFloors   = 1024
	MaxEvidence       = 3 << 10
	MaxConsoleRead    = 1024
	MaxConsoleWrite   = 256
	MaxSlotWrite      = 2048
	MaxManifestPart   = 2048
	MaxLabel          = 48
)
