package rmc

import "github.com/racklet/racklet/firmware/wire"

// queueLength is how many bridged requests wait at most.
const queueLength = 4

// resendMillis is the time after which a grant that the BMC does not report is sent again.
const resendMillis = 1_000

// freshMillis is the age up to which a BMC's answer tells what its unit is doing now.
const freshMillis = 20

// lookMillis is the least time between two looks at the same BMC before a grant.
const lookMillis = 100

// clockMillis is the time after which a BMC that does not know the time is told it again.
const clockMillis = 10_000

// purpose is what a transaction on the bus is for.
type purpose uint8

const (
	idle purpose = iota
	poll
	grant
	clock
	bridge
)

// transaction is the one request on the bus that waits for its answer.
type transaction struct {
	purpose  purpose
	slot     uint8 // 1 to MaxSlots
	addr     wire.Address
	instance uint8
	command  uint8
	deadline uint64
	last     uint64 // when a bridged answer is cut off however it goes on; 0: it has not begun
	bytes    int    // of the bridged answer so far
}

// request is a message from the management computer to a BMC.
type request struct {
	addr wire.Address
	kind uint8
	n    int
	body [wire.MaxMessage]byte
}

// transact gives up a transaction that got no answer, and begins the next one when the bus is free.
func (r *RMC) transact() {
	if r.tx.purpose != idle {
		if r.now < r.tx.deadline {
			return
		}
		r.timeout()
	}
	if r.turn && r.forward() {
		r.turn = false
		return
	}
	if r.own() {
		r.turn = true
		return
	}
	r.forward()
}

// own begins a transaction of the RMC's own, if one is due.
func (r *RMC) own() bool {
	for i := range r.cfg.Slots {
		t := &r.slots[i]
		if !t.present || !t.known || t.silent || t.grant == t.state.GrantMilliwatts || t.sentAt != 0 && r.now-t.sentAt < resendMillis {
			continue
		}
		switch t.state.State {
		case wire.StatePowering, wire.StateRunning, wire.StateDraining:
			if int(i) != r.starting && r.now-t.heardAt > freshMillis {
				// A grant meant for a unit that runs would start one that has just lost its rail: look first. An
				// answer that is not believed leaves us where we were; the bus is not for asking it alone.
				if t.lookedAt != 0 && r.now-t.lookedAt < lookMillis {
					continue
				}
				t.lookedAt = max(r.now, 1)
				r.poll(i)
				return true
			}
			t.sentAt = max(r.now, 1)
			body := wire.AppendGrant(r.compose(wire.CmdGrantPower), t.grant)
			r.send(grant, i+1, wire.CmdGrantPower, body)
			return true
		}
	}
	if r.now < r.pollAt {
		return false
	}
	for range r.cfg.Slots {
		i := r.pollNext
		r.pollNext = (r.pollNext + 1) % r.cfg.Slots
		t := &r.slots[i]
		if !t.present || t.silent && r.now-t.polledAt < uint64(r.limits.SilentMillis) {
			continue
		}
		r.pollAt = r.now + uint64(r.limits.PollMillis)
		if r.clockSet && t.known && !t.silent && t.state.Flags&wire.FlagClockSet == 0 && (t.clockAt == 0 || r.now-t.clockAt >= clockMillis) {
			t.clockAt = max(r.now, 1)
			body := wire.AppendTime(r.compose(wire.CmdSetTime), r.time())
			r.send(clock, i+1, wire.CmdSetTime, body)
			return true
		}
		r.poll(i)
		return true
	}
	return false
}

func (r *RMC) poll(i uint8) {
	r.slots[i].polledAt = r.now
	r.send(poll, i+1, wire.CmdGetUnitState, r.compose(wire.CmdGetUnitState))
}

// compose begins a request of our own.
func (r *RMC) compose(command uint8) []byte {
	r.instance = (r.instance + 1) & 0x1F
	r.tag = (r.tag + 1) & 7
	return wire.AppendRequest(r.message[:0], r.instance, wire.TypeOEM, command)
}

func (r *RMC) send(p purpose, slot, command uint8, body []byte) {
	a := wire.Address{Dest: wire.BMC(slot), Source: wire.EIDRMC, Tag: r.tag, TagOwner: true}
	r.tx = transaction{purpose: p, slot: slot, addr: a, instance: r.instance, command: command, deadline: r.now + uint64(r.limits.ReplyMillis)}
	r.write(slot, a, wire.MessagePLDM, body)
}

