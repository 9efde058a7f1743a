// Package racktest helps tests that need something a machine may lack. It is
// imported by tests only.
package racktest

import (
	"os"
	"os/exec"
	"path/filepath"
)

// A tester is the part of testing.TB that Tool uses, so that Tool itself can
// be tested.
type tester interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Tool finds a program and returns its full path: on the search path, else among the administrator's programs, else
// where the set-up unpacks what it may not install. These are the places of artifact/hosttool, whose test compares.
// Where it is missing the test is skipped, so that a laptop can run the rest;
// in CI, where the environment variable CI is set, it fails: a check that
// silently does not run there would be no check.
func Tool(t tester, name string) string {
	t.Helper()
	path, err := find(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is needed in CI: %v", name, err)
	} else {
		t.Skipf("%s is not installed; make setup installs it", name)
	}
	return "" // not reached in a test: Fatalf and Skipf end it
}

func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	dirs := []string{"/usr/sbin", "/sbin"}
	if c, e := os.UserCacheDir(); e == nil {
		dirs = append(dirs, filepath.Join(c, "racklet", "bin"))
	}
	for _, dir := range dirs {
		if path, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return path, nil
		}
	}
	return "", err
}
