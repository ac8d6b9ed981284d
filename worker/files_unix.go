//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// exposed says how others than this process's user and root can read or change a file, and whether it is to be refused for
// that; the problem is empty when they cannot. It follows symbolic links. A file of root's may be readable by its group,
// which is how a process that is not root gets to read it: PostgreSQL has the same rule for its keys.
func exposed(path, kind string) (problem string, refused bool) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return "", false // what reads it says what is wrong
	}
	owner, self := -1, os.Geteuid()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(stat.Uid)
	}
	mode := info.Mode().Perm()
	what := fmt.Sprintf("%s (mode %04o, owner %d) can be", path, mode, owner)
	read, advice := os.FileMode(0o044), fmt.Sprintf("chmod 600 %s; of a Kubernetes secret, set defaultMode: 0400", path)
	if owner == 0 && self != 0 {
		read, advice = 0o004, fmt.Sprintf("chmod 640 %s, with a group of this process; of a Kubernetes secret, set defaultMode: 0400 and an fsGroup", path)
	}
	switch secret := kind == fileSecret || kind == fileSecrets; {
	case mode&0o002 != 0, secret && mode&0o020 != 0:
		return fmt.Sprintf("%s changed by others: chmod go-w %s", what, path), true
	case kind == filePublic:
		return "", false
	case owner != self && owner != 0:
		return fmt.Sprintf("%s read by its owner, who is not this process's user, %d: chown %d %s", what, self, self, path), secret
	case mode&read != 0:
		return fmt.Sprintf("%s read by others: %s", what, advice), secret
	}
	return "", false
}
