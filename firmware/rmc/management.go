package rmc

import "github.com/racklet/racklet/firmware/wire"

// Management takes bytes from the management computer's serial line. Requests to the RMC are answered at once; requests
// to a BMC are put into the bridge's queue, and dropped when that is full: the requester times out and asks again.
func (r *RMC) Management(p []byte) {
	for _, b := range p {
		packet, ok := r.lineIn.Push(b)
		if !ok {
			continue
		}
		head, err := wire.ParsePacket(packet)
		if err != nil {
			r.stray++
			continue
		}
		r.heard, r.heardAt = true, r.now
		if slot := head.Dest.Slot(); slot != 0 {
			r.bridged.Own = head.Dest
			if m, ok := r.bridged.Push(packet); ok {
				r.enqueue(slot, &m)
			}
			continue
		}
		if m, ok := r.requests.Push(packet); ok {
			r.serve(&m)
		}
	}
}

func (r *RMC) enqueue(slot uint8, m *wire.Message) {
	if slot > r.cfg.Slots || !r.slots[slot-1].present || r.queued == queueLength {
		r.stray++
		return
	}
	if r.slots[slot-1].silent && r.waits(slot) {
		r.stray++ // one at a time knocks at a closed door, so that others get through
		return
	}
	q := &r.queue[(r.first+r.queued)%queueLength]
	r.queued++
	q.addr, q.kind = m.Address, m.Type
	q.n = copy(q.body[:], m.Body)
	if r.tx.purpose == idle {
		r.transact()
	}
}

// waits says whether a bridged request to a slot is under way or queued.
func (r *RMC) waits(slot uint8) bool {
	if r.tx.purpose == bridge && r.tx.slot == slot {
		return true
	}
	for n := range r.queued {
		if r.queue[(r.first+n)%queueLength].addr.Dest == wire.BMC(slot) {
			return true
		}
	}
	return false
}

// serve answers a request to the RMC itself.
func (r *RMC) serve(m *wire.Message) {
	if !m.TagOwner {
		return
	}
	var body []byte
	switch m.Type {
	case wire.MessageControl:
		body = wire.HandleControl(r.response[:0], wire.EIDRMC, m.Body)
	case wire.MessagePLDM:
		// A message holds its type byte as well: the answer must leave room for it.
		body = r.response[:r.Handle(wire.SideBus, r.now, m.Body, r.response[:wire.MaxMessage-1])]
	}
	if len(body) == 0 {
		return
	}
	a := m.Reply()
	a.Source = wire.EIDRMC
	var p wire.Packetiser
	if p.Start(a, m.Type, body, wire.SerialUnit) != nil {
		return
	}
	for {
		packet, ok := p.Next(r.packet[:0])
		if !ok {
			return
		}
		r.line(packet)
	}
}

// line sends one packet to the management computer.
func (r *RMC) line(packet []byte) {
	if r.ports.Management == nil {
		return
	}
	if frame, err := wire.AppendFrame(r.frame[:0], packet); err == nil {
		r.ports.Management.Write(frame)
	}
}
