// Package store keeps what a controller must not lose, in a ring of NOR flash sectors that may be cut off at any moment.
//
// It decides nothing: the firmware's state machines say what a record means. Memory is a Journal value (about 60 bytes)
// and, while a call runs, some 600 bytes of stack. A Journal is not safe for concurrent use.
package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"

	"github.com/racklet/racklet/firmware/driver"
)

// A Journal is a ring of flash sectors that records are appended to. It holds up its promises on a NOR flash that is cut
// at any moment:
//
//   - a record for which Append returned nil is found by every later Mount, until its sector is used again;
//
//   - a record for which Append did not return is found whole or not at all;
//
//   - nothing older than a sector's header is ever taken for part of that sector;
//
//   - damage is told from a cut. What Append had acknowledged and is no longer readable makes Mount set Damaged; a torn
//     last record, snapshot, header or erase does not.
//
//     sector:  header | record | record | … | commit | record | … | 0xFF …
//     header:  magic u32, version u32, sector sequence u32, CRC-32 u32
//     record:  mark u8, kind u8, length u16, CRC-32 u32 (with the sector's sequence), payload, 0xFF to a multiple of 4
//
// A record is programmed with the mark 0xA5, read back, and sealed by clearing the mark to 0x00. So a bad record that is
// sealed was good once, and one that is not is what a cut left. A bad record is passed over only by its own length and
// only to a record that is good: what it holds is never searched for records, because others than the owner choose it.
// Where that does not lead on, the rest of the sector is given up.
//
// A sector counts only once its commit record is there. What stands before the commit is a snapshot, so that the newest
// committed sector alone holds the whole state; it is written by the owner of the journal from RAM when the ring moves
// on. A torn program may clear any bits of the page it touched, so a sector whose free space is not blank is closed: the
// next append moves on. A header is cleared before its sector is erased, so that a torn erase leaves none readable.
//
// Wear: a sector is erased once per turn of the ring. 64 sectors of 4 KiB with a snapshot of less than 1 KiB take some
// 190 KiB of records per turn; at 100,000 erases per sector and one 100-byte record each 10 s that is over 6,000 years.
type Journal struct {
	Flash   driver.Flash
	Base    uint32 // offset of the first sector
	Sectors uint32 // number of sectors, at least 3
	// Snapshot, if set, writes with Put all records that the owner still wants. It is called when the ring moves on.
	Snapshot func(j *Journal) error

	head    uint32 // index of the sector that is appended to
	headSeq uint32 // its sequence; 0: none, the ring is empty
	maxSeq  uint32 // highest sector sequence seen in any readable header
	off     uint32 // next free byte in the head sector; SectorSize: closed
	good    uint32 // sequence of the newest committed sector, which is never erased; 0: none
	goodAt  uint32 // its index
	erases  uint32 // since Mount, for tests of wear
	damaged bool
}

/* Implementation constants */
const (
	journalMagic    = 0x4C4A4B52 // "RKJL", little endian
	journalVersion  = 1
	recordMark      = 0xA5 // programmed, not yet read back
	recordSealed    = 0x00 // read back
	recordCommit    = 0    // record kind that ends a snapshot
	sectorHeaderLen = 16
	recordHeaderLen = 8
	lostSequences   = 8 // sequences that a sector with an unreadable header may have had
)

// MaxRecord is the longest payload of a record, in bytes.
const MaxRecord = 512

// Errors of the store. They are wrapped in nothing, so that a comparison with == is enough on a microcontroller.
var (
	// ErrTooLong reports a payload beyond MaxRecord. ErrWorn reports a flash that does not keep what is written to it.
	ErrTooLong = errors.New("record too long")
	ErrWorn    = errors.New("flash does not hold what was programmed")
	errFull    = errors.New("snapshot does not fit into a sector")
)

func (j *Journal) sectorOffset(i uint32) uint32 { return j.Base + i*driver.SectorSize }

// readHeader returns the sequence of sector i, or 0 when it has no valid header.
func (j *Journal) readHeader(i uint32) (uint32, error) {
	var h [sectorHeaderLen]byte
	if err := j.Flash.ReadAt(h[:], j.sectorOffset(i)); err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint32(h[0:]) != journalMagic || binary.LittleEndian.Uint32(h[4:]) != journalVersion ||
		binary.LittleEndian.Uint32(h[12:]) != crc32.ChecksumIEEE(h[:12]) {
		return 0, nil
	}
	return binary.LittleEndian.Uint32(h[8:]), nil
}

