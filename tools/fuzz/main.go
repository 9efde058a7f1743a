// Command fuzz runs every fuzz target of the given packages for a while, one after the other.
//
//	go run ./tools/fuzz [-time 10s] [packages]
//
// It goes on after a failure, and ends with status 1 if there was one.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func main() {
	d := flag.Duration("time", 10*time.Second, "how long each target runs")
	flag.Parse()
	ok, err := run(d.String(), flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz: error:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(duration string, packages []string) (bool, error) {
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	list := exec.Command("go", append([]string{"list", "-f", "{{.ImportPath}}\t{{.Dir}}"}, packages...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return false, fmt.Errorf("list packages: %w", err)
	}
	ok, n := true, 0
	for line := range strings.Lines(string(out)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			return false, err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return false, err
			}
			for _, m := range target.FindAllStringSubmatch(string(b), -1) {
				n++
				fmt.Printf("%s %s\n", pkg, m[1])
				cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+m[1]+"$", "-fuzztime", duration, pkg)
				cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
				if err := cmd.Run(); err != nil {
					ok = false
				}
			}
		}
	}
	if n == 0 {
		return false, fmt.Errorf("no fuzz target in %s", strings.Join(packages, " "))
	}
	return ok, nil
}
