package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"lockstep/mirror/dirty"
)

// The world around machines for TestMachineAtRandom: disks of a few blocks, streams
// that keep their order, a configuration service. No byte is encoded and no block
// holds more than the number of the write that wrote it last; whole clusters, with
// everything that runs in them, are package sim's.
const (
	modelMembers = 3
	modelBlocks  = 12
	modelBlock   = 4 << 10
	modelLease   = 100 * time.Millisecond
	modelGrace   = 150 * time.Millisecond
	modelLoss    = 200 * time.Millisecond
)

// blocks holds a write's number for each block. Later writes have higher numbers, those of
// later reigns too.
type blocks [modelBlocks]uint64

// modelDisk is one member: its copy, and what it remembers of it.
type modelDisk struct {
	origins         Origins
	foreign         bool   // origins are of an earlier reign
	reach           uint64 // highest number applied under this reign
	id              ReplicaID
	data, durable   blocks // as read, and as after a power loss at worst
	intents         *dirty.Map
	complete, lossy bool
	serial          int // of the disk: another one after it was replaced
	recent          recent
	floor           uint64
	heard           time.Duration
	host            *modelReign // runs here as primary
	conn            *modelConn  // its primary's
	last            *modelReign // wrote last
	applied, synced uint64
	wanted          uint64 // is to be synced up to here
}

// modelReign is a primary: its machine and what that waits for.
type modelReign struct {
	w        *modelWorld
	no       uint64
	self     *modelDisk
	m        *Machine
	conns    [modelMembers]*modelConn
	tasks    []func() // local I/O under way, ends in any order
	proposal *Configuration
	decided  bool
	seen     [modelMembers]int // serials of the disks that answered last
	pending  map[*Op]*modelOp
}

// modelOp is what a client knows of its op.
type modelOp struct {
	no    int // in the order of submission
	op    *Op
	begun blocks // what was complete when it was submitted
	read  blocks
	write *modelRetry
	given bool // the client sends it again
}

// modelConn is a connection: two streams.
type modelConn struct {
	r             *modelReign
	d             *modelDisk
	epoch         uint64
	open          bool
	toDisk, toRun []func()
}

type modelWorld struct {
	conf      MachineConfig
	rng       *rand.Rand
	now       time.Duration
	service   Configuration
	recorded  [modelMembers]int // serials of the disks that the service knows
	elected   uint64            // the epoch of the last takeover
	disks     [modelMembers]*modelDisk
	reigns    []*modelReign // alive
	no        uint64
	done      blocks // highest write that was acknowledged
	hard      blocks // ... and flushed
	issued    blocks
	submitted int
	completed int
	broken    error
	trace     []string

	last       uint64 // number of the client's last write
	session    uint64 // of the client's, and
	before     uint64 // the last number of the one before
	unanswered map[uint64]*modelRetry
	retries    []*modelRetry
}

func newModelWorld(seed uint64) *modelWorld {
	w := &modelWorld{rng: rand.New(rand.NewPCG(seed, 1)), service: Configuration{Epoch: 1, InSync: SetOf(0, 1, 2)}}
	w.unanswered = map[uint64]*modelRetry{}
	w.conf = MachineConfig{Members: SetOf(0, 1, 2), LossTimeout: modelLoss, Lease: modelLease,
		Suspend: w.rng.IntN(4) == 0, Durable: w.rng.IntN(4) == 0,
		Size: modelBlocks * modelBlock, Block: modelBlock, Region: 2 * modelBlock}
	for i := range w.disks {
		w.disks[i] = &modelDisk{id: ReplicaID(i), complete: true, serial: 1, intents: dirty.New(modelBlocks*modelBlock, 2*modelBlock)}
		w.recorded[i] = 1
		w.disks[i].origins.Whole = true
	}
	w.reign(w.disks[0], Configuration{})
	return w
}

func (w *modelWorld) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8v ", w.now)+fmt.Sprintf(format, args...))
}

func (w *modelWorld) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
		w.logf("BROKEN: %v", w.broken)
	}
}

// reign makes d primary under the configuration in force, which followed before.
func (w *modelWorld) reign(d *modelDisk, before Configuration) {
	w.no++
	conf := w.conf
	conf.Self = d.id
	r := &modelReign{w: w, no: w.no, self: d, m: NewMachine(conf), pending: map[*Op]*modelOp{}}
	w.reigns = append(w.reigns, r)
	w.elected = w.service.Epoch
	d.host, d.conn = r, nil
	w.logf("reign %d of %d: %v", r.no, d.id, w.service)
	r.step(Event{Kind: EvCommitted, Conf: w.service, Own: &Promotion{State: *d.state(), Before: before, Origins: d.origins.Clone()}})
}

