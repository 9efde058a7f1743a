package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// A layout names the files of one rack's state directory.
type layout struct{ state string }

func (l layout) repository() string { return filepath.Join(l.state, "repository") } // working clone of the rack repository
func (l layout) keys() string       { return filepath.Join(l.state, "keys") }       // owners' keys of a learning rack
func (l layout) sim() string        { return filepath.Join(l.state, "sim") }        // flash, disks, Git host
func (l layout) enroll() string     { return filepath.Join(l.state, "enroll") }     // node authority, accepted states, admissions
func (l layout) kubernetes() string { return filepath.Join(l.state, "kubernetes") } // database, keys, logs
func (l layout) redfish() string    { return filepath.Join(l.state, "redfish") }    // accounts, TLS key, audit log, subscriptions
func (l layout) log() string        { return filepath.Join(l.state, "racklet.log") }
func (l layout) lock() string       { return filepath.Join(l.state, "lock") }
func (l layout) config() string     { return filepath.Join(l.state, "rack.json") } // what the daemon was started with

// stolen are the keys that a thief finds on a learning rack, for the fault owner-key-stolen: one owner's and the online
// key. They are empty where the owners keep theirs elsewhere.
func (l layout) stolen() (owner, online string) {
	owner, online = filepath.Join(l.keys(), "owner-1.pem"), filepath.Join(l.keys(), "online.pem")
	for _, file := range []string{owner, online} {
		if _, err := os.Stat(file); err != nil {
			return "", ""
		}
	}
	return owner, online
}

// sockets returns the directory of the rack's Unix sockets, made if need be.
// It is apart from the state directory because a socket's path has at most
// about 100 bytes; its name is derived from the state directory's.
func (l layout) sockets() (string, error) {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("racklet-%d", os.Getuid()))
		if err := privateDir(base); err != nil {
			return "", err
		}
	}
	sum := sha256.Sum256([]byte(l.state))
	dir := filepath.Join(base, "racklet-"+hex.EncodeToString(sum[:5]))
	return dir, privateDir(dir)
}

// privateDir makes dir for this user alone, and refuses one that is not.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && (int(s.Uid) != os.Getuid() || !info.IsDir() || info.Mode().Perm()&0o077 != 0) {
		return fmt.Errorf("%s: not a directory of this user alone", dir)
	}
	return nil
}

// socket returns the path of one of the rack's sockets: "redfish" or "sim".
func (l layout) socket(name string) (string, error) {
	dir, err := l.sockets()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name+".sock"), nil
}
