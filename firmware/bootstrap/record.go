package bootstrap

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/racklet/racklet/rack"
)

// Record is what stage 1 keeps on the data disk from one boot to the next. It
// is a hint and nothing more: whoever can write to the disk can write any
// record, so the bundle in it passes the same verification as one from the
// network, a manifest counts only by its digest, and an image only by the root
// hash that the verified release names.
type Record struct {
	// Sequence counts the writes; of two sound records the higher one counts.
	Sequence uint64 `json:"-"`
	// Bundle is the last verified bundle as source.Bundle marshals it.
	Bundle []byte `json:"-"`
	// Images says what the operating system partitions hold, by partition name.
	Images map[string]Image `json:"images,omitempty"`
	// Staging counts attempts to stage a boot image, see Staging.
	Staging Staging `json:"staging,omitzero"`
}

// Image is a root image that was written to a partition.
type Image struct {
	Digest   rack.Digest `json:"digest"`   // of the OCI manifest that it belongs to
	Manifest []byte      `json:"manifest"` // its bytes, so that no mirror is needed
	Config   []byte      `json:"config"`   // the configuration blob that the manifest names
	Complete bool        `json:"complete"` // all bytes were written and their digest was right
	Written  int64       `json:"written,omitempty"`
	Used     uint64      `json:"used"` // Record.Sequence when last booted: the older one is overwritten
}

// Staging remembers the boot image that stage 1 last staged into the idle slot,
// so that a unit whose BMC keeps booting another image stops instead of
// staging and cycling power for ever.
type Staging struct {
	SlotManifest rack.Digest `json:"slotManifest,omitempty"`
	Attempts     int         `json:"attempts,omitempty"`
}

// A record occupies one half of the cache partition:
//
//	magic "RKC1" | u32 0 | u64 sequence | u32 bundle length | u32 JSON length | SHA-256 of all else | bundle | JSON
const (
	recordMagic  = "RKC1"
	recordHeader = 24 + sha256.Size
)

var errNoRecord = errors.New("no sound record")

// readRecord returns the newer of the two sound records in p, or an empty
// record: after a first use, or a power cut in the very first write.
func readRecord(r io.ReaderAt, p Partition) *Record {
	best := &Record{}
	for half := range int64(2) {
		rec, err := readHalf(io.NewSectionReader(r, p.Offset+half*p.Size/2, p.Size/2))
		if err == nil && rec.Sequence > best.Sequence {
			best = rec
		}
	}
	if best.Images == nil {
		best.Images = map[string]Image{}
	}
	return best
}

func readHalf(r *io.SectionReader) (*Record, error) {
	h := make([]byte, recordHeader)
	if _, err := r.ReadAt(h, 0); err != nil {
		return nil, err
	}
	if string(h[:4]) != recordMagic {
		return nil, errNoRecord
	}
	seq := binary.LittleEndian.Uint64(h[8:])
	nb, nj := int64(binary.LittleEndian.Uint32(h[16:])), int64(binary.LittleEndian.Uint32(h[20:]))
	if nb+nj > r.Size()-recordHeader {
		return nil, errNoRecord
	}
	body := make([]byte, nb+nj)
	if _, err := r.ReadAt(body, recordHeader); err != nil {
		return nil, err
	}
	if recordSum(h, body) != [32]byte(h[24:]) {
		return nil, errNoRecord
	}
	return parseRecord(seq, body[:nb:nb], body[nb:])
}

func parseRecord(seq uint64, bundle, doc []byte) (*Record, error) {
	rec := &Record{Sequence: seq, Bundle: bundle}
	if err := json.Unmarshal(doc, rec); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return rec, nil
}

// writeRecord stores rec over the older of the two records, with the next
// sequence number. A power cut leaves the other one.
func writeRecord(d Disk, p Partition, rec *Record) error {
	doc, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	half := p.Size / 2
	if int64(recordHeader+len(rec.Bundle)+len(doc)) > half {
		return fmt.Errorf("record of %d bytes does not fit in %d", recordHeader+len(rec.Bundle)+len(doc), half)
	}
	if rec.Sequence == math.MaxUint64 {
		// Nobody counts so far; somebody wrote it there. Begin anew: the next
		// number would be the lowest, and ignored at each boot from now on.
		for at := range int64(2) {
			if _, err := d.WriteAt(make([]byte, recordHeader), p.Offset+at*half); err != nil {
				return fmt.Errorf("clear record: %w", err)
			}
		}
		rec.Sequence = 0
	}
	rec.Sequence++
	b := make([]byte, recordHeader, recordHeader+len(rec.Bundle)+len(doc))
	copy(b, recordMagic)
	binary.LittleEndian.PutUint64(b[8:], rec.Sequence)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(rec.Bundle)))
	binary.LittleEndian.PutUint32(b[20:], uint32(len(doc)))
	b = append(append(b, rec.Bundle...), doc...)
	sum := recordSum(b[:recordHeader], b[recordHeader:])
	copy(b[24:], sum[:])
	if _, err := d.WriteAt(b, p.Offset+int64(rec.Sequence%2)*half); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return d.Sync()
}

func recordSum(header, body []byte) (sum [32]byte) {
	h := sha256.New()
	h.Write(header[:24])
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}
