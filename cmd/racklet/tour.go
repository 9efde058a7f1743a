package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
)

// A stop of the tour: something to read, something that breaks, and what must come of it.
type stop struct {
	title, text string
	commands    []string // to type oneself
	show        [][]string
	faults      []rack.FaultSpec
	undo        []rack.FaultSpec // heals what does not heal by itself
	replay      string           // the kind of fault that is taken out of the record
	expect      []rack.Expectation
	length      time.Duration // at most
}

func newTour(env *environment) *cobra.Command {
	var yes bool
	var from int
	c := &cobra.Command{
		Use:     "tour",
		GroupID: "rack",
		Short:   "Five minutes: look inside the rack, break it, and watch it heal",
		Long: `Tour goes through the rack of the state directory in a few steps; if none is running, it starts one with one unit. Each step
says what to look at and which commands to type oneself, waits for Enter, breaks something, checks what came of it, and
heals it. Leave with Ctrl-C: what is broken heals; come back with --from. With --unattended nobody is waited for, as in a test.`,
		Example: "  racklet tour\n  racklet tour --from 4\n  racklet tour --unattended",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return env.tour(c.Context(), yes, from) },
	}
	c.Flags().BoolVarP(&yes, "unattended", "y", false, "do not wait between steps")
	c.Flags().IntVar(&from, "from", 1, "begin at this `step`")
	return c
}

func (env *environment) tour(ctx context.Context, yes bool, from int) error {
	if n := len(tourStops("unit-1")); from < 1 || from > n {
		return &usageError{fmt.Errorf("--from %d: want 1 to %d", from, n)}
	}
	var none []fault.Active
	switch err := env.simCall(ctx, http.MethodGet, "/sim/v1/faults", nil, &none); {
	case errors.Is(err, errNoRack):
		fmt.Fprintln(env.stdout, "No rack is running here. This starts one, with one unit; the first boot takes a minute or two.")
		if err := env.up(ctx, &upOptions{units: 1, timeout: 15 * time.Minute}); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	client, err := env.client()
	if err != nil {
		return err
	}
	names, err := unitNames(ctx, client)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("this rack has no units to show")
	}
	stops := tourStops(names[0])
	in := bufio.NewReader(env.stdin)
	f, ok := env.stdin.(*os.File)
	wait := !yes && ok && term.IsTerminal(int(f.Fd()))
	defer env.simCall(context.WithoutCancel(ctx), http.MethodDelete, "/sim/v1/faults", nil, nil) // nothing stays broken
	for i := from - 1; i < len(stops); i++ {
		s := &stops[i]
		fmt.Fprintf(env.stdout, "\n%d of %d  %s\n\n%s\n\nTo type yourself, in another terminal:\n", i+1, len(stops), strings.ToUpper(s.title), wrapped(s.text, env.width()))
		for _, c := range s.commands {
			fmt.Fprintf(env.stdout, "  %s\n", asTyped(c))
		}
		if wait {
			fmt.Fprint(env.stdout, "\nEnter goes on, Ctrl-C ends. ")
			if err := readLine(ctx, in); err != nil {
				fmt.Fprintf(env.stdout, "\nGo on later with: %s\n", asTyped(fmt.Sprintf("racklet tour --from %d", i+1)))
				return nil
			}
		}
		if err := env.visit(ctx, s, i+1); err != nil {
			fmt.Fprintf(env.stdout, "\nGo on with: %s\n", asTyped(fmt.Sprintf("racklet tour --from %d", i+1)))
			return err
		}
	}
	fmt.Fprintf(env.stdout, "\n%s\n", wrapped("That was the tour. "+names[0]+" is started once more, so that its BMC trusts both slots again.", env.width()))
	if code := run(ctx, env.stdin, io.Discard, env.stderr, []string{"unit", "power", "cycle", names[0], "--state", env.state}); code != 0 {
		return exitCode(code)
	}
	fmt.Fprintf(env.stdout, "More:\n  %s\n  %s\n", asTyped("racklet fault kinds"), asTyped("racklet fault storm --seed 7 --minutes 5"))
	return nil
}

// asTyped is a command as this program was called: who runs bin/racklet has no racklet on the path.
func asTyped(command string) string {
	if name := os.Args[0]; strings.Contains(name, "/") && !filepath.IsAbs(name) {
		return strings.Replace(command, "racklet", name, 1)
	}
	return command
}

