// Racklet runs and operates a rack: a virtual one on this machine, or a real
// one over its management API.
//
//	racklet up                    start a virtual rack and watch it boot
//	racklet status                one screen: units, stages, watts, fans
//	racklet why unit-1            which check failed, and the cure
//	racklet down                  stop it
//
// Every command has help with examples: racklet help COMMAND. Results go to
// standard output, everything else to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Stdin, os.Stdout, os.Stderr, os.Args[1:])
	stop()
	os.Exit(code)
}
