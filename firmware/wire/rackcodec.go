package wire

// AppendRackState appends the response of GetRackState.
func AppendRackState(dst []byte, s *RackState) []byte {
	dst = le.AppendUint32(dst, s.Milliwatts)
	dst = le.AppendUint64(dst, s.Millijoules)
	dst = le.AppendUint32(dst, s.SupplyMillivolts)
	dst = le.AppendUint32(dst, uint32(s.InletMilliCelsius))
	dst = le.AppendUint32(dst, s.BudgetMilliwatts)
	dst = le.AppendUint32(dst, s.GrantedMilliwatts)
	n := min(s.FanCount, MaxFans)
	dst = append(dst, n)
	for i := range s.Fans[:n] {
		f := &s.Fans[i]
		dst = append(le.AppendUint16(dst, f.RPM), f.DutyPercent, f.Flags)
	}
	dst = le.AppendUint16(dst, s.PresentMask)
	dst = le.AppendUint16(dst, s.AnswerMask)
	dst = le.AppendUint16(dst, s.LEDMask)
	dst = le.AppendUint16(dst, s.Flags)
	dst = le.AppendUint32(dst, s.PolicyGeneration)
	dst = le.AppendUint32(dst, s.LastEvent)
	dst = le.AppendUint64(dst, s.UptimeMillis)
	dst = le.AppendUint32(dst, s.Resets)
	dst = le.AppendUint32(dst, s.FrameErrors)
	for i := range s.SlotAgeMillis {
		dst = le.AppendUint32(dst, s.SlotAgeMillis[i])
	}
	return dst
}

// ParseRackState reads the response of GetRackState.
func ParseRackState(b []byte) (s RackState, err error) {
	c := cursor{b: b}
	s.Milliwatts = c.u32()
	s.Millijoules = c.u64()
	s.SupplyMillivolts = c.u32()
	s.InletMilliCelsius = int32(c.u32())
	s.BudgetMilliwatts = c.u32()
	s.GrantedMilliwatts = c.u32()
	s.FanCount = c.max(MaxFans)
	for i := range s.Fans[:s.FanCount] {
		s.Fans[i] = FanState{RPM: c.u16(), DutyPercent: c.max(100), Flags: c.u8()}
	}
	s.PresentMask = c.u16()
	s.AnswerMask = c.u16()
	s.LEDMask = c.u16()
	s.Flags = c.u16()
	s.PolicyGeneration = c.u32()
	s.LastEvent = c.u32()
	s.UptimeMillis = c.u64()
	s.Resets = c.u32()
	s.FrameErrors = c.u32()
	for i := range s.SlotAgeMillis {
		s.SlotAgeMillis[i] = c.u32()
	}
	return s, c.done()
}

// AppendPolicies appends the request of SetPolicies and the response of GetPolicies.
func AppendPolicies(dst []byte, p *Policies) []byte {
	dst = le.AppendUint32(dst, p.Generation)
	n := min(p.CurveCount, MaxCurvePoints)
	dst = append(dst, n)
	for i := range p.Curve[:n] {
		dst = append(le.AppendUint32(dst, uint32(p.Curve[i].MilliCelsius)), p.Curve[i].DutyPercent)
	}
	dst = le.AppendUint32(dst, uint32(p.ThrottleMilliCelsius))
	dst = le.AppendUint32(dst, uint32(p.ShutdownMilliCelsius))
	dst = le.AppendUint32(dst, uint32(p.HysteresisMilliCelsius))
	dst = le.AppendUint32(dst, p.BudgetMilliwatts)
	dst = le.AppendUint32(dst, p.ReserveMilliwatts)
	dst = le.AppendUint32(dst, p.StaggerMillis)
	dst = le.AppendUint32(dst, p.UnitCapMilliwatts)
	for i := range p.SlotCapMilliwatts {
		dst = le.AppendUint32(dst, p.SlotCapMilliwatts[i])
	}
	return dst
}

// ParsePolicies reads the request of SetPolicies. It refuses an empty curve, a
// curve whose temperatures do not rise or whose duties fall, limits that are not throttle < shutdown, and a
// negative hysteresis: an RMC need not think about them.
func ParsePolicies(b []byte) (p Policies, err error) {
	c := cursor{b: b}
	p.Generation = c.u32()
	p.CurveCount = c.max(MaxCurvePoints)
	for i := range p.Curve[:p.CurveCount] {
		p.Curve[i] = CurvePoint{MilliCelsius: int32(c.u32()), DutyPercent: c.max(100)}
		if i > 0 && (p.Curve[i].MilliCelsius <= p.Curve[i-1].MilliCelsius || p.Curve[i].DutyPercent < p.Curve[i-1].DutyPercent) {
			c.bad()
		}
	}
	p.ThrottleMilliCelsius = int32(c.u32())
	p.ShutdownMilliCelsius = int32(c.u32())
	p.HysteresisMilliCelsius = int32(c.u32())
	p.BudgetMilliwatts = c.u32()
	p.ReserveMilliwatts = c.u32()
	p.StaggerMillis = c.u32()
	p.UnitCapMilliwatts = c.u32()
	for i := range p.SlotCapMilliwatts {
		p.SlotCapMilliwatts[i] = c.u32()
	}
	if c.err == nil && (p.CurveCount == 0 || p.ThrottleMilliCelsius >= p.ShutdownMilliCelsius || p.HysteresisMilliCelsius < 0) {
		c.bad()
	}
	return p, c.done()
}

// AppendLED appends the request of SetLED: slot and whether its identify LED shall be lit.
func AppendLED(dst []byte, slot uint8, on bool) []byte { return appendBool(append(dst, slot), on) }

// ParseLED reads the request of SetLED.
func ParseLED(b []byte) (slot uint8, on bool, err error) {
	c := cursor{b: b}
	slot, on = c.slot(), c.boolean()
	return slot, on, c.done()
}
