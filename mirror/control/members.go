package control

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Where the lead should be.
const (
	nearby       = 25 * time.Millisecond // round trip to who may get it
	betweenMoves = 5 * time.Second
)

// maxLag is how many entries a node may lack to become a voter: one that lacks many
// would hold up every command until it has them.
const maxLag = 64

// lead does, while this node leads, what the group needs of its leader: raft's
// configuration follows the state, one change after the other, and the lead goes where
// its loss hurts least.
func (c *Control) lead(r *raft.Raft) {
	poked := uint64(0)
	for {
		changed := c.Changed()
		if _, err := c.leads(); err == nil {
			if err := c.align(r); err != nil {
				c.conf.Log.Debug("cannot change the group's members now", "err", err)
			}
			c.moveLead(r)
			poked = c.poke(r, poked)
		}
		if !c.wait(c.ctx, c.conf.Heartbeat, changed) {
			return
		}
	}
}

// poke tells the followers what was decided since, and sends once more what one that
// answers did not get: an entry without meaning goes through the log, because each
// entry takes both along at once. It returns how far the followers have been told.
func (c *Control) poke(r *raft.Raft, poked uint64) uint64 {
	applied, last := c.applied.Load(), r.LastIndex()
	lacks := false
	for name := range c.State().Nodes {
		peer := c.trans.contact(name)
		lacks = lacks || peer.lastLog < last && time.Since(peer.at) < c.conf.Heartbeat
	}
	if applied == poked && !lacks {
		return poked
	}
	if err := c.outcome(c.ctx, r.Barrier(0), nil); err != nil {
		return poked
	}
	return applied
}

// align makes the next change to raft's configuration that the state asks for.
func (c *Control) align(r *raft.Raft) error {
	config := r.GetConfiguration()
	if err := config.Error(); err != nil {
		return fmt.Errorf("control: raft's configuration: %w", err)
	}
	servers := config.Configuration().Servers
	s := c.State()
	if len(s.Nodes) == 0 {
		_, err := c.Do(c.ctx, found(c.firstNodes(servers)))
		return err
	}
	change := nextChange(s, servers, c.caughtUp(r))
	if change == nil {
		return nil
	}
	if change.remove && string(change.ID) == c.conf.Name || change.demote && string(change.ID) == c.conf.Name {
		if err := c.outcome(c.ctx, r.LeadershipTransfer(), nil); err != nil { // its successor makes the change
			return fmt.Errorf("control: hand over the lead before leaving: %w", err)
		}
		return nil
	}
	var future raft.IndexFuture
	switch {
	case change.remove:
		future = r.RemoveServer(change.ID, 0, time.Second)
	case change.demote:
		future = r.DemoteVoter(change.ID, 0, time.Second)
	case change.Suffrage == raft.Voter:
		future = r.AddVoter(change.ID, change.Address, 0, time.Second)
	default:
		future = r.AddNonvoter(change.ID, change.Address, 0, time.Second)
	}
	if err := c.outcome(c.ctx, future, nil); err != nil {
		return fmt.Errorf("control: change node %q in raft: %w", change.ID, err)
	}
	c.announceChange() // there may be more to do
	return nil
}

// firstNodes is what the state begins with.
func (c *Control) firstNodes(servers []raft.Server) map[string]Node {
	nodes := map[string]Node{}
	founders := c.founders()
	for _, s := range servers {
		n := Node{Addr: string(s.Address), Voter: s.Suffrage == raft.Voter, ID: founders[string(s.ID)]}
		for _, p := range c.conf.Voters {
			n.Witness = n.Witness || p.Name == string(s.ID) && p.Witness
		}
		nodes[string(s.ID)] = n
	}
	return nodes
}

// change is one step of raft's configuration.
type change struct {
	raft.Server
	remove, demote bool
}

