package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// inOrder FILE PATTERN... finds the regular expressions in a file (stdout and
// stderr too), each behind the one before:
//
//	inorder stdout medium bootstrap running
func inOrder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: inorder FILE PATTERN...")
	}
	text := ts.ReadFile(args[0])
	rest := text
	for _, p := range args[1:] {
		at := regexp.MustCompile(`(?m)` + p).FindStringIndex(rest)
		if at == nil {
			ts.Fatalf("%q is not behind the patterns before it, in:\n%s", p, text)
		}
		rest = rest[at[1]:]
	}
}

// magic FILE HEX says that a file begins with these bytes and has more.
func magic(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: magic FILE HEX")
	}
	b := []byte(ts.ReadFile(args[0]))
	if head := fmt.Sprintf("%x", b[:min(len(b), len(args[1])/2)]); head != args[1] || len(b) <= len(args[1])/2 {
		ts.Fatalf("%s: %d bytes, beginning with %s; want %s", args[0], len(b), head, args[1])
	}
}

// statusSchema FILE compares a status document, JSON, with the page that
// describes it, docs/status.md: every field that is described is there, and
// none that is not.
func statusSchema(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: status-schema FILE")
	}
	page, err := os.ReadFile(filepath.Join(ts.Getenv("DOCS"), "status.md"))
	ts.Check(err)
	var have struct {
		Rack  map[string]any
		Units []map[string]any
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &have))
	if len(have.Units) == 0 {
		ts.Fatalf("no units in the status")
	}
	var fans []string
	for _, f := range have.Rack["fans"].([]any) {
		for name := range f.(map[string]any) {
			fans = append(fans, "fans[]."+name)
		}
	}
	got := append(slices.Collect(maps.Keys(have.Rack)), fans...)
	got = slices.DeleteFunc(got, func(s string) bool { return s == "fans" })
	if d := difference(documented(page, "rack"), got); d != "" {
		ts.Fatalf("rack: %s", d)
	}
	optional := map[string]bool{"expected": true, "seen": true}
	for _, u := range have.Units {
		want := slices.DeleteFunc(documented(page, "units[]"), func(s string) bool { _, have := u[s]; return optional[s] && !have })
		if d := difference(want, slices.Collect(maps.Keys(u))); d != "" {
			ts.Fatalf("units[]: %s", d)
		}
	}
}

var codeWord = regexp.MustCompile("`([^`]+)`")

// documented are the fields in the table of a section, in the page's order. A
// word that begins with a full stop belongs to the list named before it.
func documented(page []byte, section string) []string {
	_, rest, _ := bytes.Cut(page, []byte("## `"+section+"`\n"))
	rest, _, _ = bytes.Cut(rest, []byte("\n## "))
	var fields []string
	for line := range strings.Lines(string(rest)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		list := ""
		for _, m := range codeWord.FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			word := m[1]
			if before, _, ok := strings.Cut(word, "[]"); ok {
				list = before + "[]"
			} else if strings.HasPrefix(word, ".") {
				word = list + word
			}
			fields = append(fields, word)
		}
	}
	return fields
}

func difference(want, have []string) string {
	var d []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			d = append(d, w+" is described but not there")
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			d = append(d, h+" is there but not described")
		}
	}
	slices.Sort(d)
	return strings.Join(d, "; ")
}

// releaseObject FILE NAME DIR writes a Release object: what a build left in
// release.json, under spec.
func releaseObject(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: release FILE NAME DIR")
	}
	spec, err := os.ReadFile(filepath.Join(ts.MkAbs(args[2]), "release.json"))
	ts.Check(err)
	object := fmt.Sprintf("apiVersion: racklet.io/v1alpha1\nkind: Release\nmetadata:\n  name: %s\nspec: %s\n",
		args[1], strings.ReplaceAll(strings.TrimSpace(string(spec)), "\n", "\n  "))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(object), 0o644))
}

// simulator METHOD PATH [BODY] asks the virtual rack's /sim/v1, as a friend of
// the rack with a fault in mind would.
func simulator(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: sim METHOD PATH [BODY]")
	}
	sum := sha256.Sum256([]byte(ts.Getenv("STATE")))
	socket := filepath.Join(ts.Getenv("TMPDIR"), fmt.Sprintf("racklet-%d", os.Getuid()), fmt.Sprintf("racklet-%x", sum[:5]), "sim.sock")
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(args[0], "http://sim/sim/v1"+args[1], strings.NewReader(strings.Join(args[2:], "")))
	ts.Check(err)
	resp, err := c.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode >= 300 {
		ts.Fatalf("sim %s: %s %s", strings.Join(args, " "), resp.Status, b)
	}
	_, err = ts.Stdout().Write(b)
	ts.Check(err)
}

// machines NAME keeps the process numbers of the running machines in $NAME; with
// "gone" before it, it waits until none of those remains.
func machines(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 2 && args[0] == "gone" && !neg {
		for _, text := range strings.Fields(ts.Getenv(args[1])) {
			pid, err := strconv.Atoi(text)
			ts.Check(err)
			ts.Check(gone(pid))
		}
		return
	}
	if neg || len(args) != 1 {
		ts.Fatalf("usage: machines [gone] NAME")
	}
	files, err := filepath.Glob(filepath.Join(ts.Getenv("STATE"), "sim", "slot-*", "qemu.pid"))
	ts.Check(err)
	var pids []string
	for _, name := range files {
		b, err := os.ReadFile(name)
		ts.Check(err)
		id, _, _ := strings.Cut(string(b), " ")
		pid, err := strconv.Atoi(id)
		ts.Check(err)
		ts.Check(syscall.Kill(pid, 0))
		pids = append(pids, id)
	}
	if len(pids) == 0 {
		ts.Fatalf("no machine is running")
	}
	ts.Setenv(args[0], strings.Join(pids, " "))
}

// kill9 kills the daemon of the script's rack as a power cut would, and
// returns when it is gone.
func kill9(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: kill9")
	}
	ts.Check(killDaemon(ts.Getenv("STATE")))
}

// killDaemon kills the daemon of a state directory and waits until it is gone.
func killDaemon(state string) error {
	b, err := os.ReadFile(filepath.Join(state, "lock"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("process %q: %v", b, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	if err := gone(pid); err != nil {
		return err
	}
	// Its files close when the last of its threads is gone, which is later.
	lock, err := os.Open(filepath.Join(state, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the lock is not free: %w", err)
		}
	}
}

// gone waits until there is no such process any more; a dead one that nobody
// has waited for counts as gone.
func gone(pid int) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return nil
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		if _, rest, ok := bytes.Cut(stat, []byte(") ")); ok && bytes.HasPrefix(rest, []byte("Z")) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}
