package enroll

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
)

// A State is desired state that the owners signed and this rack accepted: a
// unit that says it verified it may be believed.
type State struct {
	Sequence uint64                      `json:"sequence"`
	Commit   string                      `json:"commit"`
	Floor    rack.Digest                 `json:"floor"` // SHA-256 of the floor statement without its signatures
	Security uint32                      `json:"security"`
	Units    map[string]string           `json:"units"` // release by unit
	Releases map[string]rack.ReleaseSpec `json:"releases"`
}

// NewState returns what units will measure of a verified state. statement is
// the signed floor statement.
func NewState(commit string, statement []byte, units []*rack.ComputeUnit, releases map[string]*rack.Release) (*State, error) {
	msg, _, err := trust.SplitSigned(statement)
	if err != nil {
		return nil, fmt.Errorf("floor statement: %w", err)
	}
	floor, err := trust.ParseFloorStatement(msg)
	if err != nil {
		return nil, fmt.Errorf("floor statement: %w", err)
	}
	s := &State{Sequence: floor.Sequence, Commit: commit, Floor: rack.SHA256(msg), Security: floor.BootSecurity,
		Units: map[string]string{}, Releases: map[string]rack.ReleaseSpec{}}
	for _, u := range units {
		r := releases[u.Spec.Release]
		if r == nil {
			return nil, fmt.Errorf("unit %s: no release %q", u.Metadata.Name, u.Spec.Release)
		}
		s.Units[u.Metadata.Name] = u.Spec.Release
		s.Releases[u.Spec.Release] = r.Spec
	}
	return s, nil
}

// maxStates is how many accepted states are remembered.
const maxStates = 256

const statesFile = "accepted.json"

// references are the states that were accepted, the newest last.
type references struct {
	file   string
	states []*State
}

func openReferences(dir string) (*references, error) {
	r := &references{file: filepath.Join(dir, statesFile)}
	b, err := os.ReadFile(r.file)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read accepted states: %w", err)
	}
	if err := json.Unmarshal(b, &r.states); err != nil {
		return nil, fmt.Errorf("read %s: %w", r.file, err)
	}
	return r, nil
}

// accept adds a state. One that was accepted before changes nothing; one that
// is older than the newest is an error, as is a second one of the same sequence.
func (r *references) accept(s *State) error {
	if n := r.newest(); n != nil {
		switch {
		case n.Sequence == s.Sequence && n.Floor == s.Floor:
			return nil
		case s.Sequence <= n.Sequence:
			return fmt.Errorf("accept sequence %d, %s: sequence %d, %s is accepted already", s.Sequence, s.Floor, n.Sequence, n.Floor)
		}
	}
	r.states = append(r.states, s)
	r.prune()
	b, err := json.Marshal(r.states)
	if err != nil {
		return err
	}
	return replaceFile(r.file, b)
}

func (r *references) newest() *State {
	if len(r.states) == 0 {
		return nil
	}
	return r.states[len(r.states)-1]
}

// prune forgets states that admit no unit any more.
func (r *references) prune() {
	useful := map[*State]bool{r.newest(): true}
	for name := range r.newest().Units {
		for _, s := range r.admitting(name) {
			useful[s] = true
		}
	}
	r.states = slices.DeleteFunc(r.states, func(s *State) bool { return !useful[s] })
	if n := len(r.states); n > maxStates {
		r.states = slices.Delete(r.states, 0, n-maxStates)
	}
}

// admitting are the states that unit may have booted, the newest first: those
// in which it runs its present release or the one before that, as long as the
// owners' newest floor allows that release. So a push evicts nobody, and
// during a rollout N and N-1 stand side by side.
func (r *references) admitting(unit string) (states []*State) {
	n := r.newest()
	if n == nil || n.Units[unit] == "" {
		return nil
	}
	var allowed []rack.ReleaseSpec
	for _, s := range slices.Backward(r.states) {
		name, ok := s.Units[unit]
		if !ok {
			continue
		}
		release := s.Releases[name]
		if release.SecurityVersion < n.Security {
			continue
		}
		if !slices.Contains(allowed, release) {
			if len(allowed) == 2 {
				break
			}
			allowed = append(allowed, release)
		}
		states = append(states, s)
	}
	return states
}

// A register's expected value after one extension.
func extended(digest [32]byte) [32]byte {
	var r trust.Register
	r.Extend(digest)
	return r.Value
}

// handover is what stage 1 measures when it hands over; see package
// firmware/bootstrap.
func handover(r *rack.ReleaseSpec) ([32]byte, bool) {
	kernel, initramfs := r.Boot.Kernel, rack.Digest("-")
	if r.Boot.Kernel != r.OS.Kernel { // kexec
		kernel, initramfs = r.OS.Kernel, r.OS.Initramfs
	}
	if r.Boot.CommandLine == "" || initramfs == "" {
		return [32]byte{}, false
	}
	return sha256.Sum256(fmt.Appendf(nil, "kernel %s\ninitramfs %s\ncmdline %s\n", kernel, initramfs, r.Boot.CommandLine)), true
}
