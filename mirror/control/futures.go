package control

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// futures counts what raft was asked and has not answered. Raft, when it is shut down,
// forgets those that are on their way to the state machine, and who waits for one of
// them waits for ever: so Close lets them end first.
type futures struct {
	mu     sync.Mutex
	n      int
	closed bool
	none   chan struct{} // closed when n is 0 after drain began
}

func (f *futures) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.n++
	return true
}

func (f *futures) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.closed {
		close(f.none)
	}
}

// drain lets no more begin and waits for the rest, at most for d. A leader that sends
// nothing any more gives up what it cannot decide within a heartbeat.
func (f *futures) drain(d time.Duration) {
	f.mu.Lock()
	f.closed, f.none = true, make(chan struct{})
	if f.n == 0 {
		close(f.none)
	}
	f.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-f.none:
	case <-timer.C:
	}
}

// outcome waits for a future, no longer than ctx; done, unless nil, is called when the
// outcome is known, even if nobody waits for it any more.
func (c *Control) outcome(ctx context.Context, f raft.Future, done func()) error {
	if done == nil {
		done = func() {}
	}
	if !c.pending.enter() {
		done()
		return errClosed
	}
	outcome := make(chan error, 1)
	go func() {
		defer c.pending.leave()
		defer done()
		outcome <- f.Error()
	}()
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
