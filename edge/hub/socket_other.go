//go:build !linux

package hub

// setUserTimeout does nothing here: a stream whose peer vanished is found by the kernel's own
// timeout.
func setUserTimeout(uintptr) {}
