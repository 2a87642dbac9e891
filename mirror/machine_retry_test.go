package mirror

import "slices"

// The client of TestMachineAtRandom: it sends writes again whose answers it did not get, to
// whoever serves then. Each must take effect once.

// modelRetry is a write that its client has no answer to.
type modelRetry struct {
	kind     OpKind
	r        Range
	number   uint64
	fua      bool
	acked    bool     // it was acknowledged, which the client does not know
	numbered []uint64 // numbers under which it was on its way to some disk
}

// newWrite names an op.
func (w *modelWorld) newWrite(op *Op) *modelRetry {
	if len(w.unanswered) == 0 && w.rng.IntN(4) == 0 { // the client goes and another comes
		w.session++
		w.before = w.last
	}
	w.last++
	e := &modelRetry{kind: op.Kind, r: Range{op.Off, op.Len}, number: w.last, fua: op.FUA}
	w.unanswered[e.number] = e
	w.name(op, e, false)
	return e
}

func (w *modelWorld) name(op *Op, e *modelRetry, retry bool) {
	op.Origin = &Origin{Session: w.session, Number: e.number - w.before, Lowest: w.lowest() - w.before, Retry: retry}
}

// lowest is the lowest number without an answer.
func (w *modelWorld) lowest() uint64 {
	low := w.last
	for n := range w.unanswered {
		low = min(low, n)
	}
	return low
}

// retry sends a write again, if there is one to be.
func (w *modelWorld) retry(r *modelReign) bool {
	if len(w.retries) == 0 {
		return false
	}
	e := w.retries[0]
	w.retries = w.retries[1:]
	op := &Op{Kind: e.kind, Off: e.r.Off, Len: e.r.Len, FUA: e.fua}
	w.name(op, e, true)
	r.submit(&modelOp{op: op, write: e})
	return true
}

// writes are those that a primary holds, in the order of their submission.
func (r *modelReign) writes() (list []*modelOp) {
	for _, p := range r.pending {
		if p.write != nil {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *modelOp) int { return a.no - b.no })
	return list
}

// giveUp makes the client send again what a primary still holds.
func (w *modelWorld) giveUp(r *modelReign) {
	for _, p := range r.writes() {
		if !p.given && w.rng.IntN(2) == 0 {
			p.given = true
			w.retries = append(w.retries, p.write)
		}
	}
}

// numbered notes that a write got a number.
func (w *modelWorld) numbered(r *modelReign, op *Op) {
	p := r.pending[op]
	if p == nil || p.write == nil {
		return
	}
	e, n := p.write, r.number(op)
	if len(e.numbered) > 0 && e.numbered[len(e.numbered)-1] == n {
		return
	}
	if e.acked && r.m.Configuration().Epoch >= w.elected { // who is fenced may still write its own disk
		w.fail("reign %d: write %d of the client is applied again as %#x, after it was acknowledged as one of %x", r.no, e.number, n, e.numbered)
	}
	e.numbered = append(e.numbered, n)
}

// answered takes a write's answer, which the client may not get.
func (w *modelWorld) answered(r *modelReign, p *modelOp) {
	e := p.write
	if e == nil {
		return
	}
	switch {
	case p.op.Err != nil: // its outcome is unknown for good
	case len(e.numbered) == 0:
		w.fail("reign %d: write %d of the client is acknowledged and was never applied", r.no, e.number)
	default:
		e.acked = true
		for _, d := range w.full() {
			for b := e.r.Off / modelBlock; b < e.r.end()/modelBlock; b++ {
				if e.fua || r.m.conf.Durable {
					w.hard[b] = max(w.hard[b], e.numbered[0])
				}
				if d.data[b] < e.numbered[0] {
					w.fail("reign %d: write %d of the client is acknowledged, block %d of %d has %#x and none of %x", r.no, e.number, b, d.id, d.data[b], e.numbered)
				}
			}
		}
	}
	if p.given {
		return // it asks for it elsewhere
	}
	if p.op.Err == nil && w.rng.IntN(8) == 0 {
		w.retries = append(w.retries, e) // the answer is lost
		return
	}
	delete(w.unanswered, e.number)
}
