package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// begin makes this node a member, then keeps what the group knows of it right.
//
// Raft is safe only if a voter never forgets how it voted. So a voter that finds its
// directory empty has to know which it is: the first of its life, or after a loss.
func (c *Control) begin() {
	fresh, err := c.stores.fresh()
	if err != nil {
		c.fail(err)
		return
	}
	if fresh {
		if err := c.becomeMember(); err != nil {
			if c.ctx.Err() == nil {
				c.fail(err)
			}
			return
		}
	}
	if err := c.startRaft(); err != nil {
		c.fail(err)
		return
	}
	c.announceSelf(!fresh)
}

// becomeMember returns when this node may run raft; its log then has the first
// configuration if it is a founder.
func (c *Control) becomeMember() error {
	for round := 0; ; round++ {
		reports := c.askAround()
		step, reason := decide(c.asker(), reports)
		switch step {
		case stepFound:
			return c.found(foundersBy(c.conf.Name, c.id, reports))
		case stepJoin:
			return c.join()
		case stepRefuse:
			return &Refused{reason}
		}
		if round%100 == 10 {
			c.conf.Log.Info("the cluster's first start waits for all of its voters", "because", reason)
		}
		if !c.wait(c.ctx, min(c.conf.Heartbeat/4*time.Duration(1+round/8), 4*c.conf.Heartbeat), nil) {
			return c.ctx.Err()
		}
	}
}

// step is what an empty directory's node does next.
type step int

const (
	stepWait step = iota
	stepFound
	stepJoin
	stepRefuse
)

// asker is who asks what to do next.
type asker struct {
	name, id string
	founder  bool // one of the voters that the cluster begins with
	began    bool // it was allowed to begin, and stopped before it did
	voters   int  // at the beginning
}

func (c *Control) asker() asker {
	isFounder := func(p Peer) bool { return p.Name == c.conf.Name }
	return asker{
		name: c.conf.Name, id: c.id, founder: slices.ContainsFunc(c.conf.Voters, isFounder),
		began: c.founders() != nil, voters: len(c.conf.Voters),
	}
}

// decide says what a node without raft's state does next, from what the first voters
// answered. The newest state counts; before there is one, what those who began
// remember of each other.
//
//	the group's newest state, or else a founder    the node
//	knows another node of its name, a voter        is refused: it has forgotten its votes
//	knows this one as a founder                    begins like the others did: it never voted
//	does not know it, or not as a voter            joins
//	there is none, all first voters are there      begins
//	there is none, some are missing                waits
func decide(a asker, reports map[string]report) (step, string) {
	if now := newest(reports); now != nil {
		n, known := now.State.Nodes[a.name]
		switch {
		case known && n.Voter && n.ID != a.id:
			return stepRefuse, forgot(a.name)
		case known && n.ID == a.id && a.founder:
			return stepFound, ""
		}
		return stepJoin, ""
	}
	if !a.founder {
		return stepJoin, ""
	}
	if a.began {
		return stepFound, ""
	}
	anyBegan := false
	for _, r := range reports {
		anyBegan = anyBegan || !r.Fresh
		switch was := r.Founders[a.name]; {
		case r.Fresh || was == "":
		case was != a.id:
			return stepRefuse, forgot(a.name)
		default:
			return stepFound, ""
		}
	}
	if anyBegan || len(reports) < a.voters-1 {
		return stepWait, fmt.Sprintf("only %v answered", slices.Sorted(maps.Keys(reports)))
	}
	return stepFound, ""
}

// newest returns the report of who knows most of the group; nil if nobody knows any.
func newest(reports map[string]report) *report {
	var best *report
	for _, r := range reports {
		if len(r.State.Nodes) > 0 && (best == nil || r.Index > best.Index) {
			best = &r
		}
	}
	return best
}

// foundersBy returns who the founders are, to a node that may begin.
func foundersBy(name, id string, reports map[string]report) map[string]string {
	founders := map[string]string{}
	for _, r := range reports {
		founders[r.Name] = r.ID
	}
	for _, r := range reports {
		if !r.Fresh {
			maps.Copy(founders, r.Founders)
		}
	}
	founders[name] = id
	return founders
}

// askAround asks the first voters what they know.
func (c *Control) askAround() map[string]report {
	ctx, cancel := context.WithTimeout(c.ctx, 5*c.conf.Heartbeat)
	defer cancel()
	answers := make(chan report)
	asked := 0
	for _, peer := range c.conf.Voters {
		if peer.Name == c.conf.Name {
			continue
		}
		asked++
		go func() {
			var r report
			if err := c.call(ctx, peer.Name, http.MethodGet, "/control/state", nil, &r); err != nil || r.Name != peer.Name || r.State == nil {
				r = report{}
			}
			answers <- r
		}()
	}
	reports := map[string]report{}
	for range asked {
		if r := <-answers; r.Name != "" {
			reports[r.Name] = r
		}
	}
	return reports
}

// founders are the identities of those that the cluster began with, by name; nil if
// this node is not one of them, or has not begun.
func (c *Control) founders() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.founders
}

// found writes the first configuration, the same at every founder.
func (c *Control) found(founders map[string]string) error {
	if c.founders() == nil {
		if err := c.stores.saveFounders(founders); err != nil {
			return err
		}
		c.mu.Lock()
		c.mu.founders = founders
		c.mu.Unlock()
	}
	var first raft.Configuration
	for _, v := range c.conf.Voters {
		first.Servers = append(first.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(v.Name), Address: raft.ServerAddress(v.Addr),
		})
	}
	s := c.stores
	if err := raft.BootstrapCluster(c.raftConfig(nil), s.logs, s.stable, s.snaps, c.trans, first); err != nil {
		return fmt.Errorf("control: begin the cluster: %w", err)
	}
	return nil
}

// join has the group know this node, which a leader then gives its log.
func (c *Control) join() error {
	_, err := c.Do(c.ctx, AddNode(c.conf.Name, c.self()))
	return err
}

func (c *Control) self() Node {
	return Node{Addr: c.conf.Addr, Witness: c.conf.Witness, ID: c.id}
}

// announceSelf tells the group when this node moved. One that was removed while it did
// not run joins anew: somebody started it again. Until a leader knows where it is, the
// others have to be asked what they know of it.
func (c *Control) announceSelf(returned bool) {
	for returned {
		changed := c.Changed()
		if now := newest(c.askAround()); now != nil {
			returned = !c.correct(now.State, true)
		} else if _, ok := c.Leader(); ok {
			returned = false
		}
		if returned && !c.wait(c.ctx, 5*c.conf.Heartbeat, changed) {
			return
		}
	}
	for {
		changed := c.Changed()
		c.correct(c.State(), false)
		select {
		case <-changed:
		case <-c.failed:
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// correct has the group know this node as it is; false if that has to be tried again.
func (c *Control) correct(s *State, join bool) bool {
	known, ok := s.Nodes[c.conf.Name]
	self := c.self()
	self.Voter = known.Voter
	if known == self || !ok && !join {
		return true
	}
	_, err := c.Do(c.ctx, AddNode(c.conf.Name, self))
	if errors.As(err, new(*Refused)) {
		c.fail(err)
	}
	return err == nil
}

func (c *Control) report() report {
	founders := c.founders()
	return report{
		Name: c.conf.Name, ID: c.id, Fresh: founders == nil && c.raft.Load() == nil, Founders: founders,
		Index: c.applied.Load(), State: c.State(),
	}
}
