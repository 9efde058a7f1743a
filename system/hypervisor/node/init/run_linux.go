package main

import "github.com/racklet/racklet/system/hypervisor/node"

func run() { node.Main() }
