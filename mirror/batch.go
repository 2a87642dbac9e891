package mirror

import (
	"slices"
	"time"
)

// batch collects what a run of steps asks for, so that it is done after the
// lock was given back, and done together: one send to each replica, one
// completion upcall.
type batch struct {
	apply []*Op
	work  []*Op // apply, while it is being done
	sync  []*Op
	done  []*Op
	kick  bool          // frames were queued
	now   time.Duration // of the events; 0 where no lease depends on it
}

// note logs the first failure of the local store: from then on writes are refused.
// The caller holds mu.
func (v *Volume) note(err error) {
	if err != nil && !v.told && v.machine.Failed() != nil {
		v.told = true
		v.running.Go(func() { v.conf.Log.Error("writes are refused from now on", "err", err) })
	}
}

// step feeds the machine and sorts its actions into b. Frames are queued at
// once, because their order is the order of the seqs. The caller holds mu.
func (v *Volume) step(b *batch, ev Event) {
	if ev.Now == 0 {
		ev.Now = b.now
	}
	actions := v.machine.Step(ev)
	v.sample.note(&ev)
	for _, a := range actions {
		switch a.Kind {
		case ActApply:
			b.apply = append(b.apply, a.Op)
		case ActSync:
			b.sync = append(b.sync, a.Op)
		case ActComplete:
			v.sample.finish(a.Op, v.conf.Timing)
			b.done = append(b.done, a.Op)
		case ActSend:
			v.links[a.Replica].queueOp(a)
			b.kick = true
		default:
			v.do(b, a)
		}
	}
}

// do sees to the actions that are rare. The caller holds mu, and the volume is
// running, so what it starts is waited for.
func (v *Volume) do(b *batch, a Action) {
	switch a.Kind {
	case ActSendFlush, ActConfigure, ActOrigins:
		v.links[a.Replica].queueAction(a)
		b.kick = true
	case ActFinish:
		if a.Replica == v.machine.conf.Self {
			v.running.Go(v.finishSelf)
			return
		}
		v.links[a.Replica].queueAction(a)
		b.kick = true
	case ActPropose:
		v.running.Go(func() { v.propose(a.Conf) })
	case ActCopy:
		v.links[a.Replica].copy(a.Copy)
	case ActCompare:
		v.links[a.Replica].compare(a.Copy)
	case ActRechecked:
		a.Copy.checked()
	case ActStop:
		v.end(a.Err)
	}
}

// end says that the volume stops by itself, and why. The caller holds mu.
func (v *Volume) end(err error) {
	if v.cause == nil {
		v.cause = err
		close(v.ended)
	}
}

// finish does what b asks for, and what that leads to, and gives b back. First
// the network: the replicas work while the local copy is written.
func (v *Volume) finish(b *batch) {
	for {
		if b.kick {
			b.kick = false
			for _, l := range v.others {
				l.kick()
			}
		}
		if len(b.sync) > 0 {
			v.sync.add(b.sync)
			b.sync = b.sync[:0]
		}
		if len(b.apply) == 0 {
			break
		}
		v.apply(b)
	}
	v.complete(b.done)
	b.done, b.now = b.done[:0], 0
	v.batches.Put(b)
}

func (v *Volume) complete(ops []*Op) {
	if len(ops) == 0 {
		return
	}
	end, resyncing := time.Since(started), v.resyncing.Load()
	own := func(op *Op) bool {
		if op.internal != nil {
			close(op.internal)
		}
		return op.internal != nil
	}
	ops = slices.DeleteFunc(ops, own)
	for _, op := range ops {
		if op.Kind == Write {
			v.pace.observe(end-op.began, resyncing)
		}
	}
	if len(ops) > 0 {
		v.conf.Complete(ops)
	}
}

// apply does b's local work and steps the machine with the results. Work that
// may wait for the disk goes to a goroutine of its own.
func (v *Volume) apply(b *batch) {
	b.work, b.apply = b.apply, b.work[:0]
	fast := b.work[:0]
	for _, op := range b.work {
		if v.applyFast(op) {
			fast = append(fast, op)
		} else {
			v.running.Go(func() { v.applySlow(op) })
		}
	}
	v.mu.Lock()
	b.now = v.leaseTime() // after the data was fetched
	for _, op := range fast {
		v.step(b, Event{Kind: EvApplied, Op: op, Err: op.core.err})
		v.note(op.core.err)
	}
	v.mu.Unlock()
}

// applyFast does op if that takes no longer than a copy, and says whether it did.
func (v *Volume) applyFast(op *Op) bool {
	switch op.Kind {
	case Read:
		return v.conf.Store.ReadCached(op.Data, op.Off) == nil
	case Write:
		if !v.conf.Store.Ready(op.Off, op.Len) { // its intent is to be made durable
			return false
		}
		op.core.err = v.conf.Store.WriteAt(op.Data, op.Off)
		return true
	}
	return false
}

func (v *Volume) applySlow(op *Op) {
	v.slow <- struct{}{}
	var err error
	switch op.Kind {
	case Read:
		err = v.conf.Store.ReadAt(op.Data, op.Off)
	case Write:
		err = v.conf.Store.WriteAt(op.Data, op.Off)
	case Zero:
		err = v.conf.Store.Zero(op.Off, op.Len, op.NoHole)
	}
	<-v.slow
	v.tell(Event{Kind: EvApplied, Op: op, Err: err})
}

// tell steps the machine with one event from outside and does what follows.
func (v *Volume) tell(ev Event) {
	b := v.batches.Get().(*batch)
	v.mu.Lock()
	b.now = v.leaseTime()
	v.step(b, ev)
	v.note(ev.Err)
	v.mu.Unlock()
	v.finish(b)
}

func (v *Volume) synced(ops []*Op, err error) {
	b := v.batches.Get().(*batch)
	v.mu.Lock()
	b.now = v.leaseTime()
	for _, op := range ops {
		v.step(b, Event{Kind: EvSynced, Op: op, Err: err})
	}
	v.note(err)
	v.mu.Unlock()
	v.finish(b)
}
