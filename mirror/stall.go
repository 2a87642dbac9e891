package mirror

import (
	"errors"
	"fmt"
	"time"
)

// ErrStalled: the primary's disk took too long over something. Another copy in sync may
// take over; this one can't be used before its disk has ended what it was asked for.
var ErrStalled = errors.New("the local disk does not answer")

// stalled says since when the op was submitted that has waited longest for the local
// store, if there is one.
func (m *Machine) stalled() (since time.Duration, waiting bool) {
	note := func(op *Op) {
		if op.core.blocked == 0 && (!waiting || op.began < since) {
			since, waiting = op.began, true
		}
	}
	for seq, last := m.window.first, m.window.last(); seq <= last; seq++ {
		if op := m.window.at(seq); op != nil && !op.core.local {
			note(op)
		}
	}
	for op := m.active.head; op != nil; op = op.core.next {
		if op.Kind == Read && op.core.copy == nil && !op.core.applied {
			note(op)
		}
	}
	return since, waiting
}

// watchDisk ends the volume when its disk hangs and another copy could go on.
func (v *Volume) watchDisk() {
	limit := v.conf.DiskTimeout
	if limit == 0 || v.conf.Reign == nil {
		return
	}
	v.mu.Lock()
	since, waiting := v.machine.stalled()
	hangs := waiting && v.machine.Serving() && time.Since(started)-since > limit && v.successorLocked() != NoReplica
	v.mu.Unlock()
	if hangs {
		v.tell(Event{Kind: EvStop, Err: fmt.Errorf("%w: it has had something to do for %v", ErrStalled, limit)})
	}
}

// Successor is a member that could be primary in this one's place: it is in sync and
// connected; or NoReplica.
func (v *Volume) Successor() ReplicaID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.successorLocked()
}

func (v *Volume) successorLocked() ReplicaID {
	for _, l := range v.others {
		if v.machine.members[l.id].standing == inSync {
			return l.id
		}
	}
	return NoReplica
}

// Disown gives clients back what they wait for, with ErrDeposed, although the local
// store may still have it: as copies, so that whoever gets them can send them elsewhere.
// The volume must have ended, and its local writes do not matter any more, because
// this copy has left the in-sync set. What the store reads late goes nowhere; what it
// writes late comes from memory that may have changed.
func (v *Volume) Disown() {
	var copies []*Op
	v.mu.Lock()
	v.sample.op = nil
	v.machine.origins = Origins{} // what becomes of them here nobody knows
	v.machine.inFlight(func(op *Op) {
		if op.internal != nil || op.core.copy != nil {
			return
		}
		c := &Op{Kind: op.Kind, Off: op.Off, Len: op.Len, Data: op.Data, FUA: op.FUA, NoHole: op.NoHole, Origin: op.Origin, Tag: op.Tag, Err: ErrDeposed}
		if op.Kind == Read {
			c.Data = make([]byte, len(op.Data))
		}
		op.Origin, op.Tag, op.internal = nil, nil, make(chan struct{})
		copies = append(copies, c)
	})
	v.mu.Unlock()
	if len(copies) > 0 {
		v.conf.Complete(copies)
	}
}
