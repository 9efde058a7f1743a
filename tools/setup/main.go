// Command setup gets a machine ready for Racklet. It looks for the programs that the virtual rack
// starts, and for room on the disk. What is missing it names, says what for, and installs: with apt
// as root or where sudo asks no password, else by unpacking QEMU's packages into the user's cache
// (artifact/deb, verified back to Debian's archive keys). On other systems it names the packages and the
// command. When nothing is missing it says nothing.
//
// With -test it also sees to the programs that tests alone ask for their opinion. Those are not worth a refusal: where
// they cannot be installed the set-up says so and goes on, and their tests are skipped (in CI they fail). Prometheus among
// them is only unpacked into the cache.
//
//	go run ./tools/setup [-test] [-mirror URL]… [-unpack] [-n]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/hosttool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Stdout, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "setup: error:", err)
		os.Exit(1)
	}
}

// minFree is the room that downloads, builds and four data disks take, in bytes.
const minFree = 4 << 30

// QEMU 7.2 is the first with -netdev stream (QEMU, ChangeLog/7.2, "Network device backends").
const minQEMUMajor, minQEMUMinor = 7, 2

// A tool is a program that has to be there.
type tool struct {
	name  string
	why   string
	check func(path string) error // nil: being there is enough
	// package that brings it, by family of system
	debian, fedora, arch, brew string // "": there is none
}

var tools = []tool{
	{"qemu-system-aarch64", "emulates the compute units", checkQEMU, "qemu-system-arm", "qemu-system-aarch64-core", "qemu-system-aarch64", "qemu"},
	{"git", "serves the rack's repository", checkGit, "git", "git", "git", "git"},
}

// testTools are needed by `make test` alone.
var testTools = []tool{
	{"fsck.vfat", "checks boot media in tests", nil, "dosfstools", "dosfstools", "dosfstools", "dosfstools"},
	{"veritysetup", "checks hash trees in tests", nil, "cryptsetup-bin", "veritysetup", "cryptsetup", ""},
}

// unpacked are needed by `make test` alone too, and are never installed: only put into the cache. Debian's package
// has all of them.
var unpacked = []tool{
	{"gmsh", "has the OpenCASCADE kernel that makes printed parts", nil, "gmsh", "gmsh", "gmsh", "gmsh"},
	{"admesh", "checks meshes of printed parts", nil, "admesh", "admesh", "admesh", "admesh"},
	{"prusa-slicer", "slices printed parts", nil, "prusa-slicer", "prusa-slicer", "prusa-slicer", ""},
	{"ccx", "bends printed parts", nil, "calculix-ccx", "calculix-ccx", "calculix-ccx", ""},
	{"prometheus", "scrapes a rack and asks what dashboard and alerts ask, in tests", nil, "prometheus", "golang-github-prometheus", "prometheus", "prometheus"},
	{"promtool", "tests alert rules", nil, "prometheus", "golang-github-prometheus", "prometheus", "prometheus"},
}

type missing struct {
	tool
	err error
}

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, out io.Writer, args []string) error {
	fs := flag.NewFlagSet("setup", flag.ContinueOnError)
	var mirrors list
	fs.Var(&mirrors, "mirror", "base `URL` of a Debian mirror; may be repeated (default: apt's)")
	unpackOnly := fs.Bool("unpack", false, "unpack QEMU into the cache even where it could be installed")
	status := fs.String("dpkg-status", "/var/lib/dpkg/status", "`file` that lists the installed packages")
	dry := fs.Bool("n", false, "only say what is missing")
	test := fs.Bool("test", false, "also what tests need")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := checkRoom(); err != nil {
		return err
	}
	if err := provide(ctx, out, options{mirrors, *status, *unpackOnly, *dry}); err != nil || !*test {
		return err
	}
	if err := provideTests(ctx, out, *dry); err != nil {
		return err
	}
	provideUnpacked(ctx, out, mirrors, *dry)
	return nil
}

type options struct {
	mirrors    []string
	status     string
	unpackOnly bool
	dry        bool
}

