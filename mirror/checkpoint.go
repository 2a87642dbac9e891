package mirror

import (
	"context"
	"errors"
	"time"

	"lockstep/mirror/dirty"
)

// checkpoints makes checkpoints until the volume is closed.
func (v *Volume) checkpoints() {
	tick := time.NewTicker(v.conf.Checkpoint)
	defer tick.Stop()
	var done uint64 // what the last one covered, and its own flush
	for number := uint64(1); ; number++ {
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
			if v.lastSeq() == done && !v.resyncing.Load() { // a disk that is idle may sleep
				continue
			}
		case <-v.saved:
		}
		covered := v.lastSeq() + 1
		switch err := v.checkpoint(v.ctx, number); {
		case err == nil:
			done = covered
		case errors.Is(err, errNotReady) || v.ctx.Err() != nil:
			continue
		default:
			v.conf.Log.Warn("checkpoint: after a crash more will be compared", "err", err)
			continue
		}
	}
}

func (v *Volume) lastSeq() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.machine.LastSeq()
}

// checkpointNow makes the next checkpoint come at once.
func (v *Volume) checkpointNow() {
	select {
	case v.saved <- struct{}{}:
	default:
	}
}

// checkpoint ends a generation of writes: when all of them are complete, and
// flushed at every site in sync, no copy can differ there any more after a crash, and
// the intents go. Before that, what other members lack is saved, because until then
// the intents had it too.
func (v *Volume) checkpoint(ctx context.Context, number uint64) error {
	v.checkpointing.Lock() // an older snapshot must not be saved after a newer one
	defer v.checkpointing.Unlock()
	generation, last := v.begin(number)
	if err := v.completed(ctx, last); err != nil {
		return err
	}
	if err := v.Flush(ctx); err != nil {
		return err
	}
	if err := v.saveOutOfSync(); err != nil {
		return err
	}
	if err := v.conf.Store.Retire(generation); err != nil {
		return err
	}
	v.toInSync(func(p *Peer) frame { return p.generation(number, true) })
	return nil
}

// begin begins a generation at every site. It returns the local number of the
// next one and the last seq that can be of the one before.
func (v *Volume) begin(number uint64) (generation, last uint64) {
	v.mu.Lock()
	last = v.machine.LastSeq()
	generation = v.conf.Store.Generation()
	v.queueInSync(func(p *Peer) frame { return p.generation(number, false) })
	v.mu.Unlock()
	v.kickAll()
	return generation, last
}

// queueInSync puts a frame in line for every replica that is in sync. The lock is held.
func (v *Volume) queueInSync(make func(*Peer) frame) {
	for _, l := range v.others {
		if l.out != nil && v.machine.members[l.id].standing == inSync {
			l.out.put(make(l.peer))
		}
	}
}

func (v *Volume) toInSync(make func(*Peer) frame) {
	v.mu.Lock()
	v.queueInSync(make)
	v.mu.Unlock()
	v.kickAll()
}

func (v *Volume) kickAll() {
	for _, l := range v.others {
		l.kick()
	}
}

var errNotReady = errors.New("writes wait")

// completed waits until every write up to seq is complete; an error says that
// they wait for a replica.
func (v *Volume) completed(ctx context.Context, seq uint64) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		v.mu.Lock()
		done, ready := v.machine.Watermark() >= seq, v.machine.Ready()
		v.mu.Unlock()
		switch {
		case done && ready:
			return nil
		case !ready:
			return errNotReady
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// saveOutOfSync keeps what each member lacks that is not in sync.
func (v *Volume) saveOutOfSync() error {
	for _, l := range v.others {
		id, known := v.roster.replica(l.id) // first: the machine then knows of this store
		v.mu.Lock()
		behind := known && !v.machine.Configuration().InSync.Has(l.id)
		var lacks *dirty.Map
		if behind {
			lacks = v.machine.OutOfSync(l.id)
		}
		v.mu.Unlock()
		if !behind {
			continue
		}
		if err := v.conf.Store.SaveOutOfSync(id, lacks); err != nil {
			return err
		}
	}
	return nil
}

// Settle ends the volume's work in good order, as far as that is possible before
// ctx ends: everything is durable at every site, and the next start has nothing to
// compare. Nothing may be submitted any more.
func (v *Volume) Settle(ctx context.Context) error {
	if err := v.Flush(ctx); err != nil {
		return err
	}
	if err := v.checkpoint(ctx, finalCheckpoint); !errors.Is(err, errNotReady) {
		return err
	}
	return nil // what is durable is; a replica that is lost is compared where it may differ
}

// Quiesce waits until every write is complete and durable at every copy in sync, and
// leaves nothing that would have to be compared. Requests may still come: those that
// do are not covered.
func (v *Volume) Quiesce(ctx context.Context) error {
	if err := v.Flush(ctx); err != nil {
		return err
	}
	return v.checkpoint(ctx, finalCheckpoint)
}

// finalCheckpoint is the number of the last checkpoint: one that no other has.
const finalCheckpoint = ^uint64(0)
