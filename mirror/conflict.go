package mirror

import "lockstep/mirror/internal/sabotage"

// conflict orders ops that overlap. Each new op waits for the earlier ones that
// it conflicts with, in the order of arrival, so nothing can starve and nothing
// can deadlock:
//
//	new \ earlier   read                     write
//	read            -                        until it is complete
//	write           until it has been read   until it is applied locally
//	copy            -                        until it is applied locally
//
// While the volume is suspended a read that still waits goes behind later writes: it
// returns what they wrote, which is another order of ops in flight at once.
//
// A read waits for completion, not only for the local copy: what it returns
// must survive a failover. A write need not: every replica applies in seq order.
//
// Cost: ops are counted per stripe of the volume (by hash), so an op whose
// stripes are all idle is known to conflict with nothing in a few loads; only
// otherwise is the list of active ops walked.
type conflict struct {
	head, tail *Op
	count      [stripes]uint32
	yield      bool // reads that wait let later writes go first
	wide       int  // active ops that span more than wideStripes; they count in no stripe
}

const (
	stripeShift = 18 // 256 KiB
	stripes     = 1024
	wideStripes = 64
)

func stripesOf(op *Op) (first, last int64) {
	return op.Off >> stripeShift, max(op.Off, op.end()-1) >> stripeShift
}

// add enters op and sets how many earlier ops it waits for.
func (c *conflict) add(op *Op) {
	first, last := stripesOf(op)
	if c.busy(first, last) {
		c.block(op)
	}
	c.mark(first, last, 1)
	op.core.prev = c.tail
	if c.tail == nil {
		c.head = op
	} else {
		c.tail.core.next = op
	}
	c.tail = op
}

func (c *conflict) remove(op *Op) {
	first, last := stripesOf(op)
	c.mark(first, last, ^uint32(0))
	prev, next := op.core.prev, op.core.next
	if prev == nil {
		c.head = next
	} else {
		prev.core.next = next
	}
	if next == nil {
		c.tail = prev
	} else {
		next.core.prev = prev
	}
	op.core.prev, op.core.next = nil, nil
}

// block makes op wait for every active op that it conflicts with.
func (c *conflict) block(op *Op) {
	for e := c.head; e != nil; e = e.core.next {
		if !e.overlaps(op) || !e.modifies() && !op.modifies() {
			continue
		}
		if op.Kind != Read && (e.core.applied || sabotage.On("order")) {
			continue
		}
		if c.yield && op.modifies() && e.waits() {
			e.waitFor(op)
			continue
		}
		op.waitFor(e)
	}
}

// waits says of a read of a client that it does not run yet.
func (o *Op) waits() bool { return o.Kind == Read && o.core.copy == nil && o.core.blocked > 0 }

func (o *Op) waitFor(p *Op) {
	p.core.waiters = append(p.core.waiters, o)
	o.core.blocked++
}

// giveWay makes the reads that wait go behind the writes that wait for them, and
// later ones too. While nothing can complete, a write must at least be applied here:
// the resync that is to end that may wait for it. run starts what waits no more.
func (c *conflict) giveWay(run func(*Op)) {
	c.yield = true
	for e := c.head; e != nil; e = e.core.next {
		if !e.waits() {
			continue
		}
		waiters := e.core.waiters
		e.core.waiters = nil
		for _, w := range waiters {
			if !w.modifies() {
				e.core.waiters = append(e.core.waiters, w)
				continue
			}
			e.waitFor(w)
			if w.core.blocked--; w.core.blocked == 0 {
				run(w)
			}
		}
	}
}

func (c *conflict) busy(first, last int64) bool {
	if c.wide > 0 {
		return true
	}
	if last-first >= wideStripes {
		return c.head != nil
	}
	for s := first; s <= last; s++ {
		if c.count[s%stripes] > 0 {
			return true
		}
	}
	return false
}

func (c *conflict) mark(first, last int64, delta uint32) {
	if last-first >= wideStripes {
		c.wide += int(int32(delta))
		return
	}
	for s := first; s <= last; s++ {
		c.count[s%stripes] += delta
	}
}
