package forward

import (
	"slices"
	"time"

	"lockstep/mirror"
)

// sweepInterval is how often it is looked whether parked ops have waited too long
// or for nobody.
const sweepInterval = 50 * time.Millisecond

// Route says where ops go from now on. What was parked goes there at once, the
// oldest first; what the last route still has follows when that is done with it:
// an op is never with two. The same Route again changes nothing.
func (f *Front) Route(r Route) {
	f.mu.Lock()
	if f.failed != nil || r == f.route {
		f.mu.Unlock()
		return
	}
	f.leaveRouteLocked()
	f.route = r
	switch {
	case r.Volume != nil:
		f.beginLocked(&leg{volume: r.Volume})
		return
	case r.Addr != "":
		f.remote = newRemote(f, r.Addr)
		f.running.Go(f.remote.run)
	}
	f.mu.Unlock()
}

// leaveRouteLocked ends the route; a connection that it has gives its ops back soon.
func (f *Front) leaveRouteLocked() {
	if f.remote != nil {
		f.remote.cancel()
	}
	f.route, f.leg, f.remote = Route{}, nil, nil
	if f.lost.IsZero() {
		f.lost = time.Now()
	}
}

// beginLocked makes l where ops go, gives it what is parked, and releases mu.
func (f *Front) beginLocked(l *leg) {
	f.leg, f.lost = l, time.Time{}
	f.handLocked(l, f.takeLocked(l))
}

// takeLocked takes what is parked and was not with l yet, the oldest first. What
// nobody waits for stays, for the sweep.
func (f *Front) takeLocked(l *leg) (ops []*mirror.Op) {
	var all []*entry
	for _, entries := range []*list{&f.writes, &f.others} {
		entries.each(func(e *entry) {
			if e.parked && e.leg != l && !f.conf.Gone(e.tag) {
				all = append(all, e)
			}
		})
	}
	slices.SortFunc(all, func(a, b *entry) int { return int(a.serial) - int(b.serial) })
	for _, e := range all {
		e.parked, e.unsure = false, false
		f.parked--
		if e.origin.Number != 0 {
			e.origin.Retry = e.leg != nil
			e.origin.Lowest = f.writes.head.origin.Number
		}
		e.leg = l
		ops = append(ops, e.op)
	}
	return ops
}

// parkLocked makes an op wait for another leg.
func (f *Front) parkLocked(e *entry) {
	if f.parked == 0 {
		f.sweeper.Reset(sweepInterval)
	}
	e.parked, e.since = true, time.Now()
	f.parked++
}

// again takes back ops that the leg they were given to is done with and did not do,
// or not for good.
func (f *Front) again(entries []*entry) {
	f.mu.Lock()
	for _, e := range entries {
		e.renew()
		f.parkLocked(e)
	}
	if f.failed != nil {
		f.mu.Unlock()
		f.sweep()
		return
	}
	if f.leg == nil {
		f.mu.Unlock()
		return
	}
	f.handLocked(f.leg, f.takeLocked(f.leg))
}

// lateLocked says that no primary was reached for so long that ops are refused.
func (f *Front) lateLocked() bool {
	return f.conf.Park > 0 && !f.lost.IsZero() && time.Since(f.lost) >= f.conf.Park
}

// sweep gives back parked ops that are not to be sent any more.
func (f *Front) sweep() {
	var done []*mirror.Op
	f.mu.Lock()
	at := time.Now()
	for _, entries := range []*list{&f.writes, &f.others} {
		entries.each(func(e *entry) {
			if !e.parked {
				return
			}
			if e.op.Err = f.verdictLocked(e, at); e.op.Err != nil {
				f.parked--
				done = append(done, e.op)
				f.leaveLocked(e)
			}
		})
	}
	if f.parked > 0 {
		f.sweeper.Reset(sweepInterval)
	}
	f.mu.Unlock()
	if len(done) > 0 {
		f.conf.Complete(done)
	}
}

// mayLandLocked says that an op may still be on its way to the volume: as long as
// nobody has welcomed the Front since, which ends its older connections first. To give
// the op back would let its client write newer data before it.
func (f *Front) mayLandLocked(e *entry) bool {
	return e.unsure && (f.leg == nil || f.leg == e.leg)
}

// verdictLocked is why a parked op is given up, or nil.
func (f *Front) verdictLocked(e *entry, at time.Time) error {
	switch {
	case f.failed != nil:
		return f.failed
	case f.conf.Gone(e.tag) && !f.mayLandLocked(e):
		return ErrAbandoned
	case f.lateLocked(), f.conf.Park > 0 && at.Sub(e.since) >= f.conf.Park:
		return ErrIsolated
	}
	return nil
}
