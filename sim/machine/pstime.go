package machine

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseTime reads a CPU time as ps prints it: [[dd-]hh:]mm:ss[.cc].
func parseTime(s string) (time.Duration, error) {
	var days int
	rest := s
	if d, r, ok := strings.Cut(s, "-"); ok {
		n, err := strconv.ParseUint(d, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("CPU time %q: %w", s, err)
		}
		days, rest = int(n), r
	}
	parts := strings.Split(rest, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, fmt.Errorf("CPU time %q: want [[dd-]hh:]mm:ss", s)
	}
	seconds, err := strconv.ParseFloat(parts[len(parts)-1], 64)
	if err != nil || !(seconds >= 0 && seconds < 61) {
		return 0, fmt.Errorf("CPU time %q: seconds %q", s, parts[len(parts)-1])
	}
	minutes := 0
	for _, p := range parts[:len(parts)-1] {
		n, err := strconv.ParseUint(p, 10, 24)
		if err != nil {
			return 0, fmt.Errorf("CPU time %q: %w", s, err)
		}
		minutes = minutes*60 + int(n)
	}
	return time.Duration(days)*24*time.Hour + time.Duration(minutes)*time.Minute + time.Duration(seconds*float64(time.Second)), nil
}
