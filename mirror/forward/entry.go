package forward

import (
	"time"

	"lockstep/mirror"
)

// entry is what a Front knows of an op that it has. It is the op's Tag.
type entry struct {
	front      *Front
	op         *mirror.Op
	tag        any // the op's own, for its return
	serial     uint64
	origin     mirror.Origin // Number 0: the op has none
	leg        *leg          // with whom it is, or was last; nil: with nobody yet
	parked     bool          // it waits for another leg
	unsure     bool          // its connection ended: the other end may be yet to read it
	since      time.Time     // when it was parked
	prev, next *entry
}

// Sink implements [Tag].
func (e *entry) Sink() Sink { return e.front }

// renew makes the op as it was before its first leg.
func (e *entry) renew() {
	old := *e.op
	e.op.Reset()
	e.op.Kind, e.op.Off, e.op.Len, e.op.Data = old.Kind, old.Off, old.Len, old.Data
	e.op.FUA, e.op.NoHole, e.op.Origin = old.FUA, old.NoHole, old.Origin
}

// list is entries in the order of their serials.
type list struct{ head, tail *entry }

func (l *list) append(e *entry) {
	e.prev, e.next = l.tail, nil
	if l.tail == nil {
		l.head = e
	} else {
		l.tail.next = e
	}
	l.tail = e
}

func (l *list) remove(e *entry) {
	if e.prev == nil {
		l.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
}

// each calls f for every entry, which may remove it.
func (l *list) each(f func(*entry)) {
	for e := l.head; e != nil; {
		next := e.next
		f(e)
		e = next
	}
}
