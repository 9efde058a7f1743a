package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
)

// errRunning means that a daemon serves the state directory already.
var errRunning = errors.New("the rack is running already")

// daemonConfig is what `up` tells the daemon, kept in the state directory so
// that a rack comes back as it was.
type daemonConfig struct {
	Releases []string           `json:"releases"` // directories; a new repository names the first
	Units    int                `json:"units,omitempty"`
	External externalRepository `json:"external,omitzero"`
	Listen   string             `json:"listen,omitempty"` // address of the management API on the network
}

// startDaemon prepares the state directory and starts `racklet simulate` in a
// session of its own. It returns when the rack's interfaces answer, or with the
// daemon's own words if they never will.
func (env *environment) startDaemon(ctx context.Context, o *upOptions) error {
	l := layout{env.state}
	if err := privateDir(l.state); err != nil {
		return hint(fmt.Errorf("state directory: %w", err), "keys and flash lie in it: chmod 700 %s, or name another one with --state", l.state)
	}
	if pid, err := lockHolder(l.lock()); err != nil {
		return err
	} else if pid != 0 {
		return errRunning
	}
	cfg, err := env.daemonConfig(o)
	if err != nil {
		return err
	}
	if err := env.ensureRepository(cfg); err != nil {
		return err
	}
	if err := writeJSON(l.config(), cfg); err != nil {
		return err
	}

	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(l.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	ready, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(self, "simulate", "--state", l.state)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w} // file 3: one line, "ready" or an error
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start the rack: %w", err)
	}
	w.Close()
	go cmd.Wait()

	stop := context.AfterFunc(ctx, func() {
		cmd.Process.Signal(syscall.SIGTERM)
		ready.Close()
	})
	defer stop()
	line, err := bufio.NewReader(ready).ReadString('\n')
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return hint(errors.New("the rack ended before it was ready"), "its log says more: %s", l.log())
	case line == "ready\n":
		return nil
	}
	var refused struct{ Error, Hint string }
	if err := json.Unmarshal([]byte(line), &refused); err != nil {
		return fmt.Errorf("start the rack: %s", strings.TrimSpace(line))
	}
	return hint(errors.New(refused.Error), "%s", refused.Hint)
}

func (env *environment) daemonConfig(o *upOptions) (*daemonConfig, error) {
	cfg := &daemonConfig{Releases: slices.Clone(o.releases), Units: o.units, External: o.external, Listen: o.listen}
	if len(cfg.Releases) == 0 {
		dir, err := defaultRelease()
		if err != nil {
			return nil, err
		}
		cfg.Releases = []string{dir}
	}
	files := []*string{&cfg.External.Trust, &cfg.External.DeployKey}
	for i := range cfg.Releases {
		files = append(files, &cfg.Releases[i])
	}
	for _, p := range files {
		if *p == "" {
			continue
		}
		var err error
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
		if _, err := os.Stat(*p); err != nil {
			return nil, err
		}
	}
	for _, dir := range cfg.Releases {
		if _, err := os.Stat(filepath.Join(dir, "release.json")); err != nil {
			return nil, hint(fmt.Errorf("no release in %s", dir), "build one with: make build; or name one with --release")
		}
	}
	return cfg, nil
}

// ensureRepository makes the rack repository of a rack that has none yet.
func (env *environment) ensureRepository(cfg *daemonConfig) error {
	l := layout{env.state}
	if cfg.External.URL != "" {
		return nil
	}
	if _, err := os.Stat(l.repository()); err == nil {
		return nil
	}
	// Made aside and moved into place, keys first: whenever this process is killed, the next one goes on or begins anew.
	repository, keys := l.repository()+".new", l.keys()+".new"
	if _, err := os.Stat(l.keys()); err == nil {
		if err := os.Rename(repository, l.repository()); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return hint(fmt.Errorf("there are keys in %s, but no repository beside them", l.keys()), "keep them elsewhere and begin anew (racklet reset), or bring the repository back to %s", l.repository())
	}
	if err := errors.Join(os.RemoveAll(repository), os.RemoveAll(keys)); err != nil {
		return err
	}
	fmt.Fprintf(env.stderr, "racklet: making a rack repository in %s, its keys in %s\n", l.repository(), l.keys())
	_, err := makeRepository(initOptions{dir: repository, keys: keys, release: cfg.Releases[0], name: "rack", url: builtinRepository, units: max(cfg.Units, 4)})
	if err != nil {
		return err
	}
	if err := os.Rename(keys, l.keys()); err != nil {
		return err
	}
	return os.Rename(repository, l.repository())
}

// stopDaemon asks the daemon to shut the rack down and waits for it.
func (env *environment) stopDaemon(ctx context.Context) error {
	l := layout{env.state}
	pid, err := lockHolder(l.lock())
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Fprintf(env.stderr, "racklet: no rack is running in %s\n", l.state)
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop the rack (process %d): %w", pid, err)
	}
	fmt.Fprintf(env.stderr, "racklet: stopping units ")
	defer fmt.Fprintln(env.stderr)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	dots := 0
	err = poll(ctx, 100*time.Millisecond, func() (bool, error) {
		if dots++; dots%10 == 0 {
			fmt.Fprint(env.stderr, ".")
		}
		holder, err := lockHolder(l.lock())
		return holder == 0, err
	})
	if err == nil && ctx.Err() != nil {
		return hint(fmt.Errorf("process %d does not end", pid), "see %s; end it with: kill -9 %d (nothing is lost)", l.log(), pid)
	}
	return err
}

// takeLock makes this process the one that serves the state directory, until
// it ends. The lock is the kernel's, so a killed daemon leaves none behind.
func takeLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// A reader's glance in lockHolder may be in the way for a moment.
	for try := 0; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, syscall.EWOULDBLOCK) && try < 50 {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errRunning
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, err
}

// lockHolder returns the process that holds the lock, or 0.
func lockHolder(name string) (int, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return 0, nil
	} else if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, fmt.Errorf("lock %s: %w", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s is locked by a process that wrote no number", name)
	}
	return pid, nil
}

// writeJSON replaces a file by v's JSON, whole or not at all.
func writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return access.Replace(name, append(b, '\n'))
}

func readJSON(name string, into any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
