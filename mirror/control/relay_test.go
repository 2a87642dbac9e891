package control

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneWayCut: one direction between the leader and one node is cut. Nobody else
// leads, and yet what that node asks for is decided soon, and once.
func TestOneWayCut(t *testing.T) {
	for _, cut := range []struct {
		name  string
		block func(n *network, leader, node string)
	}{
		{"no answers", func(n *network, leader, node string) { n.block(leader, node) }},
		{"no requests", func(n *network, leader, node string) { n.block(node, leader) }},
		{"neither", func(n *network, leader, node string) { n.block(node, leader); n.block(leader, node) }},
	} {
		t.Run(cut.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, time.Millisecond/2, "a", "b", "w")
				c.leader()
				c.alone()
				const leader = "w" // where the lead stays
				c.within(10*time.Second, "the witness leads", func() bool { return c.nodes[leader].Status().Ready })
				cut.block(c.net, leader, "a")
				c.askOften("a")
				if r := c.do("b", Attach("v", "vm")); r.Generation != attaches+1 {
					t.Errorf("%d commands applied %d times", attaches, r.Generation-1)
				}
				if now := c.leader().name; now != leader {
					t.Errorf("%s leads after %s", now, leader)
				}
			})
		})
	}
}

const attaches = 20

// askOften sends commands and renewals for some seconds from a node that does not
// reach the leader.
func (c *cluster) askOften(node string) {
	c.t.Helper()
	for range attaches {
		begin := time.Now()
		c.do(node, Attach("v", "vm"))
		if took := time.Since(begin); took > 600*time.Millisecond {
			c.t.Errorf("a command took %v", took)
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), DefaultLease)
		if err := c.nodes[node].Renew(ctx, "v", 2); err != nil {
			c.t.Errorf("no lease: %v", err)
		}
		cancel()
		time.Sleep(50 * time.Millisecond)
	}
}

// TestPassedOnOnce: who is asked to pass a question on, and does not know the leader,
// says so, and asks nobody.
func TestPassedOnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		leader := c.leader().name
		c.alone()
		c.net.isolate(leader, "a", "b", "w")
		var rest []string
		for name := range c.running() {
			if name != leader {
				rest = append(rest, name)
			}
		}
		c.stop(rest[1]) // so that nobody leads
		c.within(5*time.Second, "no leader", func() bool { _, ok := c.nodes[rest[0]].Leader(); return !ok })
		begin := time.Now()
		q := c.nodes[rest[0]].commandQuestion(Attach("v", "vm"))
		if _, err := c.nodes[rest[0]].passOn(t.Context(), q); !errors.As(err, new(*notLeader)) || time.Since(begin) > 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

// TestHintIsFollowed: another node's word of who leads is tried even while this one
// believes in an older leader, and given up when this one learns better.
func TestHintIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		old := c.leader()
		node := c.nodes["a"]
		if old == node {
			node = c.nodes["b"]
		}
		tried := func(ctx context.Context, _ string) error {
			select {
			case <-time.After(100 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := node.attempt(t.Context(), "another", old.name, tried); err != nil {
			t.Errorf("given up although nothing changed: %v", err)
		}
		if err := node.attempt(t.Context(), "another", "older", tried); err == nil {
			t.Errorf("not given up, though %s leads", old.name)
		}
	})
}

// TestNewTermOwesWhatTheLastPromised: a proposal may come before a leader is ready, when
// all it has is the beginning of an earlier reign.
func TestNewTermOwesWhatTheLastPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.alone()
		time.Sleep(2 * time.Second)
		leader := c.leader()
		term := leader.Status().Term
		take := Propose("v", 3, "b", "b", []int{1}, nil)
		done, err := leader.admit(term, take)
		if err != nil {
			t.Fatalf("in its own term: %v", err)
		}
		done()
		if _, err := leader.admit(term+1, take); !errors.As(err, new(*held)) {
			t.Errorf("in the next: %v", err)
		}
	})
}