// recordCRC covers kind, length and payload of a record, and the sequence of the sector it is in.
func recordCRC(sectorSeq uint32, h *[recordHeaderLen]byte, payload []byte) uint32 {
	var s [4]byte
	binary.LittleEndian.PutUint32(s[:], sectorSeq)
	c := crc32.ChecksumIEEE(s[:])
	c = crc32.Update(c, crc32.IEEETable, h[1:4])
	return crc32.Update(c, crc32.IEEETable, payload)
}

// A sector is what scan found in one.
type sector struct {
	committed bool
	damaged   bool   // something that was good once is not readable
	free      uint32 // where it can be appended to; SectorSize: nowhere
}

// scan visits the records of sector i in order.
func (j *Journal) scan(i, sectorSeq uint32, visit func(kind uint8, payload []byte)) (s sector, err error) {
	var h [recordHeaderLen]byte
	var payload [MaxRecord]byte
	off := uint32(sectorHeaderLen)
	skipped := false // the record before this offset is bad
	for off+recordHeaderLen <= driver.SectorSize {
		n, ok, err := j.record(i, off, sectorSeq, &h, &payload)
		if err != nil {
			return s, err
		}
		if ok {
			if h[1] == recordCommit {
				s.committed = true
			} else if visit != nil {
				visit(h[1], payload[:n])
			}
			s.damaged = s.damaged || skipped
			skipped = false
			off += recordLen(n)
			continue
		}
		blank := allBlank(h[:])
		if blank {
			if blank, err = j.blank(j.sectorOffset(i)+off, j.sectorOffset(i)+driver.SectorSize); err != nil {
				return s, err
			}
		}
		if blank && !skipped {
			s.free = off
			return s, nil
		}
		if blank || skipped {
			break
		}
		s.damaged = s.damaged || sealed(h[0])
		if n > MaxRecord || off+recordLen(n) > driver.SectorSize {
			break
		}
		skipped = true
		off += recordLen(n)
	}
	// The sector is closed. A cut leaves nothing good behind what it tore: look whether there is, and take none of it.
	s.free = driver.SectorSize
	for ; !s.damaged && off+recordHeaderLen <= driver.SectorSize; off += 4 {
		_, ok, err := j.record(i, off, sectorSeq, &h, &payload)
		if err != nil {
			return s, err
		}
		s.damaged = ok
	}
	return s, nil
}

// record reads what stands at an offset of sector i and says whether it is a record.
func (j *Journal) record(i, off, sectorSeq uint32, h *[recordHeaderLen]byte, payload *[MaxRecord]byte) (n uint32, ok bool, err error) {
	at := j.sectorOffset(i) + off
	if err := j.Flash.ReadAt(h[:], at); err != nil {
		return 0, false, err
	}
	n = uint32(binary.LittleEndian.Uint16(h[2:]))
	if n > MaxRecord || off+recordHeaderLen+n > driver.SectorSize {
		return n, false, nil
	}
	if err := j.Flash.ReadAt(payload[:n], at+recordHeaderLen); err != nil {
		return n, false, err
	}
	return n, binary.LittleEndian.Uint32(h[4:]) == recordCRC(sectorSeq, h, payload[:n]), nil
}

// sealed says whether a record's mark was cleared, give or take one flipped bit. A torn program leaves bits of
// recordMark set, never clear.
func sealed(mark uint8) bool { return bits.OnesCount8(mark&recordMark) <= 2 }

func recordLen(payload uint32) uint32 { return (recordHeaderLen + payload + 3) &^ 3 }

func allBlank(p []byte) bool {
	for _, b := range p {
		if b != 0xFF {
			return false
		}
	}
	return true
}

func (j *Journal) blank(from, to uint32) (bool, error) {
	var buf [256]byte
	for from < to {
		n := min(to-from, uint32(len(buf)))
		if err := j.Flash.ReadAt(buf[:n], from); err != nil {
			return false, err
		}
		if !allBlank(buf[:n]) {
			return false, nil
		}
		from += n
	}
	return true, nil
}

