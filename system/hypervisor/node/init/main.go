// Init is PID 1 of a compute unit that is a Kubernetes node, see package node.
// With a word behind its name it is one of the unit's own services instead,
// which PID 1 starts.
package main

func main() { run() }
