package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Indices of the measurement registers. Those below 8 are written by the BMC
// alone, from what it saw; the others on the word of the compute unit.
const (
	RegisterSlot     = 0  // boot slot manifest (observed)
	RegisterMedium   = 1  // chunks served (observed)
	RegisterRail     = 2  // rail and resets (observed)
	RegisterUnitKey  = 3  // unit's public key, set and not extended (observed)
	RegisterTree     = 8  // stage 1: metadata and tree of the commit (asserted)
	RegisterOS       = 9  // operating system manifest (asserted)
	RegisterRootHash = 10 // dm-verity root hash (asserted)
	RegisterHandover = 11 // kernel and command line of the handover (asserted)
)

// What RegisterRail is extended with: the SHA-256 of one of these texts. A boot
// that was watched from its beginning, without a reset, is RailOn alone.
const (
	RailOn      = "racklet rail on"       // once, when the load switch closes
	RailReset   = "racklet unit reset"    // at each reset since
	RailAdopted = "racklet bmc restarted" // the BMC restarted beside a running unit: it did not watch
)

// A Kind says on whose word a register's value rests.
type Kind uint8

const (
	// Observed values were written by the BMC from what it saw itself.
	Observed Kind = 1
	// Asserted values were sent by the compute unit. They hold as far as the
	// board can be made to boot from nothing but the BMC's medium.
	Asserted Kind = 2
)

func (k Kind) String() string {
	switch k {
	case Observed:
		return "observed"
	case Asserted:
		return "asserted"
	}
	return "unknown"
}

// A Register is one measurement register. It is zero at power-on, and nothing
// but a power cycle of the unit makes it zero again.
type Register struct {
	Index   uint8
	Kind    Kind
	Extends uint16 // number of extensions since power-on, stays at 65535
	Value   [32]byte
}

// Extend makes the value SHA-256(value || digest).
func (r *Register) Extend(digest [32]byte) {
	var buf [64]byte
	copy(buf[:32], r.Value[:])
	copy(buf[32:], digest[:])
	r.Value = sha256.Sum256(buf[:])
	r.count()
}

// Set replaces the value, for the key register. It counts as an extension, so
// that a change of key shows.
func (r *Register) Set(value [32]byte) {
	r.Value = value
	r.count()
}

func (r *Register) count() {
	if r.Extends != 0xFFFF {
		r.Extends++
	}
}

// Reset is what a power cycle does.
func (r *Register) Reset() {
	r.Extends = 0
	r.Value = [32]byte{}
}

// EvidenceFlags qualify evidence.
type EvidenceFlags uint16

const (
	// EvidenceVoid: the unit was reset without its rail being cycled, so its
	// asserted registers may be those of an earlier system.
	EvidenceVoid EvidenceFlags = 1 << iota
	// EvidenceFallback: the unit booted from the slot that was not preferred.
	EvidenceFallback
	// EvidenceEmulated: the device key lives in a simulator or an unfused
	// chip; the signature proves the software, not the hardware.
	EvidenceEmulated

	evidenceFlags = EvidenceVoid | EvidenceFallback | EvidenceEmulated
)

// Evidence is what a BMC states about its compute unit, over a caller's nonce.
//
//	offset  size  field
//	0       4     "RKEV"
//	4       1     layout, 1
//	5       1     slot in the rack, from 1
//	6       2     flags
//	8       4     boot count
//	12      32    nonce
//	44      8     floor: sequence
//	52      4     floor: version of the TUF root
//	56      4     floor: boot security
//	60      32    floor: tree
//	92      20    floor: commit
//	112     1     n, number of registers, 0..16
//	113     3     zero
//	116     36·n  registers by rising index: index (1), kind (1), extends (2),
//	              value (32)
//
// Signed evidence is these bytes and the 64 of the device key's signature.
type Evidence struct {
	Slot      uint8
	Flags     EvidenceFlags
	BootCount uint32
	Nonce     [32]byte
	Floors    Floors
	Registers []Register // at most MaxRegisters, by rising index
}

const (
	evidenceHeaderSize = 116
	registerSize       = 36
)

// ErrEvidenceSignature is returned for evidence that the device key did not
// sign; ErrEvidenceNonce for evidence made for another question.
var (
	ErrEvidenceSignature = errors.New("evidence: not signed by the device key")
	ErrEvidenceNonce     = errors.New("evidence: not for this nonce")
)

