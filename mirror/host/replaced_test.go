package host

import (
	"path/filepath"
	"testing"

	"lockstep/mirror/control"
	"lockstep/mirror/wire"
)

// TestReplaceOnTheSameNode: a replica that is replaced by one of the same node begins
// anew, and stays when it has caught up and its node starts again.
func TestReplaceOnTheSameNode(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	id := func() (id wire.ID) {
		s := c.seat("b")
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.store != nil {
			id = s.store.Meta().Replica
		}
		return id
	}
	was := id()
	c.until("on record", func() bool { return c.nodes["b"].listed() })
	c.do(control.ReplaceReplica("vol", 0, "b", "b"))
	c.inSync("a", "a", "b")
	is := id()
	if is == was {
		t.Error("the store is the one that was to be replaced")
	}
	c.until("on record", func() bool { return c.nodes["b"].listed() })
	c.nodes["b"].end()
	a.write(0, 2)
	c.nodes["b"].start()
	c.do(control.AddNode("b", control.Node{Addr: c.nodes["b"].addr, ID: "b"}))
	c.inSync("a", "a", "b")
	if id() != is {
		t.Error("the new store was replaced when its node started")
	}
	c.nodes["a"].end()
	c.nodes["b"].end()
	c.wantEqual("a", "b")
}

// listed says that the node's copy has noted that it is on record.
func (n *node) listed() bool {
	s := n.host.Seat("vol")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return false
	}
	_, err := s.store.ReadRecord(listedRecord)
	return err == nil
}

// TestReplaceABrokenCopy: what can't be opened any more makes room for the copy that an
// operator wants in its place, and for nothing else.
func TestReplaceABrokenCopy(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	n := c.nodes["b"]
	s := c.seat("b")
	s.mu.Lock()
	err := s.store.WriteRecord("broken", []byte("disk on fire")) // as package store does it
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	n.end()
	n.start()
	c.do(control.AddNode("b", control.Node{Addr: n.addr, ID: "b"}))
	c.until("looked at", func() bool { s := n.host.Seat("vol"); return s != nil && s.Role() == Bystander })
	if moved, err := filepath.Glob(filepath.Join(n.dir, "*removed*")); err != nil || len(moved) > 0 {
		t.Fatalf("moved away unasked: %v, %v", moved, err)
	}
	c.do(control.ReplaceReplica("vol", 0, "b", "b"))
	c.inSync("a", "a", "b")
}
