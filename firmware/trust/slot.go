package trust

import (
	"crypto/sha256"
	"encoding/binary"
)

// A SlotManifest says what a boot slot of the BMC's flash holds.
//
//	offset  size  field
//	0       4     "RKSM"
//	4       1     layout, 1
//	5       1     v, bytes of the version name, 1..32
//	6       2     zero
//	8       4     security version
//	12      4     image size in bytes, a multiple of 512, 1..30 MiB
//	16      4     chunk size in bytes, 32768
//	20      4     number of chunks, image size / chunk size, rounded up
//	24      32    version name, printable ASCII without spaces, then zeros
//	56      32    SHA-256 of the kernel file in the image
//	88      32·n  SHA-256 of each chunk; the last chunk is as long as the
//	              image has bytes left, without padding
type SlotManifest struct {
	Version         string     // name of the release, 1..MaxVersion bytes
	SecurityVersion uint32     // compared with the BMC's floor
	ImageSize       uint32     // bytes
	ChunkSize       uint32     // bytes, ChunkSize
	Kernel          [32]byte   // SHA-256 of the kernel file
	Chunks          [][32]byte // SHA-256 of each chunk, at most MaxChunks
}

const slotHeaderSize = 88

// Check returns a *FormatError unless the manifest can be encoded.
func (m *SlotManifest) Check() error {
	bad := func(field string) error { return &FormatError{"slot manifest", field} }
	switch {
	case !goodVersion(m.Version):
		return bad("version")
	case m.ImageSize == 0 || m.ImageSize > MaxImageSize || m.ImageSize%BlockSize != 0:
		return bad("image size")
	case m.ChunkSize != ChunkSize:
		return bad("chunk size")
	case len(m.Chunks) != int((m.ImageSize+ChunkSize-1)/ChunkSize):
		return bad("chunk count")
	}
	return nil
}

func goodVersion(v string) bool {
	if len(v) == 0 || len(v) > MaxVersion {
		return false
	}
	for i := 0; i < len(v); i++ {
		if v[i] <= ' ' || v[i] > '~' {
			return false
		}
	}
	return true
}

// MarshalBinary encodes the manifest. The error is a *FormatError.
func (m *SlotManifest) MarshalBinary() ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	b := make([]byte, slotHeaderSize, slotHeaderSize+32*len(m.Chunks))
	copy(b, "RKSM")
	b[4] = 1
	b[5] = byte(len(m.Version))
	binary.LittleEndian.PutUint32(b[8:], m.SecurityVersion)
	binary.LittleEndian.PutUint32(b[12:], m.ImageSize)
	binary.LittleEndian.PutUint32(b[16:], m.ChunkSize)
	binary.LittleEndian.PutUint32(b[20:], uint32(len(m.Chunks)))
	copy(b[24:56], m.Version)
	copy(b[56:88], m.Kernel[:])
	for i := range m.Chunks {
		b = append(b, m.Chunks[i][:]...)
	}
	return b, nil
}

// ParseSlotManifest decodes a manifest, nothing before it and nothing after.
// Nothing is verified.
func ParseSlotManifest(b []byte) (*SlotManifest, error) {
	m := new(SlotManifest)
	if err := m.Parse(b); err != nil {
		return nil, err
	}
	return m, nil
}

// Parse is ParseSlotManifest into m, using the capacity of m.Chunks; with room
// for MaxChunks it allocates the version name only. After an error m is zero,
// but keeps that capacity.
func (m *SlotManifest) Parse(b []byte) error {
	chunks := m.Chunks[:0]
	*m = SlotManifest{Chunks: chunks}
	bad := func(field string) error {
		*m = SlotManifest{Chunks: chunks}
		return &FormatError{"slot manifest", field}
	}
	if len(b) < slotHeaderSize || len(b) > MaxSlotManifest {
		return bad("length")
	}
	if string(b[:4]) != "RKSM" {
		return bad("magic")
	}
	if b[4] != 1 {
		return bad("layout")
	}
	v := int(b[5])
	if v == 0 || v > MaxVersion {
		return bad("version length")
	}
	if b[6] != 0 || b[7] != 0 || !zero(b[24+v:56]) {
		return bad("padding")
	}
	n := binary.LittleEndian.Uint32(b[20:])
	if n > MaxChunks || len(b) != slotHeaderSize+32*int(n) {
		return bad("chunk count")
	}
	m.Version = string(b[24 : 24+v])
	m.SecurityVersion = binary.LittleEndian.Uint32(b[8:])
	m.ImageSize = binary.LittleEndian.Uint32(b[12:])
	m.ChunkSize = binary.LittleEndian.Uint32(b[16:])
	m.Kernel = [32]byte(b[56:88])
	for rest := b[slotHeaderSize:]; len(rest) > 0; rest = rest[32:] {
		m.Chunks = append(m.Chunks, [32]byte(rest))
	}
	if err := m.Check(); err != nil {
		return bad(err.(*FormatError).Field)
	}
	return nil
}

// Blocks returns the number of 512-byte blocks of the boot medium.
func (m *SlotManifest) Blocks() uint32 { return m.ImageSize / BlockSize }

// ChunkLength returns the number of bytes of chunk i: ChunkSize, less for the
// last one, 0 for one that does not exist.
func (m *SlotManifest) ChunkLength(i int) int {
	switch {
	case i < 0 || i >= len(m.Chunks):
		return 0
	case i == len(m.Chunks)-1:
		return int(m.ImageSize) - i*ChunkSize
	}
	return ChunkSize
}

// ChunkOK says whether data is chunk i, whole.
func (m *SlotManifest) ChunkOK(i int, data []byte) bool {
	if i < 0 || i >= len(m.Chunks) || len(data) != m.ChunkLength(i) {
		return false
	}
	return sha256.Sum256(data) == m.Chunks[i]
}

// zero says whether b holds zero bytes only.
func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
