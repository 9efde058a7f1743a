//go:build !linux

package machine

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func dieWithParent(*syscall.SysProcAttr) {}

// ps asks ps(1), as POSIX describes it, for one column about a process.
func ps(pid int, column string) (string, error) {
	out, err := exec.Command("ps", "-o", column+"=", "-p", strconv.Itoa(pid)).Output()
	if err != nil || len(strings.TrimSpace(string(out))) == 0 {
		return "", errGone
	}
	return strings.TrimSpace(string(out)), nil
}

// identify returns a stamp that a later process with the same id will not have.
func identify(pid int) (string, error) {
	if state, err := ps(pid, "state"); err != nil || strings.HasPrefix(state, "Z") {
		return "", errGone
	}
	return ps(pid, "lstart")
}

func (p *process) cpuTime() (time.Duration, error) {
	s, err := ps(p.cmd.Process.Pid, "time")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return parseTime(s)
}

func (p *process) resident() uint64 {
	s, err := ps(p.cmd.Process.Pid, "rss")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
