// Package e2e plays the user goals on the virtual rack: the racklet command as a
// user has it, really booting machines, the rack repository pushed by an
// ordinary git client. Its scripts are in testdata/script; each says in its
// first line what it shows. It holds tests only.
package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/racktest"
	"github.com/rogpeppe/go-internal/testscript"
)

// build makes the command and a release once for all scripts, the way
// `make build` does, and returns the directory that holds both.
func build(t *testing.T) string {
	t.Helper()
	racktest.Tool(t, "qemu-system-aarch64")
	racktest.Tool(t, "git")
	racktest.Tool(t, "make")
	cmd := exec.Command("make", "--no-print-directory", "build")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestScripts plays testdata/script. Machines boot one script at a time: two
// racks on two cores would only wait for each other.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	bin := build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("RELEASE", filepath.Join(bin, "release"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("STATE", filepath.Join(env.WorkDir, "state", "racklet", "default"))
			env.Setenv("XDG_CACHE_HOME", cacheHome())
			env.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(env.WorkDir, "gitconfig"))
			env.Setenv("GIT_TERMINAL_PROMPT", "0")
			env.Setenv("NO_COLOR", "1")
			env.Defer(func() { // a script that failed half-way must not leave a rack behind
				cmd := exec.Command(filepath.Join(bin, "racklet"), "down", "--state", env.Getenv("STATE"))
				cmd.Env = env.Vars
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Logf("racklet down: %v\n%s", err, out)
				}
			})
			config := "[user]\n\tname = An Author\n\temail = author@rack.example\n[init]\n\tdefaultBranch = main\n"
			return os.WriteFile(filepath.Join(env.WorkDir, "gitconfig"), []byte(config), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":   await,
			"replace": replace,
		},
	})
}

func cacheHome() string {
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return dir
	}
	dir, _ := os.UserCacheDir()
	return dir
}

// await waits until fields of a unit in `racklet status -o json` have the
// given values:
//
//	await unit-1 stage=running release=base
//	await unit-1 reason=slot.chunk
//
// A value ending in * is a prefix; field!=value waits for the opposite. The
// deadline is generous: it fails a script only when nothing comes any more.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await UNIT FIELD=VALUE...")
	}
	deadline := time.Now().Add(6 * time.Minute)
	var last string
	for time.Now().Before(deadline) {
		cmd := exec.Command(filepath.Join(firstPath(ts), "racklet"), "status", "-o", "json", "--state", ts.Getenv("STATE"))
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+ts.Getenv("XDG_STATE_HOME"))
		out, err := cmd.Output()
		if err == nil {
			unit, err := unitOf(out, args[0])
			if err != nil {
				last = err.Error()
			} else if last = compare(unit, args[1:]); last == "" {
				ts.Logf("%s: %s", args[0], strings.Join(args[1:], " "))
				return
			}
		} else {
			last = err.Error()
		}
		time.Sleep(250 * time.Millisecond)
	}
	ts.Fatalf("await %s: %s", strings.Join(args, " "), last)
}

func firstPath(ts *testscript.TestScript) string {
	first, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	return first
}

func unitOf(status []byte, name string) (map[string]any, error) {
	var s struct{ Units []map[string]any }
	if err := json.Unmarshal(status, &s); err != nil {
		return nil, err
	}
	for _, u := range s.Units {
		if u["name"] == name {
			return u, nil
		}
	}
	return nil, fmt.Errorf("no unit %q", name)
}

// compare names the first condition that does not hold, or returns "".
func compare(unit map[string]any, conditions []string) string {
	for _, c := range conditions {
		field, want, ok := strings.Cut(c, "=")
		if !ok {
			return fmt.Sprintf("%q is no condition", c)
		}
		field, not := strings.CutSuffix(field, "!")
		v, exists := unit[field]
		if !exists {
			return fmt.Sprintf("no field %q", field)
		}
		have := fmt.Sprint(v)
		prefix, isPrefix := strings.CutSuffix(want, "*")
		equal := have == want || isPrefix && strings.HasPrefix(have, prefix)
		if equal == not {
			return fmt.Sprintf("%s is %q (stage %v, reason %v: expected %v, saw %v)", field, have, unit["stage"], unit["reason"], unit["expected"], unit["seen"])
		}
	}
	return ""
}

// replace FILE OLD NEW replaces the one occurrence of OLD in FILE.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	b := ts.ReadFile(args[0])
	if strings.Count(b, args[1]) != 1 {
		ts.Fatalf("replace: %q occurs %d times in %s", args[1], strings.Count(b, args[1]), args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(b, args[1], args[2], 1)), 0o644))
}

// TestCompare shows that a condition can fail.
func TestCompare(t *testing.T) {
	unit := map[string]any{"stage": "failed", "reason": "slot.chunk", "slot": 1.0}
	for _, c := range []struct {
		condition string
		holds     bool
	}{
		{"stage=failed", true}, {"stage=running", false}, {"reason=slot.*", true}, {"reason=tuf.*", false},
		{"slot=1", true}, {"stage!=running", true}, {"stage!=failed", false}, {"colour=red", false}, {"stage", false},
	} {
		if got := compare(unit, []string{c.condition}); (got == "") != c.holds {
			t.Errorf("%s: %q, holds = %v", c.condition, got, c.holds)
		}
	}
}
