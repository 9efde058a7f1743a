package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// A lab is an exercise for students on their own virtual rack. Its text is in labs/NAME.md.
type lab struct {
	Name    string `json:"name"`
	Minutes int    `json:"minutes"`
	Teaches string `json:"teaches"`
	Needs   string `json:"needs,omitempty"` // what is not there yet; such a lab cannot be started

	start func(ctx context.Context, r *labRun) error
	// check returns nil for a right answer and a *wrongAnswer for any other.
	check func(ctx context.Context, r *labRun, answer []string) error
	clean func(ctx context.Context, r *labRun) error
}

//go:embed labs
var labTexts embed.FS

// labs are all labs, in the order in which one would do them.
func labs() []*lab {
	return []*lab{
		{Name: "fan", Minutes: 10, Teaches: "telemetry: what is asked for, and what comes of it", start: startFan, check: checkFan, clean: cleanFan},
		{Name: "energy", Minutes: 10, Teaches: "counters and readings", start: startEnergy, check: checkEnergy},
		{Name: "liar", Minutes: 15, Teaches: "sensors that fail silently", start: startLiar, check: checkLiar, clean: cleanLiar},
		{Name: "boot", Minutes: 20, Teaches: "verified boot, and reading a refusal", start: startBoot, check: checkBoot, clean: cleanBoot},
		{Name: "replay", Minutes: 25, Teaches: "rollback and floors", start: startReplay, check: checkReplay, clean: cleanReplay},
		{Name: "owner-key", Minutes: 25, Teaches: "threshold signatures, and going on without a key", start: startOwnerKey, check: checkOwnerKey, clean: cleanOwnerKey},
		{Name: "scenario", Minutes: 40, Teaches: "repeatable experiments", start: startScenario, check: checkScenario},
		{Name: "tray", Minutes: 40, Teaches: "services that outlive a machine", Needs: "Kubernetes"},
	}
}

func findLab(name string) (*lab, error) {
	for _, l := range labs() {
		if l.Name == name {
			return l, nil
		}
	}
	return nil, &usageError{fmt.Errorf("there is no lab %q (racklet lab list)", name)}
}

// mostTries is how often one may answer before the lab begins anew with another question.
const mostTries = 5

// labState is what is kept of the lab that was started. It does not hold the answer: that follows from Nonce and from the
// rack's own secret, or from what the rack says.
type labState struct {
	Lab   string            `json:"lab"`
	Nonce string            `json:"nonce"`
	Tries int               `json:"tries"`
	Hints int               `json:"hints"`
	Done  bool              `json:"done"`
	Data  map[string]string `json:"data"` // what the text names, and what the clean-up needs
}

// A labRun is a lab under way.
type labRun struct {
	env    *environment
	layout layout
	lab    *lab
	state  labState
}

func (l layout) lab() string { return filepath.Join(l.state, "lab.json") }

// A wrongAnswer says what is wrong with an answer, as far as a student may know.
type wrongAnswer struct{ what string }

func (e *wrongAnswer) Error() string { return "not right: " + e.what }

func wrong(format string, args ...any) error { return &wrongAnswer{fmt.Sprintf(format, args...)} }

// random is the lab's source of chance: the same for a rack and a start, and unknown to who reads the lab's file.
func (r *labRun) random() (*mathrand.Rand, error) {
	secret, err := os.ReadFile(filepath.Join(r.layout.sim(), "githost", "tls.key"))
	if err != nil {
		return nil, errNoRack
	}
	sum := sha256.Sum256(append([]byte("lab "+r.state.Lab+" "+r.state.Nonce+" "), secret...))
	return mathrand.New(mathrand.NewPCG(binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:]))), nil
}

