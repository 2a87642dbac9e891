package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"lockstep/mirror"
)

// What a cluster without faults may take, in virtual time.
const (
	settleTime = 2 * time.Minute
	sweepTime  = time.Minute
)

// acknowledged looks at what a primary is about to acknowledge, of a request that
// came to it at some time. Nothing that came after a later reign acknowledged
// something can be done any more by an earlier one, and no read completes.
func (c *cluster) acknowledged(l *lead, op *mirror.Op, came time.Duration) {
	if op.Kind != mirror.Read && op.Seq() == 0 {
		return // it was done before, when it came first
	}
	for i := len(c.hist.reigns) - 1; i >= 0; i-- {
		r := &c.hist.reigns[i]
		switch {
		case r.epoch == l.reign && !r.acked:
			r.acked, r.first = true, c.now
			c.spring(ambushAck)
		case r.epoch > l.reign && r.acked && (op.Kind == mirror.Read || came > r.first):
			c.violate("node %d, primary since epoch %d, acknowledges a %v at %d+%d, and a primary since epoch %d did so at %v", l.n.id, l.reign, op.Kind, op.Off, op.Len, r.epoch, r.first)
		}
	}
}

// settle ends all faults and waits until every member is in sync and nothing is
// under way.
func (c *cluster) settle() {
	c.trace("plan", "all faults end")
	c.calm = true
	for _, k := range c.clients {
		k.stopped = true
	}
	c.repair()
	for until := c.now + settleTime; c.now < until && len(c.wrong) == 0; {
		c.advance(min(until, c.now+time.Second))
		if c.quiet() {
			return
		}
		c.repair()
	}
	if len(c.wrong) == 0 {
		c.violate("not everything is in sync %v after the last fault: %v%s", settleTime, c.conf(), c.standing())
	}
}

// repair ends what is wrong.
func (c *cluster) repair() {
	c.group.slow = 0
	c.witness.resume()
	c.startWitness()
	for i := range c.net.paths {
		for j := range c.net.paths[i] {
			if p := c.net.path(place(i), place(j)); p.cut || p.slow > 0 {
				c.net.heal(place(i), place(j))
			}
		}
	}
	for _, n := range c.nodes {
		n.disk.Full(-1)
		n.disk.Stall = nil
		n.slowSync, n.slowWrite = 0, 0
		n.resume()
		n.mend()
	}
}

// quiet says whether every member is in sync and every request has its end.
func (c *cluster) quiet() bool {
	for _, k := range c.clients {
		if !k.idle() {
			return false
		}
	}
	conf := c.conf()
	l := c.nodes[conf.Primary].lead
	return conf.InSync.Len() == c.opt.members && l != nil && l.m.Configuration() == conf && l.m.Ready() && l.m.InFlight() == 0 && c.connected(l)
}

// standing tells how the members stand.
func (c *cluster) standing() (s string) {
	for _, n := range c.nodes {
		switch {
		case !n.up:
			s += fmt.Sprintf("; node %d is down", n.id)
		case n.lead == nil:
			m := n.store.Meta()
			s += fmt.Sprintf("; node %d is a replica: epoch %d, complete %v, lossy %v", n.id, m.Epoch, m.Complete, m.Lossy)
		default:
			m := n.lead.m
			s += fmt.Sprintf("; node %d is primary: %v, ready %v, %d in flight", n.id, m.Configuration(), m.Ready(), m.InFlight())
			for id := range c.nodes {
				if id := mirror.ReplicaID(id); id != n.id {
					s += fmt.Sprintf(", member %d %+v", id, m.Member(id))
				}
			}
		}
	}
	return s
}

func (c *cluster) connected(l *lead) bool {
	for id := range c.nodes {
		if id := mirror.ReplicaID(id); id != l.n.id && l.m.Member(id).Standing != "in sync" {
			return false
		}
	}
	return true
}

// conclude compares the copies, reads everything once more, and checks the history.
func (c *cluster) conclude() {
	if len(c.wrong) > 0 {
		return
	}
	c.compareCopies()
	c.sweep()
	if len(c.wrong) > 0 {
		return
	}
	checked, err := c.hist.check()
	c.stats.Checked += checked
	if errors.Is(err, errUnknown) {
		c.stats.Unknown++
	}
	if err != nil {
		c.violate("%v", err)
	}
}

// compareCopies compares the copies of a quiet cluster, byte for byte.
func (c *cluster) compareCopies() {
	const step = 64 << 10
	first, other := make([]byte, step), make([]byte, step)
	for off := int64(0); off < volumeSize; off += step {
		for i, n := range c.nodes {
			if i == 0 {
				first, other = other, first
			}
			if err := n.store.ReadAt(other, off); err != nil {
				c.violate("node %d cannot be read: %v", i, err)
			}
			if i == 0 {
				first, other = other, first
			} else if !bytes.Equal(first, other) {
				at := off
				for j := range first {
					if first[j] != other[j] {
						at = off + int64(j)
						break
					}
				}
				c.violate("node %d differs from node 0 at sector %d, though both are in sync", i, at/sectorSize)
				return
			}
		}
	}
}

// sweep reads every sector that is checked.
func (c *cluster) sweep() {
	k := c.clients[c.opt.clients]
	k.begin(0)
	k.front.node = c.conf().Primary
	for g := range int64(groups) {
		k.issue(record{kind: mirror.Read, first: groupAt(g), sectors: groupSize})
	}
	for until := c.now + sweepTime; !k.idle() && c.now < until && len(c.wrong) == 0; {
		c.advance(c.now + 100*time.Millisecond)
	}
	for _, r := range c.hist.records[len(c.hist.records)-groups:] {
		if !r.acked {
			c.violate("a read of a cluster without faults fails: %v", &r)
		}
	}
}
