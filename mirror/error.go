package mirror

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// ErrClosed ends the ops that a volume still held when it was closed. It is an
// ESHUTDOWN: whether their data reached any site is not known.
var ErrClosed = fmt.Errorf("the volume was closed: %w", syscall.ESHUTDOWN)

// errNotInSync ends a check of a replica that is not in sync.
var errNotInSync = errors.New("the replica is not in sync")

// errReplaced ends what an older connection still does.
var errReplaced = errors.New("a newer connection took this one's place")

// errRefused is wrapped by the error of a connection that the replica refused.
var errRefused = errors.New("refused")

// OpError says what failed, on what, and what a person can do about it.
type OpError struct {
	Op       string // "connect", "compare", "resync", "write", ...
	Volume   string
	Replica  string // address; empty for the primary's own copy
	Epoch    uint64
	Off, Len int64 // bytes; both 0 if no range is meant
	Err      error
	Hint     string // how to mend it; may be empty
}

func (e *OpError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: volume %q", e.Op, e.Volume)
	if e.Replica != "" {
		fmt.Fprintf(&b, ", replica %s", e.Replica)
	}
	fmt.Fprintf(&b, ", epoch %d", e.Epoch)
	if e.Len != 0 {
		fmt.Fprintf(&b, ", at %d+%d", e.Off, e.Len)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
