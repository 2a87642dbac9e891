package sim

import (
	"time"

	"lockstep/mirror"
	"lockstep/mirror/wire"
)

// checkpoint is the state of the primary's checkpoints, by which intents are given
// up:
//
//	idle --due--> waiting --all before it complete--> flushing --flushed--> idle
type checkpoint struct {
	due        time.Duration // on the node's clock
	number     uint64
	generation uint64
	last       uint64 // seq before the generation
	waiting    bool
	flushing   bool
}

// check goes on with the checkpoint.
func (l *lead) check() {
	switch {
	case l.flushing || !l.m.Ready():
	case l.waiting:
		if l.m.Watermark() >= l.last {
			l.waiting, l.flushing = false, true
			l.submit(&mirror.Op{Kind: mirror.Flush}, l.flushed)
		}
	case l.n.now() >= l.due:
		l.waiting = true
		l.number++
		l.generation, l.last = l.n.store.Generation(), l.m.LastSeq()
		l.tellInSync(false)
	}
}

// tellInSync tells the replicas in sync that the generation begins, or is over.
func (l *lead) tellInSync(over bool) {
	for id, p := range l.peers {
		if p == nil || l.m.Member(mirror.ReplicaID(id)).Standing != "in sync" || over && p.mark != l.number {
			continue
		}
		p.mark = l.number
		p.end.send(p.p.AppendGeneration(nil, l.number, over))
	}
}

// flushed ends the checkpoint. What members lack is saved before the intents go,
// which had it until now.
func (l *lead) flushed(op *mirror.Op) {
	l.flushing = false
	l.due = l.n.now() + l.n.between(time.Second, 4*time.Second)
	if op.Err != nil || l.over {
		return
	}
	err := l.save()
	if err == nil {
		err = l.n.store.Retire(l.generation)
	}
	if err != nil {
		l.n.trace("checkpoint: %v", err)
		return
	}
	l.tellInSync(true)
}

func (l *lead) save() error {
	for i, id := range l.ids {
		member := mirror.ReplicaID(i)
		if member == l.n.id || l.m.Configuration().InSync.Has(member) || id == (wire.ID{}) {
			continue
		}
		if err := l.n.store.SaveOutOfSync(id, l.m.OutOfSync(member)); err != nil {
			return err
		}
	}
	return nil
}