// nextChange compares the state with raft's servers. Votes are added before any is
// taken away.
func nextChange(s *State, servers []raft.Server, caughtUp func(name string) bool) *change {
	has := map[string]raft.Server{}
	for _, server := range servers {
		has[string(server.ID)] = server
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n := s.Nodes[name]
		server, in := has[name]
		next := raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(n.Addr), Suffrage: server.Suffrage}
		switch {
		case !in:
			next.Suffrage = raft.Nonvoter
			return &change{Server: next}
		case server.Address != next.Address:
			return &change{Server: next}
		case n.Voter && server.Suffrage != raft.Voter && caughtUp(name):
			next.Suffrage = raft.Voter
			return &change{Server: next}
		}
	}
	for _, server := range servers {
		n, known := s.Nodes[string(server.ID)]
		switch {
		case !known:
			return &change{Server: server, remove: true}
		case !n.Voter && server.Suffrage == raft.Voter:
			return &change{Server: server, demote: true}
		}
	}
	return nil
}

func (c *Control) caughtUp(r *raft.Raft) func(string) bool {
	return func(name string) bool {
		if name == c.conf.Name {
			return true
		}
		last := c.trans.contact(name)
		return time.Since(last.at) < 2*c.conf.Heartbeat && last.lastLog+maxLag >= r.LastIndex()
	}
}

// mayChangeNodes refuses, at the leader, what the state alone cannot judge.
func (c *Control) mayChangeNodes(r *raft.Raft, cmd Command) error {
	if cmd.Kind != kindNode && cmd.Kind != kindNodeGone && cmd.Kind != kindNonvoter {
		return nil
	}
	config := r.GetConfiguration()
	if err := config.Error(); err != nil {
		return fmt.Errorf("control: raft's configuration: %w", err)
	}
	servers := config.Configuration().Servers
	known, ok := c.State().Nodes[cmd.Node]
	votes := slices.ContainsFunc(servers, func(s raft.Server) bool {
		return string(s.ID) == cmd.Node && s.Suffrage == raft.Voter
	})
	if cmd.Kind == kindNode {
		if votes && (!ok || known.ID != cmd.Info.ID) && len(c.State().Nodes) > 0 {
			return &held{fmt.Sprintf("node %q is still a voter of raft's: it is being removed", cmd.Node), c.conf.Heartbeat / 4}
		}
		return nil
	}
	if !votes {
		return nil
	}
	voters, alive := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter || string(s.ID) == cmd.Node {
			continue
		}
		voters++
		if string(s.ID) == c.conf.Name || time.Since(c.trans.contact(string(s.ID)).at) < 3*c.conf.Heartbeat {
			alive++
		}
	}
	if voters == 0 {
		return &Refused{lastVoter(cmd.Node)}
	}
	if alive <= voters/2 {
		return &Refused{fmt.Sprintf("without node %q only %d of %d voters would be there, which is no majority: "+
			"start the others, or promote another node, first", cmd.Node, alive, voters)}
	}
	return nil
}

// moveLead hands the lead to the node whose loss would hurt least: best is a witness,
// else one where few volumes have their primary, so that no failover of a volume waits
// for an election of the group as well. Only who is near and has everything is asked.
func (c *Control) moveLead(r *raft.Raft) {
	s := c.State()
	c.reign.mu.Lock()
	early := time.Since(c.reign.since) < betweenMoves || time.Since(c.reign.moved) < betweenMoves
	c.reign.mu.Unlock()
	if early {
		return
	}
	ready := c.caughtUp(r)
	best, hurt := c.conf.Name, s.hurt(c.conf.Name)
	for _, name := range s.voters() {
		last := c.trans.contact(name)
		if last.rtt > 0 && last.rtt <= nearby && ready(name) && s.hurt(name) < hurt {
			best, hurt = name, s.hurt(name)
		}
	}
	if best == c.conf.Name {
		return
	}
	c.reign.mu.Lock()
	c.reign.moved = time.Now()
	c.reign.mu.Unlock()
	err := c.outcome(c.ctx, r.LeadershipTransferToServer(raft.ServerID(best), raft.ServerAddress(s.Nodes[best].Addr)), nil)
	c.conf.Log.Info("hands the lead over", "to", best, "err", err)
}

// hurt counts what fails over when a node is lost; a witness comes before all others.
func (s *State) hurt(name string) int {
	if s.Nodes[name].Witness {
		return -1
	}
	primaries := 0
	for _, v := range s.Volumes {
		if v.Primary == name {
			primaries++
		}
	}
	return primaries
}
