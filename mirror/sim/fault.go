package sim

import (
	"errors"
	"math"
	"time"

	"lockstep/mirror/store/memfs"
)

// ambushTime is how long after its moment an ambush comes at the latest: what follows
// from a change mostly takes less.
const ambushTime = 300 * time.Millisecond

// arm makes a fault happen, or has it wait for its moment.
func (f *fault) arm(c *cluster) {
	if f.ambush != noAmbush {
		c.ambushes = append(c.ambushes, f)
		return
	}
	f.begin(c)
}

// spring begins the faults that waited for a moment like this.
func (c *cluster) spring(moment ambush) {
	waiting := c.ambushes
	c.ambushes = nil
	for _, f := range waiting {
		if f.ambush != moment {
			c.ambushes = append(c.ambushes, f)
			continue
		}
		d := time.Duration(float64(ambushTime) * math.Pow(c.net.rand.Float64(), 3))
		c.after(d, func() {
			if !c.calm {
				f.begin(c)
			}
		})
	}
}

// begin makes a fault happen, and its end later.
func (f *fault) begin(c *cluster) {
	switch f.a {
	case thePrimary:
		f.a = place(c.conf().Primary)
	case theLeader:
		f.a = c.group.leader()
	}
	if f.b == f.a {
		f.b = (f.a + 1) % (c.witness.at + 1)
	}
	if f.kind == faultDisk && f.a != c.witness.at && !c.nodes[f.a].dispensable() {
		c.trace("fault", "not now: %v", f)
		return
	}
	c.trace("fault", "%v", f)
	c.stats.Faults[f.kind]++
	switch f.kind {
	case faultCut, faultOneWay, faultIsolate, faultPartition, faultSlow, faultCorrupt:
		f.disturb(c)
	case faultFlap:
		f.flap(c, c.now+f.lasts)
	case faultCommit:
		c.group.slow = c.now + f.lasts
	case faultBlackout:
		f.blackout(c)
	case faultSite:
		f.cutOff(c)
	default:
		if f.a == c.witness.at {
			f.harmWitness(c)
		} else {
			f.harm(c, c.nodes[f.a])
		}
	}
}

// cutOff cuts the primary off, but for the group's leader and its clients, so that it
// goes on alone; then from that one, too, which is lost with what it promised. When
// there is another leader, an operator wants another primary.
func (f *fault) cutOff(c *cluster) {
	primary, leader := place(c.conf().Primary), c.group.leader()
	all := fault{kind: faultPartition, a: primary, b: leader, lasts: f.lasts + time.Second}
	all.disturb(c)
	c.after(f.lasts/2+c.opt.lossTimeout, func() {
		if c.calm {
			return
		}
		if leader != primary {
			rest := fault{kind: faultCut, a: primary, b: leader, lasts: f.lasts}
			rest.disturb(c)
			c.restart(leader)
		}
		c.ambushes = append(c.ambushes, &fault{kind: faultForce, a: (primary + 1 + place(c.net.rand.IntN(c.opt.members-1))) % place(c.opt.members), ambush: ambushLead})
	})
}

// restart ends a process and starts it at once.
func (c *cluster) restart(p place) {
	if p == c.witness.at {
		if c.witness.up {
			c.witness.end()
		}
		c.startWitness()
		return
	}
	c.nodes[p].kill()
	c.nodes[p].start()
}

func (f *fault) blackout(c *cluster) {
	for i, n := range c.nodes {
		n.losePower()
		c.after(f.lasts+time.Duration(i)*n.between(0, time.Second), n.start)
	}
	if c.net.rand.IntN(2) == 0 {
		f.harmWitness(c)
	}
}

// harmWitness ends the witness's process for a while, or pauses it. It has only votes,
// a log and what it remembers.
func (f *fault) harmWitness(c *cluster) {
	switch f.kind {
	case faultForce:
		return
	case faultPause, faultStall:
		c.witness.pause()
		c.after(f.lasts, c.witness.resume)
		return
	}
	if c.witness.up {
		c.witness.end()
	}
	c.after(f.lasts, c.startWitness)
}

