package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// A tampering is one flipped byte and what must come of it.
type tampering struct {
	kind   string // what is flipped
	reason string // the refusal that must name it

	// spoil flips the byte and returns what flips it back; nil: the rack has healed itself.
	spoil func(t *testing.T, r *rack) (undo func())

	published bool // the byte is in what every unit fetches, so others keep away meanwhile
	blank     bool // the unit begins with an empty data disk
	end       end
}

// An end is how far a unit with a flipped byte may come.
type end int

const (
	stops    end = iota // stage 1 stops, nothing is handed over
	faulted             // no slot boots at all
	fallback            // the other slot boots
	replaced            // what is bad is fetched anew, and that boots
	accepted            // a good boot
)

func (e end) String() string {
	return [...]string{"nothing boots", "nothing boots, rail off", "slot B boots", "fetched anew", "boots"}[e]
}

// TestTamper flips one byte of each kind of thing that a boot depends on, on
// really booting units of one rack. The BMC's log must name each refusal, with
// what was expected and what was seen, and nothing that was refused may run; with
// the byte flipped back, the same unit must boot in the same run.
//
// The four units go through their lists side by side. A unit waits with its
// network cable out until what is published is as its own case wants it.
func TestTamper(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	bin := build(t)
	r := newRack(t, bin)
	r.up(t, 4)
	r.publishMore(t)

	v := r.volume(t)
	flash := func(unit int, offset int64) func(*testing.T, *rack) func() {
		return func(t *testing.T, r *rack) func() {
			flip := func() { r.flip(t, unit, "flash", offset, 2) }
			flip()
			return flip
		}
	}
	lists := [4][]tampering{
		{
			{kind: "slot manifest", reason: "slot.signature", end: fallback, spoil: flash(1, manifestA+4+200)},
			{kind: "slot manifest's length", reason: "slot.manifest", end: fallback, spoil: flash(1, manifestA+3)},
			roleFlip("metadata/timestamp.json", "timestamp", "tuf.timestamp"),
			roleFlip("metadata/2.targets.json", "targets", "tuf.targets"),
			metadataFlip("slot manifest in the metadata", "slots/*.slot", "slot.manifest", func([]byte) int { return 50 }),
			metadataFlip("rack.json", "targets/*.rack.json", "tuf.targets", behind(`"sequence":2,"tree":"sha256:`)),
		},
		{
			{kind: "slot chunk", reason: "slot.chunk", end: fallback, spoil: flash(2, v.initramfs+300_000)},
			{kind: "kernel in the slot", reason: "slot.chunk", end: fallback, spoil: flash(2, v.kernel+5_000_000)},
			roleFlip("metadata/2.root.json", "root", "tuf.root"),
			roleFlip("metadata/2.snapshot.json", "snapshot", "tuf.snapshot"),
			metadataFlip("floor statement", "floors/2.floor", "floor.statement", func([]byte) int { return 40 }),
			commitFlip("kexec on unit-3", "kexec on unit-2"),
		},
		{ // this one boots by kexec, which takes longest
			{kind: "both slots", reason: "slot.signature", end: faulted, spoil: func(t *testing.T, r *rack) func() {
				undoA, undoB := flash(3, v.kernel+5_000_000)(t, r), flash(3, manifestB+4+200)(t, r)
				return func() { undoA(); undoB() }
			}},
			{kind: "kernel of the OS (kexec)", reason: "os.kernel", published: true, spoil: blobFlip(kexecTag, layerKernel)},
			{kind: "initramfs of the OS (kexec)", reason: "os.blob", published: true, spoil: blobFlip(kexecTag, layerInitramfs)},
		},
		{
			{kind: "command line", reason: "slot.chunk", end: fallback, spoil: flash(4, v.cmdline)},
			{kind: "OS manifest", reason: "os.manifest", blank: true, published: true, spoil: blobFlip("", "manifest")},
			{kind: "root image on the mirror", reason: "os.root", blank: true, published: true, spoil: blobFlip("", layerRoot)},
			{kind: "root image on the data disk", reason: "os.verity", end: replaced, spoil: diskFlip(4)},
			objectFlip("tree", "main:rack/units", "unit-2.yaml", "unit-9.yaml", "rack.tree"),
			objectFlip("blob", "main:rack/units/unit-4.yaml", "memoryMiB: 512", "memoryMiB: 513", "rack.tree"),
		},
	}

	table := &table{}
	var units sync.WaitGroup // not t.Parallel, which has only as many at work as there are cores
	for i, list := range lists {
		u := fmt.Sprintf("unit-%d", i+1)
		units.Go(func() {
			t.Run(u, func(t *testing.T) {
				t.Run("untampered", func(t *testing.T) { r.untampered(t, u, list) })
				for _, c := range list {
					t.Run(c.kind, func(t *testing.T) {
						found := r.refuses(t, u, &c)
						r.accepts(t, u)
						table.add(&c, u, found)
					})
				}
			})
		})
	}
	units.Wait()
	t.Logf("%d times one flipped byte, refused and named, and the good one accepted after it\n%s", len(table.rows), table)
}