// text is the brief and the hints, about this rack.
func (r *labRun) text() (title, brief string, hints []string, err error) {
	b, err := labTexts.ReadFile("labs/" + r.lab.Name + ".md")
	if err != nil {
		return "", "", nil, err
	}
	text := string(b)
	for name, value := range r.state.Data {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	parts := strings.Split(text, "## hint\n")
	title, brief, _ = strings.Cut(parts[0], "\n")
	for _, h := range parts[1:] {
		hints = append(hints, strings.TrimSpace(h))
	}
	return title, strings.TrimSpace(brief), hints, nil
}

// openLab reads the lab that is under way.
func (env *environment) openLab() (*labRun, error) {
	r := &labRun{env: env, layout: layout{env.state}}
	err := readJSON(r.layout.lab(), &r.state)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hint(errors.New("no lab is under way"), "see what there is: racklet lab list; begin: racklet lab start NAME")
	}
	if err != nil {
		return nil, err
	}
	r.lab, err = findLab(r.state.Lab)
	return r, err
}

func (r *labRun) keep() error { return writeJSON(r.layout.lab(), r.state) }

func newLab(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "lab",
		GroupID: "rack",
		Short:   "Exercises on your own rack, with hints and a check",
		Long: `Lab breaks or changes something in the virtual rack of the state directory, asks what it was, and checks the answer. There
is one lab at a time; reset heals what it broke. Each start asks something else.`,
		Example: "  racklet lab list\n  racklet lab start fan\n  racklet lab hint\n  racklet lab check fan-1 30\n  racklet lab reset",
	}
	c.AddCommand(newLabList(env), newLabStart(env), newLabHint(env), newLabCheck(env), newLabReset(env))
	return c
}

func newLabList(env *environment) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the labs", Example: "  racklet lab list\n  racklet lab list -o json", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all := labs()
			return env.print(all, func(w io.Writer) error {
				for _, l := range all {
					r := labRun{env: env, lab: l}
					title, _, _, err := r.text()
					if err != nil {
						return err
					}
					needs := ""
					if l.Needs != "" {
						needs = "; needs " + l.Needs
					}
					fmt.Fprintf(w, "%-10s %3d min  %s (%s%s)\n", l.Name, l.Minutes, title, l.Teaches, needs)
				}
				return nil
			})
		},
	}
}

// labShown is what start and hint print.
type labShown struct {
	Lab   string   `json:"lab"`
	Title string   `json:"title"`
	Brief string   `json:"brief"`
	Hints []string `json:"hints"` // that were asked for
	Of    int      `json:"of"`    // hints there are
}

func (r *labRun) show(onlyHint bool) error {
	title, brief, hints, err := r.text()
	if err != nil {
		return err
	}
	s := labShown{r.lab.Name, title, brief, append([]string{}, hints[:min(r.state.Hints, len(hints))]...), len(hints)}
	return r.env.print(s, func(w io.Writer) error {
		if onlyHint {
			_, err := fmt.Fprintf(w, "Hint %d of %d: %s\n", len(s.Hints), s.Of, s.Hints[len(s.Hints)-1])
			return err
		}
		_, err := fmt.Fprintf(w, "%s\n\n%s\n\nStuck? racklet lab hint (%d there are). Give up, or done: racklet lab reset\n", strings.ToUpper(title), brief, s.Of)
		return err
	})
}

func newLabStart(env *environment) *cobra.Command {
	return &cobra.Command{
		Use: "start NAME", Short: "Begin a lab", Example: "  racklet lab start fan", Args: exactArgs("NAME"),
		Long:              "Start prepares the rack and says what there is to find out. The rack must run: racklet up.",
		ValidArgsFunction: completeLabs,
		RunE: func(c *cobra.Command, args []string) error {
			l, err := findLab(args[0])
			if err != nil {
				return err
			}
			if l.Needs != "" {
				return fmt.Errorf("lab %s needs %s, which this rack does not have yet", l.Name, l.Needs)
			}
			if old, err := env.openLab(); err == nil {
				return hint(fmt.Errorf("lab %s is under way", old.lab.Name), "end it first: racklet lab reset")
			}
			nonce := make([]byte, 16)
			rand.Read(nonce)
			r := &labRun{env: env, layout: layout{env.state}, lab: l, state: labState{Lab: l.Name, Nonce: hex.EncodeToString(nonce), Data: map[string]string{}}}
			if _, err := readStatusOf(c.Context(), env); err != nil {
				return err
			}
			// Kept before and after: what is half done can be undone.
			if err := r.keep(); err != nil {
				return err
			}
			if err := l.start(c.Context(), r); err != nil {
				return errors.Join(err, r.end(context.WithoutCancel(c.Context())))
			}
			if err := r.keep(); err != nil {
				return err
			}
			return r.show(false)
		},
	}
}

