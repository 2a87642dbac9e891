package mirror

import (
	"context"
	"errors"
	"net"
	"time"
)

// What a replica does where a configuration service may make its node the primary.

// errRetired refuses a primary because this copy's node is about to be that itself.
var errRetired = errors.New("this node is becoming the volume's primary itself")

// ServeConn serves one connection of a primary until it ends, and closes it. It may
// be called any number of times at once.
func (r *Replica) ServeConn(ctx context.Context, conn net.Conn) {
	select {
	case r.greeting <- struct{}{}:
		r.serve(ctx, conn)
	default:
		conn.Close() // a flood of silent connections
	}
}

// Claim says what this copy's node should propose, to be the primary after rec, if it
// may; see [Follower.Claim]. It has refused every other primary of that epoch from
// then on.
func (r *Replica) Claim(rec Record, self ReplicaID, grace time.Duration) (next Configuration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return Configuration{}, false
	}
	if next, ok = r.follower.Claim(rec, self, grace, now()); ok {
		r.follower.Fence(next.Epoch)
	}
	return next, ok
}

// Fence refuses every primary below epoch from now on; see [Follower.Fence].
func (r *Replica) Fence(epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.follower.Fence(epoch)
}

// Retire ends the connection there is, refuses others from now on, and returns what
// this copy brings along as the primary. Nothing is applied any more when it returns.
func (r *Replica) Retire() (ReplicaState, Origins) {
	r.mu.Lock()
	r.failed = errors.Join(r.failed, errRetired)
	old := r.current
	r.mu.Unlock()
	if old != nil {
		old.conn.Close()
		<-old.over
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follower.State(r.conf.Store.Intents()), r.follower.Origins()
}

// Failed is why the replica accepts nothing any more, or nil.
func (r *Replica) Failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Following is the epoch of the primary that is connected, or 0.
func (r *Replica) Following() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		return 0
	}
	return r.current.epoch
}
