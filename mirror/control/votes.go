package control

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// When a leader dies, each follower notices at its own time, and grants nobody a vote
// before it did. So a candidate that is too early asks again, soon. And two that come
// at the same time must not each vote for itself, which would cost an election timeout
// and more: of candidates with equal logs the one with the worse turn lets the other
// have it. Witnesses have the worst, and a far one also waits a round trip, so that
// it does not become the leader. A pre-vote promises nothing: none of this can do harm.

var errYields = errors.New("control: another candidate goes first")

// RequestPreVote asks another node if it would vote for this one, until it would or
// has had the time to notice that the leader is gone.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	begin := time.Now()
	again := t.heartbeat / 8
	if far := t.farthest(); t.witness && far > nearby && !t.pause(min(t.heartbeat, far+again+again/4)) {
		return raft.ErrTransportShutdown
	}
	for {
		sent := time.Now()
		*resp = raft.RequestPreVoteResponse{}
		if err := t.NetworkTransport.RequestPreVote(id, target, args, resp); err != nil {
			return err
		}
		t.heard(string(id), time.Since(sent), 0)
		yields, late := t.yields(args), time.Since(begin) > t.heartbeat+again
		switch {
		case yields && late:
			return errYields
		case !yields && (resp.Granted || late) || resp.Term > args.Term:
			return nil
		case !t.pause(again):
			return raft.ErrTransportShutdown
		}
	}
}

// rival is a candidate that asked this node lately.
type rival struct {
	at  time.Time
	req raft.RequestPreVoteRequest
}

func (t *transport) asked(req raft.RequestPreVoteRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rivals[string(req.ID)] = rival{time.Now(), req}
}

// yields says that a candidate with a better turn, and a log as good, is at it.
func (t *transport) yields(mine *raft.RequestPreVoteRequest) bool {
	ahead := t.ahead()
	patience := t.farthest() + t.heartbeat/4
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range ahead {
		r, asked := t.rivals[name]
		if asked && time.Since(r.at) < patience && cmp.Or(
			cmp.Compare(r.req.LastLogTerm, mine.LastLogTerm), cmp.Compare(r.req.LastLogIndex, mine.LastLogIndex)) >= 0 {
			return true
		}
	}
	return false
}

// pause waits; false if the node closes.
func (t *transport) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.closed.Done():
		return false
	}
}

// farthest is the longest round trip to another node, as far as this one knows.
func (t *transport) farthest() (rtt time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		rtt = max(rtt, p.rtt)
	}
	return rtt
}

// ahead names the voters whose turn is before this one's: the nodes with data, by
// name, then the witnesses.
func (c *Control) ahead() (names []string) {
	s := c.State()
	mine := s.Nodes[c.conf.Name].Witness
	for name, n := range s.Nodes {
		if n.Voter && (mine && !n.Witness || mine == n.Witness && name < c.conf.Name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
