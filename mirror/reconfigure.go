package mirror

import "lockstep/mirror/internal/sabotage"

// Changes of the configuration, and the promotion that begins with the first.

// committed takes in the configuration that is in force. What it already knows
// changes nothing: a proposal ends only by a higher epoch, its own or another's. In an
// epoch that it missed another member may have been the primary, so a reign goes on only
// from one epoch to the next.
func (m *Machine) committed(ev Event) {
	switch {
	case m.current.Epoch == 0 && ev.Conf.Primary == m.conf.Self:
		m.promote(ev)
	case ev.Conf.Epoch > m.current.Epoch && (ev.Conf.Primary != m.conf.Self || ev.Conf.Epoch > m.current.Epoch+1):
		m.stop(ErrDeposed)
	case ev.Conf.Epoch > m.current.Epoch:
		m.proposal = nil
		m.gone |= ev.Gone
		m.change(ev.Conf)
	}
}

// promote begins the promotion: this copy is the truth from now on, once the
// others in sync agree with it.
func (m *Machine) promote(ev Event) {
	own := ev.Own
	m.current = ev.Conf
	m.ownComplete = own.State.Complete
	m.origins = own.Origins
	if sabotage.On("origins") {
		m.origins = Origins{Whole: true}
	}
	m.union.report(&own.State)
	for _, id := range m.others {
		r := &m.members[id]
		known := own.OutOfSync[id]
		switch {
		case ev.Conf.InSync.Has(id):
			r.standing, r.lostAt = lost, m.now
		case known != nil:
			r.missed.Union(known)
			if own.State.Intents != nil {
				r.maybe.Union(own.State.Intents)
			}
			r.noted = true
		case own.Before.InSync.Has(id) && own.Before.InSync.Has(m.conf.Self) && (own.State.Complete || own.State.Lossy):
			m.dropped = m.dropped.With(id)
		default:
			r.maybe.AddAll()
			r.noted = true
		}
	}
	m.refresh()
	m.advance()
}

// reconcile takes what one in-sync replica says may differ into what all of them
// must agree on.
func (m *Machine) reconcile(id ReplicaID, s *ReplicaState) {
	r := &m.members[id]
	r.standing = reconciling
	m.tellReplica(ActConfigure, id)
	m.union.report(s)
	if sabotage.On("reconcile") {
		m.union = newDifferences(m.conf)
		s = &ReplicaState{}
	}
	for _, other := range m.others {
		o := &m.members[other]
		if o.standing != reconciling {
			continue
		}
		if o.finish == finishing {
			o.finish = stale
		} else if o.finish == finished {
			o.finish = unfinished
		}
		if other == id {
			o.union(&m.union)
		} else {
			o.report(s)
		}
	}
	for _, other := range m.others {
		if m.members[other].standing == reconciling {
			m.pump(other)
		}
	}
}

// advance ends the promotion when every replica in sync agrees: not one by one,
// because until then each must remember what may still differ elsewhere.
func (m *Machine) advance() {
	if m.serving || m.stopped != nil {
		return
	}
	for _, id := range m.others {
		r := &m.members[id]
		if m.current.InSync.Has(id) && (r.standing != reconciling || !r.settled()) {
			return
		}
	}
	all := sabotage.On("own sync") && m.ownComplete || m.finishOnce(m.conf.Self) // also a full copy: what a retry is told to be durable must be
	for _, id := range m.others {
		if m.current.InSync.Has(id) && !m.finishOnce(id) {
			all = false
		}
	}
	if all {
		m.serve()
	}
}

// finishOnce asks for a member's last flush unless that is under way, and says
// whether it was done.
func (m *Machine) finishOnce(id ReplicaID) bool {
	r := &m.members[id]
	if r.finish == finished {
		return true
	}
	if r.finish == unfinished {
		r.finish, r.finishAt = finishing, r.sent
		if id != m.conf.Self {
			m.tellReplica(ActOrigins, id) // it has all that they name now
		}
		m.tellReplica(ActFinish, id)
	}
	return false
}

// finished notes that a member is flushed and a full copy.
func (m *Machine) finished(id ReplicaID) {
	r := &m.members[id]
	switch {
	case r.finish == stale:
		r.finish = unfinished
	case r.finish == finishing:
		r.finish = finished
		m.ownComplete = m.ownComplete || id == m.conf.Self
		r.unacked.popTo(r.finishAt)
	}
	m.advance()
	m.reconsider()
}

