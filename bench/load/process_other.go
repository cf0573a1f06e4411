//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

func endWithParent() *syscall.SysProcAttr { return nil }

var errNoProc = errors.New("measure process: Linux's /proc is needed")

func residentBytes(int) (int64, error) { return 0, errNoProc }

func cpuTime(int) (time.Duration, error) { return 0, errNoProc }
