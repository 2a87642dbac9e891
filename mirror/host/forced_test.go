package host

import (
	"testing"

	"lockstep/mirror/control"
)

// TestForcedWhileTheOldPrimaryBeats: an operator's failover to a copy in sync is done
// although the old primary, which does not hear of it, still reaches that copy.
func TestForcedWhileTheOldPrimaryBeats(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	c.nodes["a"].member.isolate(true)
	c.do(control.Force("vol", 0, "b"))
	c.until("b leads", func() bool { return c.group.State().Volumes["vol"].By == "b" })
	b := c.attach("b", "")
	b.write(0, 2)
	c.nodes["a"].member.isolate(false)
	c.do(control.Attach("vol", "x")) // wakes it
	c.inSync("b", "a", "b")
	b.wantRead(0, 2)
}
