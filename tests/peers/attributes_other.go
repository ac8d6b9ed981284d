//go:build !linux

package peers

import "syscall"

// attributes keep a process out of the way of signals to the test's own process group, which are the test's business.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
