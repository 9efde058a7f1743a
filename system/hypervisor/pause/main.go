// Pause is what holds a pod's namespaces open: the program of the sandbox
// container. It does nothing until it is told to end, and collects the
// processes that a pod with one process namespace orphans.
package main

func main() { run() }
