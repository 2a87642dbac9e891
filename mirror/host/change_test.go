package host

import (
	"context"
	"errors"
	"testing"
	"time"

	"lockstep/mirror/control"
)

// events are the group's, oldest first.
func (c *cluster) events() (what []string) {
	for _, e := range c.group.State().Events {
		what = append(what, e.What+" | "+e.Why)
	}
	return what
}

// TestChangesInARow: the primary's proposal to lead again loses to the operator's next
// change, which names it too: it leads at once, and nobody takes over.
func TestChangesInARow(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	a := c.attach("a", "")
	a.write(0, 1)
	m := c.nodes["a"].member
	m.mu.Lock()
	m.before = func(cmd control.Command) {
		if cmd.Why != "the volume changed" {
			return
		}
		m.mu.Lock()
		m.before = nil
		m.mu.Unlock()
		c.do(control.SetPolicy("vol", 0, control.Policy{Ack: "durable", OnIsolation: "error", Lease: testLease}))
	}
	m.mu.Unlock()
	c.do(control.SetPolicy("vol", 0, control.Policy{Ack: "durable", Lease: testLease}))
	began := time.Now()
	c.until("led again", func() bool {
		v := c.group.State().Volumes["vol"]
		return v.Policy.OnIsolation == "error" && v.By != control.Operator
	})
	if v := c.group.State().Volumes["vol"]; v.Primary != "a" {
		t.Errorf("%s leads %v later: %q", v.Primary, time.Since(began), c.events())
	}
	a.write(0, 2)
	a.wantRead(0, 2)
}

// TestAskAVolumeThatIsGone: who asks a seat for something hears when it ends.
func TestAskAVolumeThatIsGone(t *testing.T) {
	c := newTestCluster(t, "a")
	c.create("a")
	c.inSync("a", "a")
	s := c.seat("a")
	c.nodes["a"].end()
	if _, err := s.HandOver(context.Background(), "b"); !errors.Is(err, errGone) {
		t.Errorf("a handover after the end: %v", err)
	}
}
