package plant

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// state is everything that changes; its JSON form is the snapshot.
type state struct {
	Now      time.Duration
	Rand     uint64
	RippleAt time.Duration
	Touched  bool
	Faults   Faults
	Slots    [MaxSlots]slot
	Fans     [MaxFans]fan
	Energy   Energy

	Bus, Amps float64
	Through   float64
	Over      time.Duration // supply in over-current
	Retry     time.Duration // supply off
	Trips     int

	Ambient, Inlet, Exhaust float64
}

// noise returns a number from −1 to 1 (splitmix64).
func (s *state) noise() float64 {
	s.Rand += 0x9E3779B97F4A7C15
	z := s.Rand
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return float64(int64(z^z>>31)>>11) / (1 << 52)
}

// Snapshot returns the whole state, as JSON that Restore of a plant with the same configuration takes back.
func (p *Plant) Snapshot() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := json.Marshal(&p.s)
	if err != nil {
		panic(err) // only numbers and truth values; NaN would be a bug here
	}
	return b
}

// Restore replaces the whole state.
func (p *Plant) Restore(snapshot []byte) error {
	var s state
	if err := json.Unmarshal(snapshot, &s); err != nil {
		return fmt.Errorf("restore plant: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s = s
	return nil
}

// Hash is the SHA-256 of the state.
func (p *Plant) Hash() [32]byte { return sha256.Sum256(p.Snapshot()) }
