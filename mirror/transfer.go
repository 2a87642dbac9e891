package mirror

import (
	"sync"
	"time"

	"lockstep/mirror/wire"
)

// Copies and comparisons of one replica. Each is a goroutine while it reads the
// local store and none while it waits for the replica; the machine bounds how
// many there are.

// copyBuffers hold the data of copies: *[maxCopy]byte.
var copyBuffers = sync.Pool{New: func() any { return new([maxCopy]byte) }}

// copy begins an ActCopy. The volume's lock is held.
func (l *link) copy(c *Copy) {
	p := l.peer
	l.v.running.Go(func() {
		l.v.slow <- struct{}{}
		buf := copyBuffers.Get().(*[maxCopy]byte)
		data, err := ReadCopy(l.v.conf.Store, c, buf[:])
		<-l.v.slow
		l.queueCopy(p, c, buf, data, err)
	})
}

// queueCopy puts the data of a copy in line, and in the same step tells the
// machine that it is: writes to the range come after it.
func (l *link) queueCopy(p *Peer, c *Copy, buf *[maxCopy]byte, data []byte, err error) {
	b := l.v.batches.Get().(*batch)
	l.v.mu.Lock()
	b.now = l.v.leaseTime()
	if err == nil && p != nil && l.peer == p && !c.Over() {
		l.buffers[c] = buf[:]
		l.out.put(p.copyFrames(c, data, l.v.machine)...)
		l.copied.Add(int64(len(data)))
		b.kick = true
	}
	l.v.step(b, Event{Kind: EvQueued, Copy: c, Err: err})
	l.v.mu.Unlock()
	l.v.finish(b)
	if err != nil {
		l.v.conf.Log.Error("resync can't read this copy", "err", err)
	}
}

// release gives the buffer of a copy back that the replica has. The volume's
// lock is held.
func (l *link) release(c *Copy) {
	if buf := l.buffers[c]; buf != nil {
		delete(l.buffers, c)
		copyBuffers.Put((*[maxCopy]byte)(buf))
	}
}

// compare begins an ActCompare. The volume's lock is held.
func (l *link) compare(c *Copy) {
	p := l.peer
	l.v.running.Go(func() { l.goOn(p, NewComparison(c), false) })
}

// goOn goes on with a comparison: with the answer that came, if one did, then
// with the next piece.
func (l *link) goOn(p *Peer, c *Comparison, answered bool) {
	h, more, err := l.compareOnce(c, answered)
	b := l.v.batches.Get().(*batch)
	l.v.mu.Lock()
	switch {
	case c.Copy.verifies():
		if err != nil || !more {
			c.Copy.Err = err
			c.Copy.checked()
		} else if !l.ask(p, c, h) {
			c.Copy.Err = errNotInSync
			c.Copy.checked()
		}
	case err != nil || !more:
		c.Copy.Cost = 0 // paced piece by piece
		l.v.step(b, Event{Kind: EvCompared, Copy: c.Copy, Err: err, Now: now()})
	default:
		l.ask(p, c, h)
	}
	b.kick = true
	l.v.mu.Unlock()
	l.v.finish(b)
	if err != nil {
		l.v.conf.Log.Error("comparing can't go on here", "replica", l.addr, "err", err)
	}
}

// ask sends the next sum of a comparison, unless its connection is over. The
// volume's lock is held.
func (l *link) ask(p *Peer, c *Comparison, h wire.Header) bool {
	if p == nil || l.peer != p {
		return false
	}
	l.out.put(p.sum(c, h))
	return true
}

// verifies says whether c compares for a verification: the machine knows nothing of it.
func (c *Copy) verifies() bool { return c.Kind == Compare && c.Tag != nil }

// giveUp ends the comparisons of verifications that wait for a connection that is
// over. The volume's lock is held.
func (l *link) giveUp(p *Peer) {
	for _, r := range p.pending {
		if r.compare != nil && r.compare.Copy.verifies() {
			r.compare.Copy.Err = errNotInSync
			r.compare.Copy.checked()
		}
	}
}

func (l *link) compareOnce(c *Comparison, answered bool) (h wire.Header, more bool, err error) {
	if answered {
		before := c.Copy.Cost
		l.v.slow <- struct{}{}
		err = c.Check(l.v.conf.Store)
		<-l.v.slow
		if err != nil {
			return h, false, err
		}
		read := c.Copy.Cost - before
		l.compared.Add(read)
		l.throttle(read)
	}
	return c.Next(l.v.conf.Store)
}

// throttle makes one of at most maxComparing comparisons wait for as long as the
// bytes that it read may take.
func (l *link) throttle(n int64) {
	allowed := max(l.v.allowed.Load(), 1<<20)
	wait := time.Duration(float64(n) * maxComparing / float64(allowed) * float64(time.Second))
	if n == 0 || wait < time.Millisecond && !l.v.resting.Load() {
		return
	}
	for {
		select {
		case <-l.v.ctx.Done():
			return
		case <-time.After(wait):
		}
		if wait = tickInterval; !l.v.resting.Load() {
			return
		}
	}
}
