package mirror

import "lockstep/mirror/dirty"

// differences is what one replica lacks: blocks that it certainly missed, which
// are copied, and regions where it may differ, which are compared first.
type differences struct {
	missed *dirty.Map // granularity MachineConfig.Block
	maybe  *dirty.Map // granularity MachineConfig.Region
}

func newDifferences(conf MachineConfig) differences {
	return differences{missed: dirty.New(conf.Size, conf.Block), maybe: dirty.New(conf.Size, conf.Region)}
}

func (d *differences) empty() bool { return d.missed.Empty() && d.maybe.Empty() }

// report adds what a replica said that may differ on it.
func (d *differences) report(s *ReplicaState) {
	for _, r := range s.Written {
		d.missed.Add(r.Off, r.Len)
	}
	if s.Intents != nil {
		d.maybe.Union(s.Intents)
	}
}

func (d *differences) union(o *differences) {
	d.missed.Union(o.missed)
	d.maybe.Union(o.maybe)
}

// sentRange is a write on its way to a learner.
type sentRange struct {
	seq uint64
	Range
}

// sentQueue holds what a learner was sent and has not acknowledged: should it be
// lost, it missed that. The memory is bounded by maxBacklog.
type sentQueue struct {
	ring  []sentRange
	head  int
	bytes int64
}

func (q *sentQueue) push(seq uint64, r Range) {
	q.ring = append(q.ring, sentRange{seq, r})
	q.bytes += r.Len
}

func (q *sentQueue) popTo(seq uint64) {
	for q.head < len(q.ring) && q.ring[q.head].seq <= seq {
		q.bytes -= q.ring[q.head].Len
		q.head++
	}
	if q.head == len(q.ring) {
		q.ring, q.head = q.ring[:0], 0
	} else if q.head > len(q.ring)/2 {
		q.ring = q.ring[:copy(q.ring, q.ring[q.head:])]
		q.head = 0
	}
}

func (q *sentQueue) len() int { return len(q.ring) - q.head }

func (q *sentQueue) each(f func(Range)) {
	for _, s := range q.ring[q.head:] {
		f(s.Range)
	}
}
