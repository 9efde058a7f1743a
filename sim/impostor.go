package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/source"
)

// An impostor is what a Git host that was taken over shows to units in place of the rack repository. Nothing of it is
// written to the rack repository itself; it lies in a directory of its own, made anew for each fault.

// impostors are kinds of faults by what the Git host does.
var impostors = map[string]fault.Service{"metadata-replay": fault.ServiceReplays, "owner-key-stolen": fault.ServiceForged}

// impostorDir is the folder of repositories that units then see.
func (r *Rack) impostorDir(s fault.Service) string {
	name := map[fault.Service]string{fault.ServiceReplays: "replayed", fault.ServiceForged: "forged"}[s]
	if name == "" {
		return ""
	}
	return filepath.Join(r.cfg.Dir, "githost", name)
}

// prepare makes what an impostor shows. The error says why there is nothing to show.
func (r *Rack) prepare(s fault.Service) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	hosted, _, err := r.git.Repository(ctx, repositoryName)
	if err != nil {
		return err
	}
	dir := r.impostorDir(s)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	to := filepath.Join(dir, repositoryName+".git")
	if s == fault.ServiceReplays {
		return r.replay(ctx, hosted, to)
	}
	return r.forge(ctx, hosted, to)
}

// replay makes a copy that ends where the owners' last signature but one was current: an old state, all of it genuine.
func (r *Rack) replay(ctx context.Context, hosted, to string) error {
	where := r.repository()
	now, err := source.ReadBundle(hosted, where)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	current, _, err := now.Published()
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	if err := runGit(ctx, "", "clone", "--quiet", "--bare", hosted, to); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	out, err := gitOutput(ctx, to, "rev-list", "--first-parent", where.MetadataRef)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	for id := range strings.FieldsSeq(out) {
		if err := runGit(ctx, to, "update-ref", where.MetadataRef, id); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		b, err := source.ReadBundle(to, where)
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		n, commit, err := b.Published()
		if err != nil || n >= current {
			continue // a proposal that was not complete yet, or what is current
		}
		return runGit(ctx, to, "update-ref", where.Ref, commit)
	}
	return errors.New("the owners have signed one state only, so there is no older one to replay: change the rack, sign and push it (docs/rack-repository.md)")
}

// forge makes a state of a thief who has one owner's key and the Git host with its online key, and too few others.
func (r *Rack) forge(ctx context.Context, hosted, to string) error {
	if r.cfg.Stolen.Owner == "" || r.cfg.Stolen.Online == "" {
		return errors.New("the owners' keys are not on this machine: nothing to steal")
	}
	owner, err := source.LoadKey(r.cfg.Stolen.Owner)
	if err != nil {
		return fmt.Errorf("steal: %w", err)
	}
	online, err := source.LoadKey(r.cfg.Stolen.Online)
	if err != nil {
		return fmt.Errorf("steal: %w", err)
	}
	where := r.repository()
	work := to + ".work"
	defer os.RemoveAll(work)
	branch := strings.TrimPrefix(where.Ref, "refs/heads/")
	if err := errors.Join(
		runGit(ctx, "", "clone", "--quiet", "--branch", branch, hosted, work),
		runGit(ctx, work, "fetch", "--quiet", "origin", where.MetadataRef+":"+where.MetadataRef)); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	file := filepath.Join(work, "rack", "rack.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	if err := os.WriteFile(file, append(text, "# The thief was here.\n"...), 0o600); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	if err := runGit(ctx, work, "commit", "--quiet", "--all", "--message", "a thief's state"); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	if _, err := source.Sign(work, owner, source.SignOptions{MetadataRef: where.MetadataRef, Ref: where.Ref, Online: &online, PublishIncomplete: true}); err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	return runGit(ctx, "", "clone", "--quiet", "--bare", work, to)
}

// runGit runs git in a repository of the impostor's, as nobody in particular.
func runGit(ctx context.Context, dir string, args ...string) error {
	_, err := gitOutput(ctx, dir, args...)
	return err
}

func gitOutput(ctx context.Context, dir string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "LC_ALL=C",
		"GIT_AUTHOR_NAME=A Thief", "GIT_AUTHOR_EMAIL=thief@rack.example", "GIT_COMMITTER_NAME=A Thief", "GIT_COMMITTER_EMAIL=thief@rack.example"}
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// ours says whether units fetch from the built-in Git host.
func (r *Rack) ours() bool { return r.repository().URL == RepositoryURL }