func completeLabs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, l := range labs() {
		if len(args) == 0 && l.Needs == "" {
			names = append(names, l.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newLabHint(env *environment) *cobra.Command {
	return &cobra.Command{
		Use: "hint", Short: "Print the next hint", Example: "  racklet lab hint", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := env.openLab()
			if err != nil {
				return err
			}
			_, _, hints, err := r.text()
			if err != nil {
				return err
			}
			r.state.Hints = min(r.state.Hints+1, len(hints))
			if err := r.keep(); err != nil {
				return err
			}
			return r.show(true)
		},
	}
}

// labChecked is what check prints.
type labChecked struct {
	Lab   string `json:"lab"`
	Right bool   `json:"right"`
	Why   string `json:"why,omitempty"` // not
	Tries int    `json:"tries"`
	Hints int    `json:"hints"` // that were asked for
}

func newLabCheck(env *environment) *cobra.Command {
	return &cobra.Command{
		Use: "check [ANSWER]...", Short: "Check an answer", Example: "  racklet lab check fan-2 35\n  racklet lab check mine.yaml",
		Long: fmt.Sprintf("Check says whether an answer is right, and ends with 1 when it is not. After %d wrong answers the lab has to be started\nagain, with another question.", mostTries),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := env.openLab()
			if err != nil {
				return err
			}
			if r.state.Tries >= mostTries && !r.state.Done {
				return hint(fmt.Errorf("that were %d wrong answers", mostTries), "begin anew, with another question: racklet lab reset; racklet lab start %s", r.lab.Name)
			}
			err = r.lab.check(c.Context(), r, args)
			var no *wrongAnswer
			if err != nil && !errors.As(err, &no) {
				return err
			}
			if r.state.Done = r.state.Done || err == nil; err != nil {
				r.state.Tries++
			}
			if err := r.keep(); err != nil {
				return err
			}
			result := labChecked{Lab: r.lab.Name, Right: err == nil, Tries: r.state.Tries, Hints: r.state.Hints}
			if no != nil {
				result.Why = no.what
			}
			if err := env.print(result, func(w io.Writer) error {
				if result.Right {
					_, err := fmt.Fprintf(w, "Right! (%s, %s)\nHeal the rack: racklet lab reset\n", count(result.Tries, "wrong answer"), count(result.Hints, "hint"))
					return err
				}
				_, err := fmt.Fprintf(w, "Not right: %s. %s left.\n", result.Why, count(mostTries-result.Tries, "answer"))
				return err
			}); err != nil {
				return err
			}
			if !result.Right {
				return exitCode(1)
			}
			return nil
		},
	}
}

func newLabReset(env *environment) *cobra.Command {
	return &cobra.Command{
		Use: "reset", Short: "End the lab and heal what it broke", Example: "  racklet lab reset", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := env.openLab()
			if err != nil {
				return err
			}
			if err := r.end(c.Context()); err != nil {
				return err
			}
			return env.print(map[string]string{"ended": r.lab.Name}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Lab %s has ended; the rack is as before.\n", r.lab.Name)
				return err
			})
		},
	}
}

// end cleans up and forgets the lab; when that cannot be done it stays, to be tried again.
func (r *labRun) end(ctx context.Context) error {
	if r.lab.clean != nil {
		if err := r.lab.clean(ctx, r); err != nil {
			return fmt.Errorf("heal the rack after lab %s: %w", r.lab.Name, err)
		}
	}
	return os.Remove(r.layout.lab())
}
