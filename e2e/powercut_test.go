package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A memory is what a rack must not lose, as far as it was ever told or seen.
type memory struct {
	files    map[string]string // that are made once
	boots    float64
	energy   float64
	events   map[string]string // messages of the newest events, by ID
	accounts int
}

// energySlack is what a BMC may not have written yet, in joules: ten seconds of a unit's power.
const energySlack = 10 * 30

// once are files that a rack makes on its first start and keeps for ever.
var once = []string{"repository/rack/rack.yaml", "keys/owner-1.pem", "keys/root.json", "sim/slot-1/device.pem", "sim/slot-1/eeprom", "sim/rmc.eeprom", "sim/githost/tls.key", "sim/githost/token"}

// look compares a rack with what is remembered of it, and remembers it. A rack that does not answer is not compared.
func (m *memory) look(r *rack) error {
	for _, name := range once {
		b, err := os.ReadFile(filepath.Join(r.state, name))
		switch have, known := m.files[name]; {
		case err == nil && known && have != string(b):
			return fmt.Errorf("%s has changed", name)
		case err != nil && known:
			return fmt.Errorf("%s is gone", name)
		case err == nil:
			m.files[name] = string(b)
		}
	}
	ask := func(into any, args ...string) bool {
		out, err := r.command("", nil, filepath.Join(r.bin, "racklet"), append(args, "--state", r.state, "-o", "json")...)
		return err == nil && json.Unmarshal(out, into) == nil
	}
	var s struct {
		Units []struct {
			Available               bool
			BootCount, EnergyJoules float64
		}
	}
	if !ask(&s, "status") || len(s.Units) == 0 || !s.Units[0].Available {
		return nil
	}
	u := s.Units[0]
	if u.BootCount < m.boots || u.EnergyJoules < m.energy-energySlack {
		return fmt.Errorf("boots %v, joules %v; were %v and %v", u.BootCount, u.EnergyJoules, m.boots, m.energy)
	}
	m.boots, m.energy = u.BootCount, max(m.energy, u.EnergyJoules)
	var log []entry
	if ask(&log, "unit", "log", "unit-1") && len(log) > 0 {
		have := map[string]string{}
		for _, e := range log {
			have[e.ID] = e.Message
		}
		for id, message := range m.events {
			if have[id] != message {
				return fmt.Errorf("event %s was %q and is %q", id, message, have[id])
			}
		}
		m.events = map[string]string{}
		for _, e := range log[max(0, len(log)-20):] {
			if !strings.HasPrefix(e.ID, "n") { // a note of the service, which starts anew
				m.events[e.ID] = e.Message
			}
		}
	}
	var accounts []struct{}
	if ask(&accounts, "account", "list") {
		if len(accounts) < m.accounts {
			return fmt.Errorf("%d accounts, were %d", len(accounts), m.accounts)
		}
		if len(accounts) < 5 {
			var made struct{}
			if ask(&made, "account", "add", fmt.Sprintf("somebody-%d", len(accounts)), "--role", "ReadOnly") {
				accounts = append(accounts, made)
			}
		}
		m.accounts = len(accounts)
	}
	return nil
}

// slay kills everything of a rack at once: the starting command, the daemon, and with machines the units' processes too.
func (r *rack) slay(up *exec.Cmd, machines bool) error {
	which := func(command string) bool { return machines || !strings.Contains(command, "qemu-system") }
	up.Process.Kill()
	killed := r.kill(which)
	up.Wait()
	// One that is just being started has no command line yet.
	for quiet := 0; quiet < 5; quiet++ {
		time.Sleep(10 * time.Millisecond)
		if more := r.kill(which); more != nil {
			killed, quiet = append(killed, more...), 0
		}
	}
	for _, pid := range killed {
		if err := gone(pid); err != nil {
			return err
		}
	}
	return nil
}