// provide sees to what Racklet itself needs.
func provide(ctx context.Context, out io.Writer, o options) error {
	lacking := look(tools)
	if len(lacking) == 0 && !o.unpackOnly {
		return nil
	}
	for _, m := range lacking {
		fmt.Fprintf(out, "setup: missing: %s, which %s (%v)\n", m.name, m.why, m.err)
	}
	if o.dry {
		return fmt.Errorf("%d programs are missing", len(lacking))
	}
	sys := system()
	if sys != "debian" {
		return errors.New(advice(sys, lacking))
	}
	if !o.unpackOnly {
		if via := privilege(ctx); via != nil {
			return install(ctx, out, via, lacking)
		}
		fmt.Fprintln(out, "setup: not root, and sudo would ask for a password: unpacking into the cache instead")
	}
	for _, m := range lacking {
		if m.name == "git" {
			return fmt.Errorf("git has to be installed by an administrator: %s", advice(sys, lacking))
		}
	}
	where, err := unpack(ctx, out, o.status, o.mirrors)
	if err != nil {
		return fmt.Errorf("%w; an administrator can run instead: %s", err, advice(sys, lacking))
	}
	fmt.Fprintf(out, "setup: QEMU is in %s\n", where)
	return nil
}

// provideTests sees to what tests need. What it cannot install is not an error.
func provideTests(ctx context.Context, out io.Writer, dry bool) error {
	lacking := look(testTools)
	if len(lacking) == 0 {
		return nil
	}
	sys := system()
	var via []string
	if sys == "debian" && !dry {
		via = privilege(ctx)
	}
	for _, m := range lacking {
		fmt.Fprintf(out, "setup: missing for tests: %s, which %s (%v)\n", m.name, m.why, m.err)
	}
	if via == nil {
		fmt.Fprintf(out, "setup: going on without; to have them: %s\n", advice(sys, lacking))
		return nil
	}
	if err := install(ctx, out, via, lacking); err != nil {
		fmt.Fprintf(out, "setup: going on without: %v\n", err)
	}
	return nil
}

// provideUnpacked sees to what tests need and nobody installs. What it cannot have is not an error.
func provideUnpacked(ctx context.Context, out io.Writer, mirrors []string, dry bool) {
	lacking := look(unpacked)
	if len(lacking) == 0 {
		return
	}
	for _, m := range lacking {
		fmt.Fprintf(out, "setup: missing for tests: %s, which %s (%v)\n", m.name, m.why, m.err)
	}
	if sys := system(); sys != "debian" || dry {
		fmt.Fprintf(out, "setup: going on without; to have them: %s\n", advice(sys, lacking[:1]))
		return
	}
	if err := unpackPrograms(ctx, out, mirrors, "prometheus", "prometheus", "promtool"); err != nil {
		fmt.Fprintf(out, "setup: going on without: %v\n", err)
	}
}

// look returns the tools that are not there or not good enough.
func look(tools []tool) []missing {
	var out []missing
	for _, t := range tools {
		path, err := hosttool.Path(t.name)
		if err == nil && t.check != nil {
			err = t.check(path)
		} else if err != nil {
			err = errors.New("not found")
		}
		if err != nil {
			out = append(out, missing{t, err})
		}
	}
	return out
}

var versionNumber = regexp.MustCompile(`version (\d+)\.(\d+)`)

func checkQEMU(path string) error {
	out, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s does not start: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	return qemuVersion(string(out))
}

func qemuVersion(says string) error {
	m := versionNumber.FindStringSubmatch(says)
	if m == nil {
		return fmt.Errorf("says no version: %q", says)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < minQEMUMajor || major == minQEMUMajor && minor < minQEMUMinor {
		return fmt.Errorf("version %d.%d is too old, %d.%d is needed", major, minor, minQEMUMajor, minQEMUMinor)
	}
	return nil
}

func checkGit(path string) error {
	out, err := exec.Command(path, "--exec-path").Output()
	if err != nil {
		return fmt.Errorf("%s does not start: %w", path, err)
	}
	if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")); err != nil {
		return fmt.Errorf("has no http-backend: %w", err)
	}
	return nil
}

