package mirror

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
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
			if s.random.Float64() < s.hiccups {
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

func TestPacerKeepsWritesWithinTheirShare(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*system)
		least  float64 // of what writes leave of the queue
	}{
		{"near", func(s *system) {}, 0.6},
		{"far", func(s *system) { s.bandwidth, s.distance = 100e6, 10*time.Millisecond }, 0.6},
		{"heavy", func(s *system) { s.writes = 12000 }, 0.6},
		{"sparse", func(s *system) { s.writes = 50 }, 0.4},
		{"uneven", func(s *system) { s.hiccups = 0.005 }, 0.4},
		// One frame takes 3.3 ms: a write that meets one is beyond the limit, so
		// that no more than one in a hundred may.
		{"slow", func(s *system) { s.bandwidth, s.distance = 20e6, 5*time.Millisecond }, 0.05},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSystem(PaceConfig{Floor: 1 << 20, Redundancy: ages})
			tc.change(s)
			before := s.quiet()
			s.lose(lots)
			s.run(time.Minute, false)
			during := s.p99()
			spare := s.bandwidth - s.writes*float64(s.size)
			rate := float64(s.moved) / 60
			t.Logf("p99 %v before, %v during, %.0f MB/s of %.0f spare, rested %d of 1200 ticks", before, during, rate/1e6, spare/1e6, s.rested)
			// A search goes beyond the limit to find it: a tenth for that.
			if limit := time.Duration(1.5 * 1.1 * float64(before)); during > limit {
				t.Errorf("p99 is %v, was %v: beyond %v", during, before, limit)
			}
			if rate < tc.least*spare {
				t.Errorf("%.1f MB/s, want at least %.0f%% of the %.0f MB/s that are spare", rate/1e6, 100*tc.least, spare/1e6)
			}
		})
	}
}

// Without this the test above could not fail: a fixed rate does what it forbids.
func TestFixedRateHurts(t *testing.T) {
	s := newSystem(PaceConfig{Floor: 995e6, Ceiling: 995e6})
	before := s.quiet()
	s.lose(lots)
	s.run(10*time.Second, false)
	if during := s.p99(); during < 5*before {
		t.Errorf("p99 %v before, %v during: the model has no queue", before, during)
	}
}

func TestPacerTakesAllWhenNobodyWrites(t *testing.T) {
	s := newSystem(PaceConfig{Floor: 1 << 20, Ceiling: 90e6, Redundancy: ages})
	s.bandwidth = 100e6
	s.quiet()
	s.lose(lots)
	s.run(20*time.Second, false)
	found := s.pacer.allowed
	if found > 45e6 {
		t.Fatalf("%d bytes/s under load: not far from the ceiling", found)
	}

	s.writes = 0
	s.run(idleAfter+2*paceTick, false)
	s.moved = 0
	s.run(10*time.Second, false)
	if rate := float64(s.moved) / 10; rate < 0.99*90e6 || rate > 1.01*90e6 {
		t.Errorf("%.1f MB/s while nobody writes, want the ceiling, 90", rate/1e6)
	}
	s.writes = 2000
	s.tick() // the first write is seen at its end
	s.tick()
	if got := s.pacer.allowed; got > 2*found {
		t.Errorf("%d bytes/s when writes are back, want what was found before, %d", got, found)
	}
}

func TestPacerRestoresRedundancyInTime(t *testing.T) {
	s := newSystem(PaceConfig{Floor: 1 << 20, Redundancy: time.Minute})
	s.writes, s.bandwidth = 1000, 60e6
	s.quiet()
	s.lose(50e6 * 60) // with the writes, 90% of the queue for a minute: it has to hurt
	s.run(2*time.Minute, true)
	took := s.now - s.since
	if took > time.Minute+time.Second {
		t.Errorf("redundancy after %v, want one minute", took)
	}
}

func TestPacerAfterTheDeadlineHoldsNothingBack(t *testing.T) {
	p := newPacer(PaceConfig{Ceiling: 1 << 30, Redundancy: time.Minute})
	for now := time.Duration(0); now < 3*time.Minute; now += paceTick {
		budget := p.tick(now, 1<<50, time.Second)
		if now > time.Minute+time.Second && budget != 1<<30/20 {
			t.Fatalf("budget %d at %v, want the ceiling's %d", budget, now, 1<<30/20)
		}
		for range 10 {
			p.observe(time.Second, true)
		}
	}
}

// A server that starts with a replica to resync has never seen a write without.
func TestPacerProbesForABaseline(t *testing.T) {
	reference := newSystem(PaceConfig{}).quiet()
	s := newSystem(PaceConfig{Floor: 1 << 20, Redundancy: ages})
	s.lose(lots)
	s.run(time.Second, false)
	if !s.pacer.baseline.known() {
		t.Fatal("no baseline after a second")
	}
	s.p99()
	s.run(time.Minute, false)
	if during := s.p99(); during > reference*165/100 {
		t.Errorf("p99 is %v, %v without resync", during, reference)
	}
	if s.rested == 0 || s.rested > 60 {
		t.Errorf("rested in %d of 1220 ticks, want some, and at most 5%%", s.rested)
	}
}

