package headless

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack/racktest"
)

var (
	moments      = flag.Int("moments", 200, "moments at which a whole rack is killed")
	momentsSeed  = flag.Uint64("moments-seed", 1, "seed of the first rack that is killed; one rack is killed lifesPerRack times")
	lifesPerRack = 5
)

// TestMain makes the test binary a rack that is to be killed when it is told to be one.
func TestMain(m *testing.M) {
	if text := os.Getenv("RACKLET_LIFE"); text != "" {
		var l life
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			panic(err)
		}
		fmt.Fprintln(os.Stderr, l.live(os.NewFile(3, "promises")))
		os.Exit(3) // not reached: a life ends by SIGKILL
	}
	flag.Parse()
	os.Exit(m.Run())
}

// run lets a life happen and returns what it promised.
func (l life) run(ctx context.Context) (promised []string, err error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "RACKLET_LIFE="+string(text), "GOMAXPROCS=2")
	cmd.ExtraFiles = []*os.File{w}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	w.Close()
	end := l.death()
	lines := bufio.NewScanner(r)
	changes := 0
	for lines.Scan() {
		if lines.Text() == begins {
			changes++
		} else {
			promised = append(promised, lines.Text())
		}
		if end.store > 0 && changes == end.store && lines.Text() == begins || end.line > 0 && len(promised) == end.line {
			time.Sleep(end.behind)
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return nil, fmt.Errorf("the rack was not killed but ended: %v: %s", err, said.Bytes())
	}
	return promised, nil
}

// pledge is what all lives of a rack have promised.
type pledge struct {
	values map[string]string
	broken []string
}

// add takes the promises of one more life; numbers only rise.
func (p *pledge) add(lines []string) {
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " ")
		if key == "wrong" {
			p.broken = append(p.broken, value)
			continue
		}
		p.compare("while it lived", key, value)
		p.values[key] = value
	}
}

// slack is how much a counter may fall short: energy is written every ten seconds (firmware/bmc, firmware/rmc).
func slack(key string) float64 {
	if strings.HasSuffix(key, ".joules") {
		return 10*40 + 1
	}
	return 0
}

func (p *pledge) compare(when, key, value string) {
	old, ok := p.values[key]
	if !ok || old == value {
		return
	}
	a, errA := strconv.ParseFloat(old, 64)
	b, errB := strconv.ParseFloat(value, 64)
	if strings.Contains(key, ".event.") || errA != nil || errB != nil || b < a-slack(key) {
		p.broken = append(p.broken, fmt.Sprintf("%s: %s was %s and is %s", when, key, old, value))
	}
}

