package control

import (
	"time"

	"github.com/hashicorp/raft"
)

// Status is how the group looks from one node, for a person.
type Status struct {
	Name    string        `json:"name"`
	Phase   string        `json:"phase"` // "joining", "follower", "candidate", "leader", "removed" or "failed"
	Leader  string        `json:"leader,omitempty"`
	Ready   bool          `json:"ready"` // this node leads and decides
	Term    uint64        `json:"term"`
	Last    uint64        `json:"last"`    // index of the last entry in the log
	Commit  uint64        `json:"commit"`  // of the last that is decided
	Applied uint64        `json:"applied"` // of the last that State has
	Contact time.Duration `json:"contact"` // since the leader was heard, ns; negative: never
	Writing time.Duration `json:"writing"` // how long the disk has been at its current write, ns
	Servers []Server      `json:"servers"` // raft's members
}

// Server is a member of raft's. What the leader measures is zero at the others.
type Server struct {
	Name    string        `json:"name"`
	Addr    string        `json:"addr"`
	Voter   bool          `json:"voter"`
	RTT     time.Duration `json:"rtt,omitempty"`     // ns
	Contact time.Duration `json:"contact,omitempty"` // since its last answer, ns
	Last    uint64        `json:"last,omitempty"`    // index of its last entry
}

// Status returns how the group looks from here.
func (c *Control) Status() Status {
	st := Status{Name: c.conf.Name, Phase: "joining", Contact: -1, Applied: c.applied.Load(), Writing: c.stores.guard.writing()}
	st.Leader, _ = c.Leader()
	r := c.raft.Load()
	if r != nil {
		st.Term, st.Last, st.Commit = r.CurrentTerm(), r.LastIndex(), r.CommitIndex()
		st.Phase = phases[r.State()]
		if at := r.LastContact(); !at.IsZero() {
			st.Contact = time.Since(at)
		}
		_, err := c.leads()
		st.Ready = err == nil
		st.Servers = c.servers(r)
	}
	s := c.State()
	if _, known := s.Nodes[c.conf.Name]; !known && len(s.Nodes) > 0 {
		st.Phase = "removed"
	}
	if c.Err() != nil {
		st.Phase = "failed"
	}
	return st
}

var phases = map[raft.RaftState]string{
	raft.Follower: "follower", raft.Candidate: "candidate", raft.Leader: "leader", raft.Shutdown: "failed",
}

func (c *Control) servers(r *raft.Raft) (list []Server) {
	config := r.GetConfiguration()
	if config.Error() != nil {
		return nil
	}
	leads := r.State() == raft.Leader
	for _, s := range config.Configuration().Servers {
		server := Server{Name: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter}
		if last := c.trans.contact(server.Name); leads && !last.at.IsZero() {
			server.RTT, server.Contact, server.Last = last.rtt, time.Since(last.at), last.lastLog
		}
		list = append(list, server)
	}
	return list
}
