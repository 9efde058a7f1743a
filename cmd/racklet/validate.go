package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/source"
)

// validation is the result of `racklet validate`; its JSON is documented and stable.
type validation struct {
	Valid    bool              `json:"valid"`
	Errors   []*manifest.Error `json:"errors"`
	Rack     string            `json:"rack,omitempty"`
	Units    int               `json:"units"`
	Releases int               `json:"releases"`
	Policies int               `json:"policies"`
	Verified *verification     `json:"verified,omitempty"` // with --trust
	Refused  *refusal          `json:"refused,omitempty"`  // with --trust: why units refuse it
}

// verification is what a unit would accept of a repository.
type verification struct {
	Commit   string    `json:"commit"`
	Sequence uint64    `json:"sequence"`
	Expires  time.Time `json:"expires"`
	Signers  []string  `json:"signers"`
	Pending  *refusal  `json:"pending,omitempty"` // why something newer is not in force
}

// refusal is a failed check, with the cure that package rack knows.
type refusal struct {
	Check    string `json:"check"`
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
	Cure     string `json:"cure"`
}

func newRefusal(r *source.Refusal) *refusal {
	if r == nil {
		return nil
	}
	reason, _ := rack.LookupReason(r.Check)
	return &refusal{r.Check, r.Expected, r.Seen, reason.Cure}
}

func (r *refusal) text(w io.Writer) {
	fmt.Fprintf(w, "  check     %s\n  expected  %s\n  seen      %s\n  cure      %s\n", r.Check, r.Expected, r.Seen, r.Cure)
}

func newValidate(env *environment) *cobra.Command {
	var trust, url string
	c := &cobra.Command{
		Use:     "validate DIR",
		GroupID: "repository",
		Short:   "Check a rack repository, offline",
		Long: `Validate reads the objects in DIR/rack as strictly as a unit would: unknown and missing
fields, values out of range, slots taken twice, releases and policies that do not exist,
a power budget that the supply cannot meet. It reports all errors, each with file, line
and what is allowed, and exits with code 1 if there are any. It looks at the files as
they are on disk, committed or not.

With --trust it also verifies what is published in DIR as a unit would that was
provisioned with that root: signatures, sequence, commit, tree. It says what units
accept, and why not something newer.`,
		Example: `  racklet validate .
  racklet validate my-rack -o json
  racklet validate my-rack --trust my-rack-keys/root.json`,
		Args: exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error { return env.validate(args[0], trust, url) },
	}
	c.Flags().StringVar(&trust, "trust", "", "`file` with the TUF root metadata that units trust")
	c.Flags().StringVar(&url, "repo", builtinRepository, "`URL` that units fetch the repository from (with --trust)")
	c.MarkFlagFilename("trust", "json")
	return c
}

func (env *environment) validate(dir, trust, url string) error {
	v, err := validateDir(dir)
	if err != nil {
		return err
	}
	if trust != "" && v.Valid {
		if err := v.verify(dir, trust, url, time.Now()); err != nil {
			return err
		}
	}
	if env.output == "json" || env.output == "yaml" || v.Valid {
		if err := env.print(v, func(w io.Writer) error { return v.text(w, dir) }); err != nil {
			return err
		}
	}
	switch {
	case !v.Valid:
		reportInvalid(env.stderr, dir, v)
		return exitCode(1)
	case v.Refused != nil:
		return hint(fmt.Errorf("units refuse it: %s: expected %s, seen %s", v.Refused.Check, v.Refused.Expected, v.Refused.Seen), "%s", v.Refused.Cure)
	}
	return nil
}

func (v *validation) text(w io.Writer, dir string) error {
	_, err := fmt.Fprintf(w, "%s is valid: rack %s, %s, %s, %s\n", dir, v.Rack, count(v.Units, "unit"), count(v.Releases, "release"), count(v.Policies, "policy"))
	if ok := v.Verified; ok != nil && err == nil {
		_, err = fmt.Fprintf(w, "units accept sequence %d, commit %s, signed by %s, until %s\n", ok.Sequence, ok.Commit, strings.Join(ok.Signers, ", "), ok.Expires.Format(time.RFC3339))
		if ok.Pending != nil {
			fmt.Fprintf(w, "something newer is not in force:\n")
			ok.Pending.text(w)
		}
	}
	return err
}

// verify judges what is published in a clone as a unit would that trusts a root.
func (v *validation) verify(dir, trust, url string, now time.Time) error {
	root, err := os.ReadFile(trust)
	if err != nil {
		return err
	}
	set, err := manifest.Load(os.DirFS(dir))
	if err != nil {
		return err
	}
	repository := rack.Repository{URL: url, Ref: rack.DefaultRef, MetadataRef: rack.DefaultMetadataRef}
	bundle, err := source.ReadBundle(dir, repository)
	if err != nil {
		return hint(fmt.Errorf("read what is published: %w", err), "a rack repository has the branches main and racklet-metadata, made by racklet init")
	}
	got, err := source.Verify(bundle, source.Anchor{RackID: set.Rack.Spec.ID, Repository: repository, TUFRoot: root}, now)
	var refused *source.Refusal
	switch {
	case errors.As(err, &refused):
		v.Refused = newRefusal(refused)
		return nil
	case err != nil:
		return err
	}
	v.Verified = &verification{Commit: got.Commit, Sequence: got.Sequence, Expires: got.Expires, Signers: notNil(got.Signers), Pending: newRefusal(got.Pending)}
	return nil
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
