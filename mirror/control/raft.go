package control

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// raftConfig is how raft is set, and why.
func (c *Control) raftConfig(notify chan<- bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.conf.Name)
	conf.HeartbeatTimeout = c.conf.Heartbeat
	// A candidate asks until it is granted, see votes.go: it need not start anew soon.
	conf.ElectionTimeout = 2 * c.conf.Heartbeat
	// A follower at 100 ms is heard every 100 ms and a fifth of Heartbeat: a shorter
	// lease would depose a leader that has only this one left.
	conf.LeaderLeaseTimeout = c.conf.Heartbeat
	// Raft has one request to a follower under way at a time, so that an idle one makes
	// an entry wait for its round trip. The leader has its own way to tell followers
	// what is decided, see poke; this is only in case that fails.
	conf.CommitTimeout = 5 * c.conf.Heartbeat
	conf.SnapshotThreshold = 2048
	conf.TrailingLogs = 1024
	// A node that is removed stays, to be told so and to be added again.
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.NotifyCh = notify
	conf.Logger = newLogger(c.conf.Log)
	return conf
}

// startRaft lets the node take part in the group.
func (c *Control) startRaft() error {
	notify := make(chan bool, 64) // raft waits until its news are read
	s := c.stores
	r, err := raft.NewRaft(c.raftConfig(notify), machine{c}, guardedLog{s.logs, s.guard}, s.stable, s.snaps, c.trans)
	if err != nil {
		return fmt.Errorf("control: start raft from %s: %w", c.conf.Dir, err)
	}
	seen := make(chan raft.Observation, 16)
	r.RegisterObserver(raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RequestPreVoteRequest:
			return true
		}
		return false
	}))
	c.raft.Store(r)
	c.start(func() { c.watchLeadership(r, notify) })
	c.start(func() { c.lead(r) })
	c.start(func() {
		for {
			select {
			case o := <-seen:
				if req, ok := o.Data.(raft.RequestPreVoteRequest); ok {
					c.trans.asked(req)
				} else {
					c.announceChange()
				}
			case <-c.ctx.Done():
				return
			}
		}
	})
	return nil
}
