package trust

import (
	"encoding/binary"
	"strconv"
)

// A FloorStatement is the owners' word that nothing older than what it names
// may run in one rack. Every sequence they publish comes with one.
//
//	offset  size  field
//	0       4     "RKFL"
//	4       1     layout, 1
//	5       3     zero
//	8       16    rack identifier (UUID)
//	24      8     sequence
//	32      4     version of the TUF root
//	36      4     least security version of a boot slot
//	40      32    SHA-256 of the tree under rack/
//	72      20    Git commit
//	92      4     zero
//	96      8     time of issue, seconds since 1970
type FloorStatement struct {
	RackID       [16]byte
	Sequence     uint64
	RootVersion  uint32
	BootSecurity uint32
	Tree         [32]byte
	Commit       [20]byte
	Issued       uint64 // seconds since 1970, for people; decides nothing
}

// AppendBinary appends the encoding to dst, FloorStatementSize bytes.
// The error is always nil.
func (s *FloorStatement) AppendBinary(dst []byte) ([]byte, error) {
	var b [FloorStatementSize]byte
	copy(b[:], "RKFL")
	b[4] = 1
	copy(b[8:], s.RackID[:])
	binary.LittleEndian.PutUint64(b[24:], s.Sequence)
	binary.LittleEndian.PutUint32(b[32:], s.RootVersion)
	binary.LittleEndian.PutUint32(b[36:], s.BootSecurity)
	copy(b[40:], s.Tree[:])
	copy(b[72:], s.Commit[:])
	binary.LittleEndian.PutUint64(b[96:], s.Issued)
	return append(dst, b[:]...), nil
}

// MarshalBinary encodes the statement. The error is always nil.
func (s *FloorStatement) MarshalBinary() ([]byte, error) {
	return s.AppendBinary(make([]byte, 0, FloorStatementSize))
}

// ParseFloorStatement decodes a statement. Nothing is verified.
func ParseFloorStatement(b []byte) (FloorStatement, error) {
	bad := func(field string) (FloorStatement, error) {
		return FloorStatement{}, &FormatError{"floor statement", field}
	}
	switch {
	case len(b) != FloorStatementSize:
		return bad("length")
	case string(b[:4]) != "RKFL":
		return bad("magic")
	case b[4] != 1:
		return bad("layout")
	case !zero(b[5:8]) || !zero(b[92:96]):
		return bad("padding")
	}
	return FloorStatement{
		RackID:       [16]byte(b[8:24]),
		Sequence:     binary.LittleEndian.Uint64(b[24:]),
		RootVersion:  binary.LittleEndian.Uint32(b[32:]),
		BootSecurity: binary.LittleEndian.Uint32(b[36:]),
		Tree:         [32]byte(b[40:72]),
		Commit:       [20]byte(b[72:92]),
		Issued:       binary.LittleEndian.Uint64(b[96:]),
	}, nil
}

// Floors returns the floors that the statement sets.
func (s *FloorStatement) Floors() Floors {
	return Floors{
		Sequence:     s.Sequence,
		RootVersion:  s.RootVersion,
		BootSecurity: s.BootSecurity,
		Tree:         s.Tree,
		Commit:       s.Commit,
	}
}

// Floors are what a BMC has accepted last, and below which it accepts nothing.
// The zero Floors are those of a BMC that has accepted nothing yet.
type Floors struct {
	Sequence     uint64
	RootVersion  uint32
	BootSecurity uint32
	Tree         [32]byte
	Commit       [20]byte
}

// A FloorError says which field of a floor statement was refused. The floors
// are unchanged.
type FloorError struct {
	Field    string // "rack", "sequence", "tree", "commit", "root version", "boot security"
	Expected string // what would have been accepted
	Seen     string // what the statement says
}

func (e *FloorError) Error() string {
	return "floor " + e.Field + ": expected " + e.Expected + ", seen " + e.Seen
}

// Raise raises the floors to those of a floor statement in its container.
//
// It refuses, and changes nothing, when the container is malformed
// (*FormatError), when too few owners signed (*ThresholdError, ErrKeyring),
// and with a *FloorError when the statement is for another rack, would lower
// any floor, names another tree or commit for the sequence already accepted,
// or would put the boot floor above the security version of the slot that the
// unit has booted from, which would leave the rack without a slot to boot.
// A statement equal to the floors is accepted and changes nothing.
func (f *Floors) Raise(k *Keyring, rackID [16]byte, bootedSecurity uint32, signed []byte) error {
	msg, err := k.Open(DomainFloor, signed)
	if err != nil {
		return err
	}
	s, err := ParseFloorStatement(msg)
	if err != nil {
		return err
	}
	switch {
	case s.RackID != rackID:
		return &FloorError{"rack", hexString(rackID[:]), hexString(s.RackID[:])}
	case s.Sequence < f.Sequence:
		return &FloorError{"sequence", atLeast(f.Sequence), strconv.FormatUint(s.Sequence, 10)}
	case s.Sequence == 0:
		return &FloorError{"sequence", atLeast(1), "0"}
	case s.Sequence == f.Sequence && s.Tree != f.Tree:
		return &FloorError{"tree", hexString(f.Tree[:]), hexString(s.Tree[:])}
	case s.Sequence == f.Sequence && s.Commit != f.Commit:
		return &FloorError{"commit", hexString(f.Commit[:]), hexString(s.Commit[:])}
	case s.RootVersion < f.RootVersion:
		return &FloorError{"root version", atLeast(uint64(f.RootVersion)), strconv.FormatUint(uint64(s.RootVersion), 10)}
	case s.BootSecurity < f.BootSecurity:
		return &FloorError{"boot security", atLeast(uint64(f.BootSecurity)), strconv.FormatUint(uint64(s.BootSecurity), 10)}
	case s.BootSecurity > bootedSecurity:
		return &FloorError{"boot security", "at most " + strconv.FormatUint(uint64(bootedSecurity), 10) + " (booted slot)", strconv.FormatUint(uint64(s.BootSecurity), 10)}
	}
	*f = s.Floors()
	return nil
}

func atLeast(n uint64) string { return "at least " + strconv.FormatUint(n, 10) }

// hexString is encoding/hex without its dependencies on fmt.
func hexString(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 64)
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}
