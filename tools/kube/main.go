// Command kube builds racklet-kube for this machine: Kubernetes in one program, from the module
// system/kubernetes.
//
//	go run ./tools/kube [-o bin/racklet-kube]
//
// What has been compiled from the same sources before comes from the user's cache, and when the file
// is there already nothing is done. Compiled for the first time it takes about fifteen minutes of
// processor time and 4 GB of memory.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/racklet/racklet/artifact/cache"
	"github.com/racklet/racklet/artifact/gobuild"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kube: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	fs := flag.NewFlagSet("kube", flag.ContinueOnError)
	name := fs.String("o", "bin/racklet-kube", "`file` to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	p, err := gobuild.Kubernetes("", "./cmd/racklet-kube", runtime.GOOS, runtime.GOARCH, "")
	if err != nil {
		return err
	}
	key, err := gobuild.Key(ctx, p)
	if err != nil {
		return err
	}
	built := filepath.Join(filepath.Dir(*name), "."+filepath.Base(*name)+".key") // what the file was built from
	if b, err := os.ReadFile(built); err == nil && strings.TrimSpace(string(b)) == key {
		if _, err := os.Stat(*name); err == nil {
			return nil
		}
	}
	store, err := cache.User()
	if err != nil {
		return err
	}
	start := time.Now()
	done := make(chan struct{})
	defer close(done)
	go progress(out, done, start)
	f, err := gobuild.Cached(ctx, store, p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(*name+".new", f.Data, 0o755); err != nil {
		return err
	}
	if err := os.Rename(*name+".new", *name); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %.0f MiB, %.1f s\n", *name, float64(len(f.Data))/(1<<20), time.Since(start).Seconds())
	return os.WriteFile(built, []byte(key+"\n"), 0o644)
}

// progress tells people who wait that something happens.
func progress(out io.Writer, done <-chan struct{}, start time.Time) {
	wait := 3 * time.Second
	for {
		select {
		case <-done:
			return
		case <-time.After(wait):
		}
		if wait < 30*time.Second {
			fmt.Fprintln(out, "building Kubernetes: once about ten minutes on two processors, seconds from then on")
			wait = 30 * time.Second
			continue
		}
		fmt.Fprintf(out, "building Kubernetes: %.0f s\n", time.Since(start).Seconds())
	}
}
