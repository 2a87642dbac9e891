package sim

import (
	"errors"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/dirty"
	"lockstep/mirror/store"
	"lockstep/mirror/wire"
)

// lead is a node's driver while it is primary: it feeds the machine and does what
// it asks.
type lead struct {
	n       *node
	conf    mirror.MachineConfig
	m       *mirror.Machine
	reign   uint64 // the epoch that it began with
	began   time.Duration
	before  mirror.Configuration
	session wire.ID
	lossy   bool                        // this copy lost power
	fresh   bool                        // the store was new when the volume began
	ids     [mirror.MaxReplicas]wire.ID // of the members' stores, as far as known

	peers []*peer // by member, nil if not connected
	retry []time.Duration

	queue    []mirror.Action
	draining bool
	over     bool
	locals   []*local // what the store is asked for and has not done
	checkpoint
	handover
	open   int           // ops that were submitted and are not complete
	leased time.Duration // the group's lease, on the node's clock
	parts  bool          // it stops in good order

	incarnation uint64
	seen        map[string]uint64 // generations of clients
}

// ticket is an op's way back to who asked for it.
type ticket struct {
	came time.Duration // to this node
	done func(op *mirror.Op)
}

// promote makes this node the primary under v, after before.
func (n *node) promote(old, v *control.Volume) {
	c, before, now := n.c, recordOf(old), recordOf(v)
	if n.current != nil {
		n.current.close()
	}
	own := &mirror.Promotion{State: n.follower.State(n.store.Intents()), Before: before.Configuration, Origins: n.follower.Origins()}
	l := &lead{
		n: n, conf: c.opt.machine(n.id), reign: now.Epoch, session: n.identity('s', c.unique()),
		began: c.now, before: before.Configuration, ids: now.Stores, incarnation: v.Incarnation, seen: map[string]uint64{}, peers: make([]*peer, c.opt.members), retry: make([]time.Duration, c.opt.members),
	}
	if before.Epoch == 0 {
		own.Origins.Whole = true
		l.fresh = n.store.New()
	}
	l.ids[n.id] = n.store.Meta().Replica
	err := n.store.Update(func(m *store.Meta) { m.Volume, m.Epoch = c.volume, now.Epoch })
	if err == nil {
		own.OutOfSync, err = l.kept(n.led(old), now.Configuration)
	}
	if err != nil {
		n.fail(err)
		return
	}
	l.lossy = before.Epoch > 0 && !own.State.Complete
	n.trace("is promoted, lossy %v, forced %v: %v", l.lossy, n.forced, now.Configuration)
	c.began(l)
	n.lead, l.m = l, mirror.NewMachine(l.conf)
	l.schedule()
	l.step(mirror.Event{Kind: mirror.EvCommitted, Conf: now.Configuration, Own: own})
}

// kept is what this node wrote down of the members that are not in sync, if it led
// before. The bitmaps of those that are in sync say nothing any more.
func (l *lead) kept(led bool, conf mirror.Configuration) (map[mirror.ReplicaID]*dirty.Map, error) {
	maps := map[mirror.ReplicaID]*dirty.Map{}
	for i, id := range l.ids {
		member := mirror.ReplicaID(i)
		if member == l.n.id || id == (wire.ID{}) {
			continue
		}
		if conf.InSync.Has(member) || !led {
			if err := l.n.store.RemoveOutOfSync(id); err != nil {
				return nil, err
			}
			continue
		}
		m, err := l.n.store.OutOfSync(id)
		if m == nil {
			l.n.trace("has no bitmap for member %d: %v", member, err)
			continue
		}
		maps[member] = m
	}
	return maps, nil
}

func (l *lead) schedule() {
	l.every(50*time.Millisecond, l.tick)
	l.every(100*time.Millisecond, l.heartbeat)
	l.every(250*time.Millisecond, l.look)
	l.every(5*time.Second, l.verify)
	l.due = l.n.now() + time.Second
}

// every is node.every for as long as this node is primary.
func (l *lead) every(d time.Duration, do func()) {
	l.after(d, func() {
		l.every(d, do)
		do()
	})
}

func (l *lead) after(d time.Duration, do func()) {
	l.n.after(d, func() {
		if !l.over {
			do()
		}
	})
}

func (l *lead) tick() {
	for id := range l.peers {
		l.connect(mirror.ReplicaID(id))
	}
	l.step(mirror.Event{Kind: mirror.EvTick, Budget: 4 << 20})
	if !l.over {
		l.check()
	}
}

// heartbeat renews the leases: of the replicas, and the group's if this node is alone.
func (l *lead) heartbeat() {
	for _, p := range l.peers {
		if p != nil && p.up {
			p.end.send(p.p.AppendHeartbeat(nil, l.n.now()))
		}
	}
	if !l.m.Alone() {
		return
	}
	sent := l.n.now()
	l.n.renew(l.m.Configuration().Epoch, func() {
		if !l.over {
			l.leased = max(l.leased, sent+leaseTime)
			l.step(mirror.Event{Kind: mirror.EvLease, Replica: l.n.id, SentAt: sent})
		}
	})
}

// look is for what this node knows to be in force: another may be primary.
func (l *lead) look() { l.committed(l.n.known()) }

