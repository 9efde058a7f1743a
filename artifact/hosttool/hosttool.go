// Package hosttool finds the programs of others that Racklet starts on its user's machine: those that
// are installed, else those that the set-up (tools/setup) unpacked into the user's cache because it
// was not allowed to install.
package hosttool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

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

// Path returns the full path of a program.
func Path(name string) (string, error) {
	p, err := exec.LookPath(name)
	if err == nil {
		return p, nil
	}
	if dir, e := Dir(); e == nil {
		p := filepath.Join(dir, name)
		if st, e := os.Stat(p); e == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (make setup installs it): %w", name, err)
}
