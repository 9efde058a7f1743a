package wire

// EventKind classes an event of a controller's ring.
type EventKind uint8

// Kinds of event. Code's meaning depends on the kind.
const (
	EventNone        EventKind = iota
	EventRestart               // the controller itself started; Code: reset cause
	EventState                 // the state machine moved; Code: State
	EventStage                 // the unit's stage moved; Code: Stage
	EventRail                  // the rail went on (Code 1) or off (Code 0)
	EventReset                 // the unit was reset; Code: 1 by the BMC, 0 by itself
	EventFailure               // a check failed; Failure names it
	EventSlot                  // a boot slot was chosen, written or rejected; Code: slot
	EventDesired               // a new generation was accepted; Code: Desired mask
	EventFloors                // floors were raised or a statement refused
	EventMeasurement           // a register was extended; Code: register
	EventKey                   // the key register was set
	EventSensor                // a sensor was lost (Code 0) or came back (Code 1)
	EventThermal               // throttling or shutdown for heat; Code: 0 normal, 1 throttle, 2 shutdown
	EventPower                 // grant, cap or budget; Code: 0 refused, 1 granted, 2 withdrawn
	EventFan                   // a fan stalled (Code 0) or came back (Code 1); all fans: full speed to be safe (2), by the curve again (3)
	EventPresence              // a tray was pulled (Code 0) or inserted (Code 1)
	EventBus                   // the bus or the other end went silent (Code 0) or came back (Code 1)
	EventPolicy                // new policies were accepted
	EventReport                // heartbeats of the unit stopped (Code 0) or came (Code 1)
	numEventKinds
)

// String returns a lower-case word.
func (k EventKind) String() string { return word(eventKinds[:], int(k)) }

var eventKinds = [...]string{
	"none", "restart", "state", "stage", "rail", "reset", "failure", "slot", "desired", "floors",
	"measurement", "key", "sensor", "thermal", "power", "fan", "presence", "bus", "policy", "report",
}

// Event is one entry of a controller's event ring.
type Event struct {
	Sequence uint32    // rises by one with each event, over restarts too; the first is 1
	Millis   uint64    // Unix time in milliseconds if ClockSet, else since the controller started
	Boot     uint32    // boot count of the unit at that time
	Kind     EventKind // what happened
	ClockSet bool
	Slot     uint8  // the slot it is about; 0: the controller itself
	Code     uint16 // see the kind
	Text     Text64
	Failure  Failure
}
