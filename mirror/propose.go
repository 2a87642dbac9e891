package mirror

import (
	"errors"
	"fmt"
	"time"

	"lockstep/mirror/store"
)

// propose asks for a configuration until it is known what is in force.
func (v *Volume) propose(c Configuration) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		in, err := v.roster.propose(v.ctx, c)
		if err == nil {
			v.conf.Log.Info("configuration", "epoch", in.Epoch, "in_sync", in.InSync.String())
			v.turn(Event{Kind: EvCommitted, Now: now(), Conf: in, Gone: v.gone()})
			v.checkpointNow()
			return
		}
		if errors.Is(err, ErrRefused) {
			v.tell(Event{Kind: EvStop, Err: err})
			return
		}
		v.conf.Log.Error("can't record the configuration; writes that depend on it wait", "err", err)
		select {
		case <-v.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// finishSelf makes this copy a full one, as far as its disk is concerned.
func (v *Volume) finishSelf() {
	err := v.conf.Store.Sync()
	if err == nil {
		err = v.conf.Store.Update(func(m *store.Meta) { m.Complete, m.Lossy, m.Why = true, false, "" })
	}
	if err != nil {
		v.mu.Lock()
		v.end(fmt.Errorf("this copy can't be made durable: %w", err))
		v.mu.Unlock()
		return
	}
	v.turn(Event{Kind: EvFinished, Replica: v.machine.conf.Self})
}

// turn is tell for what may have made the volume ready, or not: it also wakes
// those who wait for that.
func (v *Volume) turn(ev Event) {
	v.tell(ev)
	v.mu.Lock()
	close(v.changed)
	v.changed = make(chan struct{})
	v.mu.Unlock()
}
