package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// An environment is what a command may touch of the outside, and the flags
// that all commands share.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	state          string // --state
	output         string // --output
	rack           string // --rack: address of a rack on the network
}

// outputs are the forms that --output takes.
var outputs = []string{"text", "wide", "json", "yaml"}

// run executes one command line and returns the process's exit code: 0 for
// success, 1 for a failure that was explained, 2 for a wrong command line.
func run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args []string) int {
	env := &environment{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRoot(env)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var silent exitCode
	if errors.As(err, &silent) {
		return int(silent)
	}
	fmt.Fprintf(stderr, "racklet: error: %v\n", err)
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(stderr, "racklet: hint: %s\n", hint)
	}
	var usage *usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command ") { // cobra's own, without a type
		return 2
	}
	return 1
}

// newRoot builds the command tree over env.
func newRoot(env *environment) *cobra.Command {
	cobra.EnableCommandSorting = false // the order of commands is the order in which one meets them
	root := &cobra.Command{
		Use:           "racklet",
		Short:         "A data-centre rack small enough to carry, verified from its BMC to its pods",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if err := env.checkRemote(c); err != nil {
				return err
			}
			if !slices.Contains(outputs, env.output) {
				return &usageError{fmt.Errorf("--output %q: want one of %s", env.output, strings.Join(outputs, ", "))}
			}
			state, err := filepath.Abs(env.state)
			env.state = state
			return err
		},
	}
	root.PersistentFlags().StringVar(&env.state, "state", defaultState(), "`directory` that holds the rack's state; another one is another rack")
	root.PersistentFlags().StringVar(&env.rack, "rack", "", "`URL` of a rack on the network, https://HOST:PORT, to which one has logged in")
	root.PersistentFlags().StringVarP(&env.output, "output", "o", "text", "form of the result: text, wide, json or yaml")
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	root.MarkPersistentFlagDirname("state")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (racklet help%s)", err, strings.TrimPrefix(c.CommandPath(), "racklet"))}
	})
	root.AddGroup(
		&cobra.Group{ID: "rack", Title: "Run a virtual rack:"},
		&cobra.Group{ID: "operate", Title: "See and operate it:"},
		&cobra.Group{ID: "repository", Title: "Say what it shall run:"},
	)
	root.AddCommand(commands(env)...)
	return root
}

// commands are all top-level commands, in the order of the help.
func commands(env *environment) []*cobra.Command {
	return []*cobra.Command{
		newUp(env), newDown(env), newReset(env), newSimulate(env), newFault(env), newTour(env), newLab(env), newCache(env),
		newStatus(env), newWatch(env), newWhy(env), newEvents(env), newUnit(env), newRack(env), newAccount(env), newAPI(env), newLogin(env), newLogout(env), newCapture(env),
		newKubectl(env), newKubeconfig(env), newTrust(env), newNet(env),
		newInit(env), newValidate(env), newSign(env), newHardware(env),
		newVersion(env),
	}
}

// defaultState is the directory of the rack that is meant when none is named:
// below the user's state directory as the XDG Base Directory Specification has it.
func defaultState() string {
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ".racklet"
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "racklet", "default")
}

// exitCode ends the program without another word: the command has said it all.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// A usageError is a command line that cannot be right.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// A hintedError carries what to do about it.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// hint adds what to do to an error.
func hint(err error, format string, args ...any) error {
	return &hintedError{err, fmt.Sprintf(format, args...)}
}

func hintFor(err error) string {
	var h *hintedError
	var r *redfishError
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.Is(err, errNoRack):
		return "start one with: racklet up"
	case errors.As(err, &r):
		return r.Resolution
	}
	return ""
}

// print writes a result in the form asked for: v as JSON or YAML, or what text
// writes. The YAML form has the JSON form's names.
func (env *environment) print(v any, text func(io.Writer) error) error {
	switch env.output {
	case "json":
		e := json.NewEncoder(env.stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "yaml":
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var node yaml.Node // JSON is YAML; decoding into a node keeps the order
		if err := yaml.Unmarshal(b, &node); err != nil {
			return err
		}
		blockStyle(&node)
		e := yaml.NewEncoder(env.stdout)
		e.SetIndent(2)
		if err := e.Encode(&node); err != nil {
			return err
		}
		return e.Close()
	}
	return text(env.stdout)
}

// blockStyle drops JSON's braces and quotes.
func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}
