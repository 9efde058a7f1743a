package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// A belonging is something in the state directory that a reset may remove.
type belonging struct {
	Path  string `json:"path"`
	What  string `json:"what"`
	Bytes int64  `json:"bytes"` // on the disk
}

// resetResult is what `racklet reset` prints.
type resetResult struct {
	Removed []belonging `json:"removed"`
	Kept    []belonging `json:"kept"`
	Stopped bool        `json:"stopped"` // the rack was running
}

// belongings lists what a rack keeps. What lies behind the first start comes first and the owner's own last, so that a
// reset that is cut off can be done again.
func (l layout) belongings() (rack, own []belonging) {
	look := func(path, what string) []belonging {
		if _, err := os.Lstat(path); err != nil {
			return nil
		}
		return []belonging{{path, what, diskUse(path)}}
	}
	for _, b := range [][2]string{
		{l.lab(), "the lab that was started"}, {l.accepted(), "the state that was accepted last"}, {l.floors(), "its floors"}, {l.config(), "how the rack was started"},
		{l.redfish(), "accounts, audit log and TLS key of the management API"}, {l.enroll(), "node authority and admissions"}, {l.kubernetes(), "database of Kubernetes"}, {l.objects(), "objects for Kubernetes"},
		{l.sim(), "boards, disks and Git host of the rack"}, {l.log(), "log"},
	} {
		rack = append(rack, look(b[0], b[1])...)
	}
	for _, b := range [][2]string{{l.repository() + ".new", "a repository that was being made"}, {l.keys() + ".new", "its keys"}} {
		rack = append(rack, look(b[0], b[1])...)
	}
	return rack, append(look(l.repository(), "the rack repository"), look(l.keys(), "its owners' keys")...)
}

// diskUse is the room that a file or directory takes, in bytes; sparse files take less than their size.
func diskUse(path string) (n int64) {
	filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				n += s.Blocks * 512
			}
		}
		return nil
	})
	return n
}

func newReset(env *environment) *cobra.Command {
	var yes, repository bool
	c := &cobra.Command{
		Use:     "reset",
		GroupID: "rack",
		Short:   "Return the virtual rack to its first day",
		Long: `Reset removes what a virtual rack has become: its boards with their flash and floors, the units' disks, logs, accounts,
and the Git host. The next "racklet up" begins with new boards. A running rack is stopped first. It says what it will
remove and asks.

Your own things stay: the rack repository and its keys, unless --repository says otherwise, and the downloads in the cache.
A state that was pushed to the rack's Git host, and that the repository lacks, would be lost; then reset refuses.`,
		Example: "  racklet reset\n  racklet reset --yes\n  racklet reset --repository",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return env.resetRack(c.Context(), yes, repository) },
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&repository, "repository", false, "remove the rack repository and its keys, too")
	return c
}

func (env *environment) resetRack(ctx context.Context, yes, repository bool) error {
	l := layout{env.state}
	remove, own := l.belongings()
	r := resetResult{Removed: remove, Kept: own}
	if repository {
		r.Removed, r.Kept = append(remove, own...), nil
	}
	if len(r.Removed) == 0 {
		fmt.Fprintf(env.stderr, "racklet: nothing of a rack is in %s\n", env.state)
		return env.print(r, func(io.Writer) error { return nil })
	}
	if !repository {
		if err := l.pushedOnly(ctx); err != nil {
			return err
		}
	}
	pid, err := lockHolder(l.lock())
	if err != nil {
		return err
	}
	r.Stopped = pid != 0
	fmt.Fprintf(env.stderr, "This removes, for good:\n")
	list(env.stderr, r.Removed)
	if len(r.Kept) > 0 {
		fmt.Fprintf(env.stderr, "This stays:\n")
		list(env.stderr, r.Kept)
	}
	if r.Stopped {
		fmt.Fprintf(env.stderr, "The rack is running and will be stopped.\n")
	}
	if !yes {
		if err := env.confirm(ctx, "Go on? [y/N] "); err != nil {
			return err
		}
	}
	if r.Stopped {
		if err := env.stopSoon(ctx, pid); err != nil {
			return err
		}
	}
	lock, err := takeLock(l.lock())
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	defer lock.Close()
	if err := foundKeys(l); err != nil { // of a lab that is under way
		return err
	}
	for _, b := range r.Removed {
		if err := os.RemoveAll(b.Path); err != nil {
			return hint(fmt.Errorf("remove %s: %w", b.Path, err), "what stands before it in the list is gone; run it again")
		}
	}
	return env.print(r, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "The rack is as on its first day. Start it with: racklet up")
		return err
	})
}

func list(w io.Writer, all []belonging) {
	for _, b := range all {
		fmt.Fprintf(w, "  %9s  %-52s %s\n", megabytes(b.Bytes), b.What, b.Path)
	}
}

// confirm asks a person; nobody to ask is an error.
func (env *environment) confirm(ctx context.Context, question string) error {
	f, ok := env.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &usageError{errors.New("there is nobody to ask: say --yes")}
	}
	fmt.Fprint(env.stderr, question)
	answer := make(chan string, 1)
	go func() { line, _ := bufio.NewReader(env.stdin).ReadString('\n'); answer <- line }()
	select {
	case line := <-answer:
		if text := strings.ToLower(strings.TrimSpace(line)); text == "y" || text == "yes" {
			return nil
		}
		fmt.Fprintln(env.stderr, "Nothing was removed.")
	case <-ctx.Done():
		fmt.Fprintln(env.stderr, "\nNothing was removed.")
	}
	return exitCode(1)
}

// stopSoon stops the rack in order, and ends it when that takes too long: nothing of it will be needed.
func (env *environment) stopSoon(ctx context.Context, pid int) error {
	orderly, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := env.stopDaemon(orderly)
	if holder, e := lockHolder(layout{env.state}.lock()); e == nil && holder == pid && ctx.Err() == nil {
		syscall.Kill(pid, syscall.SIGKILL)
		err = poll(ctx, 50*time.Millisecond, func() (bool, error) {
			holder, err := lockHolder(layout{env.state}.lock())
			return holder == 0, err
		})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// pushedOnly refuses when the rack's Git host has commits that the repository beside it lacks.
func (l layout) pushedOnly(ctx context.Context) error {
	if _, err := os.Stat(l.repository()); err != nil {
		return nil
	}
	if _, err := os.Stat(l.hosted()); err != nil {
		return nil
	}
	for _, branch := range []string{"main", "racklet-metadata"} {
		out, err := exec.CommandContext(ctx, "git", "--git-dir", l.hosted(), "rev-parse", "--quiet", "--verify", "refs/heads/"+branch).Output()
		if err != nil {
			continue // not pushed yet
		}
		commit := strings.TrimSpace(string(out))
		if git(ctx, l.repository(), "merge-base", "--is-ancestor", commit, "refs/heads/"+branch) != nil {
			return hint(fmt.Errorf("the rack's Git host has a newer %s than %s: it would be lost", branch, l.repository()),
				"get it first: git -C %[1]s fetch %[2]s %[3]s:%[3]s (or git pull); or remove the repository as well: racklet reset --repository", l.repository(), l.hosted(), branch)
		}
	}
	return nil
}
