package peers

import "syscall"

// attributes keep a process out of the way of signals to the test's own process group, which are the test's business,
// and end it with the test's process, however that ends: a test that runs out of time cleans nothing up.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
