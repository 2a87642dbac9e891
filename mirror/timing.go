package mirror

import "time"

// Timing is where the time of one write went, for those who watch the volume.
type Timing struct {
	Local  time.Duration              // from its submission until the local copy had it
	Remote [MaxReplicas]time.Duration // likewise until a member's acknowledgement came; 0: not waited for
	Total  time.Duration              // until it was complete
}

// sampleInterval is how often a write is timed: all of them would cost each a clock
// reading a site.
const sampleInterval = 10 * time.Millisecond

// sample is the write that is being timed, if one is. The volume's lock guards it.
type sample struct {
	op   *Op
	next time.Duration // when the next one may be chosen, since started
	Timing
}

// choose begins to time op, now, unless another one is timed or was just.
func (s *sample) choose(op *Op, now time.Duration) {
	if s.op == nil && now >= s.next && op.Kind == Write && op.core.seq != 0 {
		*s = sample{op: op, next: now + sampleInterval}
	}
}

// note takes in what ev means for the write that is timed.
func (s *sample) note(ev *Event) {
	switch {
	case s.op == nil:
	case ev.Kind == EvApplied && ev.Op == s.op:
		s.Local = time.Since(started) - s.op.began
	case ev.Kind == EvAcked && s.Remote[ev.Replica] == 0 && s.op.core.acked.Has(ev.Replica):
		s.Remote[ev.Replica] = time.Since(started) - s.op.began
	}
}

// finish tells of a write that is complete, if it is the one.
func (s *sample) finish(op *Op, tell func(Timing)) {
	if s.op != op {
		return
	}
	s.Total = time.Since(started) - op.began
	s.op = nil
	if op.Err == nil {
		tell(s.Timing)
	}
}
