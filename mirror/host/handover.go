package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// settleTimeout bounds how long a handover holds requests back before it gives up.
const settleTimeout = 3 * time.Second

// HandOver makes another node's copy, which must be in sync, the primary, and returns
// when that one serves. It is for the node that leads.
// It also returns for how long clients were held back.
func (s *Seat) HandOver(ctx context.Context, to string) (pause time.Duration, err error) {
	var parked time.Time
	var epoch uint64
	err = s.do(ctx, func(ctx context.Context) (err error) {
		parked, epoch, err = s.handOver(ctx, to, true)
		return err
	})
	if err == nil {
		err = s.served(ctx, to, epoch)
	}
	if err != nil {
		return 0, fmt.Errorf("hand %s over to %s: %w", s.name, to, err)
	}
	return time.Since(parked), nil
}

// served waits until a node has taken the volume over that was named primary in an
// epoch. This node's state may lag behind that.
func (s *Seat) served(ctx context.Context, by string, epoch uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, errors.New("it was named primary and has not begun to serve: see lockstep status"))
	defer cancel()
	for {
		changed := s.h.conf.Group.Changed()
		switch v := s.h.conf.Group.State().Volumes[s.name]; {
		case v == nil:
			return errGone
		case v.By == by && v.Primary == by && v.Epoch > epoch:
			return nil
		case v.Epoch < epoch:
		case v.Primary != by:
			return fmt.Errorf("%s is primary now: it claimed the volume meanwhile", v.Primary)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// handOver names another primary, and says since when clients are held back and under
// which epoch.
func (s *Seat) handOver(ctx context.Context, to string, stay bool) (parked time.Time, epoch uint64, err error) {
	l, v := s.leading(), s.Record()
	switch {
	case l == nil || v == nil:
		return parked, 0, errNotLeading
	case to == s.h.conf.Name:
		return parked, 0, errors.New("it leads it already")
	}
	slot := slotOf(v, to)
	if slot == mirror.NoReplica || !v.Replicas[slot].InSync {
		return parked, 0, errors.New("that node has no copy in sync (see lockstep status)")
	}
	parked, in, err := s.pass(ctx, l, v, slot, stay)
	if err != nil {
		return parked, 0, err
	}
	if in.Primary != slot {
		return parked, 0, errors.New("another change of the configuration came first: try again")
	}
	return parked, in.Epoch, nil
}

// pass parks requests, waits until every write is complete and durable, and proposes
// another primary. If that fails requests go on.
func (s *Seat) pass(ctx context.Context, l *lead, v *control.Volume, to mirror.ReplicaID, stay bool) (parked time.Time, in mirror.Configuration, err error) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	if err := l.volume.Quiesce(ctx); err != nil { // under load, so that little is left
		return parked, in, fmt.Errorf("not every copy in sync could be flushed: %w", err)
	}
	parked = time.Now()
	s.park(l)
	short, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := l.volume.Quiesce(short); err != nil {
		s.admit(l, v)
		return parked, in, fmt.Errorf("writes in flight did not complete: %w", err)
	}
	in, err = l.volume.HandOver(ctx, to, stay)
	if err == nil && in.Primary != to {
		s.admit(l, v)
		return parked, in, nil
	}
	s.stepDown(l, true) // also if it is not known what is in force: the other one may lead already
	return parked, in, err
}

// again makes this node lead anew, with what changed of the volume: it hands over to
// itself.
func (s *Seat) again(ctx context.Context, v *control.Volume, slot mirror.ReplicaID) error {
	l := s.leading()
	s.log.Info("the volume changed: it is handed over to itself", "members", s.addrs(v), "size", v.Size)
	settling, cancel := l.settling(ctx)
	defer cancel()
	err := l.ready(settling, v.Lease())
	if err == nil {
		err = l.volume.Quiesce(settling)
	}
	s.park(l)
	if err == nil {
		err = l.volume.Quiesce(settling)
	}
	if err != nil {
		s.stepDown(l, false)
		return fmt.Errorf("take in a change of the volume: its writes did not complete, so this node claims it anew: %w", err)
	}
	s.stepDown(l, true)
	select {
	case <-s.stopped:
		s.ended()
	case <-time.After(settleTimeout):
		return errors.New("take in a change of the volume: the local disk hangs")
	}
	if err := s.resize(v); err != nil {
		return fmt.Errorf("take in a change of the volume: %w", err)
	}
	s.follow()
	return s.retake(ctx, v, slot)
}

// retake begins to lead again what this node led until now. An operator's next change may
// come first, or what the volume proposed last, and leave the place to this node: then
// that one counts.
func (s *Seat) retake(ctx context.Context, v *control.Volume, slot mirror.ReplicaID) error {
	for {
		rec := recordOf(v)
		next := mirror.Configuration{Epoch: rec.Epoch + 1, Primary: slot, InSync: rec.InSync}
		err := s.take(ctx, v, slot, next, true, "the volume changed")
		newer := s.Record()
		if err != nil || s.leading() != nil || newer == nil {
			return err
		}
		in := recordOf(newer)
		if in.Epoch != next.Epoch || in.Primary != slot || in.By != mirror.NoReplica && in.By != slot || newer.Forced {
			return nil
		}
		v = newer
	}
}

// ready waits for a promotion to end, or a lost copy to be taken out, but not long: what
// writes wait for may be what the change is about.
func (l *lead) ready(ctx context.Context, limit time.Duration) error {
	if st := l.volume.Status(); l.policy.OnLoss == "suspend" && st.Serving && !st.Ready {
		return errors.New("writes wait for a copy")
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return l.volume.Wait(ctx)
}

// settling bounds how long writes may take to settle: not longer than the volume lives.
func (l *lead) settling(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, 2*settleTimeout)
	go func() {
		select {
		case <-l.volume.Ended():
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// handOverToAny hands over to the first other copy in sync that takes it.
func (s *Seat) handOverToAny(ctx context.Context) error {
	v := s.Record()
	if v == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*settleTimeout)
	defer cancel()
	var failed error
	for _, r := range v.Replicas {
		if !r.InSync || r.Node == s.h.conf.Name || s.leading() == nil {
			continue
		}
		if _, _, err := s.handOver(ctx, r.Node, false); err == nil {
			return nil
		} else {
			failed = errors.Join(failed, fmt.Errorf("to %s: %w", r.Node, err))
		}
	}
	return failed
}
