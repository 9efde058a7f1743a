package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocs runs the shell blocks of README.md and docs/: what a reader would
// copy must work. The blocks of one page are one script, run from the
// repository's root with a state directory of its own and bin on the PATH. A
// block that begins with ```sh runs; ```console and others show.
func TestDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	bin := build(t)
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append([]string{"../README.md"}, pages...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := shellBlocks(text)
		if len(blocks) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			state := t.TempDir()
			script := "set -euo pipefail\n" + strings.Join(blocks, "\n")
			cmd := exec.Command("bash", "-c", script)
			cmd.Dir = ".."
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+state,
				"WORK="+t.TempDir(), "NO_COLOR=1", "GIT_TERMINAL_PROMPT=0",
				"GIT_AUTHOR_NAME=A Reader", "GIT_AUTHOR_EMAIL=reader@rack.example", "GIT_COMMITTER_NAME=A Reader", "GIT_COMMITTER_EMAIL=reader@rack.example")
			defer func() {
				down := exec.Command(filepath.Join(bin, "racklet"), "down")
				down.Env = cmd.Env
				down.Run()
			}()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s\n--- output\n%s", err, numbered(script), out)
			}
		})
	}
}

// shellBlocks returns the ```sh blocks of a Markdown text.
func shellBlocks(text []byte) []string {
	var blocks []string
	for {
		_, rest, ok := bytes.Cut(text, []byte("\n```sh\n"))
		if !ok {
			return blocks
		}
		block, after, ok := bytes.Cut(rest, []byte("\n```"))
		if !ok {
			return blocks
		}
		blocks = append(blocks, string(block))
		text = append([]byte("\n"), bytes.TrimPrefix(after, []byte("\n"))...)
	}
}

func numbered(script string) string {
	var b strings.Builder
	for i, l := range strings.Split(script, "\n") {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, l)
	}
	return b.String()
}

// TestShellBlocks shows which blocks run.
func TestShellBlocks(t *testing.T) {
	got := shellBlocks([]byte("# x\n\n```sh\na\nb\n```\ntext\n```console\nno\n```\n```sh\nc\n```\n"))
	if want := []string{"a\nb", "c"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("blocks %q, want %q", got, want)
	}
}
