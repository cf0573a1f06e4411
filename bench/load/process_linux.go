package main

import "syscall"

// endWithParent ends a program also when this one is killed and cannot end it.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
