package sim

import (
	"math/rand/v2"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/store"
)

// patience is how long the operator waits for a promotion that may come to nothing.
const patience = 5 * time.Second

// operate is the operator, who looks now and then: where no copy in sync is sure to
// have every write, one that lost power is allowed to go on as primary. If another of
// them has lost more than that, since its disk was replaced, this takes the word that
// what is lost is lost.
func (c *cluster) operate() {
	c.after(500*time.Millisecond, c.operate)
	conf := c.conf()
	var lossy, stuck []*node
	force := false
	for _, n := range c.nodes {
		if n.lead != nil {
			if n.lead.m.Serving() || c.now < n.lead.began+patience {
				return
			}
			stuck = append(stuck, n)
		}
		switch in := conf.InSync.Has(n.id); {
		case !in:
		case !n.up || n.paused || n.store.Meta().Complete:
			return
		case n.store.Meta().Lossy:
			lossy = append(lossy, n)
		default:
			force = true
		}
	}
	if conf.Epoch == 0 || len(lossy) == 0 || len(stuck) > 0 && !force {
		return
	}
	n := lossy[int(conf.Epoch)%len(lossy)]
	if n.permit == conf.Epoch && n.force == force {
		return
	}
	n.permit, n.force = conf.Epoch, force
	c.trace("operator", "node %d may go on after %v; whatever is lost is lost: %v", n.id, conf, force)
	for _, n := range stuck {
		n.kill()
		n.start()
	}
}

// manage is the operator who hands a volume over now and then, and more often while
// something is wrong.
func (c *cluster) manage(r *rand.Rand) {
	c.after(time.Duration(r.ExpFloat64()*float64(meanHandover)), func() { c.manage(r) })
	conf := c.conf()
	l, to, wanted := c.nodes[conf.Primary].lead, mirror.ReplicaID(r.IntN(c.opt.members)), r.IntN(3) == 0
	if l == nil || c.calm || l.n.paused || to == l.n.id || !conf.InSync.Has(to) {
		return
	}
	if wanted || conf.InSync.Len() < c.opt.members {
		l.handOver(to)
	}
}

const meanHandover = 3 * time.Second

// override is the operator's word that a node is to be the primary, whatever is lost
// by that. It is not given for a node out of sync while others could go on together
// without the group: a primary that is alone needs the group's promise, and one with
// others in sync needs theirs, that node's among them if it is one.
func (c *cluster) override(n *node) {
	v := c.group.latest.volume()
	if !n.up || n.paused || v.Epoch == 0 || v.Primary == n.name() || !v.Alone() && !recordOf(v).InSync.Has(n.id) {
		return
	}
	c.trace("operator", "node %d is to be the primary after %v, whatever is lost", n.id, recordOf(v).Configuration)
	n.do(control.Force(volumeName, v.Epoch+1, n.name()), func(r control.Result) {
		if r.Won {
			c.stats.Forced++
		}
	})
}

// obey makes a copy that lost power count as whole, by the operator's word.
func (n *node) obey() error {
	n.forgot = !n.store.Meta().Lossy
	err := n.store.Update(func(m *store.Meta) { m.Complete, m.Lossy, m.Why = true, false, "" })
	if err != nil {
		return err
	}
	if n.current != nil {
		n.current.close()
	}
	n.beFollower()
	n.forced = true
	return nil
}

// permitted says whether the operator lets this node follow a configuration.
func (n *node) permitted(conf mirror.Configuration) bool {
	return n.permit == conf.Epoch && conf.Epoch > 0 && conf.InSync.Has(n.id) && n.store.Meta().Lossy
}
