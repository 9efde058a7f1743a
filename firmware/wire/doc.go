// Package wire is the language that the controllers of a rack speak: BMC, RMC,
// the compute unit above a BMC and the management computer above the RMC.
//
//	compute unit ──in-band serial──▶ BMC ◀──multi-drop bus──▶ RMC ◀──serial── management computer
//	   (EID 0x20)                 (0x10+slot)    address byte    (8)                   (9)
//
// From the outside in it holds:
//
//   - MCTP over serial: framing with escapes and a frame check sequence (DSP0253), file serial.go;
//     on the multi-drop bus one slot-address byte stands before each frame, file bus.go;
//   - MCTP packets: header, packetiser, bounded assembler (DSP0236), file mctp.go;
//   - PLDM over MCTP (DSP0241): header, completion codes, base commands (DSP0240), file pldm.go;
//     monitoring and control with its PDRs (DSP0248, DSP0249), files monitor.go and pdr.go;
//   - the vendor-defined messages, only where no standard message fits, file oem.go;
//     docs/wire.md lists them field by field.
//
// It is codecs and types, not a connection: who waits, retries and times out is
// in the package link for computers and in the firmware for controllers.
// Everything here also builds for a microcontroller: the standard library alone,
// no goroutines, no maps, no reflection, memory bounded, and no allocation per frame.
// Encoders append to a slice of the caller (AppendX), decoders copy into values of fixed
// size or return views of their input (ParseX); they are strict: short, long or
// out-of-range input is an error.
package wire
