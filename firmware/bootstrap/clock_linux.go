package bootstrap

import "golang.org/x/sys/unix"

// clocks returns seconds since the kernel started and seconds of processor
// time that this program has used.
func clocks() (since, cpu float64) {
	return clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_PROCESS_CPUTIME_ID)
}

func clock(id int32) float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}