// forward begins the oldest bridged request, if there is one.
func (r *RMC) forward() bool {
	for r.queued > 0 {
		q := &r.queue[r.first]
		r.first = (r.first + 1) % queueLength
		r.queued--
		slot := q.addr.Dest.Slot()
		if slot == 0 || slot > r.cfg.Slots || !r.slots[slot-1].present {
			r.stray++ // pulled meanwhile
			continue
		}
		body := q.body[:q.n]
		wait := uint64(r.limits.BridgeMillis)
		if r.slots[slot-1].silent {
			wait = uint64(r.limits.ReplyMillis)
		}
		r.tx = transaction{purpose: bridge, slot: slot, addr: q.addr, deadline: r.now + wait}
		if !q.addr.TagOwner || q.kind == wire.MessagePLDM && len(body) > 0 && body[0]&0xC0 == 0xC0 {
			r.tx.purpose = idle // an answer, or a datagram: nothing comes back
		}
		r.write(slot, q.addr, q.kind, body)
		if r.tx.purpose == idle {
			continue
		}
		return true
	}
	return false
}

// write sends a message on the bus, packet by packet.
func (r *RMC) write(slot uint8, a wire.Address, kind uint8, body []byte) {
	if r.ports.Bus == nil {
		return
	}
	var p wire.Packetiser
	if p.Start(a, kind, body, wire.SerialUnit) != nil {
		return
	}
	for {
		packet, ok := p.Next(r.packet[:0])
		if !ok {
			return
		}
		frame, err := wire.AppendBusFrame(r.frame[:0], wire.ToSlot(slot), packet)
		if err != nil {
			return
		}
		r.ports.Bus.Write(frame)
	}
}

// Bus takes bytes from the multi-drop bus. What the RMC itself sent, heard back on the half-duplex pair, is ignored.
func (r *RMC) Bus(p []byte) {
	for _, b := range p {
		packet, ok := r.busIn.Push(b)
		if !ok {
			continue
		}
		slot, toMaster := wire.AddressSlot(r.busIn.Address())
		if toMaster {
			r.answer(slot, packet)
		}
	}
}

// answer takes one packet from a BMC.
func (r *RMC) answer(slot uint8, packet []byte) {
	p, err := wire.ParsePacket(packet)
	if err != nil || r.tx.purpose == idle || slot != r.tx.slot || p.Source != wire.BMC(slot) || p.TagOwner || p.Tag != r.tx.addr.Tag || p.Dest != r.tx.addr.Source {
		r.stray++
		return
	}
	if r.tx.purpose == bridge {
		// It is answering: each packet gets its time, all of them together no more than a message takes.
		if r.tx.last == 0 {
			r.tx.last = r.now + uint64(r.limits.BridgeMillis)
		}
		r.tx.deadline = min(r.now+uint64(r.limits.ReplyMillis), r.tx.last)
		r.tx.bytes += len(p.Body)
		if r.tx.bytes > wire.MaxMessage {
			r.stray++
			r.timeout()
			r.transact()
			return
		}
		r.line(packet)
		if p.End {
			r.tx.purpose = idle
			r.transact()
		}
		return
	}
	m, ok := r.answers.Push(packet)
	if !ok {
		return
	}
	h, code, payload, err := wire.ParseResponse(m.Body)
	if err != nil || m.Type != wire.MessagePLDM || h.Instance != r.tx.instance || h.Command != r.tx.command || h.Type != wire.TypeOEM {
		r.stray++
		return
	}
	i := int(r.tx.slot - 1)
	done := r.tx.purpose
	r.tx.purpose = idle
	if done == poll {
		s, err := wire.ParseUnitState(payload)
		if code != wire.CodeSuccess || err != nil || s.Slot != slot {
			r.miss(i) // a BMC that does not say who and how it is says nothing
		} else {
			r.learn(i, &s)
		}
	}
	r.transact()
}

// timeout ends a transaction that was not answered.
func (r *RMC) timeout() {
	i := int(r.tx.slot - 1)
	if r.tx.purpose == poll {
		r.miss(i)
	}
	r.tx.purpose = idle
	r.answers.Reset()
	r.busIn.Reset()
}

// miss counts an unanswered poll.
func (r *RMC) miss(i int) {
	t := &r.slots[i]
	if t.missed++; t.missed < r.limits.SilentPolls || t.silent || !t.present {
		return
	}
	t.silent = true
	r.event(wire.EventBus, uint8(i+1), 0, "BMC does not answer", nil)
}
