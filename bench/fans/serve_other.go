//go:build !linux

package fans

import (
	"context"
	"errors"
	"io"
)

// Serve needs epoll.
func Serve(context.Context, io.Reader, io.Writer) error {
	return errors.New("a crowd of fans runs on Linux only")
}
