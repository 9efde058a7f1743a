// Init is PID 1 of a compute unit's operating system, see package hypervisor.
// It takes no arguments.
package main

func main() { run() }
