package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/racklet/racklet/artifact"
	"github.com/racklet/racklet/artifact/deb"
	"github.com/racklet/racklet/artifact/dynlink"
	"github.com/racklet/racklet/artifact/gobuild"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/system/hypervisor/osimage"
)

// initPackage is the package of PID 1.
func (c config) initPackage() string {
	switch {
	case c.init != "":
		return c.init
	case c.flavour == rack.FlavourNode:
		return "./system/hypervisor/node/init"
	}
	return "./system/hypervisor/init"
}

// A part is a program of a node, and where it goes.
type part struct {
	name    string // path in the root
	program gobuild.Program
}

type parts []part

// pausePart is the one that goes into an image of its own.
const pausePart = "pause"

func (p parts) programs() []gobuild.Program {
	var out []gobuild.Program
	for _, one := range p {
		out = append(out, one.program)
	}
	return out
}

// nodeParts are the programs of a node that are compiled; none for another flavour.
func (c config) nodeParts() (parts, error) {
	if c.flavour != rack.FlavourNode {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(c.root, "tools", "locks", "modules.json"))
	if err != nil {
		return nil, fmt.Errorf("read locked modules: %w", err)
	}
	var modules map[string]gobuild.Module
	if err := json.Unmarshal(b, &modules); err != nil {
		return nil, fmt.Errorf("tools/locks/modules.json: %w", err)
	}
	arm := gobuild.Program{Dir: c.root, GOOS: "linux", GOARCH: "arm64", Version: c.version}
	var out parts
	add := func(name, pkg string, change func(*gobuild.Program)) {
		p := arm
		p.Package = pkg
		if change != nil {
			change(&p)
		}
		out = append(out, part{name, p})
	}

	daemon := func(p *gobuild.Program) {
		p.Module, p.Tags = modules["containerd"], []string{"no_btrfs", "no_zfs", "no_devmapper", "no_aufs"}
		p.Set = map[string]string{
			p.Module.Path + "/version.Version": p.Module.Version,
			p.Module.Path + "/version.Package": p.Module.Path,
		}
	}
	add("usr/bin/containerd", "./cmd/containerd", daemon)
	add("usr/bin/containerd-shim-runc-v2", "./cmd/containerd-shim-runc-v2", daemon)
	plugin := func(p *gobuild.Program) { p.Module = modules["cni"] }
	for _, pkg := range []string{"./plugins/main/bridge", "./plugins/main/ptp", "./plugins/main/loopback", "./plugins/ipam/host-local", "./plugins/meta/portmap"} {
		add("opt/cni/bin/"+filepath.Base(pkg), pkg, plugin)
	}
	add(pausePart, "./system/hypervisor/pause", nil)
	kube, err := gobuild.Kubernetes(c.root, "./cmd/racklet-node", "linux", "arm64", c.version)
	if err != nil {
		return nil, err
	}
	out = append(out, part{"usr/bin/racklet-node", kube})
	for _, o := range []struct{ name, pkg string }{
		{"usr/lib/racklet/enroll", "system/enroll/agent"}, {"usr/lib/racklet/cni", "system/cni/agent"}, {"opt/cni/bin/racklet", "system/cni/plugin"},
	} {
		if _, err := os.Stat(filepath.Join(c.root, o.pkg)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		add(o.name, "./"+o.pkg, nil)
	}
	return out, nil
}

// node compiles and gathers what a node is made of; nil for another flavour.
func (c config) node(ctx context.Context, lock *deb.Lock, all parts) (*osimage.Node, error) {
	if len(all) == 0 {
		return nil, nil
	}
	files := make([]artifact.File, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(1) // the go command uses all processors itself, and linking takes gigabytes
	for i, p := range all {
		g.Go(func() (err error) {
			files[i], err = gobuild.Cached(gctx, c.kernels.fetcher.Cache, p.program)
			files[i].Name = p.name
			return err
		})
	}
	n := &osimage.Node{Packages: new(dynlink.Packages)}
	for role, licence := range osimage.DebianPackages {
		p, err := lock.Find(role)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.lock, err)
		}
		file, err := c.kernels.fetcher.Fetch(ctx, p)
		if err != nil {
			return nil, err
		}
		if err := n.Packages.Open(file, p, lock.Architecture, licence); err != nil {
			return nil, err
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Name == pausePart {
			n.Pause = f
		} else {
			n.Programs = append(n.Programs, f)
		}
	}
	return n, nil
}
