package mirror

import (
	"cmp"
	"math"
	"sync/atomic"
	"time"
)

// The pacer says how fast resync may go. It is given two promises to keep, which
// pull in opposite directions:
//
//	writes       p99 grows by at most PaceConfig.Share while a replica is resynced
//	redundancy   what is left is copied within PaceConfig.Redundancy
//
// A fixed crawl keeps neither. Nobody knows the right number beforehand: it is what
// the slowest of two stores and the link has to spare, and that changes with the
// load. Set too high, it stalls the writes of the day; set too low, it leaves the
// volume without a second copy for days, in which the loss of one more site is the
// loss of the data - and an idle night passes at a crawl. So the rate is found from
// what the writes themselves feel.
//
// Baseline. Writes that complete while resync rests fill a histogram that forgets:
// it is worth the last baselineWeight writes. Its p99 times (1+Share) is the limit.
//
// Judgement. While resync runs, writes and those slower than the limit are counted.
// More than one in a hundred is the same as p99 beyond the limit. It is acted upon
// as soon as it is more than chance makes; one slow write is chance.
//
// Rate. Increase by steps, decrease by half, as TCP finds a bandwidth: double until
// it hurts for the first time; after that, steps are the smaller the nearer the rate
// is to where it last hurt, and grow again beyond it. So most of the time is spent
// close to what is bearable, and going beyond it, which is the only way to learn
// that it moved, is so slow that the queue it makes is short. Without foreground
// writes nobody is disturbed and the ceiling is taken, but the rate found under load
// is kept for the next write.
//
// Floor. Never below Floor, nor below what is left over the time that is left for
// redundancy. The second promise goes before the first: a slow hour can be
// explained, a lost volume cannot.
//
// Probe. The load changes while a resync runs for hours, and one may run from the
// start, with nothing to compare to. So resync rests for a few ticks now and then,
// first at its very beginning, and the baseline is learnt anew:
//
//	           slow: half         it hurts no more than before
//	judging --------------> settling ------> judging
//	judging --------------> draining ------> probing ------> judging
//	           probe is due        in flight: done     enough writes seen
//
// Settling and draining wait until what was sent at the pace before is through:
// writes that met it say nothing of the new one.

// PaceConfig bounds the rate of resync. A zero field means its default.
type PaceConfig struct {
	// Floor is what resync may always take, whatever writes feel, in bytes per
	// second: default 4 MiB/s. Too low, and a volume under steady load stays
	// without redundancy until Redundancy forces the rate up.
	Floor int64
	// Ceiling is the most that it may take, in bytes per second: default 1 GiB/s.
	// It goes before Floor and Redundancy. Set it where the link is shared with
	// others, whose latency the volume's writes do not show.
	Ceiling int64
	// Share bounds what writes pay: their p99 may grow by this share while a
	// replica is resynced. Default 0.5.
	Share float64
	// Redundancy is how long the volume may be without a replica: the floor rises
	// so that what is left is copied by then. Default one hour.
	Redundancy time.Duration
}

// withDefaults fills in what was left zero.
func (c PaceConfig) withDefaults() PaceConfig {
	c.Ceiling = cmp.Or(c.Ceiling, 1<<30)
	c.Floor = min(cmp.Or(c.Floor, 4<<20), c.Ceiling)
	c.Share = cmp.Or(c.Share, 0.5)
	c.Redundancy = cmp.Or(c.Redundancy, time.Hour)
	return c
}

const (
	paceTick = 50 * time.Millisecond // between calls of tick
	maxTick  = 4 * paceTick          // a late tick is paid for no more than this

	idleAfter   = 2 * time.Second        // without a write: nobody is there to be disturbed
	minDecision = 200 * time.Millisecond // before a step up: a queue needs time to build

	enoughWrites = 100         // to say that it does not hurt
	fewWrites    = 8           // the same, after this time:
	maxDecision  = time.Second // where so few are made

	probeAgain  = 15 * time.Second // probes cost 2 to 4% of the resync
	probeSooner = 2 * time.Second  // while there is no baseline
	drainTime   = 2 * paceTick
	maxProbe    = 500 * time.Millisecond

	knownWrites    = 32   // a baseline of fewer is none
	probeWrites    = 400  // a probe is over when it has seen as many
	baselineWeight = 4096 // writes that the baseline remembers
	oldWrites      = 1200 // ... and what earlier ones count in a probe, which is too short to see bursts

	// A step is this part of the way to where it last hurt, plus that of the whole
	// rate there: 30 steps, 6 s, from half of it to beyond it.
	stepOfWay, stepOfKnee = 8, 512
)

