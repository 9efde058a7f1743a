package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// userHZ is the unit of times in /proc, fixed for every architecture that
// Linux has today (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
const userHZ = 100

func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }

// stat returns the fields of /proc/PID/stat from the third one on; the second,
// the name, may hold anything. Field n of proc_pid_stat(5) is fields[n-3].
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 22 {
		return nil, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields, nil
}

// identify returns a stamp that a later process with the same id cannot have.
func identify(pid int) (string, error) {
	f, err := stat(pid)
	if err != nil {
		return "", err
	}
	if f[0] == "Z" { // dead, and only waits for its parent
		return "", errGone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return f[22-3] + "@" + strings.TrimSpace(string(boot)), nil
}

func (p *process) cpuTime() (time.Duration, error) {
	f, err := stat(p.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	var ticks uint64
	for _, s := range f[14-3 : 16-3] { // utime, stime
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

func (p *process) resident() uint64 {
	f, err := stat(p.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseUint(f[24-3], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
