package control

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// votes says whether raft at the leader counts a node as a voter.
func (c *cluster) votes(name string) bool {
	for _, s := range c.leader().Status().Servers {
		if s.Name == name {
			return s.Voter
		}
	}
	return false
}

func (c *cluster) member(name string) bool {
	for _, s := range c.leader().Status().Servers {
		if s.Name == name {
			return true
		}
	}
	return false
}

func (c *cluster) refused(at string, cmd Command, why string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	_, err := c.nodes[at].Do(ctx, cmd)
	if !errors.As(err, new(*Refused)) || !strings.Contains(err.Error(), why) {
		c.t.Errorf("%s %s at %s: %v, not refused because %q", cmd.Kind, cmd.Node, at, err, why)
	}
}

func TestReplaceADeadVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.settle(c.do("a", volumeOn("v", "a", "b")))
		c.stop("b")
		time.Sleep(time.Second) // until it counts as dead
		c.start("c")            // empty, and none of the first voters
		c.within(5*time.Second, "c is a member", func() bool { return c.member("c") && c.nodes["c"].State().Volumes["v"] != nil })
		if c.votes("c") {
			t.Error("c votes without having been promoted")
		}
		c.refused("a", RemoveNode("b"), "in sync")
		c.do("a", Propose("v", 1, "a", "a", []int{0}, nil))
		c.refused("a", RemoveNode("w"), "no majority")
		c.do("c", Promote("c"))
		c.within(5*time.Second, "c votes", func() bool { return c.votes("c") })
		c.do("c", RemoveNode("b"))
		c.within(5*time.Second, "b is gone", func() bool { return !c.member("b") })
		if r := c.do("c", ReplaceReplica("v", 0, "b", "c")); r.Volume.Slot("c") != 1 {
			t.Errorf("replaced: %+v", r.Volume)
		}
		// The new voter's vote counts: it carries the group with one of the old ones.
		c.stop("w")
		c.do("c", Attach("v", "vm"))
		c.start("w")
		// Started again, the removed one is a node without a vote.
		c.start("b")
		c.within(10*time.Second, "b joined again", func() bool { return c.member("b") && len(c.nodes["b"].State().Nodes) == 4 })
		if c.votes("b") {
			t.Error("b votes again")
		}
	})
}

func TestLeaderIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "c")
		gone := c.leader().name
		c.do("a", RemoveNode(gone))
		c.within(5*time.Second, "another leads without it", func() bool { return c.leader().name != gone && !c.member(gone) })
		c.within(5*time.Second, "it knows", func() bool { return c.nodes[gone].Status().Phase == "removed" })
		leader := c.leader()
		term := leader.Status().Term
		time.Sleep(10 * time.Second)
		if now := c.leader(); now.name != leader.name || now.Status().Term != term {
			t.Error("a removed node disturbs the others")
		}
		c.do(gone, Promote(leader.name)) // what was removed still finds the leader
	})
}

func TestDemote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "c", "d", "e")
		leader := c.leader().name
		c.do("a", Demote(leader))
		c.within(5*time.Second, "it votes no more", func() bool { return c.leader().name != leader && !c.votes(leader) })
		c.do(leader, Promote(leader))
		c.within(5*time.Second, "it votes again", func() bool { return c.votes(leader) })
	})
}

// TestForgottenVotes: a voter whose disk was replaced must not vote with it.
func TestForgottenVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.do("a", volumeOn("v", "a"))
		c.stop("b")
		c.nodes["b"].stores = memoryStores()
		c.start("b")
		c.within(5*time.Second, "b is refused", func() bool { return c.nodes["b"].Err() != nil })
		if err := c.nodes["b"].Err(); !strings.Contains(err.Error(), "cluster remove b") || c.nodes["b"].Status().Phase != "failed" {
			t.Errorf("refused: %v", err)
		}
		if c.nodes["b"].raft.Load() != nil {
			t.Error("b takes part with forgotten votes")
		}
		c.do("a", RemoveNode("b"))
		c.within(5*time.Second, "b is gone", func() bool { return !c.member("b") })
		c.stop("b")
		c.start("b")
		c.within(5*time.Second, "b joins anew", func() bool { return c.member("b") && c.nodes["b"].State().Volumes["v"] != nil })
		if c.votes("b") {
			t.Error("b votes without having been promoted")
		}
		c.do("b", Promote("b"))
		c.within(5*time.Second, "b votes", func() bool { return c.votes("b") })
	})
}

