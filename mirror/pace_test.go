package mirror

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

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
		{"stalls", func(s *system) { s.stalls = 7 * time.Second }, 0.3},
		{"few stalls", func(s *system) { s.stalls = 37 * time.Second }, 0.3},
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

// Ten writes a second take many probes, which therefore follow sooner.
func TestPacerFindsABaselineOfFewWrites(t *testing.T) {
	s := newSystem(PaceConfig{Redundancy: ages})
	s.writes = 10
	s.lose(lots)
	s.run(40*time.Second, false)
	if !s.pacer.baseline.known() {
		t.Errorf("%.0f writes were learnt from in 40 s, which is no baseline", s.pacer.baseline.weight)
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
	s.run(5*time.Minute, false)
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

func TestPacerTellsHurtFromChance(t *testing.T) {
	const rate = 100 << 20
	for _, tc := range []struct {
		name  string
		slow  []int // of each 100 writes, one tick after another
		ticks int
		want  int64 // sign of the rate's change
	}{
		{"chance", []int{1, 0}, 10, +1},
		{"a burst of chance", []int{3, 0, 0, 0, 0, 0, 0, 0}, 8, +1},
		{"undecided", []int{2, 1, 1}, 10, 0},
		{"a little, for long", []int{2, 1, 1, 1}, 25, -1},
		{"much", []int{5}, 1, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, now := newPacer(PaceConfig{Redundancy: ages}), time.Duration(0)
			feed := func(left int64, slow int) {
				for i := range 100 {
					p.observe(time.Millisecond+time.Duration(max(slow-i, 0))*time.Second, left > 0)
				}
				now += paceTick
				p.tick(now, left, 0)
			}
			feed(0, 0)
			for p.probed <= 0 || p.phase != judging {
				feed(lots, 0)
			}
			p.allowed = rate
			for i := range tc.ticks {
				feed(lots, tc.slow[i%len(tc.slow)])
			}
			if got := int64(cmp.Compare(p.allowed, rate)); got != tc.want {
				t.Errorf("the rate changed by %d, want sign %d", p.allowed-rate, tc.want)
			}
		})
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