// state is what a disk says of itself.
func (d *modelDisk) state() *ReplicaState {
	s := &ReplicaState{Complete: d.complete, Lossy: d.lossy, Known: true}
	written, remembers := d.recent.ranges()
	if s.Written = written; !remembers {
		s.Intents = d.intents.Clone()
	}
	return s
}

func (d *modelDisk) write(r Range, number uint64) {
	d.intents.Add(r.Off, r.Len)
	for b := r.Off / modelBlock; b < r.end()/modelBlock; b++ {
		d.data[b] = number
	}
}

// step gives the machine an event and does what it asks for.
func (r *modelReign) step(ev Event) {
	if !r.alive() {
		return
	}
	was := r.m.Serving()
	ev.Now = r.w.now
	for _, a := range slices.Clone(r.m.Step(ev)) {
		r.do(a)
	}
	if !was && r.m.Serving() {
		r.w.served(r)
	}
}

func (r *modelReign) alive() bool { return r.self.host == r }

func (r *modelReign) number(op *Op) uint64 { return r.no<<32 | op.Seq() }

func (r *modelReign) do(a Action) {
	switch a.Kind {
	case ActApply:
		r.tasks = append(r.tasks, func() { r.apply(a.Op) })
	case ActSync:
		r.tasks = append(r.tasks, func() { r.self.durable = r.self.data; r.step(Event{Kind: EvSynced, Op: a.Op}) })
	case ActComplete:
		r.complete(a.Op)
	case ActPropose:
		r.proposal, r.decided = &a.Conf, false
	case ActStop:
		r.w.logf("reign %d stops: %v", r.no, a.Err)
		r.end()
	case ActRechecked:
		if a.Copy.Err == nil && len(a.Copy.Differs) > 0 {
			r.w.fail("reign %d: %d in sync differs at %v", r.no, a.Replica, a.Copy.Differs)
		}
	default:
		r.send(a)
	}
}

// send does what goes to another member, or to this one in its stead.
func (r *modelReign) send(a Action) {
	c := r.conns[a.Replica]
	switch a.Kind {
	case ActFinish:
		if a.Replica == r.self.id {
			r.tasks = append(r.tasks, func() { r.self.finish(); r.step(Event{Kind: EvFinished, Replica: a.Replica}) })
			return
		}
		c.toReplica(func() { c.d.finish(); c.answer(Event{Kind: EvFinished, Replica: a.Replica}) })
	case ActSend:
		r.w.issue(r, a.Op)
		op, seq, number, mark := *a.Op, a.Op.Seq(), r.number(a.Op), r.m.Watermark()
		epoch := r.m.Configuration().Epoch
		c.toReplica(func() {
			if epoch > c.epoch {
				r.w.fail("reign %d: write %#x of epoch %d comes before its configuration to %d under %d", r.no, number, epoch, c.d.id, c.epoch)
			}
			c.receive(&op, seq, number, mark)
		})
	case ActSendFlush:
		seq := a.Op.Seq()
		c.toReplica(func() { c.receive(&Op{Kind: Flush, core: opState{durable: true}}, seq, 0, 0) })
	case ActOrigins:
		c.toReplica(func() { c.d.origins, c.d.foreign = a.Origins.Clone(), false })
	case ActConfigure:
		c.toReplica(func() { c.configure(a) })
	case ActCopy:
		r.tasks = append(r.tasks, func() { r.copy(c, a.Copy) })
	case ActCompare:
		r.compare(c, a.Copy)
	}
}

func (r *modelReign) apply(op *Op) {
	if op.Kind == Read {
		r.pending[op].read = r.self.data
	} else {
		r.w.issue(r, op)
		r.self.write(Range{op.Off, op.Len}, r.number(op))
	}
	r.step(Event{Kind: EvApplied, Op: op})
}

// copy reads a copy's data and puts it in line. It is on the connection for which it was
// asked, if on any: what is behind it may be another.
func (r *modelReign) copy(c *modelConn, cp *Copy) {
	data, last := r.self.data, r.m.LastSeq()
	c.toReplica(func() {
		c.d.copied(cp.Range, last)
		c.d.intents.Add(cp.Off, cp.Len)
		for b := cp.Off / modelBlock; b < cp.end()/modelBlock; b++ {
			c.d.data[b] = data[b]
		}
		c.answer(Event{Kind: EvCopied, Copy: cp})
	})
	r.step(Event{Kind: EvQueued, Copy: cp})
}

