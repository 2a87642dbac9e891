package control

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestLeaderFailover measures how long the group decides nothing when its leader
// dies: from the death to the answer to a command that another node sends at once.
func TestLeaderFailover(t *testing.T) {
	for _, place := range []struct {
		name    string
		rtt     time.Duration // between a and b
		witness time.Duration // to the witness, round trip
		mean    time.Duration // most
		worst   time.Duration
	}{
		{"one place", 0, 0, 600 * time.Millisecond, 1200 * time.Millisecond},
		{"100 km", time.Millisecond, time.Millisecond, 600 * time.Millisecond, 1200 * time.Millisecond},
		{"far witness", time.Millisecond, 100 * time.Millisecond, 900 * time.Millisecond, 2 * time.Second},
	} {
		t.Run(place.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, place.rtt/2, "a", "b", "w")
				c.net.distance("a", "w", place.witness/2)
				c.net.distance("b", "w", place.witness/2)
				c.leader()
				c.settle(c.do("a", volumeOn("v", "a", "b")))
				var took []time.Duration
				for range 30 {
					leader := c.leader().name
					c.stop(leader)
					other := "a"
					if leader == "a" {
						other = "b"
					}
					begin := time.Now()
					epoch := c.nodes[other].State().Volumes["v"].Epoch + 1
					r := c.do(other, Propose("v", epoch, other, other, []int{0, 1}, nil))
					took = append(took, time.Since(begin))
					c.start(leader)
					c.settle(r)
				}
				slices.Sort(took)
				sum := time.Duration(0)
				for _, d := range took {
					sum += d
				}
				mean, worst := sum/time.Duration(len(took)), took[len(took)-1]
				t.Logf("mean %v, median %v, worst %v", mean.Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), worst.Round(time.Millisecond))
				if mean > place.mean || worst > place.worst {
					t.Errorf("a dead leader was replaced within %v at the mean, %v at worst", mean, worst)
				}
			})
		})
	}
}

// TestFarWitnessKeepsTheLeader: with one site down, the leader has only a witness at
// 100 ms, and must not step down because it is far.
func TestFarWitnessKeepsTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "w")
		c.net.distance("a", "w", 50*time.Millisecond)
		c.net.distance("b", "w", 50*time.Millisecond)
		leader := c.leader()
		for leader.name == "w" {
			if err := leader.raft.Load().LeadershipTransfer().Error(); err != nil {
				t.Fatal(err)
			}
			leader = c.leader()
		}
		for _, name := range []string{"a", "b"} {
			if name != leader.name {
				c.stop(name)
			}
		}
		term := leader.Status().Term
		for range 60 {
			time.Sleep(time.Second)
			if st := leader.Status(); !st.Ready || st.Term != term {
				t.Fatalf("lost the lead: %+v", st)
			}
		}
	})
}

// stalling is a log whose disk can hang.
type stalling struct {
	*raft.InmemStore
	hang atomic.Pointer[chan struct{}] // closed: goes on; nil: does not hang
}

func (s *stalling) StoreLogs(logs []*raft.Log) error {
	if hang := s.hang.Load(); hang != nil {
		<-*hang
	}
	return s.InmemStore.StoreLogs(logs)
}

func TestStalledDiskLosesTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, time.Millisecond/2, "a", "b", "c")
		disks := map[string]*stalling{}
		for _, name := range []string{"a", "b", "c"} {
			c.stop(name)
			disks[name] = &stalling{InmemStore: c.nodes[name].stores.logs.(*raft.InmemStore)}
			c.nodes[name].stores.logs = disks[name]
			c.start(name)
		}
		old := c.leader().name
		c.do(old, volumeOn("v", "a", "b"))
		hang := make(chan struct{})
		disks[old].hang.Store(&hang)
		begin := time.Now()
		// The command goes to the leader whose disk hangs; it must still be applied, once.
		if r := c.do(old, Attach("v", "vm")); r.Generation != 1 {
			t.Errorf("attached: %+v", r)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("a leader with a stalled disk was replaced only after %v", took)
		}
		if leader := c.leader().name; leader == old {
			t.Fatalf("%s leads with a stalled disk", leader)
		}
		disks[old].hang.Store(nil)
		close(hang)
		c.within(5*time.Second, "the disk's node follows", func() bool {
			st := c.nodes[old].Status()
			return st.Phase == "follower" && st.Writing == 0
		})
		if r := c.do(old, Attach("v", "vm")); r.Generation != 2 {
			t.Errorf("attached: %+v", r)
		}
	})
}

func TestWitnessIsPreferredWhenNear(t *testing.T) {
	for _, place := range []struct {
		name   string
		oneWay time.Duration
		leads  bool
	}{{"near", 10 * time.Millisecond, true}, {"far", 20 * time.Millisecond, false}} {
		t.Run(place.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, time.Millisecond/2, "a", "b", "w")
				c.net.distance("a", "w", place.oneWay)
				c.net.distance("b", "w", place.oneWay)
				// Away from the witness first, wherever chance put the lead.
				if leader := c.leader(); leader.name == "w" {
					c.stop("w")
					c.leader()
					c.start("w")
				}
				time.Sleep(20 * time.Second)
				if leader := c.leader(); (leader.name == "w") != place.leads {
					t.Errorf("%s leads with a witness %v away", leader.name, place.oneWay)
				}
			})
		})
	}
}

// TestCommandIsAppliedOnceWhenItsLeaderDies sends commands while leaders die right
// after the commit, before their answer is out.
func TestCommandIsAppliedOnceWhenItsLeaderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 5*time.Millisecond, "a", "b", "c")
		c.leader()
		c.do("a", volumeOn("v", "a", "b"))
		generation := uint64(0)
		for round := range 20 {
			leader := c.leader().name
			other := "a"
			if leader == "a" {
				other = "b"
			}
			done := make(chan Result)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				r, err := c.nodes[other].Do(ctx, Attach("v", "vm"))
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				done <- r
			}()
			// 5 ms there, 10 ms to commit, 5 ms back: dead somewhere between.
			time.Sleep(time.Duration(5+round) * time.Millisecond)
			c.stop(leader)
			r := <-done
			if generation++; r.Generation != generation {
				t.Fatalf("round %d: generation %d, not %d: applied twice, or not", round, r.Generation, generation)
			}
			c.start(leader)
			c.settle(r)
		}
	})
}