// refuses boots a unit with a flipped byte, and returns the log's entry that names the refusal.
func (r *rack) refuses(t *testing.T, u string, c *tampering) entry {
	t.Helper()
	r.off(t, u)
	if c.blank {
		r.blankDisk(t, u)
	}
	undo := func() {}
	defer func() { undo() }() // also when the test gives up half-way
	if !c.published {
		undo = sync.OnceFunc(c.spoil(t, r))
	}
	b := r.on(t, u)
	switch {
	case c.end == faulted: // it does not come to the network
	case c.published:
		b.await(t, "the network", reached("network"))
		r.spoilt(t, b, c)
	default:
		r.fetch(t, b)
	}
	b.await(t, "a refusal by "+c.reason, refused(c.reason))
	s := r.settled(t, b, c.end)
	undo()
	r.off(t, u)

	log := b.log(t)
	if err := verdict(log, c); err != nil {
		t.Fatalf("%v\n%s", err, lines(log))
	}
	if err := ended(s, c.end); err != nil {
		t.Fatalf("%v\n%s", err, lines(log))
	}
	i := slices.IndexFunc(log, func(e entry) bool { return e.Reason == c.reason })
	return log[i]
}

// spoilt lets a unit to a repository and a mirror with a flipped byte, until it has refused that.
func (r *rack) spoilt(t *testing.T, b *boot, c *tampering) {
	t.Helper()
	r.repository.Lock()
	defer r.repository.Unlock()
	defer c.spoil(t, r)()
	r.cable(t, b.unit, true)
	b.await(t, "a refusal by "+c.reason, refused(c.reason))
}

// accepts boots the same unit without any flipped byte.
func (r *rack) accepts(t *testing.T, u string) {
	t.Helper()
	r.off(t, u)
	b := r.on(t, u)
	r.fetch(t, b)
	s := r.settled(t, b, accepted)
	log := b.log(t)
	if err := clean(log); err != nil {
		t.Fatalf("good control: %v\n%s", err, lines(log))
	}
	if err := ended(s, accepted); err != nil {
		t.Fatalf("good control: %v\n%s", err, lines(log))
	}
}

// untampered shows that the verdict on a good boot is another one, for each of the cases.
func (r *rack) untampered(t *testing.T, u string, list []tampering) {
	r.accepts(t, u)
	b := &boot{rack: r, unit: u} // the whole log: neither of the two boots so far
	log := b.log(t)
	if len(log) < 10 {
		t.Fatalf("a log of %d entries shows nothing", len(log))
	}
	for _, c := range list {
		if err := verdict(log, &c); err == nil {
			t.Errorf("%s: an untampered boot passes for a refusal", c.kind)
		}
	}
}

// verdict is the assertion on the log of one boot with a flipped byte: the
// refusal is named, says what was expected and seen, and nothing ran that may not.
func verdict(log []entry, c *tampering) error {
	i := slices.IndexFunc(log, func(e entry) bool { return e.Reason == c.reason })
	if i < 0 {
		return fmt.Errorf("the BMC's log does not name %s", c.reason)
	}
	if e := log[i]; e.Expected == "" || e.Seen == "" || e.Expected == e.Seen {
		return fmt.Errorf("%s does not say what was expected and seen: %q, %q", c.reason, e.Expected, e.Seen)
	}
	for j, e := range log {
		if e.Kind != "stage" {
			continue
		}
		switch started := e.Stage == "os" || e.Stage == "running"; {
		case started && (c.end == stops || c.end == faulted):
			return fmt.Errorf("reached stage %s", e.Stage)
		case started && j < i:
			return fmt.Errorf("reached stage %s before it refused", e.Stage)
		case c.end == faulted && e.Stage != "powered" && e.Stage != "medium" && e.Stage != "off":
			return fmt.Errorf("reached stage %s", e.Stage)
		}
	}
	if c.end == fallback || c.end == replaced {
		return need(log, reached("running"), "the unit did not come up afterwards")
	}
	return nil
}

func need(log []entry, want func(entry) bool, complaint string) error {
	if !slices.ContainsFunc(log, want) {
		return fmt.Errorf("%s", complaint)
	}
	return nil
}

// ended compares the state in which a boot came to rest.
func ended(s *unitStatus, e end) error {
	good := false
	switch e {
	case stops:
		good = s.State == "running" && s.Stage == "failed" && s.Reason != "" && s.Release == ""
	case faulted:
		good = s.State == "faulted" && s.Reason != "" && s.Stage != "running"
	case fallback:
		good = s.Stage == "running" && s.BootSlot == "B" && s.FallbackSlot && s.Reason != ""
	case replaced:
		good = s.Stage == "running" && s.BootSlot == "A" && !s.FallbackSlot
	case accepted:
		good = s.State == "running" && s.Stage == "running" && s.BootSlot == "A" && !s.FallbackSlot && s.Reason == ""
	}
	if !good {
		return fmt.Errorf("want %v; the unit is %+v", e, s)
	}
	return nil
}

