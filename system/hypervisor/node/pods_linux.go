package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// podGrace is the time between asking what runs in pods to end, and ending it.
const podGrace = 8 * time.Second

// endPods is a Runnable that does nothing until it is stopped, and then ends
// what runs in pods: first asked, then forced. Nobody starts it again, because
// the kubelet has ended before.
func endPods(root string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		forEachProcess(root, func(pid int) { _ = unix.Kill(pid, unix.SIGTERM) })
		for end := time.Now().Add(podGrace); time.Now().Before(end) && populated(root); {
			time.Sleep(poll)
		}
		if populated(root) {
			_ = os.WriteFile(filepath.Join(root, "cgroup.kill"), []byte("1"), 0)
		}
		return ctx.Err()
	}
}

// populated tells whether there are processes in a control group or below it.
func populated(group string) bool {
	b, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
	return err == nil && strings.Contains(string(b), "populated 1")
}

func forEachProcess(root string, do func(pid int)) {
	_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (d.IsDir() || d.Name() != "cgroup.procs") {
			return nil
		}
		b, _ := os.ReadFile(name)
		for _, word := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
				do(pid)
			}
		}
		return nil
	})
}