// TestForgottenVotesAlone: cut off from those who know better, it must wait.
func TestForgottenVotesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.stop("b")
		c.nodes["b"].stores = memoryStores()
		c.stop("w")
		c.nodes["w"].stores = memoryStores()
		c.net.isolate("a", "b", "w")
		c.start("b")
		c.start("w")
		time.Sleep(time.Minute)
		for _, name := range []string{"b", "w"} {
			if st := c.nodes[name].Status(); st.Phase != "joining" {
				t.Errorf("two of three that forgot began a cluster of their own: %+v", st)
			}
		}
		c.net.heal()
		c.within(30*time.Second, "both are refused", func() bool { return c.nodes["b"].Err() != nil && c.nodes["w"].Err() != nil })
	})
}

// TestFirstStart: the cluster begins when the last of its voters is there, and one
// that dies while it begins goes on where it was.
func TestFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2)
		c.peers = []Peer{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}, {Name: "w", Addr: "w:1", Witness: true}}
		c.start("a")
		c.start("d") // joins as soon as there is something to join
		c.start("b")
		time.Sleep(time.Minute)
		if st := c.nodes["a"].Status(); st.Phase != "joining" {
			t.Fatalf("began without the witness: %+v", st)
		}
		c.start("w")
		c.within(5*time.Second, "somebody begins", func() bool {
			return c.nodes["a"].founders() != nil || c.nodes["b"].founders() != nil || c.nodes["w"].founders() != nil
		})
		for _, name := range []string{"a", "b", "w"} {
			c.stop(name)
		}
		for _, name := range []string{"w", "b", "a"} {
			c.start(name)
		}
		c.leader()
		c.within(10*time.Second, "d is there too", func() bool { return c.member("d") && len(c.nodes["d"].State().Nodes) == 4 })
	})
}

func TestDecide(t *testing.T) {
	began := func(name string, founders map[string]string) report {
		return report{Name: name, ID: name + "1", Founders: founders, State: NewState()}
	}
	fresh := func(name string) report { return report{Name: name, ID: name + "1", Fresh: true, State: NewState()} }
	lives := func(index uint64, nodes map[string]Node) report {
		s := NewState()
		s.Nodes = nodes
		return report{Name: "b", ID: "b1", Index: index, State: s}
	}
	first := asker{name: "a", id: "a1", founder: true, voters: 3}
	again, newcomer := first, first
	again.began, newcomer.founder = true, false
	for _, test := range []struct {
		name    string
		who     asker
		reports []report
		want    step
	}{
		{"all are new", first, []report{fresh("b"), fresh("w")}, stepFound},
		{"one is missing", first, []report{fresh("b")}, stepWait},
		{"another began with this one", first, []report{began("b", map[string]string{"a": "a1", "b": "b1"})}, stepFound},
		{"another began with one of its name", first, []report{began("b", map[string]string{"a": "a0", "b": "b1"}), fresh("w")}, stepRefuse},
		{"another began, and does not say with whom", first, []report{began("b", nil), fresh("w")}, stepWait},
		{"it was about to begin itself", again, nil, stepFound},
		{"the group knows it", first, []report{lives(5, map[string]Node{"a": {ID: "a1", Voter: true}})}, stepFound},
		{"the group knows another", first, []report{lives(5, map[string]Node{"a": {ID: "a0", Voter: true}})}, stepRefuse},
		{"the group knows another without a vote", first, []report{lives(5, map[string]Node{"a": {ID: "a0"}})}, stepJoin},
		{"the group has removed it", first, []report{lives(5, map[string]Node{"b": {ID: "b1", Voter: true}})}, stepJoin},
		{"it was about to begin and was removed", again, []report{lives(5, map[string]Node{"b": {ID: "b1", Voter: true}})}, stepJoin},
		{"a newcomer", newcomer, nil, stepJoin},
		{"a newcomer that is known", newcomer, []report{lives(5, map[string]Node{"a": {ID: "a1"}})}, stepJoin},
	} {
		reports := map[string]report{}
		for _, r := range test.reports {
			reports[r.Name] = r
		}
		if got, why := decide(test.who, reports); got != test.want {
			t.Errorf("%s: step %d (%s), not %d", test.name, got, why, test.want)
		}
	}
	removed := lives(9, map[string]Node{"b": {ID: "b1"}})
	removed.Name = "w"
	stale := lives(5, map[string]Node{"a": {ID: "a0", Voter: true}})
	if got, _ := decide(first, map[string]report{"w": removed, "b": stale}); got != stepJoin {
		t.Errorf("an older state counts for more than a newer one: step %d", got)
	}
}

func TestAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.settle(c.do("a", volumeOn("v", "a", "b")))
		c.stop("b")
		c.moved = map[string]string{"b": "b2"}
		c.start("b")
		c.within(10*time.Second, "b is reached where it is now", func() bool {
			return c.leader().State().Nodes["b"].Addr == "b2:1" && c.nodes["b"].Status().Contact < time.Second && c.nodes["b"].Status().Contact >= 0
		})
	})
}
