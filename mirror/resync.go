package mirror

import (
	"time"

	"lockstep/mirror/dirty"
	"lockstep/mirror/internal/sabotage"
)

// CopyKind is what a Copy does.
type CopyKind uint8

// The kinds of Copy.
const (
	Compare CopyKind = iota // find by digest which blocks of a range differ, while writes go on
	Data                    // copy a range; writes to it wait until its data is in line for the replica
	Recheck                 // compare with writes to the range held, and copy it if asked to
)

// Copy is a piece of resync or verification between the primary and one replica.
type Copy struct {
	Kind    CopyKind
	Replica ReplicaID
	Range
	Repair bool // Recheck: copy the range if it differs

	// What comparing found: the blocks that differ, and the bytes that were read.
	Differs []Range
	Cost    int64
	Rest    int64 // bytes at the range's end that were not compared
	Err     error // Recheck: why it could not be done

	Tag any // the caller's own

	place   *Op   // among the ops: after the writes that it must see
	held    []*Op // writes that came since
	holding bool
	over    bool
}

const (
	// maxCopy is one copy's length in bytes: one frame, and as long as a write to
	// the same place may have to wait.
	maxCopy = 256 << 10
	// maxCompare bounds a comparison. It is long so that holes cost little: one ends
	// early that has read maxCompared bytes.
	maxCompare  = 1 << 30
	maxCompared = 64 << 20
	// maxFlying bounds the copies on their way to one replica: 8 MiB, the
	// bandwidth-delay product of 6 Gbit/s over 1,000 km.
	maxFlying = 32
	// maxComparing bounds the comparisons under way with one replica.
	maxComparing = 4
)

// settled says whether a member lacks nothing, as far as is known.
func (r *member) settled() bool { return r.empty() && len(r.flying) == 0 }

// tick is the passing of time.
func (m *Machine) tick(budget int64) {
	for _, id := range m.others {
		r := &m.members[id]
		r.budget = min(r.budget, 0) + budget
		r.stalled = false
		m.pump(id)
	}
	m.reconsider()
	if m.conf.Lease > 0 {
		m.settleAll()
	}
}

// pump goes on with the resync of one member as far as its budget allows.
func (m *Machine) pump(id ReplicaID) {
	r := &m.members[id]
	if m.stopped != nil || !(r.standing == reconciling || r.standing == learner && m.serving) {
		return
	}
	for r.budget > 0 && len(r.flying) < maxFlying && !r.stalled {
		c := r.next()
		if c == nil {
			break
		}
		c.Replica = id
		r.flying = append(r.flying, c)
		if c.Kind == Compare {
			m.actions = append(m.actions, Action{Kind: ActCompare, Replica: id, Copy: c})
			continue
		}
		r.budget -= c.Len
		m.place(c)
	}
	switch {
	case !r.settled():
	case r.standing == reconciling:
		m.advance()
	default:
		m.join(id)
	}
}

// next takes the next piece out of what a member lacks. While it is under way
// only Copy stands for it.
func (r *member) next() *Copy {
	if off, n, ok := r.missed.Next(r.cursor, maxCopy); ok {
		r.missed.Remove(off, n)
		r.cursor = off + n
		return &Copy{Kind: Data, Range: Range{off, n}}
	}
	if r.cursor = 0; !r.missed.Empty() {
		return r.next()
	}
	if n := r.comparing(); n == maxComparing || n == 0 && len(r.flying) > 0 { // a copy on its way would be found different
		return nil
	}
	if off, n, ok := r.maybe.Next(0, maxCompare); ok {
		r.maybe.Remove(off, n)
		return &Copy{Kind: Compare, Range: Range{off, n}}
	}
	return nil
}

func (r *member) comparing() int {
	n := 0
	for _, c := range r.flying {
		if c.Kind == Compare {
			n++
		}
	}
	return n
}

// place puts a copy in order with the ops: it reads what earlier writes wrote,
// and later ones wait until it is in line for its replica. Otherwise it could
// land there on top of newer data.
func (m *Machine) place(c *Copy) {
	kind := copying
	if c.Kind == Recheck {
		kind = Read // also waits until every replica has the earlier writes
	}
	c.place = &Op{Kind: kind, Off: c.Off, Len: c.Len, core: opState{copy: c}}
	c.holding = true
	m.copies = append(m.copies, c)
	m.order(c.place)
}

// heldByCopy makes a write wait that overlaps a copy under way.
func (m *Machine) heldByCopy(op *Op) bool {
	if op.modifies() && !sabotage.On("hold") {
		for _, c := range m.copies {
			if c.place.overlaps(op) {
				c.held = append(c.held, op)
				return true
			}
		}
	}
	return false
}

// letGo lets the writes go that waited for a copy.
func (m *Machine) letGo(c *Copy) {
	if !c.holding {
		return
	}
	c.holding = false
	m.active.remove(c.place)
	m.release(c.place, true)
	m.copies = remove(m.copies, c)
	held := c.held
	c.held = nil
	for _, op := range held {
		switch {
		case m.failed != nil:
			op.Err = m.failed
			m.do(ActComplete, op)
		case !m.heldByCopy(op):
			m.admit(op)
		}
	}
}

