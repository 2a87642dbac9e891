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
func (s *Seat) HandOver(ctx context.Context, to string) error {
	err := s.do(ctx, func(ctx context.Context) error { return s.handOver(ctx, to, true) })
	if err == nil {
		err = s.served(ctx, to)
	}
	if err != nil {
		return fmt.Errorf("hand %s over to %s: %w", s.name, to, err)
	}
	return nil
}

// served waits until a node has taken the volume over.
func (s *Seat) served(ctx context.Context, by string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, errors.New("it was named primary and has not begun to serve: see lockstep status"))
	defer cancel()
	for {
		changed := s.h.conf.Group.Changed()
		switch v := s.h.conf.Group.State().Volumes[s.name]; {
		case v == nil:
			return errGone
		case v.By == by && v.Primary == by:
			return nil
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

func (s *Seat) handOver(ctx context.Context, to string, stay bool) error {
	l, v := s.leading(), s.Record()
	switch {
	case l == nil || v == nil:
		return errNotLeading
	case to == s.h.conf.Name:
		return errors.New("it leads it already")
	}
	slot := slotOf(v, to)
	if slot == mirror.NoReplica || !v.Replicas[slot].InSync {
		return errors.New("that node has no copy in sync (see lockstep status)")
	}
	in, err := s.pass(ctx, l, slot, stay)
	if err != nil {
		return err
	}
	if in.Primary != slot {
		return errors.New("another change of the configuration came first: try again")
	}
	return nil
}

// pass parks requests, waits until every write is complete and durable, and proposes
// another primary. If that fails requests go on.
func (s *Seat) pass(ctx context.Context, l *lead, to mirror.ReplicaID, stay bool) (in mirror.Configuration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*settleTimeout)
	defer cancel()
	if err := l.volume.Quiesce(ctx); err != nil { // under load, so that little is left
		return in, fmt.Errorf("not every copy in sync could be flushed: %w", err)
	}
	s.park(l)
	defer func() {
		if err != nil || in.Primary != to {
			s.admit(l, s.Record())
		}
	}()
	short, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := l.volume.Quiesce(short); err != nil {
		return in, fmt.Errorf("writes in flight did not complete: %w", err)
	}
	if in, err = l.volume.HandOver(ctx, to, stay); err != nil {
		return in, err
	}
	if in.Primary == to {
		s.stepDown(l, true)
	}
	return in, nil
}

// again makes this node lead anew, with what changed of the volume: it hands over to
// itself.
func (s *Seat) again(ctx context.Context, v *control.Volume, slot mirror.ReplicaID) error {
	l := s.leading()
	s.log.Info("the volume changed: it is handed over to itself", "members", s.addrs(v), "size", v.Size)
	ctx, cancel := context.WithTimeout(ctx, 2*settleTimeout)
	defer cancel()
	if err := l.volume.Quiesce(ctx); err != nil {
		return fmt.Errorf("take in a change of the volume: %w", err)
	}
	s.park(l)
	if err := l.volume.Quiesce(ctx); err != nil {
		s.admit(l, v)
		return fmt.Errorf("take in a change of the volume: %w", err)
	}
	s.stepDown(l, true)
	select {
	case <-s.stopped:
		s.stopped = nil
	case <-ctx.Done():
		return fmt.Errorf("take in a change of the volume: the local disk hangs: %w", ctx.Err())
	}
	if err := s.resize(v); err != nil {
		return fmt.Errorf("take in a change of the volume: %w", err)
	}
	s.follow()
	rec := recordOf(v)
	return s.take(ctx, v, slot, mirror.Configuration{Epoch: rec.Epoch + 1, Primary: slot, InSync: rec.InSync}, true, "the volume changed")
}

// handOverToAny hands over to the first other copy in sync.
func (s *Seat) handOverToAny(ctx context.Context) error {
	v := s.Record()
	if v == nil {
		return nil
	}
	for _, r := range v.Replicas {
		if r.InSync && r.Node != s.h.conf.Name {
			return s.handOver(ctx, r.Node, false)
		}
	}
	return nil
}