type pacePhase uint8

const (
	judging  pacePhase = iota // resync runs and writes are judged
	settling                  // resync runs at a new rate, writes still feel the old one
	draining                  // resync rests, writes still feel it
	probing                   // resync rests and writes are learnt from
)

// pacer finds the rate of resync. observe and rate may be called by any goroutine
// at any time (they are atomic); tick by one at a time.
type pacer struct {
	conf PaceConfig

	// What observe writes and tick takes.
	fresh        histogram    // latencies without resync
	writes, slow atomic.Int64 // with resync: how many, and how many beyond limit
	rests        atomic.Bool  // resync does, although there is something to do
	limit        atomic.Int64 // ns

	baseline baseline
	phase    pacePhase
	until    time.Duration // end of settling, draining, probing at the latest
	running  bool          // something was left at the last tick
	last     time.Duration // tick

	allowed, knee int64         // bytes/s: rate under load; where it last hurt, 0 if never
	shrinking     bool          // the last step was down
	wrote         time.Duration // last time that there were foreground writes
	decided       time.Duration // last step up or down
	probed        time.Duration // end of the last probe
	seen, hurt    int64         // writes and slow ones since decided
	learnt        int64         // writes learnt from in this probe

	progress progress
}

func newPacer(conf PaceConfig) *pacer {
	p := &pacer{conf: conf.withDefaults()}
	p.allowed = p.conf.Floor
	p.limit.Store(math.MaxInt64)
	return p
}

// observe takes note of a completed foreground write. resyncing says whether a
// replica was being resynced meanwhile. A few ns, no lock, no allocation.
func (p *pacer) observe(latency time.Duration, resyncing bool) {
	if !resyncing || p.rests.Load() {
		p.fresh.add(latency)
		return
	}
	p.writes.Add(1)
	if int64(latency) > p.limit.Load() {
		p.slow.Add(1)
	}
}

// rate returns how fast resync has come forward in the last seconds, in bytes per
// second; 0 if it did not. It is what was done, not what was allowed: an ETA from
// it holds also where a disk is the limit.
func (p *pacer) rate() int64 { return p.progress.rate.Load() }

// tick returns how many bytes resync may move until the next tick, to be called
// every 50 ms, also when nothing is left to do. left is what resync has to do in
// bytes, since when redundancy was lost, on the clock of now.
func (p *pacer) tick(now time.Duration, left int64, since time.Duration) (budget int64) {
	elapsed := min(now-p.last, maxTick)
	p.last = now
	p.progress.tick(now, left)
	p.take(now)
	floor := p.floor(now, left, since)
	switch {
	case left == 0:
		p.running = false
		p.enter(judging, 0)
	case !p.running:
		p.begin(now)
	default:
		p.step(now, floor < p.conf.Ceiling)
	}
	p.allowed = min(max(p.allowed, floor), p.conf.Ceiling)
	rate := p.allowed
	switch {
	case p.phase == draining || p.phase == probing:
		return 0
	case p.idle(now):
		rate = p.conf.Ceiling
	}
	return int64(float64(rate) * elapsed.Seconds())
}

// take collects what observe saw since the last tick.
func (p *pacer) take(now time.Duration) {
	learnt := p.fresh.drain(&p.baseline)
	writes, slow := p.writes.Swap(0), p.slow.Swap(0)
	if learnt+writes > 0 {
		p.wrote = now
	}
	p.learnt += learnt
	p.seen, p.hurt = p.seen+writes, p.hurt+slow
	if learnt > 0 && p.baseline.known() {
		p.limit.Store(int64(float64(p.baseline.p99()) * (1 + p.conf.Share)))
	}
}

// floor is the lowest rate that keeps the promise of redundancy; when its time is
// over, one that has done with all by the next tick.
func (p *pacer) floor(now time.Duration, left int64, since time.Duration) int64 {
	remains := max(since+p.conf.Redundancy-now, paceTick)
	due := float64(left) / remains.Seconds()
	return int64(min(max(float64(p.conf.Floor), due), float64(p.conf.Ceiling)))
}

func (p *pacer) idle(now time.Duration) bool { return now-p.wrote > idleAfter }

