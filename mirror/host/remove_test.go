package host

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
)

// TestRemoveReplicaInSync: the primary stays the primary, whoever hears of it first, and
// its clients wait for less than a failover takes.
func TestRemoveReplicaInSync(t *testing.T) {
	c := newTestCluster(t, "a", "b", "c")
	c.create("a", "b", "c")
	c.inSync("a", "a", "b", "c")
	a := c.attach("a", "")
	member := c.nodes["c"].member
	var slow []time.Duration
	for i := range 24 {
		late := i%2 == 1
		a.write(0, byte(i))
		member.isolate(late)
		c.do(control.RemoveReplica("vol", 0, "c"))
		began := time.Now()
		a.write(4096, byte(i))
		took := time.Since(began)
		if took > testLease {
			t.Errorf("round %d: a write took %v", i, took)
		}
		if took > 300*time.Millisecond { // as a busy machine may do to a few
			slow = append(slow, took)
		}
		member.isolate(false)
		c.do(control.Attach("vol", "x")) // wakes it
		c.inSync("a", "a", "b")
		c.do(control.AddReplica("vol", 0, "c"))
		c.inSync("a", "a", "b", "c")
	}
	if len(slow) > 8 {
		t.Errorf("%d of 24 writes waited: %v", len(slow), slow)
	}
	for _, what := range c.events() {
		if strings.Contains(what, "took over") {
			t.Error(what)
		}
	}
}

// TestPastAtStart: a node that starts again sees the past first, in which its copy had
// been removed: it stays.
func TestPastAtStart(t *testing.T) {
	c := newTestCluster(t, "a", "b", "c")
	c.create("a", "b", "c")
	c.inSync("a", "a", "b", "c")
	with := c.group.State()
	c.do(control.RemoveReplica("vol", 0, "c"))
	without := c.group.State()
	c.inSync("a", "a", "b")
	c.do(control.AddReplica("vol", 0, "c"))
	c.inSync("a", "a", "b", "c")
	n := c.nodes["c"]
	n.end()
	removed := func() int {
		files, err := filepath.Glob(filepath.Join(n.dir, "*removed*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	was := removed()
	n.member.isolate(true)
	see := func(s *control.State) {
		n.member.mu.Lock()
		n.member.old = s
		n.member.mu.Unlock()
		c.do(control.AddNode("d", control.Node{Addr: time.Now().String(), ID: "d"})) // something changes
	}
	see(with)
	n.start()
	c.until("following", func() bool { s := n.host.Seat("vol"); return s != nil && s.Role() == Following })
	see(without)
	s := c.seat("c")
	c.until("seen", func() bool { return s.Record().Epoch == without.Volumes["vol"].Epoch })
	for range 2 { // a whole turn is between them
		if err := s.do(context.Background(), func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if removed() != was {
		t.Error("the copy that is in sync was renamed, because it had been removed once")
	}
}

// TestAddReplicaUnderSuspend: writes go on while a replica that was added has not caught
// up, and wait when it is lost afterwards.
func TestAddReplicaUnderSuspend(t *testing.T) {
	c := newTestCluster(t, "a", "b", "c")
	c.do(control.CreateVolume("vol", control.ID{1}, testSize, control.Policy{OnLoss: "suspend", Lease: testLease}, "a", "b"))
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	n := c.nodes["c"]
	n.end() // it takes its time
	added := c.do(control.AddReplica("vol", 0, "c")).Volume.Epoch
	c.until("taken in", func() bool { v := c.group.State().Volumes["vol"]; return v.Epoch > added && v.By == "a" })
	a.write(0, 2)
	n.start()
	c.do(control.AddNode("c", control.Node{Addr: n.addr, ID: "c"}))
	c.inSync("a", "a", "b", "c")
	n.end()
	waits := a.start(&mirror.Op{Kind: mirror.Write, Len: 4096, Data: bytes.Repeat([]byte{3}, 4096)})
	c.until("held", func() bool { st, ok := c.seat("a").Status(); return ok && !st.Ready && st.InFlight > 0 })
	n.start()
	c.do(control.AddNode("c", control.Node{Addr: n.addr, ID: "c"}))
	if back := <-waits; back.Err != nil {
		t.Error(back.Err)
	}
	c.nodes["a"].end() // first: alone it would wait for the others
}
