package main

import "github.com/racklet/racklet/system/hypervisor"

func run() { hypervisor.Init(hypervisor.Flavour{}) }
