package nbd

import (
	"fmt"
	"syscall"
)

// commandFlags are the flags that each command may carry; FUA is accepted
// everywhere, as announcing SEND_FUA demands.
var commandFlags = map[Command]CommandFlags{
	CmdRead:        FlagFUA | FlagDF,
	CmdWrite:       FlagFUA,
	CmdFlush:       FlagFUA,
	CmdTrim:        FlagFUA,
	CmdCache:       FlagFUA,
	CmdWriteZeroes: FlagFUA | FlagNoHole | FlagFastZero,
	CmdBlockStatus: FlagFUA | FlagReqOne,
}

// session is what a handshake agreed on.
type session struct {
	export         *Export
	backend        Backend
	structured     bool // structured replies
	baseAllocation bool // the base:allocation context is selected
}

// validate is the only place where requests are checked. An error is the reply;
// what passes is within the export, aligned, permitted, and carries only flags
// that belong to it.
func (s *session) validate(r *Request) error {
	allowed, known := commandFlags[r.Cmd]
	if !known {
		return refuse(syscall.EINVAL, "command %d is unknown", uint16(r.Cmd))
	}
	if !s.structured {
		allowed &^= FlagDF
	}
	if extra := r.Flags &^ allowed; extra != 0 {
		return refuse(syscall.EINVAL, "flags %#x do not belong to a %s", uint16(extra), r.Cmd)
	}
	if r.Cmd.Modifies() && s.export.ReadOnly {
		return refuse(syscall.EPERM, "the export is read-only")
	}
	if err := s.validateRange(r); err != nil {
		return err
	}
	switch {
	case r.Cmd == CmdBlockStatus && !s.baseAllocation:
		return refuse(syscall.EINVAL, "block status without a negotiated context")
	case r.Cmd == CmdBlockStatus && r.Length == 0:
		return refuse(syscall.EINVAL, "block status of nothing")
	case r.Flags&FlagFastZero != 0 && !s.export.FastZero:
		return refuse(syscall.ENOTSUP, "zeroing is not faster than writing here")
	}
	return nil
}

func (s *session) validateRange(r *Request) error {
	size, block := s.export.Size, uint64(s.export.MinBlock)
	switch {
	case r.Cmd == CmdFlush:
		if r.Offset != 0 || r.Length != 0 {
			return refuse(syscall.EINVAL, "a flush has no range")
		}
	case (r.Cmd == CmdRead || r.Cmd == CmdWrite) && r.Length > MaxPayload:
		return refuse(syscall.EINVAL, "a %s of %d bytes, at most %d are allowed", r.Cmd, r.Length, MaxPayload)
	case r.Offset > size || r.Length > size-r.Offset:
		errno := syscall.EINVAL
		if r.Cmd == CmdWrite || r.Cmd == CmdWriteZeroes {
			errno = syscall.ENOSPC
		}
		return refuse(errno, "%d bytes at %d reach beyond the end at %d", r.Length, r.Offset, size)
	case r.Offset%block != 0 || r.Length%block != 0:
		return refuse(syscall.EINVAL, "%d bytes at %d are not aligned to %d", r.Length, r.Offset, block)
	}
	return nil
}

// refuse builds the error of a request that never reaches the backend; its text
// goes to the client where structured replies allow it.
func refuse(errno syscall.Errno, format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errno)...)
}
