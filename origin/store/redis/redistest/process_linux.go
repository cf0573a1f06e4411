package redistest

import "syscall"

// endWithParent ends the server also when the test is killed and no cleanup runs.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
