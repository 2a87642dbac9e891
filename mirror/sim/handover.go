package sim

import (
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// handover is a primary's way out, on somebody's word:
//
//	serving --> draining --nothing in flight--> flushing --> proposed --won--> a replica
//	   ^            | it takes too long            | failed     | lost
//	   +------------+------------------------------+------------+
//
// What comes meanwhile is parked, and sent to the next primary by who sent it.
type handover struct {
	under   bool
	parked  []*mirror.Op
	offered uint64 // the epoch of the last proposal that named another
}

// drainTime is how long a handover holds requests back before it gives up.
const drainTime = time.Second

// handOver makes another node, in sync, the primary.
func (l *lead) handOver(to mirror.ReplicaID) {
	if l.under || !l.m.Ready() {
		return
	}
	l.n.trace("hands over to node %d", to)
	l.under = true
	l.drain(to, l.n.now()+drainTime)
}

func (l *lead) drain(to mirror.ReplicaID, until time.Duration) {
	switch {
	case l.open == 0:
		l.enter(&mirror.Op{Kind: mirror.Flush}, func(op *mirror.Op) {
			if op.Err == nil && !l.over {
				l.offer(to)
			}
		})
	case l.n.now() >= until:
		l.goOn()
	default:
		l.after(time.Millisecond, func() { l.drain(to, until) })
	}
}

// offer proposes another primary. From here on this node may be nobody.
func (l *lead) offer(to mirror.ReplicaID) {
	conf := l.m.Configuration()
	if !conf.InSync.Has(to) {
		l.goOn()
		return
	}
	conf.Epoch++
	conf.Primary, l.offered = to, conf.Epoch
	l.n.propose(conf, l.ids, func(v *control.Volume, won bool) {
		if won {
			l.n.c.stats.Handovers++
		}
		l.committed(v)
		if !l.over {
			l.goOn()
		}
	})
}

// parted says whether v is what this primary offered: then nothing was in flight, and
// no copy in sync differs from another.
func (l *lead) parted(v *control.Volume) bool {
	return v.Epoch == l.offered && v.By == l.n.name() && v.Primary != v.By
}

// goOn ends a handover that came to nothing.
func (l *lead) goOn() {
	parked := l.parked
	l.under, l.parked = false, nil
	for _, op := range parked {
		l.open++
		l.step(mirror.Event{Kind: mirror.EvSubmit, Op: op})
	}
}
