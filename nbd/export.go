package nbd

import (
	"context"
	"fmt"
)

// Defaults of an export's block sizes, in bytes.
const (
	DefaultMinBlock       = 1
	DefaultPreferredBlock = 4096
	DefaultMaxBlock       = 32 << 20
)

// maxString is the longest string that the protocol allows, in bytes.
const maxString = 4096

// Export is one volume that a server offers.
type Export struct {
	Name        string // at most 4096 bytes; a client that names none gets the first export
	Description string // for people; at most 4096 bytes
	Size        uint64 // bytes, a multiple of MinBlock, at most 2^63-1
	ReadOnly    bool

	// FastZero: the backend can tell whether a WRITE_ZEROES is fast, and
	// answers FlagFastZero with ENOTSUP when it is not. Without it the server
	// gives that answer itself.
	FastZero bool

	// The block sizes advertised, in bytes; 0 is the default. Requests that are
	// not multiples of MinBlock (a power of two, at most 64 KiB) are refused.
	// MaxBlock (at most 64 MiB) is advice: up to MaxPayload is executed.
	MinBlock, PreferredBlock, MaxBlock uint32

	// Group names the clients of which a new one must wait until those that have
	// gone are drained, because it may be one of them; empty is Name. It is longer
	// than Name where clients can be told apart.
	Group string

	// Backend executes the requests of all connections. If Attach is set, each has
	// its own instead: Attach is called when a client enters the export, and may
	// wait until ctx ends, after Limits.Handshake or when the client has gone. Its
	// error is told to the client, who may try again; not if it wraps fs.ErrNotExist,
	// for then there is nothing to be had under that name any more.
	Backend Backend
	Attach  func(ctx context.Context) (Attachment, error)
}

// setDefaults fills in what is unset and reports what is impossible.
func (e *Export) setDefaults() error {
	if e.MinBlock == 0 {
		e.MinBlock = DefaultMinBlock
	}
	if e.PreferredBlock == 0 {
		e.PreferredBlock = max(DefaultPreferredBlock, e.MinBlock)
	}
	if e.Group == "" {
		e.Group = e.Name
	}
	if e.MaxBlock == 0 {
		e.MaxBlock = DefaultMaxBlock
	}
	switch {
	case e.Backend == nil && e.Attach == nil:
		return e.invalid("it has no backend", "set Export.Backend or Export.Attach")
	case len(e.Name) > maxString || len(e.Description) > maxString:
		return e.invalid("its name or description is too long", "keep both within 4096 bytes")
	case e.MinBlock&(e.MinBlock-1) != 0 || e.MinBlock > 64<<10:
		return e.invalid(fmt.Sprintf("minimum block size %d", e.MinBlock), "use a power of two up to 65536")
	case e.PreferredBlock&(e.PreferredBlock-1) != 0 || e.PreferredBlock < max(512, e.MinBlock):
		return e.invalid(fmt.Sprintf("preferred block size %d", e.PreferredBlock), "use a power of two from 512 up, not below the minimum")
	case e.MaxBlock%e.MinBlock != 0 || e.MaxBlock < e.PreferredBlock || e.MaxBlock > MaxPayload:
		return e.invalid(fmt.Sprintf("maximum block size %d", e.MaxBlock), "use a multiple of the minimum, from the preferred size to 64 MiB")
	case e.Size%uint64(e.MinBlock) != 0 || e.Size > 1<<63-1:
		return e.invalid(fmt.Sprintf("size %d", e.Size), "use a multiple of the minimum block size below 2^63")
	}
	return nil
}

func (e *Export) invalid(what, hint string) error {
	return &Error{Op: "configure export", Subject: fmt.Sprintf("%.64q", e.Name), Err: fmt.Errorf("%s: invalid", what), Hint: hint}
}

// flags are the transmission flags that the export is announced with.
// CAN_MULTI_CONN holds because all connections share one backend, whose flush
// covers everything completed before it.
func (e *Export) flags(structured bool) TransmissionFlags {
	f := HasFlags | SendFlush | SendFUA | SendCache | CanMultiConn
	if e.ReadOnly {
		f |= IsReadOnly
	} else {
		f |= SendTrim | SendWriteZeroes | SendFastZero
	}
	if structured {
		f |= SendDF
	}
	return f
}
