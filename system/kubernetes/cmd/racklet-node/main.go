// Racklet-node is what a compute unit runs of Kubernetes: kubelet and kube-proxy in one program,
// chosen by the first argument or by the name under which it is started. On units it is installed as
// racklet-kube.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/component-base/cli"

	"github.com/racklet/racklet/system/kubernetes/component/node"
)

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if node.Commands[name] == nil && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	command := node.Commands[name]
	if command == nil {
		fmt.Fprintln(os.Stderr, "usage: racklet-node kubelet|kube-proxy [flags]")
		os.Exit(2)
	}
	os.Args = append([]string{name}, args...)
	os.Exit(cli.Run(command()))
}
