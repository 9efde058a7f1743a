// Package trust decides what a Racklet BMC believes: which signatures count,
// which boot slot may be shown to a compute unit, how far version floors have
// risen, and what a piece of evidence says.
//
// It decides and never does I/O: every function takes bytes and keys and
// returns a verdict. It has no clock, no randomness and no storage of its own.
// The BMC firmware calls it on a microcontroller, the bootstrap environment
// and the owner's command line call it on a computer, and all three must agree
// to the byte; the golden vectors in testdata are that agreement.
//
// Three documents are signed, each in a fixed little-endian layout that has
// exactly one encoding and is drawn in the file that holds it:
//
//	slot manifest    "RKSM"  slot.go      owners' threshold   what a boot slot holds
//	floor statement  "RKFL"  floor.go     owners' threshold   how old is too old
//	evidence         "RKEV"  evidence.go  BMC's device key    what was booted
//
// The first two travel in a container with their signatures (container.go).
//
// A signature is Ed25519 (RFC 8032, section 5.1) over
//
//	domain || 0x00 || SHA-256(document)
//
// so that a signature of one kind of document is never one of another kind,
// and so that a 30 KiB manifest can be hashed as it is read from flash.
//
// Memory: no function keeps a reference to its input unless it says so, and
// every size is bounded by a constant of this package. Documents are decoded
// without allocation except where a function returns a slice.
package trust

// Domains of signatures. A domain holds no zero byte.
const (
	DomainSlot     = "racklet slot manifest v1"
	DomainFloor    = "racklet floor statement v1"
	DomainEvidence = "racklet evidence v1"
)

// Bounds of everything this package reads or writes. They bound the memory of
// the firmware; the tests hold them against the encoders.
const (
	// MaxKeys is the number of keys in a Keyring.
	MaxKeys = 8
	// MaxSignatures is the number of signatures in a container.
	MaxSignatures = 8
	// SignatureSize is the number of bytes of a Signature in a container.
	SignatureSize = 8 + 64

	// MaxImageSize is the number of bytes of a boot slot, 30 MiB.
	MaxImageSize = 30 << 20
	// ChunkSize is the number of image bytes under one hash.
	ChunkSize = 32768
	// BlockSize is the number of bytes of a block of the boot medium;
	// an image is a whole number of them.
	BlockSize = 512
	// MaxChunks is the number of chunk hashes in a slot manifest.
	MaxChunks = MaxImageSize / ChunkSize
	// MaxVersion is the number of bytes of a version name.
	MaxVersion = 32
	// MaxSlotManifest is the number of bytes of an encoded slot manifest.
	MaxSlotManifest = slotHeaderSize + MaxChunks*32

	// FloorStatementSize is the number of bytes of a floor statement.
	FloorStatementSize = 104

	// MaxRegisters is the number of measurement registers of a BMC.
	MaxRegisters = 16
	// MaxEvidence is the number of bytes of encoded evidence without its
	// signature.
	MaxEvidence = evidenceHeaderSize + MaxRegisters*registerSize
	// MaxSignedEvidence adds the signature of the device key.
	MaxSignedEvidence = MaxEvidence + 64

	// MaxSigned is the number of bytes of the largest container.
	MaxSigned = 4 + MaxSlotManifest + 1 + MaxSignatures*SignatureSize
	// MaxSignedFloor is the number of bytes of the largest container of a
	// floor statement; it fits one PLDM message of 1 KiB.
	MaxSignedFloor = 4 + FloorStatementSize + 1 + MaxSignatures*SignatureSize
)

// A FormatError says which field of which document is not as its layout
// demands.
type FormatError struct {
	Document string // "slot manifest", "floor statement", "evidence", "container"
	Field    string // what is wrong, such as "chunk count"
}

func (e *FormatError) Error() string { return e.Document + ": bad " + e.Field }
