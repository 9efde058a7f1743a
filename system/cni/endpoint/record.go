// Package endpoint gives pods their place in a unit's network: an address out
// of the unit's range, a pair of virtual Ethernet devices, routes and fixed
// neighbours, so that nothing is resolved on the link.
//
//	pod: eth0 10.42.1.5/32 ── veth ── rk… :host ── wg0 ──▶ other units
//	     default via 169.254.1.1            route 10.42.1.5/32 dev rk…
//
// What was given to whom stands in one file per attachment, so that any process
// can take over: the plugin of the Container Network Interface (CNI 1.1), which
// runs once per request, and the agent, which polices. The files are in memory,
// as pods are: a boot begins with none.
package endpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Prefix begins the names of the host's devices of pods.
const Prefix = "rk"

// A Record is one attachment of a pod to the network.
type Record struct {
	ContainerID string     `json:"containerID"`
	IfName      string     `json:"ifName"`
	Netns       string     `json:"netns"`
	Namespace   string     `json:"namespace,omitempty"` // of the pod
	Pod         string     `json:"pod,omitempty"`
	Device      string     `json:"device"` // the host's end
	Address     netip.Addr `json:"address"`
	Address6    netip.Addr `json:"address6,omitzero"`
}

// Key names an attachment.
func (r *Record) Key() string { return r.ContainerID + "/" + r.IfName }

// Store keeps records in a directory.
type Store struct{ Dir string }

// Errors of a Store.
var (
	ErrFull    = errors.New("no free address in the unit's range")
	ErrUnknown = errors.New("no such attachment")
)

// first and last are the numbers that pods get within a range; the first
// address of a range is nobody's.
const (
	first = 2
	last  = 254
)

func (s Store) file(containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "/" + ifName))
	return filepath.Join(s.Dir, hex.EncodeToString(sum[:12])+".json")
}

// lock lets one process at a time change the store.
func (s Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", s.Dir, err)
	}
	return func() { f.Close() }, nil
}

// Allocate notes an attachment and gives it addresses of the ranges: the one
// longest unused first, so that late packets meet nobody. For an attachment
// that is known it returns what that has.
func (s Store) Allocate(r Record, pods, pods6 netip.Prefix) (Record, error) {
	unlock, err := s.lock()
	if err != nil {
		return r, err
	}
	defer unlock()
	if have, err := s.Get(r.ContainerID, r.IfName); err == nil {
		return have, nil
	}
	all, err := s.List()
	if err != nil {
		return r, err
	}
	taken := map[netip.Addr]bool{}
	for _, o := range all {
		taken[o.Address] = true
	}
	cursor := filepath.Join(s.Dir, "last")
	previous := first - 1
	if b, err := os.ReadFile(cursor); err == nil {
		if _, err := fmt.Sscan(string(b), &previous); err != nil || previous < first || previous > last {
			previous = first - 1
		}
	}
	for i := 1; i <= last-first+1; i++ {
		n := first + (previous-first+i+last-first+1)%(last-first+1)
		a := number(pods, n)
		if taken[a] {
			continue
		}
		r.Address = a
		if pods6.IsValid() {
			r.Address6 = number(pods6, n)
		}
		sum := sha256.Sum256([]byte(r.Key()))
		r.Device = Prefix + hex.EncodeToString(sum[:6])
		b, err := json.Marshal(r)
		if err != nil {
			return r, err
		}
		if err := replace(s.file(r.ContainerID, r.IfName), b); err != nil {
			return r, err
		}
		return r, replace(cursor, fmt.Append(nil, n))
	}
	return r, fmt.Errorf("%v: %w", pods, ErrFull)
}

// number is the address with a number at its end.
func number(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-1] = byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Get finds an attachment.
func (s Store) Get(containerID, ifName string) (r Record, err error) {
	b, err := os.ReadFile(s.file(containerID, ifName))
	if errors.Is(err, os.ErrNotExist) {
		return r, fmt.Errorf("%s/%s: %w", containerID, ifName, ErrUnknown)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// List returns all attachments by address.
func (s Store) List() (all []Record, err error) {
	names, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if !strings.HasSuffix(n.Name(), ".json") {
			continue
		}
		var r Record
		b, err := os.ReadFile(filepath.Join(s.Dir, n.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // gone meanwhile
		}
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("read attachment %s: %w", n.Name(), err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Record) int { return a.Address.Compare(b.Address) })
	return all, nil
}

// Release forgets an attachment. One that is not known is none to forget.
func (s Store) Release(containerID, ifName string) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(s.file(containerID, ifName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func replace(name string, b []byte) error {
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
