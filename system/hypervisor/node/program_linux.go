package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/racklet/racklet/system/hypervisor"
)

// A program is a component of the node: a process that PID 1 keeps running.
type program struct {
	name string
	path string
	// args are asked for at each start; an error is one more attempt.
	args func() ([]string, error)
	// ready says why the program cannot be started yet, or nil.
	ready func() error
	env   []string
	// memory is what the program and its children may take, in bytes; 0: all
	// there is. Beyond it the program is ended and started again.
	memory int64
	oom    int // oom_score_adj
	user   uint32
	grace  time.Duration
}

// place is where programs are run: their control groups and logs.
type place struct{ groups, logs string }

// poll is the time between two looks at what a program waits for.
const poll = 200 * time.Millisecond

// run is a hypervisor.Runnable.
func (p program) run(at place) hypervisor.Runnable {
	return func(ctx context.Context) error {
		if err := p.wait(ctx); err != nil {
			return err
		}
		var args []string
		if p.args != nil {
			var err error
			if args, err = p.args(); err != nil {
				return err
			}
		}
		group, err := p.group(at.groups)
		if err != nil {
			return err
		}
		out, err := openLog(filepath.Join(at.logs, p.name+".log"), maxLog)
		if err != nil {
			return err
		}
		defer out.Close()
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		var copying sync.WaitGroup
		copying.Go(func() { follow(r, out) })
		err = hypervisor.Command{Path: p.path, Args: args, Env: append([]string{"PATH=" + hypervisor.Path, "HOME=/run"}, p.env...),
			Output: w, Group: group, OOMScore: p.oom, User: p.user, Grace: p.grace}.Run(ctx)
		w.Close()
		// A child that outlives the program, as containerd's shims do, may hold the other end.
		_ = r.SetReadDeadline(time.Now().Add(time.Second))
		copying.Wait()
		r.Close()
		if err != nil && ctx.Err() == nil && out.last != "" {
			err = fmt.Errorf("%w; its last words: %s", err, out.last)
		}
		return err
	}
}

// wait returns when the program can be started.
func (p program) wait(ctx context.Context) error {
	for p.ready != nil && p.ready() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
	return nil
}

// group makes the program's control group (Linux, Documentation/admin-guide/cgroup-v2.rst).
func (p program) group(root string) (string, error) {
	if root == "" {
		return "", nil
	}
	dir := filepath.Join(root, p.name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make control group: %w", err)
	}
	if p.memory > 0 {
		for _, s := range [][2]string{{"memory.max", fmt.Sprint(p.memory)}, {"memory.oom.group", "1"}} {
			if err := os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0o644); err != nil {
				return "", fmt.Errorf("limit memory of %s: %w", p.name, err)
			}
		}
	}
	return dir, nil
}
