package redfish

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/racklet/racklet/firmware/trust"
)

// maxUpdate is the size of the largest update file in bytes.
const maxUpdate = trust.MaxSigned + trust.MaxImageSize

// bootImage is an update file: a signed slot manifest, as it lies in the metadata branch of a rack repository, and right
// behind it the boot image that it speaks of.
//
//	cat NAME.slot boot.img > update
type bootImage struct {
	manifest *trust.SlotManifest
	signed   []byte // the manifest with its owners' signatures
	data     []byte
}

// name is how messages call the image.
func (i *bootImage) name() string { return i.manifest.Version }

// errImage is wrapped by errors about what an update file holds, not about getting it.
var errImage = errors.New("not an update file")

// readImage reads an update file to its end. Each chunk is held against its hash in the manifest as it comes. Whether
// the owners signed the manifest is for the BMC to say.
func readImage(r io.Reader) (*bootImage, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, short(err, "its beginning")
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > trust.MaxSlotManifest {
		return nil, fmt.Errorf("%w: it does not begin with a signed slot manifest", errImage)
	}
	signed := make([]byte, 4+n+1, trust.MaxSigned)
	copy(signed, head[:])
	if _, err := io.ReadFull(r, signed[4:]); err != nil {
		return nil, short(err, "the slot manifest")
	}
	signatures := int(signed[4+n]) * trust.SignatureSize
	if signatures > trust.MaxSignatures*trust.SignatureSize {
		return nil, fmt.Errorf("%w: too many signatures", errImage)
	}
	signed = signed[:len(signed)+signatures]
	if _, err := io.ReadFull(r, signed[len(signed)-signatures:]); err != nil {
		return nil, short(err, "the signatures")
	}
	m, err := trust.ParseSlotManifest(signed[4 : 4+n])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errImage, err)
	}
	i := &bootImage{manifest: m, signed: signed, data: make([]byte, m.ChunkLength(0))}
	at := 0
	for c := range m.Chunks {
		if c == 1 { // the first one is right: it is worth the memory
			first := i.data
			i.data = make([]byte, m.ImageSize)
			copy(i.data, first)
		}
		part := i.data[at : at+m.ChunkLength(c)]
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, short(err, fmt.Sprintf("chunk %d of %d", c, len(m.Chunks)))
		}
		if !m.ChunkOK(c, part) {
			return nil, fmt.Errorf("%w: chunk %d of %d has another hash than the slot manifest says", errImage, c, len(m.Chunks))
		}
		at += len(part)
	}
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n > 0 {
		return nil, fmt.Errorf("%w: there is more behind the boot image of %d bytes", errImage, m.ImageSize)
	} else if err != io.EOF {
		return nil, err
	}
	return i, nil
}

// short tells a file that ends too early from a broken connection.
func short(err error, what string) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends within %s", errImage, what)
	}
	return err
}
