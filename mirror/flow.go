package mirror

import (
	"fmt"

	"lockstep/mirror/internal/sabotage"
)

// The way of an op through the machine: submit, send and apply, acknowledge,
// complete.

func (m *Machine) submit(op *Op) {
	switch {
	case !m.serving:
		m.parked = append(m.parked, op)
	case op.Kind == Read:
		m.order(op)
	case m.failed != nil:
		op.Err = m.failed
		m.do(ActComplete, op)
	case m.repeated(op):
	case m.heldByCopy(op):
	default:
		m.admit(op)
	}
}

// admit gives op its seq, and so its place among all writes.
func (m *Machine) admit(op *Op) {
	op.core.seq = m.window.push(op)
	op.core.durable = op.FUA || op.Kind == Flush || (m.conf.Durable && op.modifies())
	for _, id := range m.others {
		m.mirror(op, id)
	}
	if op.Kind == Flush {
		op.core.applied = true
		if sabotage.On("flush") {
			m.synced(op, nil)
			return
		}
		m.do(ActSync, op)
		return
	}
	m.order(op)
}

// order puts op behind those that it must wait for.
func (m *Machine) order(op *Op) {
	m.active.add(op)
	if op.core.blocked == 0 {
		m.run(op)
	}
}

// run starts the local part of an op that waits for no other.
func (m *Machine) run(op *Op) {
	switch c := op.core.copy; {
	case c == nil:
		m.do(ActApply, op)
	case c.over: // while it waited for its place
	case c.Kind == Recheck:
		m.actions = append(m.actions, Action{Kind: ActCompare, Replica: c.Replica, Copy: c})
	default:
		m.actions = append(m.actions, Action{Kind: ActCopy, Replica: c.Replica, Copy: c})
	}
}

func (m *Machine) send(op *Op, id ReplicaID) {
	op.core.sent = op.core.sent.With(id)
	m.members[id].sent = op.core.seq
	m.actions = append(m.actions, Action{Kind: ActSend, Op: op, Replica: id})
}

func (m *Machine) applied(op *Op, err error) {
	op.core.applied = true
	m.failure(op, err)
	switch {
	case m.stopped != nil:
		return
	case op.Kind != Read:
	case m.leaseHeld() || op.Err != nil:
		m.complete(op)
		return
	default:
		m.release(op, false)
		m.unread = append(m.unread, op)
		return
	}
	m.release(op, false)
	if op.core.durable && err == nil {
		m.do(ActSync, op)
		return
	}
	op.core.local = true
	m.settle(op)
}

func (m *Machine) synced(op *Op, err error) {
	if m.failure(op, err); m.stopped != nil {
		return
	}
	op.core.local = true
	m.settle(op)
}

// failure remembers the first error of op. A write or sync that failed locally
// may have left the copies different. Where another replica can take over, it
// should: what is read here could differ from what is read there. A copy that is alone
// is still good for reads.
func (m *Machine) failure(op *Op, err error) {
	if err == nil {
		return
	}
	if op.Err == nil {
		op.Err = err
	}
	if op.Kind == Read || m.failed != nil {
		return
	}
	m.failed = fmt.Errorf("%w (%w)", ErrFailed, err)
	if m.conf.Lease > 0 && !m.alone() {
		m.stop(fmt.Errorf("%w: %w", ErrDeposed, m.failed))
	}
}

// settle completes op if nothing is missing any more.
func (m *Machine) settle(op *Op) {
	if op.core.local && m.required&^op.core.acked == 0 && m.mayComplete() {
		m.complete(op)
	}
}

// settleAll does so for every op, after the rules changed.
func (m *Machine) settleAll() {
	for seq, last := m.window.first, m.window.last(); seq <= last; seq++ {
		if op := m.window.at(seq); op != nil {
			m.settle(op)
		}
	}
	if !m.leaseHeld() {
		return
	}
	unread := m.unread
	m.unread = nil
	for _, op := range unread {
		m.complete(op)
	}
}

func (m *Machine) complete(op *Op) {
	if op.Kind != Flush {
		m.active.remove(op)
		m.release(op, true)
	}
	if op.core.seq != 0 {
		m.window.complete(op.core.seq)
	}
	m.origins.done(op)
	m.do(ActComplete, op)
	for _, twin := range op.core.twins {
		twin.Err = op.Err
		m.do(ActComplete, twin)
	}
	op.core.twins = op.core.twins[:0]
}

// release lets those go that wait for op: at its local application the writes,
// at its completion the reads (and whatever waits for a read).
func (m *Machine) release(op *Op, complete bool) {
	kept := op.core.waiters[:0]
	for _, w := range op.core.waiters {
		if !complete && w.Kind == Read {
			kept = append(kept, w)
			continue
		}
		if w.core.blocked--; w.core.blocked == 0 {
			m.run(w)
		}
	}
	op.core.waiters = kept
}

// acked counts a replica's acknowledgements. One that runs ahead of what was
// sent is not this connection's.
func (m *Machine) acked(id ReplicaID, applied, durable uint64) {
	r := &m.members[id]
	applied = min(applied, r.sent)
	durable = min(durable, applied)
	wasApplied, wasDurable := r.applied, r.durable
	r.applied, r.durable = max(applied, wasApplied), max(durable, wasDurable)
	m.acknowledge(id, wasApplied, r.applied, false)
	m.acknowledge(id, wasDurable, r.durable, true)
	r.unacked.popTo(r.applied)
}

// acknowledge counts a replica's acknowledgement for each op with a seq above
// from and at or below to that asks for this kind.
func (m *Machine) acknowledge(id ReplicaID, from, to uint64, durable bool) {
	for seq := max(from+1, m.window.first); seq <= to; seq++ {
		op := m.window.at(seq)
		if op != nil && op.core.durable == durable && op.core.sent.Has(id) && !op.core.acked.Has(id) {
			op.core.acked = op.core.acked.With(id)
			m.settle(op)
		}
	}
}
