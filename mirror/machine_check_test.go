package mirror

import "time"

// What must hold in the world of TestMachineAtRandom.

// issue notes that a write is on its way to some disk.
func (w *modelWorld) issue(r *modelReign, op *Op) {
	w.numbered(r, op)
	for b := op.Off / modelBlock; b < op.end()/modelBlock; b++ {
		w.issued[b] = max(w.issued[b], r.number(op))
	}
}

// complete takes an answer, and what follows from it.
func (r *modelReign) complete(op *Op) {
	w, p := r.w, r.pending[op]
	if p == nil {
		w.fail("reign %d completed %v of %d+%d, which it does not have", r.no, op.Kind, op.Off, op.Len)
		return
	}
	delete(r.pending, op)
	w.completed++
	w.answered(r, p)
	switch {
	case op.Err != nil:
	case op.Kind == Read:
		w.wasRead(r, p)
	case op.Kind == Flush:
		w.flushed(r, p.begun)
	case op.Seq() == 0: // a retry: it was complete before
	default:
		for b := op.Off / modelBlock; b < op.end()/modelBlock; b++ {
			w.done[b] = max(w.done[b], r.number(op))
			if op.core.durable {
				w.hard[b] = max(w.hard[b], r.number(op))
			}
		}
	}
}

func (w *modelWorld) wasRead(r *modelReign, p *modelOp) {
	if r.m.Configuration().Epoch < w.elected {
		w.fail("reign %d served a read after another took over (%v)", r.no, w.service)
	}
	for b := p.op.Off / modelBlock; b < p.op.end()/modelBlock; b++ {
		if p.read[b] < p.begun[b] {
			w.fail("reign %d read write %#x of block %d, but %#x was acknowledged before", r.no, p.read[b], b, p.begun[b])
		}
		for _, d := range w.full() {
			if d.data[b] < p.read[b] {
				w.fail("reign %d read write %#x of block %d, which %d lacks: it has %#x", r.no, p.read[b], b, d.id, d.data[b])
			}
		}
	}
}

// flushed retires intents where nothing was written since, as a checkpoint does.
func (w *modelWorld) flushed(r *modelReign, begun blocks) {
	for b := range begun {
		w.hard[b] = max(w.hard[b], begun[b])
		if w.issued[b] != begun[b] || b%2 == 0 || w.issued[b-1] != begun[b-1] {
			continue
		}
		for _, d := range w.full() { // a region is two blocks
			if r.m.Configuration() == w.service && (d == r.self || d.last == r) {
				d.intents.Remove(int64(b-1)*modelBlock, 2*modelBlock)
			}
		}
	}
}

// full are the members in sync that are full copies: any of them may take over.
func (w *modelWorld) full() (list []*modelDisk) {
	for _, d := range w.disks {
		if d.complete && w.service.InSync.Has(d.id) {
			list = append(list, d)
		}
	}
	return list
}

// check is what holds at every moment.
func (w *modelWorld) check() {
	for _, d := range w.full() {
		for b := range d.data {
			if d.data[b] < w.done[b] {
				w.fail("write %#x of block %d was acknowledged, %d in sync has %#x", w.done[b], b, d.id, d.data[b])
			}
			if d.durable[b] < w.hard[b] {
				w.fail("write %#x of block %d was flushed, %d in sync has %#x on stable storage", w.hard[b], b, d.id, d.durable[b])
			}
		}
	}
}

// served checks that a promotion is over only when who is in sync agrees.
func (w *modelWorld) served(r *modelReign) {
	w.logf("reign %d serves", r.no)
	for _, d := range w.full() {
		if r.m.Configuration() == w.service && d.data != r.self.data {
			w.fail("reign %d serves and %d differs: %x and %x", r.no, d.id, d.data, r.self.data)
		}
	}
}

// heal ends the faults and waits until all is well.
func (w *modelWorld) heal() {
	w.logf("no more faults")
	for range 50_000 {
		w.now += time.Duration(w.rng.IntN(4)) * time.Millisecond
		if w.rng.IntN(100) >= 10 {
			w.happen(false)
		} else {
			w.connect()
		}
		if w.check(); w.broken != nil || w.well() || len(w.full()) == 0 {
			return
		}
	}
	w.fail("not well after the faults ended: %v", w.service)
	for _, r := range w.reigns {
		w.logf("reign %d: %v, serving %v, watermark %d, in flight %d, %d ops", r.no, r.m.Configuration(), r.m.Serving(), r.m.Watermark(), r.m.InFlight(), len(r.pending))
		for _, id := range r.m.others {
			w.logf("  %d: %+v", id, r.m.Member(id))
		}
	}
}

// well says whether all members are in sync and nothing is under way.
func (w *modelWorld) well() bool {
	if len(w.reigns) != 1 || w.service.InSync.Len() != modelMembers {
		return false
	}
	r := w.reigns[0]
	if len(r.pending) > 0 || len(r.tasks) > 0 || !r.m.Ready() || r.m.InFlight() > 0 || r.proposal != nil || r.m.Configuration() != w.service {
		return false
	}
	for _, id := range r.m.others {
		if c := r.conns[id]; c == nil || !c.open || len(c.toDisk) > 0 || !r.m.OutOfSync(id).Empty() {
			return false
		}
		if d := w.disks[id]; d.data != r.self.data {
			w.fail("all is well and %d differs: %x and %x", id, d.data, r.self.data)
		}
	}
	return true
}
