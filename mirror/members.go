package mirror

import (
	"time"

	"lockstep/mirror/internal/sabotage"
)

// standing is what another member is to the primary.
//
//	           nothing out of sync      flushed, committed
//	learner ------------------> joining ------------------> in sync
//	 ^    |                        |                         |    ^
//	 |    +---------- Down --------+---> absent        Down  |    | Up, a full copy
//	 Up                                    ^                 v    |
//	 |                                     +-- committed -- lost -+
//	 +-- absent                                              |
//	                learner <-- committed -- suspect <-------+ Up, not a full copy
//
// At a promotion the members in sync come as lost -> reconciling -> in sync.
type standing uint8

const (
	absent      standing = iota // not in sync, not connected: what it misses is noted
	learner                     // connected, catching up
	joining                     // nothing is out of sync: writes wait for it, as they will when it is in sync
	inSync                      // in sync and connected
	lost                        // in the in-sync set, not connected: writes wait for it
	suspect                     // in the in-sync set and not a full copy: writes wait until it was taken out
	reconciling                 // in the in-sync set, being made to agree before the primary serves
)

var standingNames = [...]string{absent: "absent", learner: "learner", joining: "joining", inSync: "in sync", lost: "lost", suspect: "suspect", reconciling: "reconciling"}

func (s standing) String() string { return standingNames[s] }

// member is what the primary knows of one other member.
type member struct {
	standing
	connected bool
	noted     bool   // what it may lack is in differences, should it turn out to be less than a full copy
	sent      uint64 // highest seq sent on this connection
	applied   uint64 // acknowledged
	durable   uint64
	lostAt    time.Duration
	lease     time.Duration // its promise holds until then
	finish    finish
	finishAt  uint64 // r.sent when the finish was asked for

	differences
	unacked sentQueue // of a learner
	flying  []*Copy   // begun and not ended
	cursor  int64     // where resync goes on
	budget  int64     // bytes that resync may still move
	stalled bool      // a local read failed: wait for the next tick
}

// finish is how far a member's last flush is, by which it becomes a full copy.
type finish uint8

const (
	unfinished finish = iota
	finishing
	stale // under way, but it became out of sync again meanwhile
	finished
)

// The most that a learner is sent ahead of its acknowledgements; beyond it, what
// is written is noted as missed, and copied later.
const (
	maxBacklog    = 64 << 20 // bytes
	maxBacklogOps = 16 << 10
)

// mirror does for one member what a new op asks for.
func (m *Machine) mirror(op *Op, id ReplicaID) {
	switch r := &m.members[id]; r.standing {
	case inSync, joining:
		m.send(op, id)
	case learner:
		if r.unacked.bytes > maxBacklog || r.unacked.len() > maxBacklogOps {
			r.miss(op)
			return
		}
		m.send(op, id)
		if op.modifies() {
			r.unacked.push(op.core.seq, Range{op.Off, op.Len})
		}
	case absent:
		r.miss(op)
	}
}

func (r *member) miss(op *Op) {
	if op.modifies() {
		r.missed.Add(op.Off, op.Len)
	}
}

// up takes a member in that has connected.
func (m *Machine) up(id ReplicaID, s *ReplicaState) {
	if m.gone.Has(id) {
		return
	}
	r := &m.members[id]
	if r.standing != absent && r.standing != lost {
		m.down(id)
	}
	r.connected = true
	r.sent, r.stalled, r.finish = 0, false, unfinished
	whole := s.Known && (s.Complete || s.Lossy && !m.serving && !m.ownComplete || s.Lossy && sabotage.On("lossy"))
	switch {
	case r.standing == lost && !m.current.InSync.Has(id) && s.Known && s.Complete && r.empty():
		// Its proposal is in doubt, which waits for it: made a learner, no full copy might be left in sync.
		r.standing, r.finish = joining, finished
		m.tellReplica(ActConfigure, id)
		m.resend(id)
		m.tellReplica(ActOrigins, id)
		m.refresh()
		m.reconsider()
	case !m.current.InSync.Has(id):
		if r.standing == lost { // proposed while it was gone
			m.leave(id)
		}
		m.learn(id, s)
	case !whole, m.serving && (!r.empty() || m.leaving(id)):
		r.standing = suspect
		r.distrust(s, s.Lossy || whole)
		m.refresh()
		m.reconsider()
	case m.serving:
		r.standing = inSync
		m.tellReplica(ActConfigure, id)
		if sabotage.On("early origins") {
			m.tellReplica(ActOrigins, id)
		}
		m.resend(id)
		m.tellReplica(ActOrigins, id) // of ops that it has now, or has in line before
	case s.Complete && !m.ownComplete && !sabotage.On("better"):
		m.stop(ErrBetterCopy)
	default:
		m.reconcile(id, s)
	}
	r.noted = true
}

// leaving says that a member is about to be taken out: nothing may be on its way to it
// then that nobody waits for.
func (m *Machine) leaving(id ReplicaID) bool {
	return m.proposal != nil && m.current.InSync.Has(id) && !m.proposal.InSync.Has(id)
}

// distrust adds where a copy may differ that does not count as in sync: what it
// says, if the rest of it is known to be right or noted already.
func (r *member) distrust(s *ReplicaState, rest bool) {
	if !s.Known || !rest {
		r.maybe.AddAll()
		return
	}
	r.report(s)
}

// learn begins to bring a member up to date.
func (m *Machine) learn(id ReplicaID, s *ReplicaState) {
	r := &m.members[id]
	r.distrust(s, r.noted || s.Complete || s.Lossy)
	r.standing = learner
	r.applied, r.durable = m.window.last(), m.window.last()
	m.tellReplica(ActConfigure, id)
	m.pump(id)
}

// resend sends a member in sync all that it has not acknowledged, in order. What
// it applied but has not made durable goes as a flush: sending the data again
// could put it on top of a later write that was completed since.
func (m *Machine) resend(id ReplicaID) {
	r := &m.members[id]
	for seq, last := m.window.first, m.window.last(); seq <= last; seq++ {
		op := m.window.at(seq)
		if op == nil || op.core.acked.Has(id) {
			continue
		}
		if sabotage.On("resend") {
			op.core.acked = op.core.acked.With(id)
			continue
		}
		if seq > r.applied {
			m.send(op, id)
		} else {
			r.sent = seq
			m.actions = append(m.actions, Action{Kind: ActSendFlush, Op: op, Replica: id})
		}
	}
}

// down notes that a member's connection is over.
func (m *Machine) down(id ReplicaID) {
	r := &m.members[id]
	r.connected = false
	switch {
	case r.standing == absent || r.standing == lost:
		return
	case m.current.InSync.Has(id), m.proposal != nil && m.proposal.InSync.Has(id):
		r.standing, r.lostAt, r.finish = lost, m.now, unfinished
	default:
		m.leave(id)
	}
	m.abort(id) // once nothing more is sent to it: writes that were held go on
	m.refresh()
	m.settleAll()
	m.reconsider()
}

// leave makes a member absent: what it may not have is missed from now on.
func (m *Machine) leave(id ReplicaID) {
	r := &m.members[id]
	r.standing, r.finish = absent, unfinished
	for seq, last := m.window.first, m.window.last(); seq <= last; seq++ {
		if op := m.window.at(seq); op != nil {
			r.miss(op)
			op.core.sent, op.core.acked = op.core.sent.Without(id), op.core.acked.Without(id)
		}
	}
	r.unacked.each(func(w Range) { r.missed.Add(w.Off, w.Len) })
	r.unacked = sentQueue{}
}
