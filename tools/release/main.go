// Command release builds a release: boot image and operating system as an OCI image layout, and
// release.json, which says what the owners are to sign.
//
//	go run ./tools/release [-o DIR] [-version V] [-security-version N] [flags]
//
// The kernels come from the lock file, through the user's cache. When nothing that goes into the
// release has changed since DIR was written, nothing is done. The same sources, lock file and Go
// version give the same bytes on every machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/rack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release: error:", err)
		os.Exit(1)
	}
}

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, out io.Writer, args []string) error {
	fs := flag.NewFlagSet("release", flag.ContinueOnError)
	var c config
	var mirrors list
	fs.StringVar(&c.dir, "o", "bin/release", "`directory` of the layout")
	fs.StringVar(&c.version, "version", "0.1.0", "version of the release")
	security := fs.Uint("security-version", 1, "security version; boards refuse lower ones than their floor")
	fs.StringVar(&c.lock, "lock", "tools/locks/trixie-arm64.lock.json", "lock `file` with the kernels")
	fs.StringVar(&c.bootKernel, "boot-kernel", "kernel", "`role` in the lock of the boot image's kernel")
	fs.StringVar(&c.osKernel, "os-kernel", "kernel", "`role` in the lock of the operating system's kernel")
	fs.StringVar(&c.stage1, "stage1", "./firmware/bootstrap/init", "`package` of stage 1")
	fs.StringVar(&c.flavour, "flavour", rack.FlavourMinimal, "`flavour` of the operating system: "+rack.FlavourMinimal+", or "+rack.FlavourNode+" for a Kubernetes node")
	fs.StringVar(&c.init, "init", "", "`package` of the operating system's PID 1 (default: that of the flavour)")
	fs.BoolVar(&c.unchecked, "unchecked", false, "leave the checks out of stage 1, for a benchmark: only into a directory with a file "+benchmarkFile)
	fs.BoolVar(&c.force, "force", false, "build even if nothing changed")
	fs.Var(&mirrors, "mirror", "base `URL` of a Debian mirror; may be repeated (default: apt's)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if c.flavour != rack.FlavourMinimal && c.flavour != rack.FlavourNode {
		return fmt.Errorf("flavour %q: want %s or %s", c.flavour, rack.FlavourMinimal, rack.FlavourNode)
	}
	c.security = uint32(*security)
	named, err := deb.NamedMirrors(mirrors...)
	if err != nil {
		return err
	}
	if named.Empty() {
		named = deb.AptMirrors("/etc/apt")
	}
	store, err := cache.User()
	if err != nil {
		return err
	}
	c.kernels = &kernels{fetcher: &deb.Fetcher{Cache: store, Mirrors: named, Progress: progress(out)}}
	start := time.Now()
	r, built, err := c.build(ctx)
	if err != nil {
		return err
	}
	if built {
		fmt.Fprintf(out, "release %s in %s, %s: boot image %.1f MiB, OS root %.1f MiB, %.1f s\n", c.version, c.dir, c.flavour, mib(r.volume), mib(r.root), time.Since(start).Seconds())
	}
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// progress prints at most one line per tenth of a download that takes a while.
func progress(out io.Writer) func(deb.Package, int64, int64) {
	var mu sync.Mutex // packages come beside each other
	last := map[string]int64{}
	return func(p deb.Package, have, total int64) {
		mu.Lock()
		defer mu.Unlock()
		tenth := have * 10 / total
		if old, ok := last[p.SHA256]; total < 1<<20 || ok && old == tenth {
			return
		}
		last[p.SHA256] = tenth
		fmt.Fprintf(out, "fetch %s %s: %.1f of %.1f MiB\n", p.Package, p.Version, mib(have), mib(total))
	}
}
