package sim

import "time"

// scheduler is virtual time: a queue of what happens when. Events of the same
// moment happen in the order in which they were scheduled, so a run follows from
// its seed alone.
type scheduler struct {
	now   time.Duration // since the run began
	count uint64
	heap  []event
}

type event struct {
	at    time.Duration
	order uint64
	run   func()
}

func (e event) before(o event) bool {
	return e.at < o.at || e.at == o.at && e.order < o.order
}

// after schedules run to happen once d has passed.
func (s *scheduler) after(d time.Duration, run func()) { s.at(s.now+d, run) }

// at schedules run for a moment; one that is over is now.
func (s *scheduler) at(t time.Duration, run func()) {
	s.count++
	s.heap = append(s.heap, event{max(t, s.now), s.count, run})
	i := len(s.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !s.heap[i].before(s.heap[parent]) {
			break
		}
		s.heap[i], s.heap[parent] = s.heap[parent], s.heap[i]
		i = parent
	}
}

// runUntil lets everything happen that is due at or before t.
func (s *scheduler) runUntil(t time.Duration) {
	for len(s.heap) > 0 && s.heap[0].at <= t {
		e := s.pop()
		s.now = e.at
		e.run()
	}
	s.now = max(s.now, t)
}

func (s *scheduler) pop() event {
	top, last := s.heap[0], len(s.heap)-1
	s.heap[0] = s.heap[last]
	s.heap[last] = event{}
	s.heap = s.heap[:last]
	s.sink()
	return top
}

func (s *scheduler) sink() {
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.heap); child++ {
			if s.heap[child].before(s.heap[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		s.heap[i], s.heap[least] = s.heap[least], s.heap[i]
		i = least
	}
}
