package sim

import (
	"time"

	"lockstep/mirror"
)

// pollInterval is how often a node that is not primary asks who is.
const pollInterval = 150 * time.Millisecond

// poll asks for the configuration, now and for as long as the process lives.
func (n *node) poll() {
	n.after(n.between(pollInterval/2, pollInterval), n.poll)
	if n.lead == nil && !n.taking {
		n.ask((*service).inForce, n.consider)
	}
}

// consider proposes this node as primary if it may be. That holds for who was
// primary before, too: an earlier life of the process may have made a promise.
func (n *node) consider(v verdict) {
	conf := v.conf
	again := mirror.Configuration{Epoch: conf.Epoch + 1, Primary: n.id, InSync: conf.InSync}
	switch {
	case n.lead != nil || n.taking || n.now() < n.rest:
	case conf.Epoch == 0 && conf.Primary == n.id:
		n.take(v, again)
	case n.permitted(conf):
		if n.force {
			if err := n.obey(); err != nil {
				n.fail(err)
				return
			}
		}
		n.take(v, again)
	case conf.Primary == n.id && conf.InSync.Has(n.id) && n.store.Meta().Lossy:
		n.take(v, again) // in vain, if another copy is whole
	case !n.follower.MayTakeOver(conf, n.id, graceTime, n.now()):
	case conf.Primary == n.id:
		n.take(v, again)
	default:
		n.take(v, conf.Takeover(n.id))
	}
}

// take proposes next until it is known whether that won.
func (n *node) take(before verdict, next mirror.Configuration) {
	if before.conf.Primary != n.id {
		// What was kept as an earlier primary says nothing about what was written since.
		for _, id := range before.ids {
			if err := n.store.RemoveOutOfSync(id); err != nil {
				n.fail(err)
				return
			}
		}
	}
	n.follower.Fence(next.Epoch)
	n.taking = true
	n.trace("proposes itself: %v", next)
	n.insist(proposal{id: n.c.unique(), conf: next, ids: before.ids}, func(v verdict, won bool) {
		n.taking = false
		if !won || n.follower.Identity().Epoch >= next.Epoch {
			n.trace("lost: %v", v.conf)
			return
		}
		n.promote(before, v)
	})
}

// insist proposes p until the answer is known: what is in force, and whether that
// is p.
func (n *node) insist(p proposal, done func(v verdict, won bool)) {
	answered := false
	var try func()
	try = func() {
		if answered {
			return
		}
		n.proposed = n.c.now
		n.askCommitted(func(s *service) verdict { return s.propose(p) }, func(v verdict) {
			if !answered {
				answered = true
				done(v, v.by == p.id)
			}
		})
		n.after(n.between(250*time.Millisecond, 400*time.Millisecond), try)
	}
	try()
}