// clean is the assertion on the log of a good boot. That a unit waited for its cable is no refusal.
func clean(log []entry) error {
	for _, e := range log {
		if e.Reason != "" && e.Reason != "network.no-carrier" {
			return fmt.Errorf("refused: %s", e.Message)
		}
	}
	return nil
}

// table is what the run has shown.
type table struct {
	mu   sync.Mutex
	rows []row
}

type row struct{ kind, reason, where, end, unit string }

func (l *table) add(c *tampering, unit string, e entry) {
	where := "stage 1"
	switch {
	case e.Kind == "slot":
		where = "BMC"
	case c.reason == "os.verity":
		where = "kernel (dm-verity), told by stage 1"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, row{c.kind, e.Reason, where, c.end.String(), unit})
}

func (l *table) String() string {
	slices.SortFunc(l.rows, func(a, b row) int { return strings.Compare(a.where+a.reason+a.kind, b.where+b.reason+b.kind) })
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "flipped byte in\treason\trefused by\tthen\ton")
	for _, r := range l.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.kind, r.reason, r.where, r.end, r.unit)
	}
	w.Flush()
	return b.String()
}

// TestVerdict shows that the verdict can fail in each way, without booting anything.
func TestVerdict(t *testing.T) {
	stage := func(s string) entry { return entry{Kind: "stage", Stage: s} }
	named := entry{Kind: "failure", Reason: "tuf.root", Expected: "2 signatures", Seen: "0"}
	for _, tt := range []struct {
		name string
		end  end
		log  []entry
		ok   bool
	}{
		{"refused", stops, []entry{stage("source"), named, stage("failed")}, true},
		{"nothing logged", stops, nil, false},
		{"a good boot", stops, []entry{stage("source"), stage("os"), stage("running")}, false},
		{"another reason", stops, []entry{{Reason: "tuf.targets", Expected: "a", Seen: "b"}}, false},
		{"nothing expected", stops, []entry{{Reason: "tuf.root", Seen: "b"}}, false},
		{"nothing seen", stops, []entry{{Reason: "tuf.root", Expected: "a"}}, false},
		{"seen as expected", stops, []entry{{Reason: "tuf.root", Expected: "a", Seen: "a"}}, false},
		{"refused, and runs all the same", stops, []entry{named, stage("os"), stage("running")}, false},
		{"refused too late", replaced, []entry{stage("os"), named, stage("running")}, false},
		{"fetched anew", replaced, []entry{named, stage("os"), stage("running")}, true},
		{"not fetched anew", replaced, []entry{named}, false},
		{"other slot", fallback, []entry{stage("medium"), named, stage("medium"), stage("running")}, true},
		{"no slot", faulted, []entry{stage("medium"), named}, true},
		{"no slot, yet a kernel", faulted, []entry{named, stage("bootstrap")}, false},
	} {
		err := verdict(tt.log, &tampering{reason: "tuf.root", end: tt.end})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v, want accepted = %v", tt.name, err, tt.ok)
		}
	}
	if clean([]entry{stage("running"), named}) == nil || clean([]entry{stage("running")}) != nil {
		t.Error("a good boot and one with a refusal look the same")
	}
	for _, tt := range []struct {
		end end
		s   unitStatus
		ok  bool
	}{
		{stops, unitStatus{State: "running", Stage: "failed", Reason: "tuf.root"}, true},
		{stops, unitStatus{State: "running", Stage: "running"}, false},
		{faulted, unitStatus{State: "faulted", Reason: "slot.chunk"}, true},
		{faulted, unitStatus{State: "running", Stage: "failed", Reason: "slot.chunk"}, false},
		{fallback, unitStatus{State: "running", Stage: "running", BootSlot: "B", FallbackSlot: true, Reason: "slot.chunk"}, true},
		{fallback, unitStatus{State: "running", Stage: "running", BootSlot: "A"}, false},
		{accepted, unitStatus{State: "running", Stage: "running", BootSlot: "A"}, true},
		{accepted, unitStatus{State: "running", Stage: "running", BootSlot: "A", Reason: "os.verity"}, false},
		{accepted, unitStatus{State: "running", Stage: "running", BootSlot: "B", FallbackSlot: true}, false},
	} {
		if err := ended(&tt.s, tt.end); (err == nil) != tt.ok {
			t.Errorf("%v, %+v: %v", tt.end, tt.s, err)
		}
	}
}

// TestFlipByte shows that the helper changes one byte and takes it back.
func TestFlipByte(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("abcdef"), 0o444); err != nil {
		t.Fatal(err)
	}
	undo := flipByte(t, name, 2)
	if b, _ := os.ReadFile(name); string(b) != "abbdef" {
		t.Errorf("flipped: %q", b)
	}
	undo()
	if b, _ := os.ReadFile(name); string(b) != "abcdef" {
		t.Errorf("flipped back: %q", b)
	}
}
