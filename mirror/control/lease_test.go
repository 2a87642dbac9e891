package control

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// renew asks once, from a node.
func (c *cluster) renew(at string, epoch uint64) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
	defer cancel()
	return c.nodes[at].Renew(ctx, "v", epoch)
}

// alone makes a the only replica in sync, of epoch 2.
func (c *cluster) alone() {
	c.t.Helper()
	c.do("a", volumeOn("v", "a", "b"))
	c.do("a", Propose("v", 1, "a", "a", []int{0, 1}, nil))
	c.settle(c.do("a", Propose("v", 2, "a", "a", []int{0}, nil)))
}

// TestForceWaitsForTheLease: whatever happens to the leaders meanwhile, nobody else is
// primary before the last lease is over.
func TestForceWaitsForTheLease(t *testing.T) {
	for _, killed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, time.Millisecond/2, "a", "b", "w")
			c.leader()
			c.alone()
			time.Sleep(2 * time.Second) // what an earlier leader may have promised
			leader := c.leader().name
			asked := time.Now()
			if err := c.renew("a", 2); err != nil {
				t.Fatal(err)
			}
			at := "b"
			if killed {
				if leader == "b" {
					at = "w"
				}
				c.stop(leader)
			}
			r := c.do(at, Force("v", 3, "b"))
			held := time.Since(asked)
			if !r.Won || held < 300*time.Millisecond {
				t.Fatalf("killed %v: forced %v after the lease began: %+v", killed, held, r)
			}
			if most := 500 * time.Millisecond; !killed && held > most {
				t.Errorf("forced only %v after the lease began", held)
			}
			if killed && held > 3*time.Second {
				t.Errorf("a new leader forced only after %v", held)
			}
		})
	}
}

// TestForceEndsAPrimaryThatRenews: an operator's word comes through, because from then
// on no lease is given.
func TestForceEndsAPrimaryThatRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.alone()
		time.Sleep(2 * time.Second)
		forced := make(chan time.Time)
		last := time.Now()
		if err := c.renew("a", 2); err != nil {
			t.Fatal(err)
		}
		go func() {
			c.do("b", Force("v", 3, "b"))
			forced <- time.Now()
		}()
		for {
			begin := time.Now()
			if c.renew("a", 2) == nil {
				last = begin
			}
			select {
			case at := <-forced:
				if held := at.Sub(last); held < 300*time.Millisecond || held > time.Second {
					t.Errorf("forced %v after the last lease began", held)
				}
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}

func TestRenewIsForTheLonePrimaryOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.alone()
		for epoch, want := range map[uint64]bool{1: false, 2: true, 3: false} {
			err := c.renew("a", epoch)
			if (err == nil) != want || err != nil && !errors.As(err, new(*Refused)) {
				t.Errorf("epoch %d: %v", epoch, err)
			}
		}
		c.do("a", Propose("v", 3, "a", "a", []int{0, 1}, nil))
		if err := c.renew("a", 3); !errors.As(err, new(*Refused)) {
			t.Errorf("not alone: %v", err)
		}
	})
}

// TestRenewNeedsAMajority: a leader that is cut off promises nothing.
func TestRenewNeedsAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.alone()
		leader := c.leader().name
		c.net.isolate(leader, "a", "b", "w")
		for begin := time.Now(); time.Since(begin) < 3*time.Second; {
			asked := time.Since(begin)
			if err := c.renew(leader, 2); err == nil && asked > 2*time.Millisecond { // answers were under way
				t.Fatalf("a lease that was asked for %v after the cut", asked)
			}
			time.Sleep(10 * time.Millisecond)
		}
		c.net.heal()
		c.within(5*time.Second, "a lease again", func() bool { return c.renew("a", 2) == nil })
	})
}

// TestForceWaitsForAPredecessorsLease: the lead can move faster than a lease ends.
func TestForceWaitsForAPredecessorsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.leader()
		c.alone()
		time.Sleep(2 * time.Second)
		old := c.leader()
		asked := time.Now()
		if err := c.renew("a", 2); err != nil {
			t.Fatal(err)
		}
		if err := old.raft.Load().LeadershipTransfer().Error(); err != nil {
			t.Fatal(err)
		}
		if now := c.leader(); now.name == old.name || time.Since(asked) > 200*time.Millisecond {
			t.Fatalf("%s leads after %s, %v after the lease began", now.name, old.name, time.Since(asked))
		}
		c.do("b", Force("v", 3, "b"))
		if held := time.Since(asked); held < 300*time.Millisecond || held > 2*time.Second {
			t.Errorf("forced %v after the lease began", held)
		}
	})
}
