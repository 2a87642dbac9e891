package sim

import (
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/internal/sabotage"
)

// pollInterval is how often a node that is not primary looks whether it should be.
const pollInterval = 150 * time.Millisecond

// poll looks at what this node knows, now and for as long as the process lives.
func (n *node) poll() {
	n.after(n.between(pollInterval/2, pollInterval), n.poll)
	n.consider()
}

// learn is the news of another configuration.
func (n *node) learn() {
	n.after(n.between(0, 3*time.Millisecond), func() {
		if n.lead != nil {
			n.lead.look()
		} else {
			n.consider()
		}
	})
}

// consider proposes this node as primary if it may be.
func (n *node) consider() {
	if n.lead != nil || n.taking || n.now() < n.rest {
		return
	}
	v := n.known()
	r := recordOf(v)
	if allowed := n.permitted(r.Configuration); allowed || v.Forced && r.Primary == n.id && !n.store.Meta().Complete {
		if n.force || !allowed {
			if err := n.obey(); err != nil {
				n.fail(err)
				return
			}
		}
		if allowed {
			n.take(v, mirror.Configuration{Epoch: r.Epoch + 1, Primary: n.id, InSync: r.InSync})
			return
		}
	}
	if next, ok := n.follower.Claim(r, n.id, graceTime, n.now()); ok {
		n.take(v, next)
	}
}

// take proposes next until it is known whether that won.
func (n *node) take(before *control.Volume, next mirror.Configuration) {
	stores := recordOf(before).Stores
	if !n.led(before) {
		// What was kept as an earlier primary says nothing about what was written since.
		for i := range n.c.nodes {
			if err := n.store.RemoveOutOfSync(stores[i]); err != nil {
				n.fail(err)
				return
			}
		}
	}
	n.follower.Fence(next.Epoch)
	n.taking = true
	n.trace("proposes itself: %v", next)
	n.propose(next, stores, func(v *control.Volume, won bool) {
		if !won || n.follower.Identity().Epoch >= next.Epoch {
			n.taking = false
			n.trace("lost: %v", recordOf(v).Configuration)
			return
		}
		n.await(next.Epoch, func() {
			n.taking = false
			if n.follower.Identity().Epoch < next.Epoch {
				n.promote(before, v)
			}
		})
	})
}

// led says whether this node was the primary of v itself: nobody named it that.
func (n *node) led(v *control.Volume) bool {
	return v.Primary == n.name() && (v.By == v.Primary || sabotage.On("kept"))
}

// await waits until this node knows of an epoch, and so of all that was decided before.
func (n *node) await(epoch uint64, do func()) {
	if n.known().Epoch >= epoch {
		do()
		return
	}
	n.after(time.Millisecond, func() { n.await(epoch, do) })
}
