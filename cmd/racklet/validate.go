package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack/manifest"
)

// validation is the result of `racklet validate`; its JSON is documented and stable.
type validation struct {
	Valid    bool              `json:"valid"`
	Errors   []*manifest.Error `json:"errors"`
	Rack     string            `json:"rack,omitempty"`
	Units    int               `json:"units"`
	Releases int               `json:"releases"`
	Policies int               `json:"policies"`
}

func newValidate(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "validate DIR",
		GroupID: "repository",
		Short:   "Check a rack repository, offline",
		Long: `Validate reads the objects in DIR/rack as strictly as a unit would: unknown and missing
fields, values out of range, slots taken twice, releases and policies that do not exist,
a power budget that the supply cannot meet. It reports all errors, each with file, line
and what is allowed, and exits with code 1 if there are any. It looks at the files as
they are on disk, committed or not, and at no signature.`,
		Example: `  racklet validate .
  racklet validate my-rack -o json`,
		Args: exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error { return env.validate(args[0]) },
	}
}

func (env *environment) validate(dir string) error {
	v, err := validateDir(dir)
	if err != nil {
		return err
	}
	if env.output == "json" || env.output == "yaml" || v.Valid {
		if err := env.print(v, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s is valid: rack %s, %s, %s, %s\n", dir, v.Rack, count(v.Units, "unit"), count(v.Releases, "release"), count(v.Policies, "policy"))
			return err
		}); err != nil {
			return err
		}
	}
	if v.Valid {
		return nil
	}
	reportInvalid(env.stderr, dir, v)
	return exitCode(1)
}

// validateDir checks the files of a directory. The error is for what could not
// be read.
func validateDir(dir string) (*validation, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory", dir)
	}
	set, err := manifest.Load(os.DirFS(dir))
	var invalid manifest.Errors
	switch {
	case errors.As(err, &invalid):
		return &validation{Errors: invalid}, nil
	case err != nil:
		return nil, err
	}
	return &validation{
		Valid: true, Errors: []*manifest.Error{},
		Rack: set.Rack.Metadata.Name, Units: len(set.Units), Releases: len(set.Releases), Policies: len(set.Thermal) + len(set.Power),
	}, nil
}

// reportInvalid writes one line per error, in a form that editors can jump to.
func reportInvalid(w io.Writer, dir string, v *validation) {
	for _, e := range v.Errors {
		at := *e
		at.File = filepath.Join(dir, e.File)
		fmt.Fprintf(w, "racklet: error: %v\n", &at)
	}
	fmt.Fprintf(w, "racklet: hint: %s in the rack's files; each line says what is allowed\n", count(len(v.Errors), "error"))
}

// count writes "1 unit", "4 units" or "2 policies".
func count(n int, noun string) string {
	if n != 1 {
		if stem, ok := strings.CutSuffix(noun, "y"); ok {
			noun = stem + "ie"
		}
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// exactArgs asks for arguments by their names.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return &usageError{fmt.Errorf("%s takes %s, not %s (racklet help%s)", c.CommandPath(), strings.Join(names, " and "),
			count(len(args), "argument"), strings.TrimPrefix(c.CommandPath(), "racklet"))}
	}
}
