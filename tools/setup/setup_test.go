package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/racklet/racklet/artifact/hosttool"
)

func TestFamily(t *testing.T) {
	for release, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=trixie\n":    "debian",
		"ID=ubuntu\nID_LIKE=debian\n":             "debian",
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"": "debian",
		"ID=fedora\n": "fedora",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"": "fedora",
		"ID=arch\n":                  "arch",
		"ID=manjaro\nID_LIKE=arch\n": "arch",
		"ID=alpine\n":                "alpine",
		"":                           runtime.GOOS,
	} {
		if got := family(release); got != want {
			t.Errorf("%q is %s, want %s", release, got, want)
		}
	}
}

func TestAdvice(t *testing.T) {
	lacking := []missing{{tool: tools[0]}, {tool: tools[1]}}
	for sys, want := range map[string]string{
		"debian": "sudo apt-get install --no-install-recommends qemu-system-arm git",
		"fedora": "sudo dnf install qemu-system-aarch64-core git",
		"arch":   "sudo pacman -S qemu-system-aarch64 git",
		"macos":  "brew install qemu git",
		"alpine": "qemu-system-aarch64 and git",
	} {
		if got := advice(sys, lacking); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not say %q", sys, got, want)
		}
	}
}

// TestAdviceForTests: a system without a package is told of the others.
func TestAdviceForTests(t *testing.T) {
	var lacking []missing
	for _, tool := range testTools {
		lacking = append(lacking, missing{tool: tool})
	}
	if got, want := advice("macos", lacking), "install with: brew install dosfstools"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := advice("debian", lacking); !strings.HasSuffix(got, " dosfstools cryptsetup-bin") {
		t.Errorf("%q", got)
	}
}

// TestSetupForTests: what tests lack is named, and never refuses a machine; without -test it is not even looked for.
func TestSetupForTests(t *testing.T) {
	qemu, err := hosttool.Path(hosttool.QEMU)
	if err != nil {
		t.Skip("QEMU is not installed: the set-up ends before it looks for what tests need")
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	bin := t.TempDir()
	for _, program := range []string{qemu, git} {
		if err := os.Symlink(program, filepath.Join(bin, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	before := testTools
	loose := unpacked
	t.Cleanup(func() { testTools, unpacked = before, loose })
	unpacked = []tool{{"no-such-scraper", "shows what is missing too", nil, "none", "none", "none", "none"}}
	testTools = []tool{{"no-such-program", "shows what is missing", nil, "none", "none", "none", "none"}, {"git", "is there", nil, "git", "git", "git", "git"}}
	for _, c := range []struct {
		args []string
		says string
	}{{[]string{"-n"}, ""}, {[]string{"-n", "-test"}, "missing for tests: no-such-program, which shows what is missing"},
		{[]string{"-n", "-test"}, "missing for tests: no-such-scraper, which shows what is missing too"}} {
		var out strings.Builder
		if err := run(t.Context(), &out, c.args); err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if says := out.String(); !strings.Contains(says, c.says) || c.says == "" && says != "" || strings.Contains(says, "git") {
			t.Errorf("%q says %q, want %q", c.args, says, c.says)
		}
	}
}

// TestLinkPrograms: what is unpacked is found, and a newer one takes its place.
func TestLinkPrograms(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv("PATH", "/nowhere")
	for _, version := range []string{"one", "two"} {
		dir := filepath.Join(home, version)
		if err := os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "usr/bin/scraper"), []byte("#!/bin/sh\necho "+version+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := linkPrograms(dir, "scraper"); err != nil {
			t.Fatal(err)
		}
		path, err := hosttool.Path("scraper")
		if err != nil {
			t.Fatal(err)
		}
		if says, err := exec.Command(path).Output(); err != nil || string(says) != version+"\n" {
			t.Errorf("%s says %q: %v", path, says, err)
		}
	}
}

func TestQEMUVersion(t *testing.T) {
	for says, ok := range map[string]bool{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)": true,
		"QEMU emulator version 10.0.2":                       true,
		"QEMU emulator version 8.0.0":                        true,
		"QEMU emulator version 7.1.0":                        false,
		"QEMU emulator version 5.2.0":                        false,
		"bash: not found":                                    false,
	} {
		if err := qemuVersion(says); (err == nil) != ok {
			t.Errorf("%q: %v", says, err)
		}
	}
}

// TestScript starts a stand-in for QEMU through the script, with words that a shell would take apart,
// from a directory with a blank and a quote in its name.
func TestScript(t *testing.T) {
	home := filepath.Join(t.TempDir(), "it's home")
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv("PATH", "/nowhere")
	root := filepath.Join(home, "cache", "racklet", "qemu", "1")
	for _, d := range []string{"usr/bin", "usr/lib/" + triplet()} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stand := "#!/bin/sh\necho \"QEMU emulator version 7.2.0 [$LD_LIBRARY_PATH] [$5] [$6]\"\n"
	if err := os.WriteFile(filepath.Join(root, "usr/bin/qemu-system-aarch64"), []byte(stand), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := hosttool.Path("qemu-system-aarch64"); err == nil {
		t.Error("QEMU is found before it is there")
	}
	script, err := writeScript(root)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := hosttool.Path("qemu-system-aarch64"); err != nil || found != script {
		t.Errorf("found %q (%v), want %q", found, err, script)
	}
	if err := checkQEMU(script); err != nil {
		t.Error(err)
	}
	out, err := exec.Command(script, "a b", "$HOME").Output()
	if err != nil || !strings.Contains(string(out), "[a b] [$HOME]") || !strings.Contains(string(out), "["+root+"/usr/lib/"+triplet()) {
		t.Errorf("%s (%v)", out, err)
	}
	// Carried elsewhere, it goes on working.
	moved := filepath.Join(t.TempDir(), "another home")
	if err := os.Rename(filepath.Join(home, "cache"), moved); err != nil {
		t.Fatal(err)
	}
	if err := checkQEMU(filepath.Join(moved, "racklet", "bin", "qemu-system-aarch64")); err != nil {
		t.Error(err)
	}
}
