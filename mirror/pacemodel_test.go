package mirror

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// system is what the pacer is put before: foreground writes and copies that
// share one queue (a link, a disk), first come, first served, in virtual time.
type system struct {
	random    *rand.Rand
	pacer     *pacer
	bandwidth float64       // bytes/s of the queue
	distance  time.Duration // what a write costs without any queue
	writes    float64       // foreground writes/s; 0 for none
	size      int           // bytes in one
	hiccups   float64       // share of writes that take 20 ms longer, for no reason
	stalls    time.Duration // time between stalls of 300 ms in which all writes do; 0 for none

	now, free time.Duration // free: when the queue has served all that is in it
	left      int64         // of the resync
	since     time.Duration
	budget    int64

	flying    []flying        // foreground writes
	latencies []time.Duration // of foreground writes, since they were last taken
	moved     int64           // by resync
	rested    int             // ticks without a budget, while resyncing
}

// flying is a write that is under way.
type flying struct{ begun, done time.Duration }

const (
	lots     = 1 << 40 // bytes: more than a test can copy
	ages     = 1000 * time.Hour
	inFlight = 8 << 20 // the most that resync has under way, as in Machine
)

// newSystem has 1 GB/s, 1 ms away, and 2,000 writes of 4 KiB a second.
func newSystem(conf PaceConfig) *system {
	return &system{
		random: rand.New(rand.NewPCG(1, 2)), pacer: newPacer(conf),
		bandwidth: 1e9, distance: time.Millisecond, writes: 2000, size: 4096,
	}
}

// run goes on for so long, or until the resync is over if it is to end.
func (s *system) run(d time.Duration, toEnd bool) {
	for end := s.now + d; s.now < end && !(toEnd && s.left == 0); {
		s.tick()
	}
}

// tick is 50 ms: copies are sent as evenly as 64 KiB frames allow, writes come
// at random (Poisson).
func (s *system) tick() {
	const frame = 64 << 10
	s.budget = min(s.budget, 0) + s.pacer.tick(s.now, s.left, s.since)
	if s.left > 0 && s.budget <= 0 {
		s.rested++
	}
	resyncing := s.left > 0
	begun, end := s.now, s.now+paceTick
	write, next := s.nextWrite(begun), begun
	gap := paceTick * frame / time.Duration(max(s.budget, frame))
	for write < end || next < end {
		if write <= next {
			done := s.serve(write, s.size) + s.distance
			if s.random.Float64() < s.hiccups || s.stalls > 0 && write%s.stalls < 300*time.Millisecond {
				done += 20 * time.Millisecond
			}
			s.flying = append(s.flying, flying{write, done})
			write = s.nextWrite(write)
			continue
		}
		if n := min(frame, s.left); s.budget > 0 && s.queued(next) < inFlight {
			s.serve(next, int(n))
			s.left, s.budget, s.moved = s.left-n, s.budget-n, s.moved+n
		}
		next += gap
	}
	s.now = end
	s.complete(resyncing)
}

// complete tells the pacer of the writes that are done by now.
func (s *system) complete(resyncing bool) {
	s.flying = slices.DeleteFunc(s.flying, func(w flying) bool {
		if w.done > s.now {
			return false
		}
		s.pacer.observe(w.done-w.begun, resyncing)
		s.latencies = append(s.latencies, w.done-w.begun)
		return true
	})
}

// queued is how many bytes are in the queue.
func (s *system) queued(at time.Duration) int64 {
	return int64(max(s.free-at, 0).Seconds() * s.bandwidth)
}

func (s *system) nextWrite(after time.Duration) time.Duration {
	if s.writes == 0 {
		return math.MaxInt64
	}
	return after + time.Duration(s.random.ExpFloat64()/s.writes*1e9)
}

// serve returns when the queue is done with bytes that came at that time.
func (s *system) serve(at time.Duration, bytes int) time.Duration {
	s.free = max(s.free, at) + time.Duration(float64(bytes)/s.bandwidth*1e9)
	return s.free
}

// lose begins a resync.
func (s *system) lose(bytes int64) {
	s.left, s.since = bytes, s.now
	s.moved, s.rested = 0, 0
}

// p99 is exact, and forgets what it was taken from.
func (s *system) p99() time.Duration {
	slices.Sort(s.latencies)
	p99 := s.latencies[len(s.latencies)*99/100]
	s.latencies = s.latencies[:0]
	return p99
}

// quiet runs without resync and returns the p99 that writes have.
func (s *system) quiet() time.Duration {
	s.run(10*time.Second, false)
	return s.p99()
}