// width is that of the terminal, at most what reads well.
func (env *environment) width() int {
	const most = 100
	if f, ok := env.stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			return min(w, most)
		}
	}
	return most
}

// wrapped breaks text between words.
func wrapped(text string, width int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// readLine waits for Enter, or for the end of ctx.
func readLine(ctx context.Context, in *bufio.Reader) error {
	done := make(chan error, 1)
	go func() { _, err := in.ReadString('\n'); done <- err }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// visit does what a stop is about, and checks it.
func (env *environment) visit(ctx context.Context, s *stop, n int) error {
	for _, args := range s.show {
		fmt.Fprintln(env.stdout)
		if code := run(ctx, env.stdin, env.stdout, env.stderr, append(args, "--state", env.state)); code != 0 {
			return fmt.Errorf("racklet %s: exit code %d", strings.Join(args, " "), code)
		}
	}
	if len(s.expect) == 0 {
		return nil
	}
	faults := s.faults
	if s.replay != "" {
		again, err := env.recorded(ctx, s.replay)
		if err != nil {
			return err
		}
		faults = again
	}
	fmt.Fprintln(env.stdout)
	told := map[int]bool{}
	outcomes, err := env.followOnRack(ctx, &rack.Scenario{
		TypeMeta: rack.TypeMeta{APIVersion: rack.APIVersion, Kind: rack.KindScenario}, Metadata: rack.Metadata{Name: fmt.Sprintf("tour-%d", n)},
		Spec: rack.ScenarioSpec{Teaches: "A step of the tour.", Needs: rack.NeedsMachines, Length: rack.Duration(s.length), Ends: rack.EndsSettled, Faults: faults, Expect: s.expect}}, func(o *fault.Outcome) {
		for i, c := range o.Checks {
			mark, decided := map[string]string{"passed": "✓", "failed": "✗"}[c.State]
			if decided && !told[i] {
				told[i] = true
				fmt.Fprintf(env.stdout, "  %s %-30s after %5.1f s  %s\n", mark, c.That, c.At, c.Why)
			}
		}
	})
	for _, f := range s.undo {
		err = errors.Join(err, env.simCall(context.WithoutCancel(ctx), http.MethodPost, "/sim/v1/faults", &f, nil))
	}
	if err != nil {
		return err
	}
	if outcomes[0].Failed() {
		if err := writeOutcomes(env.stdout, outcomes); err != nil {
			return err
		}
		return errors.New("the rack did not react as it should")
	}
	return nil
}

// recorded is the last fault of a kind in the record of the rack, as it was.
func (env *environment) recorded(ctx context.Context, kind string) ([]rack.FaultSpec, error) {
	var record []fault.Entry
	if err := env.simCall(ctx, http.MethodGet, "/sim/v1/faults/record", nil, &record); err != nil {
		return nil, err
	}
	for _, f := range slices.Backward(fault.Recorded(record)) {
		if f.Kind == kind {
			f.At = 0
			return []rack.FaultSpec{f}, nil
		}
	}
	return nil, fmt.Errorf("nothing to replay: no %s is in the record of this rack (racklet fault record)", kind)
}

// tourStops are the stops, told about one unit.
func tourStops(unit string) []stop {
	seconds := func(n int) rack.Duration { return rack.Duration(time.Duration(n) * time.Second) }
	expect := func(that string, after, within int, why string) rack.Expectation {
		return rack.Expectation{That: that, After: seconds(after), Within: seconds(within), Why: why}
	}
	always := func(that string, length int, why string) rack.Expectation {
		return rack.Expectation{That: that, For: seconds(length), Why: why}
	}
	on := func(kind, target string, at, length int) rack.FaultSpec {
		return rack.FaultSpec{Kind: kind, Target: target, At: seconds(at), For: seconds(length)}
	}
	once := func(kind, target string, with ...string) rack.FaultSpec {
		f := rack.FaultSpec{Kind: kind, Target: target, With: map[string]string{}}
		for i := 0; i < len(with); i += 2 {
			f.With[with[i]] = with[i+1]
		}
		return f
	}
	flip := once("flash-flip", unit, "offset", "1000000B")
	return []stop{
		{title: "look inside", text: `A rack in small: a supply, two fans, a rack controller (RMC), and in each tray a BMC that decides
what its unit may boot. The unit below really booted, and verified its state and its system on the way.`,
			commands: []string{"racklet status", "racklet watch", "racklet unit console " + unit}, show: [][]string{{"status"}}},
		{title: "a flipped bit", text: `One bit of the boot flash flips, and the tray is pulled and pushed in. The BMC checks every chunk as
it serves it, refuses the bad one by name, distrusts the slot, and boots the other. This takes a boot.`,
			commands: []string{"racklet fault inject flash-flip " + unit + " --with offset=1000000B", "racklet unit power cycle " + unit, "racklet why " + unit},
			faults:   []rack.FaultSpec{flip, on("tray-pulled", unit, 1, 1)}, undo: []rack.FaultSpec{flip}, length: 4 * time.Minute,
			expect: []rack.Expectation{expect(unit+".log = slot.chunk", 1, 60, "refused by name"), expect(unit+".slot = b", 3, 120, "the other slot"),
				expect(unit+".stage = running", 6, 200, "and it runs")}},
		{title: "a pulled tray", text: `The bit has flipped back. Now the tray is pulled for good: its power is gone at once. Pushed in, it returns by
itself to what the owners signed. From slot B still: the BMC trusts slot A again when an operator orders a start.`,
			commands: []string{"racklet fault inject tray-pulled " + unit + " --for 5s", "racklet unit log " + unit, "racklet unit power cycle " + unit},
			faults:   []rack.FaultSpec{on("tray-pulled", unit, 0, 2)}, length: 4 * time.Minute,
			expect: []rack.Expectation{expect(unit+".rail = off", 0, 1, "the tray is out"), expect(unit+".stage = running", 5, 200, "back by itself")}},
		{title: "a cut cable", text: `The network cable of ` + unit + ` is cut for some seconds. It has booted and verified already, so it needs nobody.`,
			commands: []string{"racklet fault inject link-cut " + unit + " --for 8s", "racklet capture --port " + unit + " --write cable.pcapng"},
			faults:   []rack.FaultSpec{on("link-cut", unit, 0, 6)}, length: 30 * time.Second,
			expect: []rack.Expectation{always(unit+".rail = on", 8, "power needs no network"), always(unit+".available = true", 8, "nor does the management")}},
		{title: "a stuck fan", text: `Fan 1 stands still for some seconds. The RMC sees it by the tachometer and runs the other one at full
speed: it does not know how much air is left.`,
			commands: []string{"racklet fault inject fan-stuck fan-1 --for 12s", "racklet events --follow"},
			faults:   []rack.FaultSpec{on("fan-stuck", "fan-1", 0, 8)}, length: time.Minute,
			expect: []rack.Expectation{expect("rack.failsafe = true", 0, 8, "noticed"), expect("fan-2.duty >= 99%", 0, 8, "fails to the safe side"), expect("rack.failsafe = false", 9, 30, "healed")}},
		{title: "a silent BMC", text: `The BMC of ` + unit + ` hangs. Nobody believes what it said before: it is unavailable, with its age. Its
unit runs on.`,
			commands: []string{"racklet fault inject bmc-hang " + unit + " --for 10s", "racklet status -o wide"},
			faults:   []rack.FaultSpec{on("bmc-hang", unit, 0, 8)}, length: time.Minute,
			expect: []rack.Expectation{expect(unit+".available = false", 0, 8, "noticed"), always(unit+".rail = on", 8, "the unit runs on"), expect(unit+".available = true", 9, 30, "healed")}},
		{title: "a stolen key", text: `A thief has the device key of ` + unit + `'s BMC and signs a statement that would raise its floor. Only the
owners' keys can: the BMC refuses and says so.`,
			commands: []string{"racklet fault inject unit-key-stolen " + unit, "racklet unit log " + unit},
			faults:   []rack.FaultSpec{on("unit-key-stolen", unit, 0, 2)}, length: 30 * time.Second,
			expect: []rack.Expectation{expect(unit+".log = floor.statement", 0, 5, "refused by name")}},
		{title: "play it again", text: `All that was broken is recorded, with its times. It can be kept as a file, given expectations, and
replayed. Here the stuck fan comes once more, out of the record.`,
			commands: []string{"racklet fault record --write mine.yaml", "racklet fault replay mine.yaml"}, replay: "fan-stuck", length: time.Minute,
			expect: []rack.Expectation{expect("rack.failsafe = true", 0, 8, "noticed as before"), expect("rack.failsafe = false", 9, 30, "healed as before")}},
	}
}