// committed tells the machine what is in force, if it is new.
func (l *lead) committed(v *control.Volume) {
	conf := recordOf(v).Configuration
	if l.over || conf.Epoch <= l.m.Configuration().Epoch {
		return
	}
	if conf.Primary == l.n.id {
		err := l.n.store.Update(func(m *store.Meta) { m.Epoch = max(m.Epoch, conf.Epoch) })
		for id := range l.peers {
			if member := mirror.ReplicaID(id); err == nil && member != l.n.id && conf.InSync.Has(member) {
				err = l.n.store.RemoveOutOfSync(l.ids[id])
			}
		}
		if err != nil {
			l.n.fail(err)
			return
		}
	}
	l.parts = l.parted(v)
	l.n.c.stats.Resyncs += (conf.InSync &^ l.m.Configuration().InSync).Len()
	l.step(mirror.Event{Kind: mirror.EvCommitted, Conf: conf})
}

// step feeds the machine one event and does what follows from it.
func (l *lead) step(ev mirror.Event) {
	if l.over && ev.Kind != mirror.EvSubmit {
		return
	}
	ev.Now = l.n.now()
	l.queue = append(l.queue, l.m.Step(ev)...)
	if l.draining {
		return
	}
	l.draining = true
	for len(l.queue) > 0 && l.n.lead == l {
		a := l.queue[0]
		l.queue = l.queue[1:]
		l.do(a)
	}
	l.draining = false
}

func (l *lead) do(a mirror.Action) {
	switch a.Kind {
	case mirror.ActApply:
		l.locally(a.Op, l.n.diskTime(), func() { l.apply(a.Op) })
	case mirror.ActSync:
		l.sync(a.Op)
	case mirror.ActComplete:
		l.complete(a.Op)
	case mirror.ActPropose:
		l.propose(a.Conf)
	case mirror.ActCopy:
		l.copy(a.Copy)
	case mirror.ActCompare:
		l.compare(a.Copy)
	case mirror.ActRechecked:
		l.rechecked(a.Copy)
	case mirror.ActStop:
		l.stop(a.Err)
	case mirror.ActFinish:
		l.agreed()
		if a.Replica == l.n.id {
			l.after(l.n.syncTime(), l.finish)
			return
		}
		l.send(a)
	default:
		l.send(a)
	}
}

// send puts what an action asks for in line for its replica.
func (l *lead) send(a mirror.Action) {
	if p := l.peers[a.Replica]; p != nil {
		p.end.send(p.p.AppendAction(nil, a, l.m))
	}
}

func (l *lead) propose(conf mirror.Configuration) {
	l.n.trace("proposes: %v", conf)
	l.n.propose(conf, l.ids, func(v *control.Volume, _ bool) { l.committed(v) })
}

// agreed notes that the copies in sync agreed on what one has that lost power: from
// now on copies count as whole that may lack something. None may be in sync that
// lacks nothing.
func (l *lead) agreed() {
	c := l.n.c
	if !l.lossy || c.hist.reign(l.reign).lossy {
		return
	}
	for _, n := range c.nodes {
		if n != l.n && l.before.InSync.Has(n.id) && n.whole() {
			c.violate("node %d lost power and goes on as primary, and node %d, in sync before, has everything", l.n.id, n.id)
		}
	}
	c.lost(l.reign)
}

// finish makes this node's own copy a full one.
func (l *lead) finish() {
	err := l.n.store.Sync()
	if err == nil {
		err = l.n.store.Update(func(m *store.Meta) { m.Complete, m.Lossy, m.Why = true, false, "" })
	}
	if err != nil {
		l.n.fail(err)
		return
	}
	l.step(mirror.Event{Kind: mirror.EvFinished, Replica: l.n.id})
}

// submit brings an op to the machine; done gets it back, unless the reign ends
// in a way that ends the process too.
func (l *lead) submit(op *mirror.Op, done func(*mirror.Op)) {
	if l.under {
		op.Tag = &ticket{came: l.n.c.now, done: done}
		l.parked = append(l.parked, op)
		return
	}
	l.enter(op, done)
}

func (l *lead) enter(op *mirror.Op, done func(*mirror.Op)) {
	op.Tag = &ticket{came: l.n.c.now, done: done}
	l.open++
	l.step(mirror.Event{Kind: mirror.EvSubmit, Op: op})
}

func (l *lead) complete(op *mirror.Op) {
	l.open--
	t := op.Tag.(*ticket)
	if op.Err == nil {
		l.n.c.acknowledged(l, op, t.came)
	}
	t.done(op)
}

// stop ends the reign: this node is a replica again, that remembers nothing.
func (l *lead) stop(err error) {
	l.n.trace("stops: %v", err)
	rest := l.queue
	l.queue = nil
	for _, a := range rest {
		if a.Kind == mirror.ActComplete {
			l.complete(a.Op)
		}
	}
	l.interrupt((*end).close)
	l.m.Abandon(func(op *mirror.Op) {
		op.Err = err
		op.Tag.(*ticket).done(op)
	})
	for _, op := range l.parked {
		op.Err = err
		op.Tag.(*ticket).done(op)
	}
	l.n.beFollower()
	if l.parts {
		l.n.follower.Agreed()
	}
	l.n.rest = l.n.now() + l.n.between(0, 2*graceTime)
	if errors.Is(err, mirror.ErrBetterCopy) { // whoever has it needs the time
		l.n.rest += 4 * graceTime
	}
	if errors.Is(err, store.ErrBroken) {
		l.n.fail(err)
	}
}

// interrupt ends all that is under way: the store did what it was asked for, or
// some of it, or not.
func (l *lead) interrupt(end func(*end)) {
	l.over = true
	for _, p := range l.peers {
		if p != nil {
			p.over = true
			end(p.end)
		}
	}
	for _, w := range l.locals {
		if w.op.Kind != mirror.Read && l.n.rand.IntN(2) == 0 {
			l.n.tear(w.op)
		}
	}
	l.locals = nil
}
