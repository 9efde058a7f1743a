package main

import "github.com/racklet/racklet/firmware/bootstrap"

func run() { bootstrap.Init() }
