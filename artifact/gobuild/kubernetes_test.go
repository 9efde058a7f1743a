package gobuild

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKubernetes(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "system", "kubernetes")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Kubernetes(root, ".", "linux", "arm64", "1"); err == nil {
		t.Error("no go.mod, no error")
	}
	write("module m\n\nrequire k8s.io/api v0.37.1\n")
	if _, err := Kubernetes(root, ".", "linux", "arm64", "1"); err == nil {
		t.Error("no Kubernetes, no error")
	}
	write("module m\n\nrequire k8s.io/kubernetes v1.37.1\n")
	p, err := Kubernetes(root, "./cmd/x", "linux", "arm64", "1")
	if err != nil || p.Dir != dir || p.Set["k8s.io/client-go/pkg/version.gitVersion"] != "v1.37.1+racklet" || p.Set["k8s.io/component-base/version.gitMinor"] != "37" {
		t.Errorf("%+v, %v", p, err)
	}
}
