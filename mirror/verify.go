package mirror

import (
	"context"
	"time"
)

// maxDifferences bounds the list of a result.
const maxDifferences = 64 << 10

// Verify compares every replica that is in sync with the primary, by digest, while
// writes go on. Where something differs, writes to the range are held while it is
// looked at again, so that what is reported was different with nothing in flight;
// with repair the primary's data is copied there. progress, if set, is called now
// and then. The error says why it could not be finished.
func (v *Volume) Verify(ctx context.Context, repair bool, progress func(VerifyProgress)) (VerifyResult, error) {
	began := time.Now()
	r := VerifyResult{Differs: []Difference{}}
	for _, l := range v.others {
		if err := l.verify(ctx, &r, repair, progress); err != nil {
			return r, l.fail("verify", err, "it can be verified when it is in sync; see lockstep status")
		}
	}
	r.Took = time.Since(began).Seconds()
	return r, nil
}

func (l *link) verify(ctx context.Context, r *VerifyResult, repair bool, progress func(VerifyProgress)) error {
	size := l.v.conf.Store.Size()
	p := VerifyProgress{Replica: l.addr, Total: size}
	l.v.verifying.Add(size)
	defer func() { l.v.verifying.Add(p.Done - size) }()
	for off := int64(0); off < size; {
		c := &Copy{Kind: Compare, Replica: l.id, Range: Range{off, min(maxCompare, size-off)}, Tag: make(chan struct{}, 1)}
		if err := l.look(ctx, c); err != nil {
			return err
		}
		for _, d := range c.Differs {
			n, err := l.recheck(ctx, r, d, repair)
			if err != nil {
				return err
			}
			p.Differing += n
		}
		off += c.Len - c.Rest
		r.Checked += c.Len - c.Rest
		l.v.verifying.Add(p.Done - off)
		p.Done = off
		if progress != nil {
			progress(p)
		}
	}
	return nil
}

// look compares a range without holding writes.
func (l *link) look(ctx context.Context, c *Copy) error {
	l.v.mu.Lock()
	ready := l.v.machine.members[l.id].standing == inSync && !l.v.closed
	if ready {
		l.compare(c)
	}
	l.v.mu.Unlock()
	if !ready {
		return errNotInSync
	}
	return l.await(ctx, c)
}

// recheck looks at a range again that seemed to differ, with writes to it held,
// and returns how many bytes really did.
func (l *link) recheck(ctx context.Context, r *VerifyResult, d Range, repair bool) (differing int64, err error) {
	for off := d.Off; off < d.end(); off += maxCopy {
		c := &Copy{Kind: Recheck, Replica: l.id, Range: Range{off, min(maxCopy, d.end()-off)}, Repair: repair, Tag: make(chan struct{}, 1)}
		if !l.v.tellUnlessClosed(Event{Kind: EvRecheck, Copy: c}) {
			return differing, ErrClosed
		}
		if err := l.await(ctx, c); err != nil {
			return differing, err
		}
		for _, found := range c.Differs {
			differing += found.Len
			if len(r.Differs) < maxDifferences {
				r.Differs = append(r.Differs, Difference{Replica: l.addr, Off: found.Off, Len: found.Len, Repaired: repair})
			}
		}
	}
	return differing, nil
}

// checked tells who waits for c, which has room for that.
func (c *Copy) checked() { c.Tag.(chan struct{}) <- struct{}{} }

// await waits until c was checked.
func (l *link) await(ctx context.Context, c *Copy) error {
	select {
	case <-c.Tag.(chan struct{}):
		return c.Err
	case <-l.v.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tellUnlessClosed is tell for who is not one of the volume's own goroutines.
func (v *Volume) tellUnlessClosed(ev Event) bool {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return false
	}
	v.running.Add(1) // under mu, so that Close waits for it
	v.mu.Unlock()
	defer v.running.Done()
	v.tell(ev)
	return true
}
