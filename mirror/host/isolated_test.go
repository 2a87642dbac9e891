package host

import (
	"errors"
	"testing"
	"time"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
)

// TestIsolatedPrimaryGivesErrors: clients of a primary that is cut off from the group and
// from the other copy get errors, if that is the policy, until it leads again.
func TestIsolatedPrimaryGivesErrors(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.do(control.CreateVolume("vol", control.ID{1}, testSize, control.Policy{OnIsolation: "error", Lease: testLease}, "a", "b"))
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	c.nodes["a"].member.isolate(true)
	c.nodes["b"].end()
	select {
	case back := <-a.start(&mirror.Op{Kind: mirror.Write, Len: 4096, Data: make([]byte, 4096)}):
		if !errors.Is(back.Err, forward.ErrIsolated) {
			t.Errorf("the write ended with %v", back.Err)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
	c.nodes["a"].member.isolate(false)
	c.until("served again", func() bool {
		return a.do(&mirror.Op{Kind: mirror.Read, Len: 4096, Data: make([]byte, 4096)}) == nil
	})
}
