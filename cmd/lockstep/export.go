package main

import (
	"sync"

	"lockstep/mirror"
	"lockstep/mirror/store"
	"lockstep/nbd"
)

// export joins an NBD server to a mirrored volume: requests become ops, and
// completed ops become replies. It copies nothing and, once warm, allocates
// nothing.
type export struct {
	volume *mirror.Volume
	store  *store.Store // the primary's copy
	ops    sync.Pool    // *mirror.Op
	lists  sync.Pool    // *lists
}

// lists is scratch space for one Submit or one complete.
type lists struct {
	ops      []*mirror.Op
	requests []*nbd.Request
}

func newExport(st *store.Store) *export {
	return &export{
		store: st,
		ops:   sync.Pool{New: func() any { return new(mirror.Op) }},
		lists: sync.Pool{New: func() any { return new(lists) }},
	}
}

// minBlock is the smallest request that the primary's copy can do, in bytes; 0 if any.
func (e *export) minBlock() uint32 {
	if align := e.store.Align(); align > 1 {
		return uint32(align)
	}
	return 0
}

// Submit implements nbd.Backend.
func (e *export) Submit(batch []*nbd.Request) {
	l := e.lists.Get().(*lists)
	l.ops, l.requests = l.ops[:0], l.requests[:0]
	for _, r := range batch {
		switch r.Cmd {
		case nbd.CmdBlockStatus:
			r.Err = e.blockStatus(r)
			l.requests = append(l.requests, r)
		case nbd.CmdCache:
			l.requests = append(l.requests, r) // advice; the page cache will see to it
		default:
			l.ops = append(l.ops, e.op(r))
		}
	}
	if len(l.requests) > 0 {
		nbd.Complete(l.requests)
	}
	if len(l.ops) > 0 {
		e.volume.Submit(l.ops)
	}
	e.lists.Put(l)
}

func (e *export) op(r *nbd.Request) *mirror.Op {
	op := e.ops.Get().(*mirror.Op)
	op.Reset()
	op.Tag = r
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

// complete takes what the volume has done back to the clients.
func (e *export) complete(ops []*mirror.Op) {
	l := e.lists.Get().(*lists)
	l.requests = l.requests[:0]
	for _, op := range ops {
		r := op.Tag.(*nbd.Request)
		r.Err = op.Err
		l.requests = append(l.requests, r)
		op.Reset() // a pooled op must not hold on to a request's buffer
		op.Tag = nil
		e.ops.Put(op)
	}
	nbd.Complete(l.requests)
	e.lists.Put(l)
}

// maxExtents bounds the answer to one BLOCK_STATUS (NBD specification,
// NBD_CMD_BLOCK_STATUS).
const maxExtents = 1 << 20

func (e *export) blockStatus(r *nbd.Request) error {
	off, end := int64(r.Offset), int64(r.Offset+r.Length)
	for off < end && len(r.Extents) < maxExtents {
		start, stop, err := e.store.Data(off)
		if err != nil {
			return err
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
