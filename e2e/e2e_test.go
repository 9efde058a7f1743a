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
	"regexp"
	"strconv"
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

// nextVersion is the version of the second release that scripts push.
const nextVersion = "0.2.0"

// buildNext makes a second release, for scripts that change what a unit runs.
func buildNext(t *testing.T, bin string) string {
	t.Helper()
	dir := filepath.Join(bin, "release-next")
	cmd := exec.Command("go", "run", "./tools/release", "-o", dir, "-version", nextVersion, "-security-version", "2")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build release %s: %v\n%s", nextVersion, err, out)
	}
	return dir
}

// serial runs scripts one at a time, whatever -parallel says, and tells how
// long each took: two racks on two cores would only wait for each other.
type serial struct{ *testing.T }

func (s serial) Parallel()     {}
func (s serial) Verbose() bool { return testing.Verbose() }
func (s serial) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) {
		start := time.Now()
		f(serial{t})
		fmt.Printf("%s: %.0f s\n", t.Name(), time.Since(start).Seconds())
	})
}

// TestScripts plays testdata/script.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	bin := build(t)
	next := buildNext(t, bin)
	testscript.RunT(serial{t}, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("RELEASE", filepath.Join(bin, "release"))
			env.Setenv("NEXT", next)
			env.Setenv("DOCS", filepath.Join(filepath.Dir(bin), "docs"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("STATE", filepath.Join(env.WorkDir, "state", "racklet", "default"))
			env.Setenv("XDG_CACHE_HOME", cacheHome())
			env.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(env.WorkDir, "gitconfig"))
			env.Setenv("GIT_TERMINAL_PROMPT", "0")
			env.Setenv("NO_COLOR", "1")
			hosts := newGitHosts(filepath.Join(env.WorkDir, "srv"))
			env.Values[hostsKey{}] = hosts
			env.Defer(hosts.close)
			env.Defer(func() { stopRacks(t, env, bin) })
			config := "[user]\n\tname = An Author\n\temail = author@rack.example\n[init]\n\tdefaultBranch = main\n"
			return os.WriteFile(filepath.Join(env.WorkDir, "gitconfig"), []byte(config), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":         await,
			"expire":        expire,
			"facts":         facts,
			"forge":         forge,
			"githost":       gitHost,
			"inorder":       inOrder,
			"kill9":         kill9,
			"machines":      machines,
			"magic":         magic,
			"release":       releaseObject,
			"remember":      remember,
			"replace":       replace,
			"sim":           simulator,
			"status-schema": statusSchema,
		},
	})
}

// stopRacks ends every rack below the script's directory: one that failed
// half-way must not leave a rack behind.
func stopRacks(t *testing.T, env *testscript.Env, bin string) {
	for _, pattern := range []string{"state/racklet/*/lock", "*/lock"} {
		locks, _ := filepath.Glob(filepath.Join(env.WorkDir, pattern))
		for _, lock := range locks {
			cmd := exec.Command(filepath.Join(bin, "racklet"), "down", "--state", filepath.Dir(lock))
			cmd.Env = env.Vars
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Logf("racklet down: %v\n%s", err, out)
			}
		}
	}
}

func cacheHome() string {
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return dir
	}
	dir, _ := os.UserCacheDir()
	return dir
}

// racklet runs the command on the script's rack, without a trace in its log.
func racklet(ts *testscript.TestScript, args ...string) ([]byte, error) {
	first, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	cmd := exec.Command(filepath.Join(first, "racklet"), append(args, "--state", ts.Getenv("STATE"))...)
	cmd.Env = append(os.Environ(), "TMPDIR="+ts.Getenv("TMPDIR"), "XDG_RUNTIME_DIR="+ts.Getenv("XDG_RUNTIME_DIR"), "NO_COLOR=1")
	return cmd.Output()
}