// Mount finds the newest committed sector and visits the records of the last committed sectors, oldest first: 1 for a
// journal whose snapshot holds the whole state, Sectors for a log. It decides Damaged.
func (j *Journal) Mount(last uint32, visit func(kind uint8, payload []byte)) error {
	j.head, j.headSeq, j.maxSeq, j.off, j.good, j.damaged = 0, 0, 0, driver.SectorSize, 0, false
	for below := ^uint32(0); j.good == 0; {
		at, seq, err := j.newest(below)
		if err != nil {
			return err
		}
		if seq == 0 {
			break
		}
		j.maxSeq = max(j.maxSeq, seq)
		s, err := j.scan(at, seq, nil)
		if err != nil {
			return err
		}
		j.damaged = j.damaged || s.damaged
		if s.committed {
			j.head, j.headSeq, j.off = at, seq, s.free
			j.good, j.goodAt = seq, at
		}
		below = seq
	}
	if err := j.findLost(); err != nil || j.headSeq == 0 {
		return err
	}
	if j.damaged {
		j.off = driver.SectorSize // the next append moves on, and leaves the damage behind
	}
	for n := j.Sectors - min(last, j.Sectors) + 1; n <= j.Sectors; n++ {
		i := (j.head + n) % j.Sectors
		seq := j.headSeq
		if i != j.head {
			var err error
			if seq, err = j.readHeader(i); err != nil {
				return err
			}
		}
		// A sector that is not of this turn of the ring is a leftover.
		if seq == 0 || seq > j.headSeq || j.headSeq-seq >= j.Sectors {
			continue
		}
		if s, err := j.scan(i, seq, nil); err != nil {
			return err
		} else if !s.committed {
			continue
		}
		if _, err := j.scan(i, seq, visit); err != nil {
			return err
		}
	}
	return nil
}

// Damaged says whether Mount missed records that Append had acknowledged, in the newest sector or a newer one: what it
// visited may be older than what was kept. The next Append begins a new sector with a snapshot, after which no Mount
// reports this damage again; an owner that must remember it puts it into the snapshot.
func (j *Journal) Damaged() bool { return j.damaged }

// findLost looks for committed sectors newer than the newest one known, whose header has become unreadable. Such a sector
// is never erased by us while it is the newest, so this is damage; its records are good and count.
func (j *Journal) findLost() error {
	known := j.good
	for i := uint32(0); i < j.Sectors; i++ {
		if seq, err := j.readHeader(i); err != nil {
			return err
		} else if seq != 0 {
			continue
		}
		for seq := known + 1; seq <= known+lostSequences; seq++ {
			var h [recordHeaderLen]byte
			var payload [MaxRecord]byte
			if _, ok, err := j.record(i, sectorHeaderLen, seq, &h, &payload); err != nil {
				return err
			} else if !ok {
				continue
			}
			s, err := j.scan(i, seq, nil)
			if err != nil {
				return err
			}
			if s.committed && seq > j.good {
				j.damaged = true
				j.head, j.headSeq, j.maxSeq = i, seq, max(j.maxSeq, seq)
				j.good, j.goodAt = seq, i
			}
		}
	}
	return nil
}

// Salvage visits every record that is still good in any sector with a readable header, whatever its age and in no
// particular order: for values that only rise, after Damaged.
func (j *Journal) Salvage(visit func(kind uint8, payload []byte)) error {
	for i := uint32(0); i < j.Sectors; i++ {
		seq, err := j.readHeader(i)
		if err != nil {
			return err
		}
		if seq == 0 {
			continue
		}
		if _, err := j.scan(i, seq, visit); err != nil {
			return err
		}
	}
	return nil
}

// newest returns the sector with the highest sequence below a bound; sequence 0: there is none.
func (j *Journal) newest(below uint32) (at, seq uint32, err error) {
	for i := uint32(0); i < j.Sectors; i++ {
		s, err := j.readHeader(i)
		if err != nil {
			return 0, 0, err
		}
		if s > seq && s < below {
			at, seq = i, s
		}
	}
	return at, seq, nil
}

