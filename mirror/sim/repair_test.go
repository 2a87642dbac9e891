package sim

import (
	"testing"
	"time"

	"lockstep/mirror"
)

// TestRepair: a bit that changes on one replica's disk is found by a verification, and
// mended by one that may.
func TestRepair(t *testing.T) {
	c := newCluster(3, drawOptions(source(3, sourceOptions)), nil)
	c.startAll()
	for _, k := range c.clients[:c.opt.clients] {
		k.begin(c.opt.slots)
	}
	c.advance(20 * time.Second)
	c.settle()
	primary := c.conf().Primary
	replica := (primary + 1) % mirror.ReplicaID(c.opt.members)
	off, _, err := c.nodes[replica].store.Data(0)
	if err != nil || len(c.wrong) > 0 {
		t.Fatal(err, c.wrong)
	}
	if err := c.nodes[replica].disk.FlipBit("/volume", off); err != nil {
		t.Fatal(err)
	}
	recheck := func(repair bool) *mirror.Copy {
		r := &mirror.Copy{Kind: mirror.Recheck, Replica: replica, Range: mirror.Range{Off: off &^ (blockSize - 1), Len: verifyRange}, Repair: repair}
		c.nodes[primary].lead.step(mirror.Event{Kind: mirror.EvRecheck, Copy: r})
		for until := c.now + 10*time.Second; c.now < until && !r.Over(); {
			c.runUntil(c.now + 10*time.Millisecond)
		}
		if r.Err != nil || !r.Over() {
			t.Fatalf("repair %v: over %v, %v", repair, r.Over(), r.Err)
		}
		return r
	}
	if r := recheck(false); len(r.Differs) != 1 || r.Differs[0].Off > off || off >= r.Differs[0].Off+r.Differs[0].Len {
		t.Errorf("the change at %d is found at %v", off, r.Differs)
	}
	if len(c.wrong) != 1 {
		t.Errorf("a difference that was not to be is no violation: %v", c.wrong)
	}
	c.wrong = nil
	if r := recheck(true); len(r.Differs) != 1 {
		t.Errorf("before the repair, %v differs", r.Differs)
	}
	if r := recheck(false); len(r.Differs) != 0 {
		t.Errorf("after the repair, %v differs", r.Differs)
	}
	c.wrong = nil
	c.conclude()
	for _, wrong := range c.wrong {
		t.Error(wrong)
	}
}
