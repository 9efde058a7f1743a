package trust

import "encoding/binary"

// The container of a signed document, in flash, on the wire and in the
// metadata branch:
//
//	offset  size  field
//	0       4     n, bytes of the document
//	4       n     document
//	4+n     1     s, number of signatures, 0..MaxSignatures
//	5+n     72·s  signatures: key identifier (8), Ed25519 signature (64)
//
// Nothing may follow. The container itself is not signed: adding a good
// signature, or a stranger's, changes no verdict for the worse.

// AppendSigned returns the container of a document and its signatures. More
// signatures than MaxSignatures are a mistake of the caller's and panic.
func AppendSigned(msg []byte, sigs []Signature) []byte {
	if len(sigs) > MaxSignatures {
		panic("trust: too many signatures")
	}
	b := make([]byte, 0, 5+len(msg)+len(sigs)*SignatureSize)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(msg)))
	b = append(b, msg...)
	b = append(b, byte(len(sigs)))
	for i := range sigs {
		b = append(b, sigs[i].KeyID[:]...)
		b = append(b, sigs[i].Sig[:]...)
	}
	return b
}

// SplitSigned takes a container apart. The document is a part of b; the
// signatures are allocated. Nothing is verified.
func SplitSigned(b []byte) (msg []byte, sigs []Signature, err error) {
	msg, rest, n, err := split(b)
	if err != nil {
		return nil, nil, err
	}
	sigs = make([]Signature, n)
	readSignatures(sigs, rest)
	return msg, sigs, nil
}

// Open takes a container apart and verifies it: it returns the document, a
// part of b, when enough keys signed it in the domain. It allocates nothing
// but errors.
func (k *Keyring) Open(domain string, b []byte) ([]byte, error) {
	msg, rest, n, err := split(b)
	if err != nil {
		return nil, err
	}
	var sigs [MaxSignatures]Signature
	readSignatures(sigs[:n], rest)
	if err := k.Verify(domain, msg, sigs[:n]); err != nil {
		return nil, err
	}
	return msg, nil
}

func split(b []byte) (msg, rest []byte, n int, err error) {
	if len(b) < 5 {
		return nil, nil, 0, &FormatError{"container", "length"}
	}
	size := binary.LittleEndian.Uint32(b)
	if size > MaxSlotManifest || int(size) > len(b)-5 {
		return nil, nil, 0, &FormatError{"container", "document length"}
	}
	msg, rest = b[4:4+size:4+size], b[4+size:]
	n = int(rest[0])
	rest = rest[1:]
	if n > MaxSignatures || len(rest) != n*SignatureSize {
		return nil, nil, 0, &FormatError{"container", "signature count"}
	}
	return msg, rest, n, nil
}

func readSignatures(dst []Signature, b []byte) {
	for i := range dst {
		copy(dst[i].KeyID[:], b)
		copy(dst[i].Sig[:], b[8:])
		b = b[SignatureSize:]
	}
}
