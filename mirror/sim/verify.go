package sim

import "lockstep/mirror"

// verifyRange is how much one verification compares.
const verifyRange = 256 << 10

// verify compares a part of the volume with one member, while writes to it are
// held. What the machine believes to be equal must be.
func (l *lead) verify() {
	id := mirror.ReplicaID(l.n.rand.IntN(len(l.peers)))
	if id == l.n.id || !l.m.Serving() {
		return
	}
	if standing := l.m.Member(id).Standing; standing == "in sync" && !l.m.OutOfSync(id).Empty() {
		l.n.c.violate("member %d is in sync and lacks %d bytes", id, l.m.OutOfSync(id).Bytes())
	}
	group := l.n.rand.Int64N(groups)
	off := (groupAt(group)*sectorSize + l.n.rand.Int64N(2*verifyRange)) &^ (blockSize - 1)
	l.step(mirror.Event{Kind: mirror.EvRecheck, Copy: &mirror.Copy{Kind: mirror.Recheck, Replica: id, Range: mirror.Range{Off: off - verifyRange, Len: verifyRange}}})
}

// rechecked takes what a verification found.
func (l *lead) rechecked(c *mirror.Copy) {
	if c.Err == nil && len(c.Differs) > 0 {
		l.n.c.violate("member %d, in sync, differs from primary %d at %v", c.Replica, l.n.id, c.Differs)
	}
}
