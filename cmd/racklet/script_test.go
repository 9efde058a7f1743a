package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/racktest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"racklet": main})
}

// TestScript runs the commands as an operator would: one file per topic in
// testdata/script.
func TestScript(t *testing.T) {
	racktest.Tool(t, "git")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, ".state"))
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(e.WorkDir, ".run"))
			e.Setenv("NO_COLOR", "1")
			for _, who := range []string{"AUTHOR", "COMMITTER"} {
				e.Setenv("GIT_"+who+"_NAME", "Test")
				e.Setenv("GIT_"+who+"_EMAIL", "test@example.com")
			}
			e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"release": scriptRelease,
			"edit":    scriptEdit,
			"mode":    scriptMode,
			"json":    scriptJSON,
		},
	})
}

// scriptRelease makes a release directory that holds as much as owners sign:
// release DIR VERSION SECURITY.
func scriptRelease(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: release DIR VERSION SECURITY")
	}
	security, err := strconv.ParseUint(args[2], 10, 32)
	ts.Check(err)
	ts.Check(writeRelease(ts.MkAbs(args[0]), args[1], uint32(security)))
}

func writeRelease(dir, version string, security uint32) error {
	kernel := rack.SHA256([]byte("kernel of " + version))
	sum, err := kernel.Sum()
	if err != nil {
		return err
	}
	m := trust.SlotManifest{Version: version, SecurityVersion: security, ImageSize: trust.BlockSize, ChunkSize: trust.ChunkSize, Kernel: sum, Chunks: make([][32]byte, 1)}
	b, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	spec := rack.ReleaseSpec{
		Version: version, SecurityVersion: security,
		Boot: rack.ReleaseBoot{Artifact: "racklet/boot", Digest: rack.SHA256([]byte("boot " + version)), SlotManifest: rack.SHA256(b), Kernel: kernel},
		OS:   rack.ReleaseOS{Artifact: "racklet/os", Digest: rack.SHA256([]byte("os " + version)), Kernel: kernel, RootHash: strings.Repeat("5", 64)},
	}
	j, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(blobs, spec.Boot.SlotManifest.Hex()), b, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "release.json"), j, 0o644)
}

// scriptEdit replaces text in a file: edit FILE OLD NEW; \n is a line break.
func scriptEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	old, new := []byte(strings.ReplaceAll(args[1], `\n`, "\n")), []byte(strings.ReplaceAll(args[2], `\n`, "\n"))
	if !bytes.Contains(b, old) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(name, bytes.Replace(b, old, new, 1), 0o644))
}

// scriptMode compares permissions: mode 0600 FILE...
func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := info.Mode().Perm(); (got == fs.FileMode(want)) == neg {
			ts.Fatalf("%s has mode %04o", name, got)
		}
	}
}

// scriptJSON looks a value up in the JSON on standard output: json PATH VALUE,
// with a path such as errors.0.file.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH VALUE")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for _, key := range strings.Split(args[0], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(at) {
				ts.Fatalf("no element %s in %v", key, at)
			}
			v = at[i]
		default:
			ts.Fatalf("no %s in %v", key, at)
		}
	}
	b, err := json.Marshal(v)
	ts.Check(err)
	if got := strings.Trim(string(b), `"`); (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}
