package mirror

import (
	"time"

	"lockstep/mirror/internal/sabotage"
)

// Leases keep an old primary from serving reads, or writes of its own alone,
// after another member took over. Each other member in sync promises, with its
// answer to a heartbeat, not to take over for a grace that is longer than the
// lease; the lease counts from when the heartbeat was sent, so only the rate of
// the clocks matters. Alone, the primary needs the same promise of the
// configuration service.

// leased extends the lease that one promise gives.
func (m *Machine) leased(id ReplicaID, sentAt time.Duration) {
	until := sentAt + m.conf.Lease
	if id == m.conf.Self {
		m.lease = max(m.lease, until)
	} else {
		m.members[id].lease = max(m.members[id].lease, until)
	}
	if len(m.unread) > 0 || m.alone() {
		m.settleAll()
	}
}

// Alone says whether this copy is the only one in sync: then the configuration service's
// promise is needed.
func (m *Machine) Alone() bool { return m.stopped == nil && m.current.Epoch > 0 && m.alone() }

func (m *Machine) alone() bool { return m.current.InSync.Len() == 1 }

// leaseHeld says whether nobody else can be primary now.
func (m *Machine) leaseHeld() bool {
	if m.conf.Lease == 0 || sabotage.On("lease") {
		return true
	}
	if m.alone() && m.now >= m.lease {
		return false
	}
	for _, id := range m.others {
		if m.mayBeInSync(id) && m.now >= m.members[id].lease {
			return false
		}
	}
	return true
}

// mayBeInSync also says yes of a member whose proposal may be in force unseen.
func (m *Machine) mayBeInSync(id ReplicaID) bool {
	return m.current.InSync.Has(id) || m.proposal != nil && m.proposal.InSync.Has(id)
}

// mayComplete says whether a write that every replica has may be acknowledged.
func (m *Machine) mayComplete() bool {
	return m.open && m.stopped == nil && (m.conf.Lease == 0 || !m.alone() || m.now < m.lease)
}
