package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp holds every command to what help promises: a sentence, an example
// that names the command, flags that are explained.
func TestHelp(t *testing.T) {
	commands := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.Hidden || c.Name() == "help" || strings.HasPrefix(c.CommandPath(), "racklet completion") {
			return
		}
		commands++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example that shows it", c.CommandPath())
		}
		if c.HasParent() && !c.Parent().HasParent() && c.GroupID == "" && c.Name() != "version" {
			t.Errorf("%s: belongs to no group of the help", c.CommandPath())
		}
		for _, line := range strings.Split(strings.TrimSpace(c.LocalFlags().FlagUsages()), "\n") {
			if _, text, _ := strings.Cut(strings.TrimSpace(line), "   "); line != "" && len(strings.TrimSpace(text)) < 10 {
				t.Errorf("%s: flag %q is not explained", c.CommandPath(), strings.TrimSpace(line))
			}
		}
	}
	root := newRoot(&environment{})
	walk(root)
	if commands < 15 {
		t.Errorf("only %d commands", commands)
	}
}

// TestRun pins the convention for errors: one line on standard error, a hint
// where there is one, and the exit code.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stderr []string
	}{
		{"version", 0, nil},
		{"frobnicate", 2, []string{"racklet: error: unknown command"}},
		{"version --no-such-flag", 2, []string{"racklet: error: unknown flag: --no-such-flag (racklet help version)"}},
		{"version -o xml", 2, []string{"racklet: error: --output \"xml\": want one of"}},
		{"init", 2, []string{"racklet: error: racklet init takes DIR, not 0 arguments"}},
		{"validate " + "no-such-directory", 1, []string{"racklet: error: "}},
		{"status", 1, []string{"racklet: error: no rack is running here", "racklet: hint: start one with: racklet up"}},
	} {
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), strings.NewReader(""), &stdout, &stderr, append([]string{"--state", t.TempDir()}, strings.Fields(c.args)...))
		lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
		if stderr.Len() == 0 {
			lines = nil
		}
		if code != c.code || len(lines) != len(c.stderr) {
			t.Errorf("%s: exit code %d, %q; want %d and %d lines", c.args, code, lines, c.code, len(c.stderr))
			continue
		}
		for i, want := range c.stderr {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: %q, want %q", c.args, lines[i], want)
			}
		}
		if c.code != 0 && stdout.Len() > 0 {
			t.Errorf("%s: the error is on standard output: %q", c.args, stdout.String())
		}
	}
}

func TestHints(t *testing.T) {
	base := errors.New("base")
	err := hint(base, "do %s", "this")
	if !errors.Is(err, base) || err.Error() != "base" || hintFor(err) != "do this" {
		t.Errorf("%v, hint %q", err, hintFor(err))
	}
	if h := hintFor(base); h != "" {
		t.Errorf("a plain error has the hint %q", h)
	}
}
