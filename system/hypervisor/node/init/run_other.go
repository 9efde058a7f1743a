//go:build !linux

package main

import (
	"fmt"
	"os"
)

func run() {
	fmt.Fprintln(os.Stderr, "racklet: error: the unit's system runs as PID 1 of a compute unit, under Linux")
	os.Exit(1)
}
