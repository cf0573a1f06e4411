//go:build unix

package edge

import "syscall"

// openFiles is how many files this process may have open, connections among them. ok is false where
// that is not known. Go raises the soft limit to the hard one at the start.
func openFiles() (n int, ok bool) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0, false
	}
	return int(min(limit.Cur, 1<<30)), true
}