// Append adds one record, moving on to the next sector when this one is full or does not hold what is programmed.
// It returns nil only when the record has been read back.
func (j *Journal) Append(kind uint8, payload []byte) error {
	if len(payload) > MaxRecord {
		return ErrTooLong
	}
	if j.headSeq != 0 {
		err := j.Put(kind, payload)
		if err == nil {
			return nil
		}
	}
	// Two tries more: a worn sector is passed by.
	for try := 0; ; try++ {
		err := j.advance()
		if err == nil {
			if err = j.Put(kind, payload); err == nil {
				return nil
			}
		}
		if try == 1 {
			return err
		}
	}
}

// Put programs one record into the head sector and reads it back. Only Snapshot calls it; others call Append.
func (j *Journal) Put(kind uint8, payload []byte) error {
	n := uint32(len(payload))
	if j.off+recordLen(n) > driver.SectorSize {
		return errFull
	}
	var buf [recordHeaderLen + MaxRecord]byte
	var h [recordHeaderLen]byte
	h[0], h[1] = recordMark, kind
	binary.LittleEndian.PutUint16(h[2:], uint16(n))
	binary.LittleEndian.PutUint32(h[4:], recordCRC(j.headSeq, &h, payload))
	copy(buf[:], h[:])
	copy(buf[recordHeaderLen:], payload)
	off := j.sectorOffset(j.head) + j.off
	if err := j.Flash.Program(off, buf[:recordHeaderLen+n]); err != nil {
		j.off = driver.SectorSize
		return err
	}
	if err := j.readBack(off, buf[:recordHeaderLen+n]); err != nil {
		j.off = driver.SectorSize
		return err
	}
	buf[0] = recordSealed
	if err := j.Flash.Program(off, buf[:1]); err != nil {
		j.off = driver.SectorSize
		return err
	}
	if err := j.readBack(off, buf[:1]); err != nil {
		j.off = driver.SectorSize
		return err
	}
	j.off += recordLen(n)
	return nil
}

func (j *Journal) readBack(off uint32, want []byte) error {
	var got [128]byte
	for len(want) > 0 {
		n := min(len(want), len(got))
		if err := j.Flash.ReadAt(got[:n], off); err != nil {
			return err
		}
		for i := 0; i < n; i++ {
			if got[i] != want[i] {
				return ErrWorn
			}
		}
		off += uint32(n)
		want = want[n:]
	}
	return nil
}

// advance erases the next sector, heads it, writes the snapshot and commits it.
func (j *Journal) advance() error {
	next := uint32(0)
	if j.headSeq != 0 {
		next = (j.head + 1) % j.Sectors
	}
	if j.good != 0 && next == j.goodAt {
		j.head = next // all other sectors failed; the last good one stays, and the next try begins behind it
		return ErrWorn
	}
	seq := j.maxSeq + 1
	// From here on the sector is the head, even if what follows fails: the next try goes on to the sector after it.
	j.head, j.headSeq, j.maxSeq, j.off = next, seq, seq, driver.SectorSize
	j.erases++
	if err := j.retire(next); err != nil {
		return err
	}
	if err := j.Flash.Erase(j.sectorOffset(next)); err != nil {
		return err
	}
	var h [sectorHeaderLen]byte
	binary.LittleEndian.PutUint32(h[0:], journalMagic)
	binary.LittleEndian.PutUint32(h[4:], journalVersion)
	binary.LittleEndian.PutUint32(h[8:], seq)
	binary.LittleEndian.PutUint32(h[12:], crc32.ChecksumIEEE(h[:12]))
	if err := j.Flash.Program(j.sectorOffset(next), h[:]); err != nil {
		return err
	}
	if err := j.readBack(j.sectorOffset(next), h[:]); err != nil {
		return err
	}
	j.off = sectorHeaderLen
	if j.Snapshot != nil {
		if err := j.Snapshot(j); err != nil {
			return err
		}
	}
	if err := j.Put(recordCommit, nil); err != nil {
		return err
	}
	j.good, j.goodAt = seq, next
	return nil
}

// retire clears the header of a sector that is about to be erased.
func (j *Journal) retire(i uint32) error {
	var h [sectorHeaderLen]byte
	if err := j.Flash.ReadAt(h[:], j.sectorOffset(i)); err != nil || allBlank(h[:]) {
		return err
	}
	return j.Flash.Program(j.sectorOffset(i), make([]byte, sectorHeaderLen))
}
