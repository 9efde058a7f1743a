package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

var (
	pods  = netip.MustParsePrefix("10.42.3.0/24")
	pods6 = netip.MustParsePrefix("fd78:0:42:3::/64")
)

func take(t *testing.T, s Store, id string) Record {
	t.Helper()
	r, err := s.Allocate(Record{ContainerID: id, IfName: "eth0"}, pods, pods6)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAllocate(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	one := take(t, s, "one")
	if one.Address.String() != "10.42.3.2" || one.Address6.String() != "fd78:0:42:3::2" || len(one.Device) > 15 {
		t.Errorf("%+v", one)
	}
	if again := take(t, s, "one"); again != one {
		t.Errorf("asked again: %+v", again)
	}
	if err := s.Release("one", "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Release("one", "eth0"); err != nil {
		t.Error(err)
	}
	// A freed address rests as long as there are others.
	if two := take(t, s, "two"); two.Address == one.Address {
		t.Errorf("%v at once again", two.Address)
	}
	if _, err := s.Get("one", "eth0"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// TestFull: all addresses are given out, each once, also to many at a time.
func TestFull(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	for i := range last - first + 1 {
		all.Go(func() {
			r, err := s.Allocate(Record{ContainerID: fmt.Sprint(i), IfName: "eth0"}, pods, pods6)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || !pods.Contains(r.Address) || seen[r.Address] != "" {
				t.Errorf("%d: %+v %v, had by %s", i, r, err, seen[r.Address])
			}
			seen[r.Address] = fmt.Sprint(i)
		})
	}
	all.Wait()
	if _, err := s.Allocate(Record{ContainerID: "x", IfName: "eth0"}, pods, pods6); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := s.Release("7", "eth0"); err != nil {
		t.Fatal(err)
	}
	if r := take(t, s, "x"); seen[r.Address] != "7" {
		t.Errorf("%v was %s's", r.Address, seen[r.Address])
	}
}

func TestDamage(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	take(t, s, "one")
	if err := os.WriteFile(filepath.Join(s.Dir, "last"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := take(t, s, "two"); r.Address.String() != "10.42.3.3" {
		t.Errorf("%v", r.Address)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Allocate(Record{ContainerID: "three", IfName: "eth0"}, pods, pods6); err == nil {
		t.Error("an address was given although one that is taken may not be readable")
	}
}
