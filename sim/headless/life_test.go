package headless

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/system/redfish/access"
	"github.com/racklet/racklet/system/redfish/audit"
)

// A life is what one process does with the rack in a directory until it is killed. Racks have many, one after the other;
// seed and number decide all but the microsecond of some deaths.
//
// While it lives it makes promises, one per line: what it told somebody who may rely on it. The next life must keep them.
type life struct {
	Dir    string
	Seed   uint64
	Number int
	Defect string // one of the negative controls

	promises *os.File
	rack     *Rack
	rng      *rand.Rand
	ops      int
	sequence uint64
	told     map[string]string
	dead     map[*chip.Flash]bool // cut while the rest lives on: its BMC is killed
}

// A death says when a life ends.
type death struct {
	op     int           // before this operation on any flash chip; 0: not so
	torn   int64         // within an operation of unit-1's flash, after so many steps
	line   int           // by the parent: after this promise,
	store  int           // or after the begin of this change of the daemon's files,
	behind time.Duration // and so much time
}

func (d death) String() string {
	switch {
	case d.op > 0:
		return fmt.Sprintf("before flash operation %d", d.op)
	case d.torn > 0:
		return fmt.Sprintf("within a flash operation, at step %d", d.torn)
	}
	if d.store > 0 {
		return fmt.Sprintf("%v into change %d of the daemon's files", d.behind, d.store)
	}
	return fmt.Sprintf("%v after promise %d", d.behind, d.line)
}

func (l *life) source() *rand.Rand { return rand.New(rand.NewPCG(l.Seed, uint64(l.Number)+1)) }