// checkRoom looks at the file systems of the working directory and of the cache.
func checkRoom() error {
	c, err := cache.User()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	for _, dir := range []string{".", c.Dir} {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return fmt.Errorf("look for room in %s: %w", dir, err)
		}
		if free := int64(st.Bavail) * int64(st.Bsize); free < minFree {
			return fmt.Errorf("%s has %.1f GiB free; downloads, builds and data disks need %d GiB", dir, float64(free)/(1<<30), minFree>>30)
		}
	}
	return nil
}

// system names the family of this system: debian, fedora, arch, macos, or what it calls itself.
func system() string {
	if runtime.GOOS == "darwin" {
		return "macos"
	}
	b, _ := os.ReadFile("/etc/os-release")
	return family(string(b))
}

// family reads ID and ID_LIKE of os-release(5).
func family(release string) string {
	f := osRelease(release)
	for _, id := range append([]string{f["ID"]}, strings.Fields(f["ID_LIKE"])...) {
		switch id {
		case "debian", "ubuntu":
			return "debian"
		case "fedora", "rhel", "centos":
			return "fedora"
		case "arch":
			return "arch"
		}
	}
	if f["ID"] == "" {
		return runtime.GOOS
	}
	return f["ID"]
}

func osRelease(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[k] = strings.Trim(v, `"'`)
		}
	}
	return m
}

// advice names the packages and the command for a family of systems.
func advice(sys string, lacking []missing) string {
	var pkgs []string
	add := func(get func(tool) string) {
		for _, m := range lacking {
			if p := get(m.tool); p != "" {
				pkgs = append(pkgs, p)
			}
		}
	}
	switch sys {
	case "debian":
		add(func(t tool) string { return t.debian })
		return "sudo apt-get install --no-install-recommends " + strings.Join(pkgs, " ")
	case "fedora":
		add(func(t tool) string { return t.fedora })
		return "install with: sudo dnf install " + strings.Join(pkgs, " ")
	case "arch":
		add(func(t tool) string { return t.arch })
		return "install with: sudo pacman -S " + strings.Join(pkgs, " ")
	case "macos":
		add(func(t tool) string { return t.brew })
		return "install with: brew install " + strings.Join(pkgs, " ")
	}
	for _, m := range lacking {
		pkgs = append(pkgs, m.name)
	}
	return fmt.Sprintf("this system (%s) is not known here; install with its package manager what brings %s", sys, strings.Join(pkgs, " and "))
}

// privilege returns the command prefix that may install packages, nil if there is none.
func privilege(ctx context.Context) []string {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil
	}
	if os.Geteuid() == 0 {
		return []string{}
	}
	if exec.CommandContext(ctx, "sudo", "-n", "true").Run() == nil {
		return []string{"sudo", "-n"}
	}
	return nil
}

// install lets apt install what is missing; its lists are updated first only if they do not do.
func install(ctx context.Context, out io.Writer, via []string, lacking []missing) error {
	get := append(append([]string{}, via...), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q")
	args := append(append([]string{}, get...), "install", "-y", "--no-install-recommends")
	for _, m := range lacking {
		args = append(args, m.debian)
	}
	fmt.Fprintln(out, "setup: running", strings.Join(args, " "))
	if text, err := output(ctx, args); err != nil {
		update := append(append([]string{}, get...), "update")
		fmt.Fprintln(out, "setup: that did not do; running", strings.Join(update, " "))
		if text, err := output(ctx, update); err != nil {
			return fmt.Errorf("apt-get update: %w\n%s", err, text)
		}
		if text, err = output(ctx, args); err != nil {
			return fmt.Errorf("apt-get install: %w\n%s", err, text)
		}
	}
	var wanted []tool
	for _, m := range lacking {
		wanted = append(wanted, m.tool)
	}
	if left := look(wanted); len(left) > 0 {
		return fmt.Errorf("%s is installed and still not usable: %v", left[0].debian, left[0].err)
	}
	return nil
}

func output(ctx context.Context, args []string) ([]byte, error) {
	return exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
}
