// Command testtime runs `go test` and tells what happened in a form that people read: a line as each
// package ends, failures in full, skipped tests with their reasons, tables, the slowest tests, and last
//
//	N passed, N failed, N skipped
//
// Its arguments go to `go test -json`. Its exit status is 0 when nothing failed, something ran, and
// `go test` itself ended well.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strings"
)

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testtime: error:", err)
		os.Exit(1)
	}
	r := newReport(os.Stdout)
	r.read(out)
	err = cmd.Wait()
	if !r.finish(err) {
		os.Exit(1)
	}
}

// An event is one line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
	Key, Value  string // of an attribute
}

type id struct{ pkg, test string }

type timing struct {
	id
	seconds float64
}

// A report collects events. Output is kept until its test has ended, and dropped when it passed.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[id][]string
	build                   map[string][]string
	failedTests             map[string]int // by package
	packages, tests         []timing
	skips                   []string
	tables                  map[id][]string // lines that tests want seen, by testing.T.Attr("table", line)
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[id][]string{}, build: map[string][]string{}, failedTests: map[string]int{}, tables: map[id][]string{}}
}

func (r *report) read(in io.Reader) {
	b := bufio.NewReader(in)
	for {
		line, err := b.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(r.out, line) // not ours: pass it on
			} else {
				r.event(e)
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *report) event(e event) {
	k := id{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		r.build[e.ImportPath] = append(r.build[e.ImportPath], e.Output)
	case "attr":
		if e.Key == "table" {
			r.tables[k] = append(r.tables[k], e.Value)
		}
	case "output":
		r.output[k] = append(r.output[k], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnd(e)
		} else {
			r.testEnd(e, k)
		}
	}
}

func (r *report) testEnd(e event, k id) {
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		r.skips = append(r.skips, fmt.Sprintf("%s %s: %s", short(e.Package), e.Test, reason(r.output[k])))
	case "fail":
		r.failed++
		r.failedTests[e.Package]++
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n%s", short(e.Package), e.Test, e.Elapsed, indent(r.output[k]))
	}
	delete(r.output, k)
	if !strings.Contains(e.Test, "/") {
		r.tests = append(r.tests, timing{k, e.Elapsed})
	}
}

func (r *report) packageEnd(e event) {
	k := id{e.Package, ""}
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok   %s (%.1f s)\n", short(e.Package), e.Elapsed)
		r.packages = append(r.packages, timing{k, e.Elapsed})
	case "fail":
		// A package can fail without a test that says so: it does not build, panics, or runs out of time.
		if r.failedTests[e.Package] == 0 {
			r.failed++
			fmt.Fprintf(r.out, "FAIL %s\n%s%s", short(e.Package), indent(r.build[e.FailedBuild]), indent(r.output[k]))
			for t, lines := range r.output {
				if t.pkg == e.Package && t.test != "" {
					fmt.Fprintf(r.out, "  unfinished %s\n%s", t.test, indent(lines))
				}
			}
		}
		fmt.Fprintf(r.out, "FAIL %s (%.1f s)\n", short(e.Package), e.Elapsed)
		r.packages = append(r.packages, timing{k, e.Elapsed})
	}
	for t := range r.output {
		if t.pkg == e.Package {
			delete(r.output, t)
		}
	}
}

// finish prints the summary and reports whether all is well. err is how go test ended.
func (r *report) finish(err error) bool {
	if len(r.skips) > 0 {
		sort.Strings(r.skips)
		fmt.Fprintf(r.out, "\nskipped:\n  %s\n", strings.Join(r.skips, "\n  "))
	}
	for _, k := range slices.SortedFunc(maps.Keys(r.tables), func(a, b id) int { return strings.Compare(a.pkg+a.test, b.pkg+b.test) }) {
		fmt.Fprintf(r.out, "\n%s %s:\n  %s\n", short(k.pkg), k.test, strings.Join(r.tables[k], "\n  "))
	}
	r.slowest("packages", r.packages, 8)
	r.slowest("tests", r.tests, 15)
	fmt.Fprintln(r.out)
	if err != nil && r.failed == 0 {
		fmt.Fprintf(r.out, "go test: %v\n", err)
	}
	if r.passed+r.failed+r.skipped == 0 {
		fmt.Fprintln(r.out, "no test ran")
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return err == nil && r.failed == 0 && r.passed > 0
}

func (r *report) slowest(what string, list []timing, n int) {
	sort.SliceStable(list, func(i, j int) bool { return list[i].seconds > list[j].seconds })
	head := false
	for _, t := range list[:min(n, len(list))] {
		if t.seconds < 1 {
			break
		}
		if !head {
			fmt.Fprintf(r.out, "\nslowest %s:\n", what)
			head = true
		}
		fmt.Fprintf(r.out, "  %6.1f s  %s %s\n", t.seconds, short(t.pkg), t.test)
	}
}

// short leaves out what all packages of the module have in common.
func short(pkg string) string {
	const module = "github.com/racklet/racklet"
	if pkg == module {
		return "."
	}
	return strings.TrimPrefix(pkg, module+"/")
}

func indent(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	text := strings.TrimRight(strings.Join(lines, ""), "\n")
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}

// reason picks what a skipped test said.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "=== ") && !strings.HasPrefix(l, "--- ") {
			return l
		}
	}
	return "no reason given"
}