func (l *life) death() death {
	rng := rand.New(rand.NewPCG(l.Seed, uint64(l.Number)+1_000_000))
	kind := rng.IntN(4)
	if l.Defect == "in-place" || l.Defect == "uncommitted" {
		kind = 3 // the only one that can show it
	}
	switch kind {
	case 0:
		if l.Number == 0 { // provisioning takes most of them
			return death{op: 1 + rng.IntN(1400)}
		}
		return death{op: 1 + rng.IntN(400)}
	case 1:
		return death{torn: 1 + rng.Int64N(5_000)}
	}
	behind := time.Duration(rng.IntN(2000)) * time.Microsecond
	if kind == 3 {
		return death{store: 1 + rng.IntN(50), behind: behind}
	}
	return death{line: 1 + rng.IntN(600), behind: behind}
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// promise tells the world something; key and value must hold in every later life.
func (l *life) promise(key string, value any) {
	text := fmt.Sprint(value)
	if l.told[key] == text {
		return
	}
	l.told[key] = text
	fmt.Fprintf(l.promises, "%s %s\n", key, text)
}

const (
	lifeSteps   = 1500 // of 10 ms
	lifeUnits   = 2
	lateEvery   = 100 // steps, in which the control "late" keeps a flash in memory alone
	documentLen = 48 << 10
)

// live ends by SIGKILL, or returns what went wrong.
func (l *life) live(promises *os.File) error {
	l.promises, l.rng, l.told, l.dead = promises, l.source(), map[string]string{}, map[*chip.Flash]bool{}
	end := l.death()
	dir := l.Dir
	if l.Defect == "late" {
		if dir = l.Dir + ".late"; copyFlash(dir, l.Dir) != nil {
			return errors.New("no copy")
		}
	}
	var err error
	l.rack, err = New(Options{Units: lifeUnits, Seed: l.Seed, Dir: dir, onOp: func(*chip.Flash, chip.Op) {
		if l.ops++; l.ops == end.op {
			die()
		}
	}})
	if err != nil {
		return err
	}
	files, err := l.open()
	if err != nil {
		return err
	}
	r := l.rack
	for range 20 {
		if err := r.Step(); err != nil {
			return err
		}
	}
	for _, t := range r.trays {
		s := t.bmc.UnitState()
		r.generation, l.sequence = max(r.generation, s.DesiredGeneration), max(l.sequence, s.Floors.Sequence)
	}
	r.PowerOn()
	if end.torn > 0 {
		r.trays[0].flash.CutAfter(end.torn, l.Seed)
	}
	for n := range lifeSteps {
		if err := r.Step(); err != nil {
			return err
		}
		if cut(r.trays[0].flash) && end.torn > 0 {
			die()
		}
		l.heal()
		l.look()
		if l.rng.IntN(25) == 0 {
			l.act()
		}
		if l.rng.IntN(25) == 0 {
			if err := files.act(l); err != nil {
				return err
			}
		}
		if l.Defect == "late" && n%lateEvery == 0 {
			if err := copyFlash(l.Dir, dir); err != nil {
				return err
			}
		}
	}
	die()
	return nil
}

// cut says whether a flash has lost its power.
func cut(f *chip.Flash) bool { return errors.Is(f.ReadAt(make([]byte, 1), 0), chip.ErrPowerCut) }

// heal starts the BMCs anew that were killed in the middle of an operation.
func (l *life) heal() {
	for _, t := range l.rack.trays {
		if l.dead[t.flash] && cut(t.flash) {
			delete(l.dead, t.flash)
			t.flash.Restore()
			if err := l.rack.startBMC(t); err != nil {
				fmt.Fprintln(l.promises, "wrong BMC does not start:", err)
			}
		}
	}
}

// look promises what anybody may read off the controllers.
func (l *life) look() {
	for _, t := range l.rack.trays {
		if t.bmc == nil || cut(t.flash) {
			continue
		}
		s := t.bmc.UnitState()
		l.controller(t.name, s.LastEvent, func(req, resp []byte) int { return t.bmc.Handle(wire.SideDebug, l.rack.now, req, resp) })
		l.promise(t.name+".boots", s.BootCount)
		l.promise(t.name+".sequence", s.Floors.Sequence)
		l.promise(t.name+".security", s.Floors.BootSecurity)
		l.promise(t.name+".generation", s.DesiredGeneration)
		l.promise(t.name+".observed", s.ObservedGeneration)
		l.promise(t.name+".joules", s.Millijoules/1000)
	}
	if m := l.rack.rmc; m != nil {
		s := m.State()
		l.controller("rmc", s.LastEvent, func(req, resp []byte) int { return m.Handle(wire.SideDebug, l.rack.now, req, resp) })
		l.promise("rmc.restarts", s.Resets)
		l.promise("rmc.policies", s.PolicyGeneration)
		l.promise("rmc.joules", s.Millijoules/1000)
	}
}

// controller promises the events of a log.
func (l *life) controller(name string, newest uint32, handle func(req, resp []byte) int) {
	after := newest - min(newest, 1)
	if text, ok := l.told[name+".events"]; ok {
		n, _ := strconv.ParseUint(text, 10, 32)
		after = uint32(n)
	}
	if after >= newest {
		return
	}
	for sequence, sum := range readLog(after, newest, handle) {
		l.promise(fmt.Sprintf("%s.event.%d", name, sequence), sum)
	}
	l.promise(name+".events", newest)
}

// readLog returns the events behind one as checksums by sequence.
func readLog(after, newest uint32, handle func(req, resp []byte) int) map[uint32]string {
	out := map[uint32]string{}
	resp := make([]byte, wire.MaxMessage-1)
	for after < newest {
		n := handle(wire.AppendReadEvents(wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdReadEvents), after), resp)
		_, code, payload, err := wire.ParseResponse(resp[:n])
		if err != nil || code != wire.CodeSuccess {
			break
		}
		events, err := wire.ParseEvents(payload)
		if err != nil {
			break
		}
		before := after
		var e wire.Event
		for events.Next(&e) {
			after = e.Sequence
			out[e.Sequence] = fmt.Sprintf("%08x", crc32.ChecksumIEEE(wire.AppendEvent(nil, &e)))
		}
		if after == before {
			break
		}
	}
	return out
}

