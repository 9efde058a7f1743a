package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/source"
)

type signOptions struct {
	key          string
	online       string
	onlineGiven  bool
	release      string
	releaseGiven bool
	url          string
	bootSecurity uint32
	renew, drill bool
}

// signResult is the result of `racklet sign`; its JSON is documented and stable.
type signResult struct {
	Sequence  uint64    `json:"sequence"`
	Commit    string    `json:"commit"`
	Tree      string    `json:"tree"`
	Expires   time.Time `json:"expires"`
	Threshold int       `json:"threshold"`
	Signed    []string  `json:"signed"`  // owners
	Missing   []string  `json:"missing"` // the other owners
	Slots     []string  `json:"slots"`   // digests of the slot manifests signed with it
	Complete  bool      `json:"complete"`
	Published bool      `json:"published"`
	Changed   bool      `json:"changed"` // this call added something
}

func newSign(env *environment) *cobra.Command {
	var o signOptions
	c := &cobra.Command{
		Use:     "sign DIR --key FILE",
		GroupID: "repository",
		Short:   "Add one owner's signature to what a repository says",
		Long: `Sign adds one owner's signature to the commit that is checked out in DIR: to the TUF
metadata that names it, to the floor statement that BMCs keep, and to the slot manifests
of its releases. The first owner proposes a new sequence, the others sign it; when there
are enough, and the online key is at hand, it is published on the branch
racklet-metadata, ready for git push. What is signed is compared with the files in DIR,
which must be valid and committed. Signing twice changes nothing.

With the operator's key it signs the workloads in apps/.
Without --key it signs nothing and shows who has signed.`,
		Example: `  racklet sign . --key ~/secret/owner-1.pem
  racklet sign . --key owner-2.pem --release bin/release
  racklet sign . --key owner-2.pem --boot-security 3
  racklet sign .`,
		Args: exactArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			o.onlineGiven, o.releaseGiven = c.Flags().Changed("online"), c.Flags().Changed("release")
			return env.sign(args[0], o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.key, "key", "", "`file` with the private key to sign with")
	f.StringVar(&o.online, "online", "", "`file` with the online key, which publishes (default: online.pem beside --key, if there)")
	f.StringVar(&o.release, "release", "", "`directory` of a build, for slot manifests not signed yet (default: release, beside this program, if there)")
	f.StringVar(&o.url, "repo", "", "`URL` that units fetch the repository from, when it changes")
	f.Uint32Var(&o.bootSecurity, "boot-security", 0, "raise the BMCs' floor: boot slots with a lower security `version` never boot again")
	f.BoolVar(&o.renew, "renew", false, "sign the same commit again under a new sequence with new dates")
	f.BoolVar(&o.drill, "drill", false, "publish although signatures are missing, to see every unit refuse it")
	c.MarkFlagFilename("key", "pem")
	c.MarkFlagFilename("online", "pem")
	c.MarkFlagDirname("release")
	return c
}

func (env *environment) sign(dir string, o signOptions) error {
	if o.key == "" {
		p, err := source.ReadProposal(dir, "")
		if err != nil {
			return explainSign(env.stderr, dir, err)
		}
		return env.printProposal(dir, p)
	}
	key, err := loadKey(o.key)
	if err != nil {
		return err
	}
	so := source.SignOptions{Repository: o.url, BootSecurity: o.bootSecurity, Renew: o.renew, PublishIncomplete: o.drill}
	if so.Online, err = o.onlineKey(); err != nil {
		return err
	}
	release, err := readRelease(o.release)
	if err != nil && o.releaseGiven {
		return err
	}
	so.SlotManifest = release.manifest // a nil release has none

	p, err := source.Sign(dir, key, so)
	if errors.Is(err, source.ErrNotOwner) {
		if err := source.SignApps(dir, key, so); errors.Is(err, source.ErrNotOwner) {
			return hint(fmt.Errorf("%s is neither an owner's nor the operator's key of this rack", o.key), "its owners are listed by: racklet sign %s", dir)
		} else if err != nil {
			return explainSign(env.stderr, dir, err)
		}
		published := "push it: git -C " + dir + " push origin racklet-metadata"
		if so.Online == nil {
			published = "the next timestamp publishes it"
		}
		fmt.Fprintf(env.stderr, "racklet: %s signed apps/; %s\n", key.Name, published)
		return nil
	}
	if err != nil {
		return explainSign(env.stderr, dir, err)
	}
	return env.printProposal(dir, p)
}

// onlineKey finds the key that publishes, nil when it is not at hand.
func (o *signOptions) onlineKey() (*source.OwnerKey, error) {
	name := o.online
	if !o.onlineGiven {
		name = filepath.Join(filepath.Dir(o.key), "online.pem")
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	if name == "" { // --online=
		return nil, nil
	}
	key, err := loadKey(name)
	return &key, err
}

func loadKey(name string) (source.OwnerKey, error) {
	key, err := source.LoadKey(name)
	if err == nil {
		return key, nil
	}
	if info, e := os.Stat(name); e == nil && info.Mode().Perm()&0o077 != 0 {
		return key, hint(err, "if nobody has read it: chmod 600 %s", name)
	}
	return key, err
}

// explainSign adds what to do to the errors of signing.
func explainSign(stderr io.Writer, dir string, err error) error {
	var invalid manifest.Errors
	switch {
	case errors.As(err, &invalid):
		reportInvalid(stderr, dir, &validation{Errors: invalid})
		return exitCode(1)
	case errors.Is(err, source.ErrDirty):
		return hint(err, "see what changed with: git -C %s status", dir)
	case errors.Is(err, fs.ErrNotExist):
		return hint(err, "make a rack repository with: racklet init DIR")
	}
	return err
}

func (env *environment) printProposal(dir string, p *source.Proposal) error {
	r := signResult{
		Sequence: p.Sequence, Commit: p.Commit, Tree: string(p.Tree), Expires: p.Expires, Threshold: p.Threshold,
		Signed: notNil(p.Signed), Missing: notNil(p.Missing), Slots: notNil(p.Slots), Complete: p.Complete, Published: p.Published, Changed: p.Changed,
	}
	return env.print(r, func(w io.Writer) error {
		fmt.Fprintf(w, "sequence  %d\ncommit    %s\ntree      %s\nexpires   %s\nslots     %s\nsigned    %s\n",
			r.Sequence, r.Commit, r.Tree, r.Expires.Format(time.RFC3339), count(len(r.Slots), "signed slot manifest"), orNobody(r.Signed))
		switch need := r.Threshold - len(r.Signed); {
		case r.Published && !r.Complete:
			fmt.Fprintf(w, "published, although %s missing: every unit refuses it\n", isOrAre(need, "signature"))
		case r.Published:
			fmt.Fprintf(w, "published: git -C %s push origin main racklet-metadata\n", dir)
		case r.Complete:
			fmt.Fprintf(w, "signed by enough owners; the online key has to publish it\n")
		default:
			fmt.Fprintf(w, "%s missing, of %s\n", isOrAre(need, "signature"), strings.Join(r.Missing, ", "))
		}
		return nil
	})
}

func notNil(s []string) []string { return append([]string{}, s...) }

func orNobody(names []string) string {
	if len(names) == 0 {
		return "nobody yet"
	}
	return strings.Join(names, ", ")
}

// isOrAre writes "1 signature is" or "2 signatures are".
func isOrAre(n int, noun string) string {
	if n == 1 {
		return count(n, noun) + " is"
	}
	return count(n, noun) + " are"
}