// kill kills those processes of a rack that which chooses by their command lines, and returns their numbers. A process
// belongs to a rack when its command line names the state directory.
func (r *rack) kill(which func(command string) bool) (pids []int) {
	var all [][2]string // number and command line
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil {
			all = append(all, [2]string{filepath.Base(filepath.Dir(name)), string(b)})
		}
	}
	if names == nil { // no Linux
		out, _ := exec.Command("ps", "-axo", "pid=,command=").Output()
		for line := range strings.Lines(string(out)) {
			number, command, _ := strings.Cut(strings.TrimSpace(line), " ")
			all = append(all, [2]string{number, command})
		}
	}
	for _, p := range all {
		pid, err := strconv.Atoi(p[0])
		if err == nil && pid != os.Getpid() && strings.Contains(p[1], r.state) && which(p[1]) && syscall.Kill(pid, syscall.SIGKILL) == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestPowercutFirstStart kills racks in the first second of their lives, twice, and wants the third start to succeed.
func TestPowercutFirstStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts racks")
	}
	const seed = 5
	racks := uint64(5)
	if os.Getenv("RACKLET_LONG") != "" {
		racks = 100
	}
	bin := build(t)
	for n := range racks {
		r := newRack(t, bin)
		m := memory{files: map[string]string{}}
		rng := rand.New(rand.NewPCG(seed, n))
		for kill := range 2 {
			up, err := r.start()
			if err != nil {
				t.Fatal(err)
			}
			life := time.Duration(rng.Int64N(int64(1200 * time.Millisecond)))
			time.Sleep(life)
			err = r.slay(up, true)
			if err == nil {
				err = m.look(r)
			}
			if err != nil {
				t.Fatalf("seed %d, rack %d, kill %d after %v: %v", seed, n, kill+1, life, err)
			}
			t.Logf("seed %d, rack %d, kill %d after %v: %d files", seed, n, kill+1, life, len(m.files))
		}
		up, err := r.start()
		if err != nil {
			t.Fatal(err)
		}
		if err := up.Wait(); err != nil {
			log, _ := os.ReadFile(filepath.Join(r.state, "racklet.log"))
			t.Fatalf("seed %d, rack %d: %v: %s\n%s", seed, n, err, up.Stderr, log)
		}
		if err := m.look(r); err != nil {
			t.Fatalf("seed %d, rack %d: %v", seed, n, err)
		}
		if err := r.slay(up, true); err != nil || len(m.files) != len(once) {
			log, _ := os.ReadFile(filepath.Join(r.state, "racklet.log"))
			t.Fatalf("seed %d, rack %d: files %q: %v\n%s\n%s", seed, n, slices.Collect(maps.Keys(m.files)), err, up.Stderr, log)
		}
	}
}

// start begins to start a rack with one unit.
func (r *rack) start() (*exec.Cmd, error) {
	up := exec.Command(filepath.Join(r.bin, "racklet"), "up", "-d", "--units", "1", "--release", r.release, "--state", r.state)
	up.Env, up.Stderr = r.env, new(strings.Builder)
	return up, up.Start()
}

// TestPowercut kills a whole rack at seeded moments, from its very first start on, with machines and without, and wants
// it to go on each time with all it had. sim/headless.TestPowercut does so hundreds of times without machines.
func TestPowercut(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a unit")
	}
	const seed = 3
	kills, longest := 6, 9*time.Second
	if os.Getenv("RACKLET_LONG") != "" {
		kills, longest = 60, 40*time.Second
	}
	r := newRack(t, build(t))
	rng := rand.New(rand.NewPCG(seed, 0))
	m := memory{files: map[string]string{}}
	for n := range kills {
		up, err := r.start()
		if err != nil {
			t.Fatal(err)
		}
		// Most of what is made once is made in the first seconds.
		life := time.Duration(float64(longest) * rng.Float64() * rng.Float64())
		machines := rng.IntN(2) == 0
		at := fmt.Sprintf("seed %d, kill %d, after %v", seed, n+1, life)
		for end := time.Now().Add(life); time.Now().Before(end); {
			if err := m.look(r); err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			time.Sleep(min(200*time.Millisecond, max(0, time.Until(end))))
		}
		if err := r.slay(up, machines); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		t.Logf("%s: %d files, %v boots, %d accounts", at, len(m.files), m.boots, m.accounts)
	}
	r.up(t, 1)
	r.until(t, "unit-1", "running", func(u *unitStatus) bool { return u.Stage == "running" })
	if err := m.look(r); err != nil {
		t.Error(err)
	}
	if len(m.files) != len(once) || m.boots < 2 || m.accounts == 0 || len(m.events) == 0 {
		t.Errorf("little was seen: %d files, %v boots, %d accounts, %d events", len(m.files), m.boots, m.accounts, len(m.events))
	}

	// A unit whose machine is killed alone starts again by itself; its BMC says that it did.
	boots := m.boots
	if killed := r.kill(func(command string) bool { return strings.Contains(command, "qemu-system") }); len(killed) != 1 {
		t.Fatalf("%d machines run", len(killed))
	}
	r.until(t, "unit-1", "another start", func(u *unitStatus) bool { return u.Stage != "running" })
	r.until(t, "unit-1", "running", func(u *unitStatus) bool { return u.Stage == "running" })
	if err := m.look(r); err != nil {
		t.Error(err)
	}
	if m.boots != boots {
		t.Errorf("%v boots, had %v: the rail did not fall", m.boots, boots)
	}
}