// Check returns a *FormatError unless the evidence can be encoded.
func (e *Evidence) Check() error {
	bad := func(field string) error { return &FormatError{"evidence", field} }
	if e.Slot == 0 {
		return bad("slot")
	}
	if e.Flags&^evidenceFlags != 0 {
		return bad("flags")
	}
	if len(e.Registers) > MaxRegisters {
		return bad("register count")
	}
	for i, r := range e.Registers {
		if i > 0 && r.Index <= e.Registers[i-1].Index {
			return bad("register order")
		}
		if r.Kind != Observed && r.Kind != Asserted {
			return bad("register kind")
		}
	}
	return nil
}

// AppendBinary appends the encoding to dst, at most MaxEvidence bytes. The
// error is a *FormatError.
func (e *Evidence) AppendBinary(dst []byte) ([]byte, error) {
	if err := e.Check(); err != nil {
		return dst, err
	}
	var h [evidenceHeaderSize]byte
	copy(h[:], "RKEV")
	h[4] = 1
	h[5] = e.Slot
	binary.LittleEndian.PutUint16(h[6:], uint16(e.Flags))
	binary.LittleEndian.PutUint32(h[8:], e.BootCount)
	copy(h[12:], e.Nonce[:])
	binary.LittleEndian.PutUint64(h[44:], e.Floors.Sequence)
	binary.LittleEndian.PutUint32(h[52:], e.Floors.RootVersion)
	binary.LittleEndian.PutUint32(h[56:], e.Floors.BootSecurity)
	copy(h[60:], e.Floors.Tree[:])
	copy(h[92:], e.Floors.Commit[:])
	h[112] = byte(len(e.Registers))
	dst = append(dst, h[:]...)
	for i := range e.Registers {
		r := &e.Registers[i]
		dst = append(dst, r.Index, byte(r.Kind), byte(r.Extends), byte(r.Extends>>8))
		dst = append(dst, r.Value[:]...)
	}
	return dst, nil
}

// ParseEvidence decodes evidence without its signature. Nothing is verified.
func ParseEvidence(b []byte) (*Evidence, error) {
	bad := func(field string) (*Evidence, error) {
		return nil, &FormatError{"evidence", field}
	}
	switch {
	case len(b) < evidenceHeaderSize || len(b) > MaxEvidence:
		return bad("length")
	case string(b[:4]) != "RKEV":
		return bad("magic")
	case b[4] != 1:
		return bad("layout")
	case !zero(b[113:116]):
		return bad("padding")
	}
	n := int(b[112])
	if n > MaxRegisters || len(b) != evidenceHeaderSize+n*registerSize {
		return bad("register count")
	}
	e := &Evidence{
		Slot:      b[5],
		Flags:     EvidenceFlags(binary.LittleEndian.Uint16(b[6:])),
		BootCount: binary.LittleEndian.Uint32(b[8:]),
		Nonce:     [32]byte(b[12:44]),
		Floors: Floors{
			Sequence:     binary.LittleEndian.Uint64(b[44:]),
			RootVersion:  binary.LittleEndian.Uint32(b[52:]),
			BootSecurity: binary.LittleEndian.Uint32(b[56:]),
			Tree:         [32]byte(b[60:92]),
			Commit:       [20]byte(b[92:112]),
		},
		Registers: make([]Register, n),
	}
	for i := range e.Registers {
		r := b[evidenceHeaderSize+i*registerSize:]
		e.Registers[i] = Register{
			Index:   r[0],
			Kind:    Kind(r[1]),
			Extends: binary.LittleEndian.Uint16(r[2:]),
			Value:   [32]byte(r[4:36]),
		}
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	return e, nil
}

// AppendSignedEvidence appends the evidence and the device key's signature to
// dst, at most MaxSignedEvidence bytes. The error is a *FormatError.
func AppendSignedEvidence(dst []byte, key ed25519.PrivateKey, e *Evidence) ([]byte, error) {
	start := len(dst)
	out, err := e.AppendBinary(dst)
	if err != nil {
		return dst, err
	}
	sig := Sign(DomainEvidence, key, out[start:])
	return append(out, sig.Sig[:]...), nil
}

// VerifyEvidence returns the evidence in b when the device key signed it over
// the nonce.
func VerifyEvidence(device ed25519.PublicKey, nonce [32]byte, b []byte) (*Evidence, error) {
	if len(device) != ed25519.PublicKeySize {
		return nil, ErrKeyring
	}
	if len(b) < 64 {
		return nil, &FormatError{"evidence", "length"}
	}
	msg, sig := b[:len(b)-64], b[len(b)-64:]
	digest := sha256.Sum256(msg)
	var buf [preimageMax]byte
	if !ed25519.Verify(device, preimage(&buf, DomainEvidence, &digest), sig) {
		return nil, ErrEvidenceSignature
	}
	e, err := ParseEvidence(msg)
	if err != nil {
		return nil, err
	}
	if e.Nonce != nonce {
		return nil, ErrEvidenceNonce
	}
	return e, nil
}
