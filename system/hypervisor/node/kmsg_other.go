//go:build !linux

package node

import (
	"errors"
	"io"
)

func sendKernelLog(io.Writer, string) error { return errors.ErrUnsupported }