// act does something that controllers keep.
func (l *life) act() {
	r := l.rack
	t := r.trays[l.rng.IntN(len(r.trays))]
	if t.bmc == nil || cut(t.flash) {
		return
	}
	switch l.rng.IntN(6) {
	case 0, 1:
		l.sequence++
		t.ghost.ask(r.now, wire.CmdRaiseFloors, wire.AppendBytes(nil, l.floors(l.sequence)))
	case 2:
		r.PowerOn()
	case 3:
		r.send(wire.BMC(uint8(t.slot)), wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
	case 4: // the BMC alone is killed, in the middle of what it writes
		if l.death().torn == 0 {
			t.flash.CutAfter(1+l.rng.Int64N(2000), l.Seed)
			l.dead[t.flash] = true
		}
	case 5:
		t.ghost.press(r.now)
	}
}

// floors is a statement that two owners signed.
func (l *life) floors(sequence uint64) []byte {
	s := trust.FloorStatement{RackID: l.rack.id, Sequence: sequence, RootVersion: 1, BootSecurity: uint32(min(sequence/20, 1)), Tree: sha256.Sum256([]byte{byte(sequence)})}
	msg, _ := s.MarshalBinary()
	var sigs []trust.Signature
	for _, k := range l.rack.signed.keys[:2] {
		sigs = append(sigs, trust.Sign(trust.DomainFloor, k.Key, msg))
	}
	return trust.AppendSigned(msg, sigs)
}

// files are the stores of the rack's daemon.
type files struct {
	accounts *access.Store
	audit    *audit.Log
	cache    cache.Cache
}

func (l *life) open() (*files, error) { return openFiles(l.Dir) }

func openFiles(dir string) (f *files, err error) {
	f = &files{cache: cache.Cache{Dir: filepath.Join(dir, "cache")}}
	redfish := filepath.Join(dir, "redfish")
	if err = os.MkdirAll(redfish, 0o700); err != nil {
		return nil, err
	}
	if f.accounts, err = access.Open(access.Options{Dir: redfish, Clock: wall{}, Cost: access.Cost{Time: 1, Memory: 8}}); err != nil {
		return nil, err
	}
	f.audit, err = audit.Open(redfish)
	return f, err
}

type wall struct{}

func (wall) Now() time.Time { return time.Now() }

// begins is a line that promises nothing: a change of the files begins.
const begins = "begin"

// act changes one store and promises what came of it.
func (f *files) act(l *life) error {
	fmt.Fprintln(l.promises, begins)
	switch l.rng.IntN(5) {
	case 0:
		name := fmt.Sprintf("account-%d", len(f.accounts.Accounts()))
		if len(f.accounts.Accounts()) < 20 {
			if err := f.accounts.Create(access.Account{Name: name, Role: access.Operator, Enabled: true}, access.Secret()); err != nil {
				return err
			}
			l.promise("accounts", len(f.accounts.Accounts()))
		}
	case 1:
		n := int(f.accounts.Rules().LockoutReset/time.Second) + 1
		if err := f.accounts.SetRules(func(r *access.Rules) { r.LockoutReset = time.Duration(n) * time.Second }); err != nil {
			return err
		}
		l.promise("rules", n)
	case 2:
		e, err := f.audit.Append(audit.Entry{Time: time.Now(), Who: "admin", Method: "POST", Target: "/redfish/v1", What: strings.Repeat("w", l.rng.IntN(900)), Status: 204})
		if err != nil {
			return err
		}
		l.promise("audit", e.Sequence)
	case 3:
		body := make([]byte, 1+l.rng.IntN(256<<10))
		for i := range body {
			body[i] = byte(i * int(l.Seed+uint64(len(body))))
		}
		sum := sha256.Sum256(body)
		return f.fill(l, hex.EncodeToString(sum[:]), body)
	case 4:
		n := 1 + f.document(l.Dir)
		name := filepath.Join(l.Dir, "document")
		b := document(n)
		write := access.Replace
		if l.Defect == "in-place" {
			write = func(name string, b []byte) error { return os.WriteFile(name, b, 0o600) }
		}
		if err := write(name, b); err != nil {
			return err
		}
		l.promise("document", n)
	}
	return nil
}

// document is what a whole file holds that counts n.
func document(n int) []byte {
	return append(bytes.Repeat([]byte{byte('a' + n%26)}, documentLen), strconv.Itoa(n)...)
}

// document returns the number of the document in a directory: 0 without one, -1 for a torn one.
func (f *files) document(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "document"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	n, err := strconv.Atoi(string(b[min(len(b), documentLen):]))
	if err != nil || !bytes.Equal(b, document(n)) {
		return -1
	}
	return n
}

// fill puts a file into the cache in pieces, as a download does.
func (f *files) fill(l *life, sum string, body []byte) error {
	if _, err := f.cache.Lookup(sum); err == nil {
		return nil
	}
	p, err := f.cache.Partial(sum)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Restart(); err != nil {
		return err
	}
	if l.Defect == "uncommitted" { // told before it is there
		l.promise("cache."+sum, "there")
	}
	for len(body) > 0 {
		n := min(len(body), 16<<10)
		if _, err := p.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	if _, err := p.Commit(); err != nil {
		return err
	}
	l.promise("cache."+sum, "there")
	return nil
}

// copyFlash copies the flash files of a rack, but for the boot slots of trays.
func copyFlash(to, from string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range names {
		if !strings.HasSuffix(e.Name(), ".flash") && !strings.HasSuffix(e.Name(), ".provisioned") {
			continue
		}
		if out, err := exec.Command("cp", "--sparse=always", filepath.Join(from, e.Name()), filepath.Join(to, e.Name())).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}
