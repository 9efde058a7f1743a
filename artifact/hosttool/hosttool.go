// Package hosttool finds the programs of others that Racklet starts on its user's machine: those that
// are installed, else those that the set-up (tools/setup) unpacked into the user's cache because it
// was not allowed to install. rack/racktest looks in the same places for tests.
package hosttool

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/racklet/racklet/artifact/cache"
)

// Dir is where the set-up puts programs for a user.
func Dir() (string, error) {
	c, err := cache.User()
	if err != nil {
		return "", err
	}
	return filepath.Join(c.Dir, "bin"), nil
}

// QEMU is the program that emulates compute units.
const QEMU = "qemu-system-aarch64"

// Path returns the full path of a program: on the search path, else among the administrator's programs, which a user's
// search path may lack, else in Dir. A name with a slash in it is a path already. The error is exec.ErrNotFound, with
// the cure.
func Path(name string) (string, error) {
	p, err := exec.LookPath(name)
	if err == nil {
		return p, nil
	}
	if strings.ContainsRune(name, '/') {
		return "", err
	}
	dirs := []string{"/usr/sbin", "/sbin"}
	if dir, e := Dir(); e == nil {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		if p, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (make setup installs it): %w", name, err)
}
