package gobuild

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"github.com/racklet/racklet/artifact"
)

// Kubernetes is a program of the module system/kubernetes in the repository root, stamped with the
// version of Kubernetes that the module's go.mod requires; version is Racklet's.
func Kubernetes(root, pkg, goos, goarch, version string) (Program, error) {
	p := Program{Dir: filepath.Join(root, "system", "kubernetes"), Package: pkg, GOOS: goos, GOARCH: goarch, Version: version}
	name := filepath.Join(p.Dir, "go.mod")
	b, err := os.ReadFile(name)
	if err != nil {
		return p, fmt.Errorf("read version of Kubernetes: %w", err)
	}
	mod, err := modfile.ParseLax(name, b, nil)
	if err != nil {
		return p, fmt.Errorf("read version of Kubernetes: %w", err)
	}
	i := slices.IndexFunc(mod.Require, func(r *modfile.Require) bool { return r.Mod.Path == "k8s.io/kubernetes" })
	if i < 0 {
		return p, fmt.Errorf("%s requires no k8s.io/kubernetes", name)
	}
	kube := mod.Require[i].Mod.Version
	number := strings.Split(strings.TrimPrefix(kube, "v"), ".")
	p.Set = map[string]string{}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		p.Set[pkg+".gitVersion"] = kube + "+racklet"
		p.Set[pkg+".gitMajor"], p.Set[pkg+".gitMinor"] = number[0], number[1]
		p.Set[pkg+".gitCommit"], p.Set[pkg+".gitTreeState"] = "", "clean"
		p.Set[pkg+".buildDate"] = artifact.Epoch.Format("2006-01-02T15:04:05Z")
	}
	return p, nil
}
