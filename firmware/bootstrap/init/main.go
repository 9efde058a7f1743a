// Init is the program that a boot image's kernel starts as PID 1: stage 1,
// see package bootstrap. It takes no arguments.
package main

func main() { run() }
