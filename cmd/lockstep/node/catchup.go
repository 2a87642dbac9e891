package node

import (
	"context"
	"time"

	"lockstep/cmd/lockstep/api"
)

const (
	catchUpEvery   = 50 * time.Millisecond
	catchUpTimeout = 5 * time.Second // for what the leader has to arrive
)

// catchUp returns when this node knows all that the group had decided when it was
// called, or ctx ends. Until then its state is that of some time past, which the log
// is just repeating: a host that followed it would give up replicas that were taken
// from it once and given to it again since.
func (n *node) catchUp(ctx context.Context) {
	tick := time.NewTicker(catchUpEvery)
	defer tick.Stop()
	for !n.caughtUp(ctx) {
		select {
		case <-n.group.Changed():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *node) caughtUp(ctx context.Context) bool {
	own := n.group.Status()
	if own.Ready {
		return true
	}
	if own.Leader == "" || own.Leader == n.conf.Name {
		return false
	}
	var leader api.Members
	if err := n.askNode(ctx, own.Leader, "/nodes", &leader); err != nil || !leader.Group.Ready {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	return n.group.Await(ctx, leader.Group.Applied) == nil
}
