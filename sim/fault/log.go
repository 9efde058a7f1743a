package fault

import "github.com/racklet/racklet/firmware/wire"

// A Log follows the event ring of one controller.
type Log struct {
	after   uint32
	primed  bool
	resp    []byte
	instant uint8
}

// Read hands over the events that are new since the last call; those before the first call are skipped. handle is the
// controller's, newest the sequence of its newest event. It returns how many there were.
func (l *Log) Read(newest uint32, handle func(req, resp []byte) int, f func(*wire.Event)) (count int) {
	if !l.primed || newest < l.after { // another controller than before
		l.primed, l.after = true, newest
		return 0
	}
	if l.resp == nil {
		l.resp = make([]byte, wire.MaxMessage-1)
	}
	for l.after < newest {
		l.instant = (l.instant + 1) & 31
		req := wire.AppendReadEvents(wire.AppendRequest(nil, l.instant, wire.TypeOEM, wire.CmdReadEvents), l.after)
		n := handle(req, l.resp)
		_, code, payload, err := wire.ParseResponse(l.resp[:n])
		if err != nil || code != wire.CodeSuccess {
			return count
		}
		events, err := wire.ParseEvents(payload)
		if err != nil {
			return count
		}
		var e wire.Event
		before := l.after
		for events.Next(&e) {
			l.after = e.Sequence
			count++
			f(&e)
		}
		if l.after == before {
			return count
		}
	}
	return count
}