// serve ends the promotion.
func (m *Machine) serve() {
	m.serving = true
	for _, id := range m.others {
		r := &m.members[id]
		if r.standing == reconciling {
			r.standing = inSync
		}
		if m.dropped.Has(id) && !sabotage.On("dropped") {
			r.union(&m.union)
		}
	}
	m.union = newDifferences(m.conf)
	m.refresh()
	parked := m.parked
	m.parked = nil
	for _, op := range parked {
		m.submit(op)
	}
	for _, id := range m.others {
		m.pump(id)
	}
}

// refresh recomputes what writes wait for.
func (m *Machine) refresh() {
	m.required = m.current.InSync
	m.wanted = (m.wanted | m.current.InSync) &^ m.gone
	m.open = m.serving && (!m.conf.Suspend || m.wanted&^m.current.InSync == 0)
	for _, id := range m.others {
		switch m.members[id].standing {
		case joining:
			m.required = m.required.With(id)
		case suspect:
			m.open = false
		}
	}
	if m.proposal != nil {
		m.required |= m.proposal.InSync
	}
	m.required = m.required.Without(m.conf.Self)
	if sabotage.On("shrink") && m.proposal != nil {
		m.required = m.proposal.InSync.Without(m.conf.Self)
	}
	if m.serving && !m.open && !m.active.yield {
		m.active.giveWay(m.run)
	}
	m.active.yield = m.serving && !m.open
}

// reconsider proposes the configuration that should follow, if one should. One
// proposal at a time: its outcome must be known before the next.
func (m *Machine) reconsider() {
	if m.proposal != nil || m.stopped != nil || m.current.Epoch == 0 {
		return
	}
	want := m.current.InSync
	for _, id := range m.others {
		switch r := &m.members[id]; {
		case r.standing == suspect && m.mayLeave(), r.standing == lost && m.givenUp(r):
			want = want.Without(id)
		case r.standing == joining && r.finish == finished:
			want = want.With(id)
		}
	}
	if want == m.current.InSync {
		return
	}
	m.proposal = &Configuration{Epoch: m.current.Epoch + 1, Primary: m.conf.Self, InSync: want}
	m.refresh()
	m.actions = append(m.actions, Action{Kind: ActPropose, Conf: *m.proposal})
}

// mayLeave says that a member may be taken out: not while this copy may lack what
// that one has, or had if another store answers for it.
func (m *Machine) mayLeave() bool { return sabotage.On("may leave") || m.serving || m.ownComplete }

// givenUp says whether a lost member is to be taken out.
func (m *Machine) givenUp(r *member) bool {
	return !m.conf.Suspend && m.now-r.lostAt >= m.conf.LossTimeout && m.mayLeave()
}

// change goes over to the next configuration of this primary.
func (m *Machine) change(conf Configuration) {
	before := m.current
	m.current = conf
	var left Set
	for _, id := range m.others {
		r := &m.members[id]
		switch in, was := conf.InSync.Has(id), before.InSync.Has(id); {
		case m.gone.Has(id) && !was:
			if r.standing != absent {
				m.leave(id)
				left = left.With(id)
			}
		case in && !was:
			m.joined(r)
		case was && !in:
			m.removed(id)
			left = left.With(id)
		case !in && r.standing == lost: // a proposal with it failed
			m.leave(id)
		}
	}
	m.refresh()
	for _, id := range m.others {
		if s := m.members[id].standing; s != absent && s != lost {
			m.tellReplica(ActConfigure, id)
		}
	}
	for _, id := range m.others { // now that all know the epoch of the writes that were held
		if left.Has(id) {
			m.abort(id)
		}
	}
	m.settleAll()
	m.advance()
	m.reconsider()
	for _, id := range m.others {
		m.pump(id)
	}
}

func (m *Machine) joined(r *member) {
	switch r.standing {
	case joining:
		r.standing = inSync
	case lost:
	default: // it was lost while the proposal was on its way, and lacks something
		r.standing = suspect
	}
}

func (m *Machine) removed(id ReplicaID) {
	r := &m.members[id]
	if m.serving {
		m.leave(id)
	} else { // what it was to agree on it still may not
		r.standing, r.finish = absent, unfinished
		m.dropped = m.dropped.With(id)
	}
	if r.connected && !m.gone.Has(id) {
		r.standing = learner
		r.applied, r.durable = m.window.last(), m.window.last()
	}
}