// copied notes a copy, which may hold writes up to last. They need not be on the others.
func (d *modelDisk) copied(r Range, last uint64) {
	if d.foreign {
		d.origins = Origins{}
	}
	if last != 0 {
		d.recent.add(last, r)
	} else {
		d.recent.copied(r)
	}
}

// compare compares the replica's blocks with those here as they were before or after.
func (r *modelReign) compare(c *modelConn, cp *Copy) {
	before, early := r.self.data, r.w.rng.IntN(2) == 0
	c.toReplica(func() {
		theirs := c.d.data
		c.toPrimary(func() {
			ours := r.self.data
			if early {
				ours = before
			}
			cp.Differs = nil
			for b := cp.Off / modelBlock; b < cp.end()/modelBlock; b++ {
				if ours[b] != theirs[b] {
					cp.Differs = append(cp.Differs, Range{b * modelBlock, modelBlock})
				}
			}
			r.step(Event{Kind: EvCompared, Copy: cp})
		})
	})
}

// end is the end of a primary: what it was asked to do is never answered.
func (r *modelReign) end() {
	r.self.host = nil
	r.self.forget()
	r.self.heard = r.w.now
	r.w.reigns = slices.DeleteFunc(r.w.reigns, func(e *modelReign) bool { return e == r })
	for _, c := range r.conns {
		if c != nil {
			c.cut()
		}
	}
	given := map[*Op]bool{}
	for _, p := range r.writes() {
		if !p.given {
			r.w.retries = append(r.w.retries, p.write)
		}
	}
	r.m.Abandon(func(op *Op) {
		if given[op] || r.pending[op] == nil {
			r.w.fail("reign %d gave back %v of %d+%d twice", r.no, op.Kind, op.Off, op.Len)
		}
		given[op] = true
	})
	if len(given) != len(r.pending) {
		r.w.fail("reign %d had %d ops and gave back %d", r.no, len(r.pending), len(given))
	}
}

func (c *modelConn) toReplica(f func()) {
	if c != nil && c.open {
		c.toDisk = append(c.toDisk, f)
	}
}

func (c *modelConn) toPrimary(f func()) {
	if c.open {
		c.toRun = append(c.toRun, f)
	}
}

func (c *modelConn) answer(ev Event) { c.toPrimary(func() { c.r.step(ev) }) }

func (c *modelConn) cut() {
	c.open, c.toDisk, c.toRun = false, nil, nil
	if c.d.conn == c {
		c.d.conn = nil
	}
}

// receive is an op on the other side: applied in order and acknowledged.
func (c *modelConn) receive(op *Op, seq, number, watermark uint64) {
	d := c.d
	if op.modifies() && seq > d.reach { // what is sent again must not undo what came after it
		d.recent.add(seq, Range{op.Off, op.Len})
		d.write(Range{op.Off, op.Len}, number)
	}
	if op.Origin != nil {
		from := *op.Origin
		from.Known = from.opens() // as its frame says
		d.origins.Add(from)
	}
	d.recent.trim(watermark)
	d.applied, d.reach = seq, max(d.reach, seq)
	if op.core.durable {
		d.wanted = seq
	}
	c.acknowledge()
}

// sync makes durable what is there when it ends.
func (c *modelConn) sync() {
	c.d.durable, c.d.synced, c.d.wanted = c.d.data, c.d.applied, 0
	c.acknowledge()
}

func (c *modelConn) acknowledge() {
	c.answer(Event{Kind: EvAcked, Replica: c.d.id, Applied: c.d.applied, Durable: c.d.synced})
}

func (c *modelConn) configure(a Action) {
	c.epoch, c.d.floor = a.Conf.Epoch, max(c.d.floor, a.Conf.Epoch)
	if a.Learner {
		c.d.complete, c.d.lossy = false, false
	}
}

// forget is what the end of a process does to its memory.
func (d *modelDisk) forget() { d.recent, d.origins, d.reach = recent{lost: true}, Origins{}, 0 }

func (d *modelDisk) finish() {
	d.durable, d.complete, d.lossy = d.data, true, false
	d.recent.finish()
}