// harm does what concerns a node.
func (f *fault) harm(c *cluster, n *node) {
	switch f.kind {
	case faultForce:
		c.override(n)
	case faultPause:
		n.pause()
		c.after(f.lasts, n.resume)
	case faultKill:
		n.kill()
		c.after(f.lasts, n.start)
	case faultPower:
		n.losePower()
		c.after(f.lasts, n.start)
	case faultMidway:
		n.crashAmid(1 + int(f.lasts/time.Millisecond)%50)
		c.after(f.lasts, n.start)
	case faultStop:
		n.stop()
		c.after(f.lasts, n.start)
	default:
		f.harmDisk(c, n)
	}
}

// disturb does what concerns the network.
func (f *fault) disturb(c *cluster) {
	ways := [][2]place{{f.a, f.b}, {f.b, f.a}}
	switch f.kind {
	case faultOneWay:
		ways = ways[:1]
	case faultIsolate, faultPartition:
		ways = nil
		for other := range place(len(c.net.paths)) {
			spared := f.kind == faultPartition && (other == f.b || other > c.witness.at)
			if other != f.a && !spared {
				ways = append(ways, [2]place{f.a, other}, [2]place{other, f.a})
			}
		}
	}
	for _, w := range ways {
		switch p := c.net.path(w[0], w[1]); f.kind {
		case faultCorrupt:
			p.corrupt = true
			continue
		case faultSlow:
			p.slow = min(f.lasts/4, 400*time.Millisecond)
		default:
			p.cut = true
		}
		c.after(f.lasts, func() { c.net.heal(w[0], w[1]) })
	}
}

// flap breaks connections until some time.
func (f *fault) flap(c *cluster, until time.Duration) {
	if c.now >= until || c.calm {
		return
	}
	c.net.reset(f.a, f.b)
	c.after(20*time.Millisecond+time.Duration(c.net.rand.Int64N(int64(300*time.Millisecond))), func() { f.flap(c, until) })
}

// harmDisk does what concerns a disk.
func (f *fault) harmDisk(c *cluster, n *node) {
	switch disk := n.disk; f.kind {
	case faultStall:
		n.slowSync, n.slowWrite = c.now+f.lasts, c.now+f.lasts/2
	case faultFull:
		disk.Full(0)
		c.after(f.lasts, func() { disk.Full(-1) })
	case faultSync:
		disk.Stall = func(op, _ string) {
			if op == "sync" && n.dispensable() {
				disk.Stall = nil
				disk.FailSync(1)
			}
		}
		c.after(f.lasts, func() {
			disk.Stall = nil
			n.mend()
		})
	case faultDisk:
		n.kill()
		n.newDisk()
		c.after(f.lasts, n.start)
	}
}

// mend starts a node that is down, with an empty disk if the one it has is broken.
func (n *node) mend() {
	n.start()
	if n.broken {
		n.trace("gets an empty disk")
		n.newDisk()
		n.start()
	}
}

// stop ends the process in good order: what it has is on its disk, whatever comes.
func (n *node) stop() {
	if !n.up {
		return
	}
	s := n.store
	n.down((*end).close)
	err := s.CloseClean()
	n.trace("stops in good order: %v", err)
	clean := n.asleep
	if n.rand.IntN(2) == 0 {
		n.losePower()
	} else {
		n.disk.Kill()
	}
	n.asleep = clean && err == nil
}

// crashAmid ends the node at one of its next changes to its disk.
func (n *node) crashAmid(ops int) {
	n.disk.CrashAt(ops)
	n.doomed = true
}

// meetDoom ends a node whose disk stopped while it was at work: what it made of the
// errors after that reaches others only as such.
func (n *node) meetDoom() {
	if !n.doomed || !errors.Is(n.disk.MkdirAll("/", 0), memfs.ErrCrashed) {
		return
	}
	n.trace("ends amid a change to its disk")
	n.doomed = false
	if n.rand.IntN(2) == 0 {
		n.losePower()
	} else {
		n.kill()
	}
	n.c.after(n.between(0, 2*time.Second), n.start)
}

// dispensable says whether this copy can be lost without the loss of the volume:
// another in-sync copy is sure to be whole, and stays in sync.
func (n *node) dispensable() bool {
	if n.taking || n.proposed > 0 && n.c.now-n.proposed < 2*time.Second || n.c.group.undecided(n.name()) {
		return false
	}
	for _, o := range n.c.nodes {
		if o != n && n.c.conf().InSync.Has(o.id) && o.up && o.whole() {
			return true
		}
	}
	return false
}