// check opens what is left and compares it with what was promised.
func (p *pledge) check(dir string, seed uint64) error {
	r, err := New(Options{Units: lifeUnits, Seed: seed, Dir: dir})
	if err != nil {
		return err
	}
	defer r.Close()
	for range 5 {
		if err := r.Step(); err != nil {
			return err
		}
	}
	if r.rmc == nil {
		return errors.New("the RMC does not start")
	}
	f, err := openFiles(dir)
	if err != nil {
		return err
	}
	defer f.audit.Close()
	// Look with the eyes of a life; what it promises is what is there.
	now := map[string]string{}
	for _, t := range r.trays {
		if t.bmc == nil {
			return fmt.Errorf("the BMC of %s does not start", t.name)
		}
		s := t.bmc.UnitState()
		if s.Failure.Reason.String() == "bmc.damage" {
			p.broken = append(p.broken, t.name+" takes the cut for damage")
		}
		for sequence, sum := range readLog(s.LastEvent-min(s.LastEvent, 30), s.LastEvent, func(req, resp []byte) int { return t.bmc.Handle(wire.SideDebug, r.now, req, resp) }) {
			now[fmt.Sprintf("%s.event.%d", t.name, sequence)] = sum
		}
		now[t.name+".events"] = fmt.Sprint(s.LastEvent)
		now[t.name+".boots"] = fmt.Sprint(s.BootCount)
		now[t.name+".sequence"] = fmt.Sprint(s.Floors.Sequence)
		now[t.name+".security"] = fmt.Sprint(s.Floors.BootSecurity)
		now[t.name+".generation"] = fmt.Sprint(s.DesiredGeneration)
		now[t.name+".observed"] = fmt.Sprint(s.ObservedGeneration)
		now[t.name+".joules"] = fmt.Sprint(s.Millijoules / 1000)
	}
	s := r.rmc.State()
	now["rmc.events"], now["rmc.restarts"] = fmt.Sprint(s.LastEvent), fmt.Sprint(s.Resets)
	now["rmc.policies"], now["rmc.joules"] = fmt.Sprint(s.PolicyGeneration), fmt.Sprint(s.Millijoules/1000)
	now["accounts"] = fmt.Sprint(len(f.accounts.Accounts()))
	now["rules"] = fmt.Sprint(int(f.accounts.Rules().LockoutReset / time.Second))
	for _, e := range f.audit.Entries() {
		now["audit"] = fmt.Sprint(e.Sequence)
	}
	if now["document"] = fmt.Sprint(f.document(dir)); now["document"] == "-1" {
		p.broken = append(p.broken, "the document is torn")
	}
	blobs, _ := filepath.Glob(filepath.Join(f.cache.Dir, "sha256", "*"))
	for _, name := range blobs {
		if sum, _, err := cache.HashFile(name); err != nil || sum != filepath.Base(name) {
			p.broken = append(p.broken, "the cache holds a wrong file "+filepath.Base(name))
		}
		now["cache."+filepath.Base(name)] = "there"
	}
	for key, value := range p.values {
		if have, ok := now[key]; ok {
			p.compare("after the kill", key, have)
		} else if !strings.Contains(key, ".event.") { // an old event may have left the ring
			p.broken = append(p.broken, fmt.Sprintf("after the kill: %s was %s and is gone", key, value))
		}
	}
	// The newest events are there, whole.
	for _, t := range r.trays {
		newest, _ := strconv.ParseUint(p.values[t.name+".events"], 10, 32)
		for n := newest - min(newest, 5) + 1; n <= newest; n++ {
			key := fmt.Sprintf("%s.event.%d", t.name, n)
			if _, promised := p.values[key]; promised && now[key] == "" {
				p.broken = append(p.broken, key+" is gone")
			}
		}
	}
	return nil
}

// campaign kills one rack several times and returns the promises that were broken, with the moment.
func campaign(t *testing.T, seed uint64, lifes int, defect string) error {
	dir := filepath.Join(t.TempDir(), "rack")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	p := pledge{values: map[string]string{}}
	for n := range lifes {
		l := life{Dir: dir, Seed: seed, Number: n, Defect: defect}
		at := fmt.Sprintf("seed %d, kill %d, %v", seed, n+1, l.death())
		lines, err := l.run(t.Context())
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		p.add(lines)
		if err := p.check(dir, seed); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if len(p.broken) > 0 {
			return fmt.Errorf("%s, after %d promises: %s", at, len(lines), strings.Join(p.broken, "\n\t"))
		}
	}
	return nil
}

// TestPowercut kills whole racks with their stores (SIGKILL, a process of its own) at seeded moments, again and again, and
// wants every promise kept: floors, counters, logs, accounts, caches. make powercut does so 5,000 times; a failure names
// its seed, and -moments-seed N -moments 5 plays that rack again.
func TestPowercut(t *testing.T) {
	racktest.Tool(t, "git")
	n := *moments
	if testing.Short() {
		n = min(n, 20)
	}
	racks := (n + lifesPerRack - 1) / lifesPerRack
	var all sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range racks {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if err := campaign(t, *momentsSeed+uint64(i), lifesPerRack, ""); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if failed++; failed < 5 {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("seeds %d to %d: %d moments, %d racks lost something", *momentsSeed, *momentsSeed+uint64(racks)-1, racks*lifesPerRack, failed)
}

// TestPowercutCatches plants stores that lose something, each of which some moment must show.
func TestPowercutCatches(t *testing.T) {
	racktest.Tool(t, "git")
	for _, defect := range []string{"late", "in-place", "uncommitted"} {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(40) {
				if err := campaign(t, 1000+seed, lifesPerRack, defect); err != nil {
					t.Logf("caught: %v", err)
					return
				}
			}
			t.Errorf("40 racks with a store that is %s lose nothing", defect)
		})
	}
}