// begin is for the first tick of a resync. A probe comes first: what is known so
// far is of writes that waited for one site more, and of those that hung until the
// replica was given up.
func (p *pacer) begin(now time.Duration) {
	p.running = true
	p.allowed, p.knee, p.shrinking = p.conf.Floor, 0, false
	p.baseline.fade(knownWrites)
	p.probed = now - probeAgain
	p.decide(now)
	p.enter(judging, 0)
}

// step goes on with a resync. There is no choice, and nothing to learn for it,
// where redundancy needs all that may be had.
func (p *pacer) step(now time.Duration, choice bool) {
	switch p.phase {
	case judging:
		p.judge(now, choice)
	case settling:
		if now >= p.until {
			p.decide(now)
			p.enter(judging, 0)
		}
	case draining:
		if now >= p.until {
			p.baseline.fade(oldWrites)
			p.enter(probing, now+maxProbe)
		}
	case probing:
		if p.learnt >= probeWrites || now >= p.until {
			p.probed = now
			p.decide(now)
			p.enter(judging, 0)
		}
	}
}

func (p *pacer) enter(to pacePhase, until time.Duration) {
	p.phase, p.until = to, until
	p.learnt = 0
	p.rests.Store(to == probing)
}

// decide begins to count anew.
func (p *pacer) decide(now time.Duration) {
	p.decided = now
	p.seen, p.hurt = 0, 0
}

// judge changes the rate by what writes felt.
func (p *pacer) judge(now time.Duration, choice bool) {
	every := probeAgain
	if !p.baseline.known() {
		every = probeSooner
	}
	took := now - p.decided
	switch {
	case p.idle(now) || !choice:
		p.decide(now)
	case now-p.probed >= every:
		p.enter(draining, now+drainTime)
	case p.beyond(took):
		p.shrink()
		p.enter(settling, now+paceTick+time.Duration(p.limit.Load()))
	case took < minDecision || p.seen < fewWrites || p.seen < enoughWrites && took < maxDecision:
		// too early to say that it does not hurt
	case p.hurt > tolerable(p.seen):
		// it may hurt; more writes will tell
	case p.baseline.known():
		p.grow()
		p.decide(now)
	}
}

// beyond says whether p99 is beyond the limit: at once where chance would make as
// many slow writes only once in hundreds of ticks, else when there was time to see.
func (p *pacer) beyond(took time.Duration) bool {
	bound := tolerable(p.seen)
	chance := 1 + 2*math.Sqrt(float64(bound))
	return float64(p.hurt) > float64(bound)+chance || took >= maxDecision && p.hurt > bound
}

// tolerable is how many of so many writes may be slow; one is chance.
func tolerable(writes int64) int64 { return max(1, writes/100) }

// shrink steps down. While it goes on hurting the knee stays where it began to: one
// hiccup of a disk takes several steps, and must not be taken for a slow disk.
func (p *pacer) shrink() {
	if !p.shrinking {
		p.knee = p.allowed
	}
	p.shrinking = true
	p.allowed /= 2
}

func (p *pacer) grow() {
	p.shrinking = false
	if p.knee == 0 {
		p.allowed *= 2
		return
	}
	way := max(p.knee-p.allowed, p.allowed-p.knee)
	p.allowed += way/stepOfWay + p.knee/stepOfKnee + 1
}

// progress measures how fast what is left becomes less.
type progress struct {
	left   int64
	at     time.Duration
	speed  float64      // bytes/s, a moving average times
	weight float64      // 0..1: how much of its time was seen so far
	rate   atomic.Int64 // the average, for others
}

// progressTime is how long progress looks back: comparing comes forward in strides
// of 64 MiB.
const progressTime = 3 * time.Second

func (g *progress) tick(now time.Duration, left int64) {
	elapsed := now - g.at
	done := max(g.left-left, 0) // more is left than before: a replica was lost
	begun := g.left > 0 && left > 0
	g.left, g.at = left, now
	if !begun {
		g.speed, g.weight = 0, 0
		g.rate.Store(0)
		return
	}
	if elapsed <= 0 {
		return
	}
	old := math.Exp(-elapsed.Seconds() / progressTime.Seconds())
	g.speed = g.speed*old + float64(done)/elapsed.Seconds()*(1-old)
	g.weight = g.weight*old + 1 - old
	g.rate.Store(int64(g.speed / g.weight))
}