// queued notes that a copy is in line for its replica, or could not be read.
func (m *Machine) queued(c *Copy, err error) {
	if c.over {
		return
	}
	r := &m.members[c.Replica]
	if err != nil {
		c.over = true
		r.flying = remove(r.flying, c)
		r.stalled = true
		if c.Kind == Data {
			r.missed.Add(c.Off, c.Len)
		} else {
			c.Err = err
			m.rechecked(c)
		}
	}
	m.letGo(c)
	m.pump(c.Replica)
}

// copied notes that the replica has a copy.
func (m *Machine) copied(c *Copy) {
	if c.over {
		return
	}
	c.over = true
	r := &m.members[c.Replica]
	r.flying = remove(r.flying, c)
	if c.Kind == Recheck {
		m.rechecked(c)
	}
	m.pump(c.Replica)
}

// compared takes what comparing found.
func (m *Machine) compared(c *Copy, err error) {
	if c.over {
		return
	}
	r := &m.members[c.Replica]
	if c.Kind == Recheck && err == nil && len(c.Differs) > 0 && c.Repair {
		m.actions = append(m.actions, Action{Kind: ActCopy, Replica: c.Replica, Copy: c})
		return
	}
	c.over = true
	r.flying = remove(r.flying, c)
	if c.Kind == Recheck {
		c.Err = err
		m.letGo(c)
		m.rechecked(c)
		return
	}
	if err != nil {
		r.maybe.Add(c.Off, c.Len)
		r.stalled = true
		return
	}
	r.budget -= c.Cost
	r.maybe.Add(c.end()-c.Rest, c.Rest)
	for _, d := range c.Differs {
		r.missed.Add(d.Off, d.Len)
	}
	m.pump(c.Replica)
}

// recheck begins a comparison that holds writes. Only a member in sync is worth it.
func (m *Machine) recheck(c *Copy) {
	r := &m.members[c.Replica]
	if r.standing != inSync {
		c.Err = errNotInSync
		m.rechecked(c)
		return
	}
	r.flying = append(r.flying, c)
	m.place(c)
}

func (m *Machine) rechecked(c *Copy) {
	m.actions = append(m.actions, Action{Kind: ActRechecked, Replica: c.Replica, Copy: c})
}

// abort ends what was under way with a member that is gone: it lacks that again.
func (m *Machine) abort(id ReplicaID) {
	r := &m.members[id]
	flying := r.flying
	r.flying = nil
	for _, c := range flying {
		c.over = true
		switch c.Kind {
		case Data:
			if !sabotage.On("dirty bit") {
				r.missed.Add(c.Off, c.Len)
			}
		case Compare:
			r.maybe.Add(c.Off, c.Len)
		case Recheck:
			c.Err = errNotInSync
			m.rechecked(c)
		}
		m.letGo(c)
	}
}

// join makes a learner that lacks nothing as good as in sync: from here on
// writes wait for it, and it is proposed when its last flush succeeded.
func (m *Machine) join(id ReplicaID) {
	r := &m.members[id]
	r.standing = joining
	for seq, last := m.window.first, m.window.last(); seq <= last; seq++ {
		if op := m.window.at(seq); op != nil && !op.core.sent.Has(id) {
			op.core.acked = op.core.acked.With(id) // its blocks were copied
		}
	}
	m.refresh()
	m.finishOnce(id)
}

// Over says that nothing is to be done for the copy any more: its member is gone.
// What was read for it must not be sent.
func (c *Copy) Over() bool { return c.over }

func remove(list []*Copy, c *Copy) []*Copy {
	for i, e := range list {
		if e == c {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// OutOfSync is what a member lacks, as it should be kept on disk: what is under
// way counts as missing until it is acknowledged.
func (m *Machine) OutOfSync(id ReplicaID) *dirty.Map {
	r := &m.members[id]
	all := r.missed.Clone()
	all.Union(r.maybe)
	for _, c := range r.flying {
		if c.Kind != Recheck {
			all.Add(c.Off, c.Len)
		}
	}
	r.unacked.each(func(w Range) { all.Add(w.Off, w.Len) })
	return all
}

// MemberStatus is how a member stands.
type MemberStatus struct {
	Standing  string        // absent, learner, joining, in sync, lost, suspect, reconciling
	Missed    int64         // bytes that are to be copied
	Maybe     int64         // bytes that are to be compared
	Resyncing bool          // it is connected and being brought up to date
	Since     time.Duration // when it was lost, on the machine's clock; of a member in the in-sync set
}

// Member returns how a member stands.
func (m *Machine) Member(id ReplicaID) MemberStatus {
	r := &m.members[id]
	s := MemberStatus{Standing: r.standing.String(), Missed: r.missed.Bytes(), Maybe: r.maybe.Bytes(), Since: r.lostAt}
	s.Resyncing = r.standing == learner || r.standing == reconciling
	for _, c := range r.flying {
		if c.Kind == Data {
			s.Missed += c.Len
		} else if c.Kind == Compare {
			s.Maybe += c.Len
		}
	}
	return s
}
