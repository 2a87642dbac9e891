package mirror

import (
	"context"
	"sync"
)

// syncer makes ops durable in groups: all that asked while one sync ran share
// the next. Its cost is one sync for any number of ops.
type syncer struct {
	sync func() error
	done func([]*Op, error)
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	waiting []*Op
}

func newSyncer(sync func() error, done func([]*Op, error)) *syncer {
	return &syncer{sync: sync, done: done, wake: make(chan struct{}, 1)}
}

// add asks for a sync that begins after the call.
func (s *syncer) add(ops []*Op) {
	s.mu.Lock()
	s.waiting = append(s.waiting, ops...)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run syncs until ctx ends.
func (s *syncer) run(ctx context.Context) {
	var group []*Op
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		group, s.waiting = s.waiting, group[:0]
		s.mu.Unlock()
		if len(group) > 0 {
			s.done(group, s.sync())
		}
	}
}
