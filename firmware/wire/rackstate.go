package wire

// MaxFans is how many fans an RMC can have.
const MaxFans = 4

// Flags of a fan.
const (
	FanStalled  uint8 = 1 << iota // driven but not turning
	FanFailsafe                   // driven at full speed because something is unknown
)

// FanState is one fan.
type FanState struct {
	RPM         uint16
	DutyPercent uint8 // 0 to 100
	Flags       uint8 // Fan…
}

// Flags of RackState.
const (
	RackFailsafe    uint16 = 1 << iota // fans at full speed: silence, sensor loss or restart
	RackSensorLost                     // a sensor of the RMC does not answer
	RackThrottling                     // inlet or a unit is too hot, grants are reduced
	RackOverBudget                     // the rack draws more than its budget
	RackClockSet                       // the RMC's clock has been set
	RackPolicyUnset                    // no policies since the first start: built-in ones hold
)

// RackState is everything an RMC says about the rack in one message.
type RackState struct {
	Milliwatts        uint32 // drawn from the supply
	Millijoules       uint64 // counter over the RMC's life
	SupplyMillivolts  uint32
	InletMilliCelsius int32
	BudgetMilliwatts  uint32 // in force
	GrantedMilliwatts uint32 // sum of the grants to units
	FanCount          uint8  // 0 to MaxFans
	Fans              [MaxFans]FanState
	PresentMask       uint16 // bit n: a tray is in slot n
	AnswerMask        uint16 // bit n: the BMC in slot n answered the last poll
	LEDMask           uint16 // bit n: the identify LED of slot n is lit
	Flags             uint16 // Rack…
	PolicyGeneration  uint32
	LastEvent         uint32 // sequence of the newest event
	UptimeMillis      uint64 // of the RMC itself
	Resets            uint32 // restarts of the RMC, over its life
	// FrameErrors counts frames dropped on either line since the RMC started.
	FrameErrors uint32
	// SlotAgeMillis is the time since the BMC in slot n (index n-1) answered; 0xFFFFFFFF: never.
	SlotAgeMillis [MaxSlots]uint32
}

// AgeNever in RackState.SlotAgeMillis: the BMC never answered.
const AgeNever uint32 = 0xFFFFFFFF

// MaxCurvePoints is how many points a fan curve can have.
const MaxCurvePoints = 8

// CurvePoint is one point of a fan curve.
type CurvePoint struct {
	MilliCelsius int32
	DutyPercent  uint8 // 0 to 100
}

// Policies is what an RMC works by. A generation at or below the one in force
// changes nothing and is answered with success.
type Policies struct {
	Generation             uint32
	CurveCount             uint8 // 1 to MaxCurvePoints, temperatures rising
	Curve                  [MaxCurvePoints]CurvePoint
	ThrottleMilliCelsius   int32
	ShutdownMilliCelsius   int32
	HysteresisMilliCelsius int32
	BudgetMilliwatts       uint32           // for all units and the reserve
	ReserveMilliwatts      uint32           // fans, switch, RMC: not given to units
	StaggerMillis          uint32           // least time between two grants
	UnitCapMilliwatts      uint32           // for each unit without a cap of its own; 0: none
	SlotCapMilliwatts      [MaxSlots]uint32 // of slot n at index n-1; 0: UnitCapMilliwatts holds
}
