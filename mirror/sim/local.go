package sim

import (
	"slices"
	"time"

	"lockstep/mirror"
)

// local is work for the store that is under way.
type local struct {
	op *mirror.Op
	do func()
}

// locally does work for the store after a while, unless the reign ends before.
func (l *lead) locally(op *mirror.Op, d time.Duration, do func()) {
	w := &local{op, do}
	l.locals = append(l.locals, w)
	l.after(d, func() {
		i := slices.Index(l.locals, w)
		l.locals = slices.Delete(l.locals, i, i+1)
		do()
	})
}

func (l *lead) apply(op *mirror.Op) {
	err := l.n.access(op)
	answer := func() { l.step(mirror.Event{Kind: mirror.EvApplied, Op: op, Err: err}) }
	if op.Kind == mirror.Read && l.n.rand.IntN(4) == 0 { // the answer lingers after the data was fetched
		l.after(l.n.diskTime(), answer)
		return
	}
	answer()
}

// access does an op on the node's store.
func (n *node) access(op *mirror.Op) error {
	switch op.Kind {
	case mirror.Read:
		return n.store.ReadAt(op.Data, op.Off)
	case mirror.Write:
		return n.store.WriteAt(op.Data, op.Off)
	default:
		return n.store.Zero(op.Off, op.Len, op.NoHole)
	}
}

// sync makes an op durable. What else is durable with it is as little as what was
// written when the sync began, or as much as what was when it ended.
func (l *lead) sync(op *mirror.Op) {
	var err error
	early := l.n.rand.IntN(2) == 0
	if early {
		err = l.n.store.Sync()
	}
	l.after(l.n.syncTime(), func() {
		if !early {
			err = l.n.store.Sync()
		}
		l.step(mirror.Event{Kind: mirror.EvSynced, Op: op, Err: err})
	})
}

// tear does a write up to some sector.
func (n *node) tear(op *mirror.Op) {
	part := mirror.Op{Kind: op.Kind, Off: op.Off, Len: (1 + n.rand.Int64N(op.Len/sectorSize)) * sectorSize}
	if op.Kind == mirror.Write {
		part.Data = op.Data[:part.Len]
	}
	if err := n.access(&part); err != nil {
		n.trace("a write that was under way: %v", err)
	}
}
