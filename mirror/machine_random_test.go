package mirror

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "the one seed for TestMachineAtRandom to replay")
	modelSeeds = flag.Int("model.seeds", 300, "how many seeds TestMachineAtRandom tries")
)

// TestMachineAtRandom lets machines serve a small world in which everything happens that
// can: connections that break, processes that die, machines that lose power, disks that
// are replaced, takeovers and answers that are lost. At every step
//
//   - every acknowledged write is on every full copy in sync, and on stable storage there
//     once a flush was acknowledged;
//   - what was read is on all of them, so that no failover takes it back;
//   - nobody serves a read after another took over;
//   - a write that its client sends again takes effect once;
//   - what verification compares of a replica in sync does not differ.
//
// When a promotion is over all copies in sync are equal. When the faults end every
// member comes back in sync, every op gets its answer, and all copies are equal; but
// where no full copy is left it takes an operator, as after a power loss that hits the
// only one before another is known to be one.
func TestMachineAtRandom(t *testing.T) {
	if *modelSeed != 0 {
		runModel(t, *modelSeed)
		return
	}
	ops, helpless := 0, 0
	for range *modelSeeds {
		w := runModel(t, rand.Uint64())
		if t.Failed() {
			return
		}
		if ops += w.completed; len(w.full()) == 0 {
			helpless++
		}
	}
	t.Logf("%d volumes completed %d ops; %d need an operator", *modelSeeds, ops, helpless)
	if ops < 100**modelSeeds || helpless > 1+*modelSeeds/100 {
		t.Errorf("%d ops were completed and %d volumes need an operator: it tests little", ops, helpless)
	}
}

// TestModelReplays: a seed is all that a run depends on.
func TestModelReplays(t *testing.T) {
	seed := rand.Uint64()
	if a, b := runModel(t, seed), runModel(t, seed); !slices.Equal(a.trace, b.trace) || a.submitted != b.submitted {
		t.Errorf("seed %d ran differently the second time: %d and %d ops", seed, a.submitted, b.submitted)
	}
}

func runModel(t *testing.T, seed uint64) *modelWorld {
	w := newModelWorld(seed)
	for range 3000 {
		w.now += time.Duration(w.rng.IntN(4)) * time.Millisecond
		w.happen(true)
		if w.check(); w.broken != nil {
			break
		}
	}
	if w.broken == nil {
		w.heal()
	}
	if w.broken != nil {
		t.Errorf("%v (replay: go test ./mirror -run TestMachineAtRandom -model.seed=%d)\n%s", w.broken, seed, strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))
	}
	return w
}

// happen lets one thing happen.
func (w *modelWorld) happen(faults bool) {
	switch n := w.rng.IntN(1000); {
	case n < 100:
		w.submit()
	case n < 900:
		w.progress()
	case n < 930:
		w.tick()
	case n < 960:
		w.connect()
	case n < 975:
		w.takeOver()
	case n < 985:
		w.decide()
	case n < 988:
		w.verify()
	case faults:
		w.fault()
	}
}

func (w *modelWorld) submit() {
	if len(w.reigns) == 0 {
		return
	}
	r := w.reigns[w.rng.IntN(len(w.reigns))]
	if len(r.pending) == 8 || w.rng.IntN(3) == 0 && w.retry(r) {
		return
	}
	op := &Op{Kind: []OpKind{Read, Read, Write, Write, Write, Write, Zero, Flush}[w.rng.IntN(8)], FUA: w.rng.IntN(8) == 0}
	if op.Kind != Flush {
		first := w.rng.Int64N(modelBlocks)
		op.Off, op.Len = first*modelBlock, min(1+w.rng.Int64N(3), modelBlocks-first)*modelBlock
	}
	op.FUA = op.FUA && op.modifies()
	p := &modelOp{op: op}
	if op.modifies() {
		p.write = w.newWrite(op)
	}
	r.submit(p)
}

func (r *modelReign) submit(p *modelOp) {
	r.w.submitted++
	p.no, p.begun = r.w.submitted, r.w.done
	r.pending[p.op] = p
	r.step(Event{Kind: EvSubmit, Op: p.op})
}

// verify compares a region of a replica that is in sync: it must not differ.
func (w *modelWorld) verify() {
	for _, r := range w.reigns {
		c := &Copy{Kind: Recheck, Replica: ReplicaID(w.rng.IntN(modelMembers)), Repair: w.rng.IntN(2) == 0}
		if c.Off, c.Len = 2*w.rng.Int64N(modelBlocks/2)*modelBlock, 2*modelBlock; c.Replica != r.self.id {
			r.step(Event{Kind: EvRecheck, Copy: c})
		}
	}
}

// progress ends one piece of what is under way.
func (w *modelWorld) progress() {
	var ready []func()
	for _, r := range w.reigns {
		for i := range r.tasks {
			ready = append(ready, func() { f := r.tasks[i]; r.tasks = append(r.tasks[:i], r.tasks[i+1:]...); f() })
		}
		for _, c := range r.conns {
			if c == nil {
				continue
			}
			if len(c.toDisk) > 0 {
				ready = append(ready, func() { f := c.toDisk[0]; c.toDisk = c.toDisk[1:]; c.handle(f) })
			}
			if c.open && c.d.wanted > 0 && c.d.conn == c {
				ready = append(ready, c.sync)
			}
			if len(c.toRun) > 0 {
				ready = append(ready, func() { f := c.toRun[0]; c.toRun = c.toRun[1:]; f() })
			}
		}
	}
	if len(ready) > 0 {
		ready[w.rng.IntN(len(ready))]()
	}
}