// The day's load changes under a resync: it must neither be starved by a baseline
// of the night, nor hurt for one.
func TestPacerLearnsTheLoadAnew(t *testing.T) {
	s := newSystem(PaceConfig{Floor: 1 << 20, Redundancy: ages})
	s.quiet()
	s.lose(lots)
	s.run(30*time.Second, false)
	s.distance *= 4 // every write is beyond the limit now, whatever resync does
	s.run(40*time.Second, false)
	s.moved = 0
	s.run(30*time.Second, false)
	if rate := float64(s.moved) / 30; rate < 300e6 {
		t.Errorf("%.1f MB/s a while after all writes became slower: starved", rate/1e6)
	}
	s.distance /= 4
	s.run(time.Minute, false)
	s.p99()
	s.run(30*time.Second, false)
	during := s.p99()
	s.left = 0
	if after := s.quiet(); during > after*165/100 {
		t.Errorf("p99 is %v, %v without resync: still that of slower days", during, after)
	}
}

func TestPacerFollowsTheLoadWithoutResync(t *testing.T) {
	s := newSystem(PaceConfig{})
	s.distance *= 4
	s.quiet()
	s.distance /= 4
	s.run(time.Minute, false)
	if got, want := s.pacer.baseline.p99(), s.p99(); got > 2*time.Millisecond {
		t.Errorf("baseline %v after a minute of writes of %v", got, want)
	}
}

// Writes hang until a lost replica is given up. That is no baseline.
func TestPacerForgetsTheOutage(t *testing.T) {
	s := newSystem(PaceConfig{Floor: 1 << 20, Redundancy: ages})
	before := s.quiet()
	for range 200 {
		s.pacer.observe(3*time.Second, false)
	}
	s.lose(lots)
	s.run(30*time.Second, false)
	s.p99()
	s.run(30*time.Second, false)
	if during := s.p99(); during > before*165/100 {
		t.Errorf("p99 is %v, was %v", during, before)
	}
}

func TestPacerMeasuresItsProgress(t *testing.T) {
	s := newSystem(PaceConfig{Ceiling: 50e6})
	s.writes = 0
	s.run(5*time.Second, false)
	s.lose(2e9)
	if rate := s.pacer.rate(); rate != 0 {
		t.Errorf("%d bytes/s before anything was done", rate)
	}
	s.run(time.Second, false)
	if rate := s.pacer.rate(); rate < 49e6 || rate > 51e6 {
		t.Errorf("%d bytes/s after a second at 50 MB/s", rate)
	}
	s.run(time.Minute, true)
	s.tick()
	if rate := s.pacer.rate(); rate != 0 {
		t.Errorf("%d bytes/s when nothing is left", rate)
	}
}

// A driver that was stopped for a while must not send all that it missed at once.
func TestPacerPaysLittleForALateTick(t *testing.T) {
	p := newPacer(PaceConfig{Floor: 1 << 20, Ceiling: 1 << 20})
	p.tick(time.Second, 1<<40, 0)
	if got := p.tick(time.Hour, 1<<40, 0); got > 1<<20/5+1 {
		t.Errorf("%d bytes after an hour, want at most 200 ms of them", got)
	}
	if got := p.tick(time.Hour, 1<<40, 0); got != 0 {
		t.Errorf("%d bytes for no time", got)
	}
}

func TestBaselineQuantile(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, typical := range []time.Duration{20 * time.Microsecond, time.Millisecond, 300 * time.Millisecond, 20 * time.Second} {
		var h histogram
		var b baseline
		all := make([]time.Duration, 2000)
		for i := range all {
			all[i] = time.Duration(float64(typical) * (0.5 + random.ExpFloat64()))
			h.add(all[i])
		}
		if n := h.drain(&b); n != int64(len(all)) {
			t.Fatalf("drained %d of %d", n, len(all))
		}
		slices.Sort(all)
		want := all[len(all)*99/100]
		if got := b.p99(); got < want*98/100 || got > want*108/100+1024 {
			t.Errorf("p99 %v, want %v", got, want)
		}
	}
	for i := range buckets - 1 {
		end := bucketEnd(i)
		if bucketOf(end-1) != i || bucketOf(end) != i+1 {
			t.Fatalf("bucket %d ends at %v, which is in bucket %d", i, end, bucketOf(end))
		}
	}
	if first, last := bucketOf(-1), bucketOf(math.MaxInt64); first != 0 || last != buckets-1 {
		t.Errorf("the shortest and the longest are in %d and %d", first, last)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	p := newPacer(PaceConfig{})
	if n := testing.AllocsPerRun(100, func() {
		p.observe(time.Millisecond, false)
		p.observe(time.Millisecond, true)
		p.tick(time.Second, 1<<30, 0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	p := newPacer(PaceConfig{})
	for b.Loop() {
		p.observe(time.Millisecond, false)
	}
}

func BenchmarkPacerTick(b *testing.B) {
	p := newPacer(PaceConfig{})
	for b.Loop() {
		p.observe(time.Millisecond, false)
		p.tick(time.Second, 1<<30, 0)
	}
}
