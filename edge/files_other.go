//go:build !unix

package edge

func openFiles() (n int, ok bool) { return 0, false }
