package nbd

import (
	"errors"
	"syscall"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// ErrHangup in a [Request]'s Err closes its client's connection instead of answering:
// the client should go elsewhere, or come again, with what it has no reply for. An
// error reply would be final.
var ErrHangup = errors.New("the connection is closed, so that its client comes again")

// errnoOf picks the NBD error number for err; the protocol knows only a few.
func errnoOf(err error) uint32 {
	if err == nil {
		return 0
	}
	var e syscall.Errno
	if !errors.As(err, &e) {
		return NBD_EIO
	}
	switch e {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return protocol.TRANSMISSION_ERROR_EPERM
	case syscall.ENOMEM:
		return NBD_ENOMEM
	case syscall.EINVAL:
		return protocol.TRANSMISSION_ERROR_EINVAL
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return NBD_ENOSPC
	case syscall.EOVERFLOW:
		return NBD_EOVERFLOW
	case syscall.ENOTSUP:
		return NBD_ENOTSUP
	case syscall.ESHUTDOWN:
		return NBD_ESHUTDOWN
	}
	return NBD_EIO
}

// errorOf is what a client's caller sees for an NBD error number: the same
// number on Linux, EINVAL for numbers the protocol does not define.
func errorOf(errno uint32) error {
	switch errno {
	case 0:
		return nil
	case protocol.TRANSMISSION_ERROR_EPERM, NBD_EIO, NBD_ENOMEM, protocol.TRANSMISSION_ERROR_EINVAL,
		NBD_ENOSPC, NBD_EOVERFLOW, NBD_ENOTSUP, NBD_ESHUTDOWN:
		return syscall.Errno(errno)
	}
	return syscall.EINVAL
}
