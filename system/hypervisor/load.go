package hypervisor

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Load is how busy a computer is.
type Load struct {
	Busy, All         uint64 // ticks of all processors since the kernel started
	UsedKiB, TotalKiB uint32 // memory; caches that can be given back are not used
}

// busySince is the share of time that processors were busy since another
// reading, in permille.
func (l Load) busySince(before Load) uint16 {
	all := l.All - before.All
	if l.All <= before.All || l.Busy < before.Busy {
		return 0
	}
	return uint16(min(1000, (l.Busy-before.Busy)*1000/all))
}

// parseLoad reads /proc/stat and /proc/meminfo (proc_stat(5), proc_meminfo(5)).
func parseLoad(stat, meminfo io.Reader) (l Load, err error) {
	line, err := bufio.NewReader(io.LimitReader(stat, 4096)).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 6 || fields[0] != "cpu" {
		return Load{}, fmt.Errorf("read processor time: line %q", line)
	}
	for i, f := range fields[1:] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return Load{}, fmt.Errorf("read processor time: %w", err)
		}
		if i >= 8 { // guest time is counted under user time already
			break
		}
		l.All += n
		if i != 3 && i != 4 { // idle, iowait
			l.Busy += n
		}
	}
	var available uint64
	s := bufio.NewScanner(meminfo)
	for s.Scan() {
		name, rest, _ := strings.Cut(s.Text(), ":")
		if name != "MemTotal" && name != "MemAvailable" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 32)
		if err != nil {
			return Load{}, fmt.Errorf("read memory: %w", err)
		}
		if name == "MemTotal" {
			l.TotalKiB = uint32(n)
		} else {
			available = n
		}
	}
	if err := s.Err(); err != nil || l.TotalKiB == 0 || available > uint64(l.TotalKiB) {
		return Load{}, fmt.Errorf("read memory: MemTotal and MemAvailable make no sense")
	}
	l.UsedKiB = l.TotalKiB - uint32(available)
	return l, nil
}
