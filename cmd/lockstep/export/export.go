// Package export joins NBD to a mirrored volume: requests become ops, and completed
// ops become replies. It copies nothing and, once warm, allocates nothing.
package export

import (
	"sync"
	"time"

	"lockstep/mirror"
	"lockstep/nbd"
)

// Export is the nbd.Backend of a volume. Set its fields before the first Submit; its
// methods may be called concurrently.
type Export struct {
	// Volume does the ops, and gives them back to Complete.
	Volume interface{ Submit([]*mirror.Op) }
	// Data says which part of the volume from off on holds data: from start to end,
	// both off's volume size if nothing does. ok is false where that is not known, and
	// all of it may be.
	Data func(off int64) (start, end int64, ok bool, err error)
	// Outcome, if set, says what the client is told of an op that failed.
	Outcome func(err error) error
	// Observe, if set, is told how long an op took from Submit to Complete.
	Observe func(kind mirror.OpKind, err error, took time.Duration)
}

// call is a request on its way through the volume.
type call struct {
	op      mirror.Op
	request *nbd.Request
	began   time.Time
}

// scratch is space for one Submit or one Complete.
type scratch struct {
	ops      []*mirror.Op
	requests []*nbd.Request
}

// Shared by all exports: connections come and go.
var (
	calls     = sync.Pool{New: func() any { return new(call) }}
	scratches = sync.Pool{New: func() any { return new(scratch) }}
)

// Submit implements nbd.Backend.
func (e *Export) Submit(batch []*nbd.Request) {
	l := scratches.Get().(*scratch) //nolint:errcheck // holds nothing else
	l.ops, l.requests = l.ops[:0], l.requests[:0]
	var now time.Time
	if e.Observe != nil {
		now = time.Now()
	}
	for _, r := range batch {
		switch r.Cmd {
		case nbd.CmdBlockStatus:
			r.Err = e.blockStatus(r)
			l.requests = append(l.requests, r)
		case nbd.CmdCache:
			l.requests = append(l.requests, r) // advice; the page cache will see to it
		default:
			l.ops = append(l.ops, newOp(r, now))
		}
	}
	if len(l.requests) > 0 {
		nbd.Complete(l.requests)
	}
	if len(l.ops) > 0 {
		e.Volume.Submit(l.ops)
	}
	scratches.Put(l)
}

func newOp(r *nbd.Request, now time.Time) *mirror.Op {
	c := calls.Get().(*call) //nolint:errcheck // holds nothing else
	c.request, c.began = r, now
	op := &c.op
	op.Reset()
	op.Tag = c
	op.Off, op.Len, op.Data = int64(r.Offset), int64(r.Length), r.Data
	op.FUA = r.Flags&nbd.FlagFUA != 0
	switch r.Cmd {
	case nbd.CmdRead:
		op.Kind = mirror.Read
	case nbd.CmdWrite:
		op.Kind = mirror.Write
	case nbd.CmdTrim:
		op.Kind = mirror.Zero // so that what was trimmed is the same at every site
	case nbd.CmdWriteZeroes:
		op.Kind, op.NoHole = mirror.Zero, r.Flags&nbd.FlagNoHole != 0
	case nbd.CmdFlush:
		op.Kind = mirror.Flush
	}
	return op
}

// Complete takes what the volume has done back to the clients.
func (e *Export) Complete(ops []*mirror.Op) {
	l := scratches.Get().(*scratch) //nolint:errcheck // holds nothing else
	l.requests = l.requests[:0]
	var now time.Time
	if e.Observe != nil {
		now = time.Now()
	}
	for _, op := range ops {
		c := op.Tag.(*call) //nolint:errcheck // newOp set it
		if e.Observe != nil {
			e.Observe(op.Kind, op.Err, now.Sub(c.began))
		}
		c.request.Err = e.outcome(op.Err)
		l.requests = append(l.requests, c.request)
		c.release(op)
	}
	nbd.Complete(l.requests)
	scratches.Put(l)
}

func (e *Export) outcome(err error) error {
	if err == nil || e.Outcome == nil {
		return err
	}
	return e.Outcome(err)
}

// release gives c back. op is another one than c's if a disk that hangs still has
// that, and the request's memory.
func (c *call) release(op *mirror.Op) {
	if op == &c.op {
		op.Reset() // a pooled op must not hold on to a request's buffer
		op.Tag, c.request = nil, nil
		calls.Put(c)
		return
	}
	c.request.Fresh()
	if op.Kind == mirror.Read {
		copy(c.request.Data, op.Data)
	}
}

// Gone says whether the client of an op, by its Tag, waits no more.
func Gone(tag any) bool { return tag.(*call).request.Abandoned() }

func (e *Export) blockStatus(r *nbd.Request) error {
	off, end := int64(r.Offset), int64(r.Offset+r.Length)
	for off < end && len(r.Extents) < nbd.MaxExtents {
		start, stop, ok, err := e.Data(off)
		switch {
		case err != nil:
			return err
		case !ok:
			start, stop = off, end
		}
		if start = min(start, end); start > off {
			r.Extents = append(r.Extents, nbd.Extent{Length: uint64(start - off), Hole: true, Zero: true})
		} else {
			stop = min(stop, end)
			r.Extents = append(r.Extents, nbd.Extent{Length: uint64(stop - off)})
			start = stop
		}
		off = start
		if r.Flags&nbd.FlagReqOne != 0 {
			break
		}
	}
	return nil
}