// handle does what a frame says, unless another primary is in power or is about to be.
func (c *modelConn) handle(f func()) {
	if c.d.conn != c || c.d.floor > c.epoch {
		c.cut()
		return
	}
	f()
}

func (w *modelWorld) tick() {
	for _, r := range w.reigns {
		for id, c := range r.conns {
			sent := w.now
			c.toReplica(func() {
				c.d.heard = w.now
				c.answer(Event{Kind: EvLease, Replica: ReplicaID(id), SentAt: sent})
			})
		}
		if w.service.Primary == r.self.id && w.rng.IntN(4) > 0 {
			r.step(Event{Kind: EvLease, Replica: r.self.id, SentAt: w.now})
		}
		r.step(Event{Kind: EvTick, Budget: 4 * modelBlock})
	}
}

// connect tells of a broken connection, or makes one.
func (w *modelWorld) connect() {
	if len(w.reigns) == 0 {
		return
	}
	r, d := w.reigns[w.rng.IntN(len(w.reigns))], w.disks[w.rng.IntN(modelMembers)]
	switch c, epoch := r.conns[d.id], r.m.Configuration().Epoch; {
	case d.host != nil || c != nil && c.open:
	case c != nil:
		r.conns[d.id] = nil
		r.step(Event{Kind: EvDown, Replica: d.id})
	case epoch >= d.floor:
		d.admit(r, epoch)
	}
}

func (d *modelDisk) admit(r *modelReign, epoch uint64) {
	if d.conn != nil {
		d.conn.cut()
	}
	if d.last != r {
		d.recent.keep()
		d.last, d.foreign, d.reach = r, true, 0
	}
	d.floor, d.heard, d.applied, d.synced, d.wanted = epoch, r.w.now, 0, 0, 0
	d.conn = &modelConn{r: r, d: d, epoch: epoch, open: true}
	r.conns[d.id] = d.conn
	s := d.state()
	s.Known = r.w.identify(r, d)
	r.w.logf("reign %d: %d is up: complete %v, lossy %v, known %v, written %v, intents %v", r.no, d.id, s.Complete, s.Lossy, s.Known, s.Written, s.Intents != nil)
	r.step(Event{Kind: EvUp, Replica: d.id, State: s})
}

// identify says whether a disk is the one on record. Another one goes on record only once
// its member is not in sync.
func (w *modelWorld) identify(r *modelReign, d *modelDisk) bool {
	r.seen[d.id] = d.serial
	same := w.recorded[d.id] == d.serial
	if !w.service.InSync.Has(d.id) {
		w.recorded[d.id] = d.serial
	}
	return same
}

func (w *modelWorld) commit(r *modelReign, c Configuration) {
	for _, d := range w.disks {
		if changed := w.service.InSync ^ c.InSync; changed.Has(d.id) && r.seen[d.id] != 0 {
			w.recorded[d.id] = r.seen[d.id]
		}
	}
	w.service = c
	w.logf("reign %d: %v", r.no, c)
}

// takeOver lets a member that heard nothing for its grace take over.
func (w *modelWorld) takeOver() {
	d := w.disks[w.rng.IntN(modelMembers)]
	if d.host != nil || !d.complete || !w.service.InSync.Has(d.id) || w.now-d.heard <= modelGrace {
		return
	}
	before := w.service
	w.service = before.Takeover(d.id)
	d.floor = w.service.Epoch
	if d.conn != nil {
		d.conn.cut()
	}
	w.reign(d, before)
}

// decide has the configuration service take a proposal, or tells a primary what is in force.
func (w *modelWorld) decide() {
	for _, r := range w.reigns {
		switch {
		case w.rng.IntN(2) == 0:
		case r.proposal != nil && !r.decided:
			r.decided = true
			if w.service.Epoch+1 == r.proposal.Epoch && w.service.Primary == r.self.id {
				w.commit(r, *r.proposal)
			}
			return
		case w.service.Epoch > r.m.Configuration().Epoch:
			r.proposal = nil
			r.step(Event{Kind: EvCommitted, Conf: w.service})
			return
		}
	}
}

func (w *modelWorld) fault() {
	d := w.disks[w.rng.IntN(modelMembers)]
	switch n := w.rng.IntN(10); {
	case n == 0 && d.host != nil:
		w.giveUp(d.host)
	case n < 6 && d.conn != nil:
		w.logf("cut %d", d.id)
		d.conn.cut()
	case n < 8:
		w.logf("kill %d", d.id)
		w.kill(d)
	case !w.spare(d):
	case n < 9:
		w.logf("power loss of %d", d.id)
		w.kill(d)
		for b := range d.data {
			if w.rng.IntN(2) == 0 {
				d.data[b] = d.durable[b]
			}
		}
		d.durable = d.data
		d.complete, d.lossy = false, d.complete || d.lossy
	default:
		w.logf("disk of %d replaced", d.id)
		w.kill(d)
		d.data, d.durable = blocks{}, blocks{}
		d.complete, d.lossy = false, false
		d.serial++
		d.intents.Clear()
	}
}

// kill ends a process; its machine stays up.
func (w *modelWorld) kill(d *modelDisk) {
	if d.host != nil {
		d.host.end()
	}
	if d.conn != nil {
		d.conn.cut()
	}
	d.forget()
	d.heard = w.now
}

// spare says whether the volume has another full copy than d in sync.
func (w *modelWorld) spare(d *modelDisk) bool {
	for _, e := range w.disks {
		if e != d && e.complete && w.service.InSync.Has(e.id) {
			return true
		}
	}
	return false
}