// await waits until fields of a unit in `racklet status -o json` have the
// given values:
//
//	await unit-1 stage=running release=0.1.0
//	await unit-1 reason=slot.chunk
//	await unit-1 bootCount>$BOOTS
//
// A value ending in * is a prefix; field!=value waits for the opposite;
// field>value and field>=value compare numbers. The deadline is generous: it
// fails a script only when nothing comes any more. Then it prints what the
// unit's BMC has logged.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await UNIT FIELD=VALUE...")
	}
	start := time.Now()
	deadline := start.Add(4 * time.Minute)
	var last string
	for time.Now().Before(deadline) {
		out, err := racklet(ts, "status", "-o", "json")
		if err == nil {
			unit, err := unitOf(out, args[0])
			if err != nil {
				last = err.Error()
			} else if last = compare(unit, args[1:]); last == "" {
				ts.Logf("%s: %s, after %.1f s", args[0], strings.Join(args[1:], " "), time.Since(start).Seconds())
				return
			}
		} else {
			last = err.Error()
		}
		time.Sleep(250 * time.Millisecond)
	}
	log, _ := racklet(ts, "unit", "log", args[0])
	ts.Fatalf("await %s: %s\n%s", strings.Join(args, " "), last, log)
}

// remember UNIT FIELD NAME keeps a field of a unit's status in $NAME.
func remember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: remember UNIT FIELD NAME")
	}
	out, err := racklet(ts, "status", "-o", "json")
	ts.Check(err)
	unit, err := unitOf(out, args[0])
	ts.Check(err)
	v, ok := unit[args[1]]
	if !ok {
		ts.Fatalf("remember: no field %q", args[1])
	}
	ts.Setenv(args[2], fmt.Sprint(v))
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

// condition is FIELD, an operator, VALUE.
var condition = regexp.MustCompile(`^([A-Za-z]+)(!=|>=|=|>)(.*)$`)

// compare names the first condition that does not hold, or returns "".
func compare(unit map[string]any, conditions []string) string {
	for _, c := range conditions {
		m := condition.FindStringSubmatch(c)
		if m == nil {
			return fmt.Sprintf("%q is no condition", c)
		}
		v, exists := unit[m[1]]
		if !exists && m[1] != "expected" && m[1] != "seen" { // those two are left out when empty
			return fmt.Sprintf("no field %q", m[1])
		}
		if !holds(v, m[2], m[3]) {
			return fmt.Sprintf("%s is %v, want %s (stage %v, reason %v: expected %v, saw %v)", m[1], v, c, unit["stage"], unit["reason"], unit["expected"], unit["seen"])
		}
	}
	return ""
}

func holds(v any, op, want string) bool {
	if op == ">" || op == ">=" {
		n, ok := v.(float64)
		limit, err := strconv.ParseFloat(want, 64)
		return ok && err == nil && (n > limit || op == ">=" && n == limit)
	}
	have := ""
	if v != nil {
		have = fmt.Sprint(v)
	}
	prefix, isPrefix := strings.CutSuffix(want, "*")
	equal := have == want || isPrefix && strings.HasPrefix(have, prefix)
	return equal == (op == "=")
}

// replace FILE OLD NEW replaces the one occurrence of OLD in FILE; \n in NEW
// begins a new line.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	b := ts.ReadFile(args[0])
	if strings.Count(b, args[1]) != 1 {
		ts.Fatalf("replace: %q occurs %d times in %s", args[1], strings.Count(b, args[1]), args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(b, args[1], strings.ReplaceAll(args[2], `\n`, "\n"), 1)), 0o644))
}

// TestCompare shows that a condition can fail.
func TestCompare(t *testing.T) {
	unit := map[string]any{"stage": "failed", "reason": "slot.chunk", "slot": 1.0, "seen": "slot 3"}
	for _, c := range []struct {
		condition string
		holds     bool
	}{
		{"stage=failed", true}, {"stage=running", false}, {"reason=slot.*", true}, {"reason=tuf.*", false},
		{"slot=1", true}, {"stage!=running", true}, {"stage!=failed", false}, {"colour=red", false}, {"stage", false},
		{"slot>0", true}, {"slot>1", false}, {"slot>=1", true}, {"slot>=1.5", false}, {"stage>0", false}, {"slot>", false}, {"seen=*3", false}, {"seen=slot*", true}, {"expected=", true}, {"expected!=", false},
	} {
		if got := compare(unit, []string{c.condition}); (got == "") != c.holds {
			t.Errorf("%s: %q, holds = %v", c.condition, got, c.holds)
		}
	}
}
