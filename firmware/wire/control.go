package wire

// MCTP control messages: DSP0236 1.3, clauses 11 and 12.
const (
	CtlSetEndpointID  uint8 = 0x01
	CtlGetEndpointID  uint8 = 0x02
	CtlGetVersion     uint8 = 0x04
	CtlGetTypeSupport uint8 = 0x05
)

// Completion codes of MCTP control messages (DSP0236, table 13).
const (
	CtlSuccess       uint8 = 0x00
	CtlInvalidData   uint8 = 0x02
	CtlInvalidLength uint8 = 0x03
	CtlUnsupported   uint8 = 0x05
)

// AppendControlRequest appends a control request without data.
func AppendControlRequest(dst []byte, instance, command uint8) []byte {
	return append(dst, 0x80|instance&0x1F, command)
}

// HandleControl answers an MCTP control request to the endpoint own and appends the
// answer to dst. It returns dst as it was when req is no request. Our endpoint IDs are fixed, so
// setting another one is refused.
func HandleControl(dst []byte, own EID, req []byte) []byte {
	if len(req) < 2 || req[0]&0x80 == 0 || req[0]&0x40 != 0 {
		return dst
	}
	data := req[2:]
	dst = append(dst, req[0]&0x1F, req[1])
	switch req[1] {
	case CtlSetEndpointID:
		switch {
		case len(data) != 2:
			return append(dst, CtlInvalidLength)
		case data[0] > 1 || EID(data[1]) != own:
			return append(dst, CtlInvalidData)
		}
		return append(dst, CtlSuccess, 0, byte(own), 0)
	case CtlGetEndpointID:
		if len(data) != 0 {
			return append(dst, CtlInvalidLength)
		}
		return append(dst, CtlSuccess, byte(own), 0x01 /* simple endpoint, static EID */, 0)
	case CtlGetVersion:
		if len(data) != 1 {
			return append(dst, CtlInvalidLength)
		}
		switch data[0] {
		case 0xFF, MessageControl:
			return append(dst, CtlSuccess, 1, 0xF1, 0xF3, 0xF0, 0x00) // 1.3.0
		case MessagePLDM:
			return append(dst, CtlSuccess, 1, 0xF1, 0xF0, 0xF0, 0x00) // DSP0241 1.0.0
		}
		return append(dst, 0x80, 0) // message type not supported
	case CtlGetTypeSupport:
		if len(data) != 0 {
			return append(dst, CtlInvalidLength)
		}
		return append(dst, CtlSuccess, 2, MessageControl, MessagePLDM)
	}
	return append(dst, CtlUnsupported)
}
